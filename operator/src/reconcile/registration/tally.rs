//! What the replicas of one extension say about a server, counted.

use mcp_gateway_api::{
    broker_status::{ItemConflict, ServerStatus},
    conditions::name_list,
};
use serde_json::json;

use super::{Facts, Former};
use crate::brokers::{Answer, Namespace};

/// What a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) tools: u64,
    pub(super) prompts: u64,
    pub(super) resources: u64,
    pub(super) templates: u64,
}

impl Counts {
    /// Of two replicas the one that knows more counts, kind by kind.
    fn most(self, server: &ServerStatus) -> Self {
        Self {
            tools: self.tools.max(server.total_tools),
            prompts: self.prompts.max(server.total_prompts),
            resources: self.resources.max(server.total_resources),
            templates: self.templates.max(server.total_resource_templates),
        }
    }

    /// By the members of the status.
    pub(super) fn members(self) -> [(&'static str, serde_json::Value); 4] {
        let count = |count: u64| json!(i32::try_from(count).unwrap_or(i32::MAX));
        [
            ("discoveredTools", count(self.tools)),
            ("discoveredPrompts", count(self.prompts)),
            ("discoveredResources", count(self.resources)),
            ("discoveredResourceTemplates", count(self.templates)),
        ]
    }
}

/// Era and revision of a server, as the brokers say them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) era: String,
    pub(super) version: String,
}

/// What came of the counting.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) serving: usize,
    pub(super) counts: Counts,
    pub(super) protocol: Option<Protocol>,
    pub(super) missing_at: Option<String>,
    pub(super) failure: Option<String>,
    pub(super) conflict: Option<String>,
}

/// Counts replicas. One that joins a running instance, or that has the former document for a moment, does not take
/// away a Ready that was there (T47); while one is about to take up what was changed on such a server, there is no
/// verdict unless another one says what is wrong.
pub(super) fn tally(facts: &Facts<'_>, observed: &Namespace, name: &str) -> Option<Tally> {
    let mut tally = Tally::default();
    let mut awaited = false;
    for (replica, answer) in observed.replicas.values().zip(observed.servers(name)) {
        let lenient = facts.former == Former::Ready;
        let missing = |tally: &mut Tally| {
            tally.missing_at.get_or_insert_with(|| replica.pod.clone());
        };
        match answer {
            Answer::Current(Some(server)) => tally.take(server),
            Answer::Stale(Some(server)) if lenient && server.ready => tally.take(server),
            Answer::Pending if lenient => {}
            Answer::Stale(_) | Answer::Pending if facts.former == Former::ReadyBefore => awaited = true,
            Answer::Current(None) | Answer::Stale(_) | Answer::Pending | Answer::Silent(_) => {
                missing(&mut tally);
            }
        }
    }
    if tally.serving == 0 && tally.failure.is_none() && tally.missing_at.is_none() {
        tally.missing_at = observed
            .replicas
            .values()
            .next()
            .map(|replica| replica.pod.clone());
    }
    (!awaited || tally.failure.is_some()).then_some(tally)
}

impl Tally {
    fn take(&mut self, server: &ServerStatus) {
        self.counts = self.counts.most(server);
        let version = &server.protocol_validation.supported_version;
        if !server.era.is_empty() && !version.is_empty() {
            self.protocol = Some(Protocol {
                era: server.era.clone(),
                version: version.clone(),
            });
        }
        if !server.ready {
            self.failure.get_or_insert_with(|| server.message.clone());
            return;
        }
        self.serving += 1;
        if !server.conflicts.is_empty() {
            let names = name_list(server.conflicts.iter().map(|conflict| conflict.name.as_str()));
            let owners = name_list(ItemConflict::owners(&server.conflicts));
            self.conflict = Some(format!("conflict: {names} are published by {owners}"));
        }
    }
}
