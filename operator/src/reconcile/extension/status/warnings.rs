//! What does not keep an extension from being Ready, but is said with it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_gateway_api::{
    conditions::{ConditionType, Wanted},
    extension::DataPath,
    names,
};

use super::super::{carry_out::Applied, validate::Validated};
use crate::{
    children::{command, deployment::live_tokens, env::repeated_variables},
    preserve::repeated_in_args,
    reconcile::status::condition,
};

/// How the warning about flags of ours in `args` begins.
const REPEATED: &str = "args of the Deployment repeat flags that the operator owns: ";

/// That warning, when the verdict says it now and `Ready` did not before.
pub(super) fn new_repetition<'a>(verdict: &'a Wanted, former: &[Condition]) -> Option<&'a str> {
    let said = condition(former, ConditionType::Ready).map_or("", |former| former.message.as_str());
    let mut parts = verdict.message.split("; warning: ");
    parts.find(|part| part.starts_with(REPEATED) && !said.contains(part))
}

/// What does not block but is said.
pub(super) fn of(validated: &Validated, applied: &Applied) -> Vec<String> {
    let mut warnings: Vec<String> = validated.oversize.iter().cloned().collect();
    if let Some(scope) = validated.accepted.gateway().unknown_scope() {
        warnings.push(format!(
            "annotation {} has the unknown value {scope:?} and counts as Gateway",
            names::SCOPE_ANNOTATION
        ));
    }
    let args = applied
        .deployment
        .as_ref()
        .and_then(|live| live_tokens(live, "args"))
        .unwrap_or_default();
    let repeated = repeated_in_args(&command::flags(&validated.blueprint), &args);
    if !repeated.is_empty() {
        warnings.push(format!("{REPEATED}{}", repeated.join(", ")));
    }
    let twice = applied
        .deployment
        .as_ref()
        .map(|live| repeated_variables(live, &validated.blueprint));
    let twice = twice.unwrap_or_default();
    if !twice.is_empty() {
        let names = twice.join(", ");
        warnings.push(format!(
            "env of the Deployment repeats variables that the operator sets: {names}"
        ));
    }
    if validated.blueprint.extension.spec.data_path == DataPath::Direct {
        warnings.push("dataPath Direct: policies on the servers' own routes do not apply".to_owned());
    }
    warnings
}
