//! What admission says about a write, as pure functions over the world: every rule of operator.md 3.1, all violations
//! at once, each with field path, reason, what is wrong and what to do. Rules that reconcile has too are called, not
//! repeated; what lives here are the rules that only make sense before an object is stored.

use std::fmt;

use serde_json::Value;

use crate::{
    auth_policy::MCPAuthPolicy,
    conditions::{self, ExtensionReason, PolicyReason, RegistrationReason, VirtualServerReason},
    extension::MCPGatewayExtension,
    names,
    registration::MCPServerRegistration,
    virtual_server::MCPVirtualServer,
    world::World,
};

pub mod advice;
pub mod defaults;
pub mod exclusivity;
mod extension;
pub mod facts;
pub mod jwks;
mod policy;
mod registration;
pub mod schema;
mod secrets;
mod virtual_server;

pub use facts::{Facts, ObjectFact};

/// Most warnings in an answer (operator.md 3.4).
pub const MAX_WARNINGS: usize = 10;
/// Longest warning in characters; the API server cuts longer ones.
pub const MAX_WARNING: usize = 120;
/// Most characters of all warnings of an answer together, beyond which the API server cuts.
const MAX_ALL_WARNINGS: usize = 4096;
const _: () = assert!(MAX_WARNINGS * MAX_WARNING <= MAX_ALL_WARNINGS);

/// The four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `MCPGatewayExtension`
    Extension,
    /// `MCPServerRegistration`
    Registration,
    /// `MCPVirtualServer`
    VirtualServer,
    /// `MCPAuthPolicy`
    Policy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Extension,
        Self::Registration,
        Self::VirtualServer,
        Self::Policy,
    ];

    /// The kind as it stands in objects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extension => "MCPGatewayExtension",
            Self::Registration => "MCPServerRegistration",
            Self::VirtualServer => "MCPVirtualServer",
            Self::Policy => "MCPAuthPolicy",
        }
    }

    /// The plural, as it stands in URLs and webhook rules.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Extension => names::EXTENSIONS,
            Self::Registration => names::REGISTRATIONS,
            Self::VirtualServer => names::VIRTUAL_SERVERS,
            Self::Policy => names::AUTH_POLICIES,
        }
    }

    /// The kind with this plural.
    #[must_use]
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The reason that the status gives for a wrong field of this kind.
    #[must_use]
    pub fn invalid(self) -> &'static str {
        match self {
            Self::Extension => ExtensionReason::InvalidMCPGatewayExtension.as_str(),
            Self::Registration => RegistrationReason::NotReady.as_str(),
            Self::VirtualServer => VirtualServerReason::NotReady.as_str(),
            Self::Policy => PolicyReason::Invalid.as_str(),
        }
    }
}

/// What is being written.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// An extension.
    Extension(Box<MCPGatewayExtension>),
    /// A registration.
    Registration(Box<MCPServerRegistration>),
    /// A virtual server.
    VirtualServer(Box<MCPVirtualServer>),
    /// A policy.
    Policy(Box<MCPAuthPolicy>),
}

impl Subject {
    /// Reads `object`, after holding it against the schema of `kind`.
    ///
    /// # Errors
    /// Every violation of the schema, with its field path.
    pub fn read(kind: Kind, object: &Value) -> Result<Self, Vec<Violation>> {
        let violations = schema::check(kind, object);
        if !violations.is_empty() {
            return Err(violations);
        }
        let undecodable = |error: serde_json::Error| {
            vec![Violation::new(
                "schema",
                "spec",
                kind.invalid(),
                format!("cannot be read: {error}"),
            )]
        };
        match kind {
            Kind::Extension => parse(object).map(Self::Extension),
            Kind::Registration => parse(object).map(Self::Registration),
            Kind::VirtualServer => parse(object).map(Self::VirtualServer),
            Kind::Policy => parse(object).map(Self::Policy),
        }
        .map_err(undecodable)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Extension(_) => Kind::Extension,
            Self::Registration(_) => Kind::Registration,
            Self::VirtualServer(_) => Kind::VirtualServer,
            Self::Policy(_) => Kind::Policy,
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: &Value) -> Result<Box<T>, serde_json::Error> {
    serde::Deserialize::deserialize(object).map(Box::new)
}

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Short name of the rule, for metrics; from a fixed set.
    pub rule: &'static str,
    /// Path of the field to change.
    pub field: String,
    /// The reason that the status would use.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Violation {
    /// A violation of `rule`.
    #[must_use]
    pub fn new(
        rule: &'static str,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.field, self.message, self.reason)
    }
}

/// What is stored all the same, but will not work yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Short name of the rule, for metrics; from a fixed set.
    pub rule: &'static str,
    /// `<field path>: <what>`, at most [`MAX_WARNING`] characters.
    pub text: String,
}

impl Warning {
    /// A warning of `rule` about `field`.
    #[must_use]
    pub fn new(rule: &'static str, field: &str, what: impl fmt::Display) -> Self {
        Self {
            rule,
            text: conditions::cut(&format!("{field}: {what}"), MAX_WARNING),
        }
    }
}

/// What admission says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Reasons to refuse; none means that the write is let through.
    pub violations: Vec<Violation>,
    /// For the user to read; at most [`MAX_WARNINGS`].
    pub warnings: Vec<Warning>,
}

impl Verdict {
    /// A refusal.
    #[must_use]
    pub fn deny(violations: Vec<Violation>) -> Self {
        Self {
            violations,
            warnings: Vec::new(),
        }
    }

    /// True when the write is let through.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.violations.is_empty()
    }

    pub(crate) fn bounded(mut self) -> Self {
        self.warnings.truncate(MAX_WARNINGS);
        self
    }
}

/// One write: the object before (absent for a create) and after it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The stored object, unparsed: it may violate what today's schema says.
    pub old: Option<&'a Value>,
    /// The object to be stored.
    pub new: &'a Subject,
}

/// True when a write needs no look at all: the object is being deleted, or its spec stays as it is. Finalizers,
/// labels and annotations can thus change on an object that today's rules would refuse (T61).
#[must_use]
pub fn is_exempt(old: Option<&Value>, new: &Value) -> bool {
    let terminating = new
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null());
    terminating || old.is_some_and(|old| old.get("spec") == new.get("spec"))
}

/// Judges one write by every rule but the claims, which the webhook takes afterwards.
#[must_use]
pub fn judge(world: &World, write: Write<'_>, facts: &Facts) -> Verdict {
    match write.new {
        Subject::Extension(new) => extension::judge(world, (write.old, new), facts),
        Subject::Registration(new) => registration::judge(world, (write.old, new), facts),
        Subject::VirtualServer(new) => virtual_server::judge(new),
        Subject::Policy(new) => policy::judge(world, new, facts),
    }
    .bounded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_stay_within_what_the_api_server_passes_on() {
        let warning = |n: usize| Warning::new("test", "spec.targetRef.sectionName", "ü".repeat(n));
        let verdict = Verdict {
            violations: Vec::new(),
            warnings: (0..60).map(|n| warning(n * 10)).collect(),
        };
        let lengths: Vec<usize> = verdict
            .bounded()
            .warnings
            .iter()
            .map(|warning| warning.text.chars().count())
            .collect();
        assert_eq!(lengths.len(), MAX_WARNINGS);
        assert!(lengths.iter().all(|length| *length <= MAX_WARNING), "{lengths:?}");
        assert_eq!(warning(1000).text.chars().count(), MAX_WARNING);
    }
}
