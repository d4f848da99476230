//! Secrets that objects name: missing or unlabelled ones are a warning, the operator's own are refused
//! (operator.md 5.5).

use super::{Facts, Kind, ObjectFact, Violation, Warning};
use crate::{names, world::World};

/// One reference to a Secret in the object's own namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretUse<'a> {
    pub(super) field: &'a str,
    pub(super) name: &'a str,
}

/// The warning about a Secret that is missing or lacks the label that marks it as meant for us.
pub(super) fn warning(used: SecretUse<'_>, namespace: &str, facts: &Facts) -> Option<Warning> {
    let SecretUse { field, name } = used;
    let what = match facts.secrets.get(name)? {
        ObjectFact::Missing => format!("secret {namespace}/{name} not found yet"),
        ObjectFact::Present { labelled: false, .. } => {
            format!(
                "secret {namespace}/{name} needs the label {}=true",
                names::SECRET_LABEL
            )
        }
        ObjectFact::Present { .. } => return None,
    };
    Some(Warning::new("secret", field, what))
}

/// The refusal of a Secret that the operator owns, by name or by ownerReference: its content must reach nobody else.
pub(super) fn violation(
    world: &World,
    (kind, namespace): (Kind, &str),
    used: SecretUse<'_>,
    facts: &Facts,
) -> Option<Violation> {
    let by_name = [names::CONFIG_SECRET, names::SIGNING_KEY_SECRET].contains(&used.name);
    let by_owner = || match facts.secrets.get(used.name) {
        Some(ObjectFact::Present {
            controller_uid: Some(uid),
            ..
        }) => world
            .extensions_in(namespace)
            .any(|extension| extension.metadata.uid.as_ref() == Some(uid)),
        _ => false,
    };
    (by_name || by_owner()).then(|| {
        let message = format!(
            "secret {} is owned by the operator; use a Secret of your own",
            used.name
        );
        Violation::new("owned-secret", used.field, kind.invalid(), message)
    })
}
