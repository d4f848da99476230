//! Condition types and reasons as enums, and the one way to change a condition list: transition times move only when
//! the status flips, messages keep their bound.

use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Longest message of a condition, in characters (operator.md 2).
pub const MAX_MESSAGE: usize = 1024;
/// Most items of a list that a message names.
pub const MAX_LISTED: usize = 10;

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// The name as it stands in objects.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(
    /// Types of the conditions that we write.
    ConditionType {
        /// The object does what it says.
        Ready,
        /// A rollout of the broker is under way.
        Progressing,
        /// Another object holds something that this one wants.
        Conflicted,
        /// Every name that a virtual server lists is published.
        ToolsResolved,
        /// A policy is valid and its targets exist.
        Accepted,
        /// A policy is in force at every replica.
        Enforced,
        /// Every item that a policy names is served.
        ResourcesResolved,
        /// On objects of others: in use by us.
        Programmed,
        /// On a Gateway's listener: an extension uses it.
        MCPGatewayExtension,
    }
);

names!(
    /// Reasons of an extension's `Ready` (operator.md 2.1).
    ExtensionReason {
        /// Rows 1, 2, 4–9, 12.
        InvalidMCPGatewayExtension,
        /// Row 3.
        ReferenceGrantRequired,
        /// Row 10.
        SecretNotFound,
        /// Row 11.
        SecretInvalid,
        /// Row 13.
        DeploymentNotReady,
        /// Row 14.
        EnvoyFilterUnavailable,
        /// Row 15.
        GatewayNotReady,
        /// Row 16.
        RouteNotAccepted,
        /// Everything holds.
        ValidMCPGatewayExtension,
    }
);

names!(
    /// Reasons of an extension's `Progressing`.
    ProgressingReason {
        /// Replicas are being replaced.
        RolloutInProgress,
        /// All replicas run the current template.
        RolloutComplete,
        /// The Deployment's progress deadline passed.
        RolloutFailed,
    }
);

names!(
    /// Reasons of a registration's `Ready` (operator.md 2.2).
    RegistrationReason {
        /// Every ready replica serves it.
        Ready,
        /// `spec.state: Disabled`.
        Disabled,
        /// An older registration has the prefix.
        PrefixConflict,
        /// Route or Service in another namespace without a grant.
        ReferenceGrantRequired,
        /// Everything else.
        NotReady,
    }
);

names!(
    /// Reasons of a registration's `Conflicted`.
    ConflictedReason {
        /// Names that an older registration publishes.
        NameConflict,
        /// None.
        NoConflict,
    }
);

names!(
    /// Reasons of a virtual server's conditions (operator.md 2.3).
    VirtualServerReason {
        /// Every replica holds it.
        Ready,
        /// Not served yet.
        NotReady,
        /// Every listed name is published.
        AllResolved,
        /// Some are not.
        UnknownTool,
    }
);

names!(
    /// Reasons of a policy's conditions (operator.md 10.5).
    PolicyReason {
        /// Valid, every target found.
        Accepted,
        /// A target does not exist.
        TargetNotFound,
        /// A field is wrong.
        Invalid,
        /// A Secret does not exist.
        SecretNotFound,
        /// A Secret is unusable.
        SecretInvalid,
        /// A ConfigMap does not exist.
        ConfigMapNotFound,
        /// In force everywhere.
        Enforced,
        /// Not in force because it is not accepted.
        NotAccepted,
        /// No extension is concerned.
        NoExtension,
        /// Some replicas still serve the former one.
        Pending,
        /// Overruled by an older policy.
        Conflicted,
        /// Another policy declares the same issuer differently.
        ProviderConflict,
        /// None.
        NoConflict,
        /// A rule names something that nobody serves.
        UnknownResource,
        /// The brokers have no keys of an issuer: never loaded, or past their bound.
        KeysUnavailable,
        /// The keys of an issuer cannot be fetched anew; the last ones are used for a bounded time.
        KeysStale,
        /// Every named item is served.
        AllResolved,
    }
);

names!(
    /// Reasons of the conditions that we write into objects of others (operator.md 2.5).
    ForeignReason {
        /// On a listener: the extension is programmed there.
        Programmed,
        /// On an HTTPRoute: a registration uses it.
        InUseByMCPServerRegistration,
    }
);

/// A condition as the caller wants it; [`upsert`] adds the transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Type.
    pub kind: ConditionType,
    /// True or False.
    pub status: bool,
    /// Reason.
    pub reason: &'static str,
    /// Message; cut to [`MAX_MESSAGE`] characters.
    pub message: String,
    /// Generation of the object that the verdict is about.
    pub observed_generation: i64,
}

/// `conditions` with `wanted` in it, at its old place or at the end. `lastTransitionTime` is `now` when the status
/// differs from the former one, else it stays.
#[must_use]
pub fn upsert(conditions: &[Condition], wanted: &Wanted, now: Timestamp) -> Vec<Condition> {
    let kind = wanted.kind.as_str();
    let status = if wanted.status { "True" } else { "False" };
    let former = conditions.iter().find(|condition| condition.type_ == kind);
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.to_owned(),
        message: cut(&wanted.message, MAX_MESSAGE),
        observed_generation: Some(wanted.observed_generation),
        last_transition_time: former
            .filter(|former| former.status == status)
            .map_or(Time(now), |former| former.last_transition_time.clone()),
    };
    let mut all = conditions.to_vec();
    match all.iter_mut().find(|existing| existing.type_ == kind) {
        Some(existing) => *existing = condition,
        None => all.push(condition),
    }
    all
}

/// `text` with at most `max` characters; what is cut is marked by `…`.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// `a, b, c`, at most [`MAX_LISTED`] of them, then `and N more`.
#[must_use]
pub fn name_list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    let shown: Vec<&str> = items.iter().copied().take(MAX_LISTED).collect();
    let more = items.len().saturating_sub(MAX_LISTED);
    let list = shown.join(", ");
    if more == 0 {
        list
    } else {
        format!("{list} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: bool, message: &str) -> Wanted {
        Wanted {
            kind: ConditionType::Ready,
            status,
            reason: ExtensionReason::ValidMCPGatewayExtension.as_str(),
            message: message.to_owned(),
            observed_generation: 3,
        }
    }

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let first = upsert(&[], &ready(false, "a"), at(1));
        let second = upsert(&first, &ready(false, "b"), at(2));
        let third = upsert(&second, &ready(true, "c"), at(3));
        assert_eq!(second[0].last_transition_time.0, at(1));
        assert_eq!(second[0].message, "b");
        assert_eq!(third[0].last_transition_time.0, at(3));
        assert_eq!(third.len(), 1);
    }

    #[test]
    fn messages_and_lists_are_bounded() {
        let long = upsert(&[], &ready(true, &"ä".repeat(2000)), Timestamp::UNIX_EPOCH);
        assert_eq!(long[0].message.chars().count(), MAX_MESSAGE);
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(
            name_list(names.iter().map(String::as_str)),
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
    }
}
