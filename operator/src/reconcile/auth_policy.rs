//! Status of a policy (operator.md 10.5): accepted or why not, in force at how many replicas, overruled by whom, and
//! whether what it names is there.

mod resources;

use std::collections::BTreeMap;

use mcp_gateway_api::{
    acceptance::Accepted,
    attachment,
    auth_policy::{MCPAuthPolicy, PolicyTargetRef, PolicyTargetStatus},
    conditions::{ConditionType, PolicyReason, Wanted, name_list},
    object_key::{ObjectKey, is_live},
};
use serde_json::{Value, json};

use crate::{
    brokers::Namespace,
    context::Context,
    kinds::Kind,
    policies::{self, PolicyInputs, Refusal},
    queue::{Outcome, WorkItem},
    reconcile::{
        ReconcileError,
        status::{StatusWish, write},
    },
    secrets::{read_all, read_config_maps},
    snapshot::Snapshot,
    uninstall::{holds_finalizer, release},
};

/// When a Secret or ConfigMap that could not be read is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let Some(object) = context.cache.get(Kind::AuthPolicy, key) else {
        return Ok(Outcome::Done);
    };
    if holds_finalizer(&object) {
        release(context, Kind::AuthPolicy, key, &object).await?;
    }
    if let Some(error) = context.cache.decode_error(Kind::AuthPolicy, key) {
        return undecodable(context, key, (&object, error)).await;
    }
    let snapshot = context.snapshot();
    let Some(policy) = snapshot
        .world
        .policy(key)
        .filter(|policy| is_live(&policy.metadata))
    else {
        return Ok(Outcome::Done);
    };
    let (secrets, config_maps) = policies::references(policy);
    let (secrets, config_maps) =
        futures::join!(read_all(context, secrets), read_config_maps(context, config_maps));
    let inputs = PolicyInputs {
        secrets: &secrets,
        config_maps: &config_maps,
    };
    let verdict = policies::judge(&snapshot.world, policy, inputs).map(drop);
    let again = match &verdict {
        Err(refusal) if refusal.inconclusive => Outcome::After(RETRY),
        _ => Outcome::Done,
    };
    let wish = {
        let brokers = context.brokers();
        let moment = Moment {
            snapshot: &snapshot,
            brokers: &brokers,
            policy,
        };
        moment.wish(&verdict)
    };
    write(context, Kind::AuthPolicy, key, wish).await?;
    Ok(again)
}

/// A policy that cannot be read: what it names is closed (see `api/src/intake.rs`), and the status says why.
async fn undecodable(
    context: &Context,
    key: &ObjectKey,
    (object, error): (&Value, String),
) -> Result<Outcome, ReconcileError> {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let closed = "the policy cannot be read; everything on its targets is denied".to_owned();
    let conditions = vec![
        wanted(
            (ConditionType::Accepted, false, generation),
            PolicyReason::Invalid,
            error,
        ),
        wanted(
            (ConditionType::Enforced, false, generation),
            PolicyReason::NotAccepted,
            closed,
        ),
    ];
    let members = BTreeMap::new();
    write(context, Kind::AuthPolicy, key, StatusWish { conditions, members }).await?;
    Ok(Outcome::Done)
}

fn wanted(
    (kind, status, generation): (ConditionType, bool, i64),
    reason: PolicyReason,
    message: String,
) -> Wanted {
    Wanted {
        kind,
        status,
        reason: reason.as_str(),
        message,
        observed_generation: generation,
    }
}

/// What the status is judged from.
struct Moment<'a> {
    snapshot: &'a Snapshot,
    brokers: &'a BTreeMap<String, Namespace>,
    policy: &'a MCPAuthPolicy,
}

impl Moment<'_> {
    fn wish(&self, verdict: &Result<(), Refusal>) -> StatusWish {
        let overruled = policies::overruled_by(&self.snapshot.world, self.policy);
        let enforced = self.enforced(verdict, overruled.is_some());
        let generation = self.policy.metadata.generation.unwrap_or_default();
        let accepted = match verdict {
            Ok(()) => wanted(
                (ConditionType::Accepted, true, generation),
                PolicyReason::Accepted,
                self.accepted(),
            ),
            Err(refusal) => wanted(
                (ConditionType::Accepted, false, generation),
                refusal.reason,
                refusal.message.clone(),
            ),
        };
        let targets = self.targets(verdict.is_ok(), enforced.status);
        let mut conditions = vec![accepted, enforced, self.conflict(overruled)];
        conditions.extend(self.resources());
        StatusWish {
            conditions,
            members: [("targets", json!(targets))].into(),
        }
    }

    fn generation(&self) -> i64 {
        self.policy.metadata.generation.unwrap_or_default()
    }

    fn accepted(&self) -> String {
        let mut message = "valid, every target found".to_owned();
        let asks_who = self.policy.spec.rules.iter().any(attachment::looks_at_claims);
        let verified = |accepted: &&Accepted| {
            attachment::by_age(&self.snapshot.world).iter().any(|other| {
                let mut targets = other.spec.target_refs.iter();
                other.spec.authentication.is_some()
                    && targets.any(|target| policies::concerns(self.snapshot, accepted, (other, target)))
            })
        };
        let concerned = self.concerned();
        let unverified = concerned.iter().find(|accepted| !verified(accepted));
        if let (true, Some(accepted)) = (asks_who, unverified) {
            let gateway = &accepted.gateway().key;
            message.push_str("; warning: no JWT provider on gateway ");
            message.push_str(&gateway.to_string());
            message.push_str(", so no rule that asks for claims holds");
        }
        message
    }

    /// Accepted extensions that some target has to do with.
    fn concerned(&self) -> Vec<&Accepted> {
        let accepted = self.snapshot.plan.accepted();
        accepted
            .filter(|accepted| {
                let mut targets = self.policy.spec.target_refs.iter();
                targets.any(|target| policies::concerns(self.snapshot, accepted, (self.policy, target)))
            })
            .collect()
    }

    fn enforced(&self, verdict: &Result<(), Refusal>, overruled: bool) -> Wanted {
        let generation = self.generation();
        let not = |reason, message| wanted((ConditionType::Enforced, false, generation), reason, message);
        if verdict.is_err() {
            let message = "the policy is not accepted; everything that it concerns is denied".to_owned();
            return not(PolicyReason::NotAccepted, message);
        }
        let concerned = self.concerned();
        if concerned.is_empty() {
            let message = "no accepted MCPGatewayExtension serves a target".to_owned();
            return not(PolicyReason::NoExtension, message);
        }
        if let Some(behind) = concerned
            .iter()
            .find_map(|accepted| self.behind(accepted.extension()))
        {
            return not(PolicyReason::Pending, behind);
        }
        if overruled {
            let message = "its rules are in force, its provider is not (see Conflicted)".to_owned();
            return not(PolicyReason::Conflicted, message);
        }
        let names: Vec<String> = concerned
            .iter()
            .map(|accepted| accepted.extension().to_string())
            .collect();
        let message = format!(
            "in force at every replica of {}",
            name_list(names.iter().map(String::as_str))
        );
        wanted(
            (ConditionType::Enforced, true, generation),
            PolicyReason::Enforced,
            message,
        )
    }

    /// What is missing until every ready replica of an extension serves this generation.
    fn behind(&self, extension: &ObjectKey) -> Option<String> {
        let own = ObjectKey::of(&self.policy.metadata);
        let observed = self.brokers.get(&extension.namespace);
        let written = observed.and_then(|observed| observed.written.as_ref());
        let contents = written.map(|written| &written.contents);
        let problem = contents.and_then(|held| held.problems.get(&WorkItem::AuthPolicy(own.clone())));
        if let Some(problem) = problem {
            return Some(problem.clone());
        }
        let holds = contents.is_some_and(|held| held.policies.get(&own) == Some(&self.generation()));
        let (current, total) =
            observed.map_or((0, 0), |observed| (observed.current(), observed.replicas.len()));
        match (holds, total) {
            (_, 0) => Some(format!("0 replicas ready of {extension}")),
            (true, total) if current == total => None,
            (true, total) => Some(format!(
                "{}/{total} replicas of {extension} still serve the former policy",
                total - current
            )),
            (false, total) => Some(format!(
                "{total}/{total} replicas of {extension} still serve the former policy"
            )),
        }
    }

    fn conflict(&self, overruled: Option<(&MCPAuthPolicy, String)>) -> Wanted {
        let generation = self.generation();
        match overruled {
            Some((older, issuer)) => {
                let older = ObjectKey::of(&older.metadata);
                let message = format!(
                    "conflict: issuer {issuer} is declared otherwise by the older {older}, whose provider is used; \
                     make both equal or remove one"
                );
                wanted(
                    (ConditionType::Conflicted, true, generation),
                    PolicyReason::ProviderConflict,
                    message,
                )
            }
            None => wanted(
                (ConditionType::Conflicted, false, generation),
                PolicyReason::NoConflict,
                "no other policy declares its issuers otherwise".to_owned(),
            ),
        }
    }

    /// Keys that are not there and rules that name nothing; not known until the brokers were asked what they serve.
    fn resources(&self) -> Option<Wanted> {
        let concerned = self.concerned();
        let observed: resources::Observed<'_> = concerned
            .iter()
            .map(|accepted| accepted.extension())
            .map(|extension| Some((extension, self.brokers.get(&extension.namespace)?)))
            .collect::<Option<_>>()?;
        let asked = observed
            .iter()
            .all(|(_, observed)| observed.asked && observed.all_current());
        if observed.is_empty() || !asked {
            return None;
        }
        let problems = resources::problems(self.policy, &observed);
        let generation = self.generation();
        let kind = ConditionType::ResourcesResolved;
        Some(match problems.first() {
            None => {
                let message = "every rule names something that is served".to_owned();
                wanted((kind, true, generation), PolicyReason::AllResolved, message)
            }
            Some((gravest, _)) => {
                let messages: Vec<&str> = problems.iter().map(|(_, message)| message.as_str()).collect();
                wanted((kind, false, generation), *gravest, messages.join(". "))
            }
        })
    }

    fn targets(&self, accepted: bool, enforced: bool) -> Vec<PolicyTargetStatus> {
        let status = |target: &PolicyTargetRef| {
            let there = attachment::is_there(&self.snapshot.world, self.policy, target);
            let serving = self
                .snapshot
                .plan
                .accepted()
                .filter(|accepted| policies::concerns(self.snapshot, accepted, (self.policy, target)));
            let extensions: Vec<String> = serving.map(|accepted| accepted.extension().to_string()).collect();
            PolicyTargetStatus {
                group: json!(target.group).as_str().unwrap_or_default().to_owned(),
                kind: format!("{:?}", target.kind),
                name: target.name.clone(),
                section_name: target.section_name.clone(),
                accepted: accepted && there,
                enforced: accepted && there && enforced && !extensions.is_empty(),
                extensions,
            }
        };
        self.policy.spec.target_refs.iter().map(status).collect()
    }
}
