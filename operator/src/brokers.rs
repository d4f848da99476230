//! What is known about the brokers of one namespace: which document they are to serve and what each ready replica said
//! when it was asked (operator.md 8.11). Plain state; asking is `reconcile/brokers.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mcp_gateway_api::{
    broker_status::{BrokerStatus, ServerItems, ServerStatus},
    object_key::ObjectKey,
};
use tokio::time::Instant;

/// Unanswered questions after which a replica counts as not serving.
pub(crate) const MAX_FAILURES: u32 = 3;
/// How long after a new document a replica may still report the former one without losing a verdict.
const PROPAGATION: Duration = Duration::from_secs(60);

/// The document of an accepted extension, as written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) extension: ObjectKey,
    pub(crate) hash: String,
    pub(crate) served: BTreeSet<ObjectKey>,
    /// Policies in it, with the generation that it holds.
    pub(crate) policies: BTreeMap<ObjectKey, i64>,
    pub(crate) problems: BTreeMap<ObjectKey, String>,
    pub(crate) since: Instant,
    /// This process changed the document, and not every broker has reported it yet.
    pub(crate) under_way: bool,
}

/// One ready replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Replica {
    /// Name of the pod.
    pub(crate) pod: String,
    /// Questions without an answer since the last one.
    pub(crate) failures: u32,
    /// The last answer.
    pub(crate) status: Option<BrokerStatus>,
    /// Published items by server name, read only when somebody needs them.
    pub(crate) items: BTreeMap<String, ServerItems>,
}

/// The brokers of one namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespace {
    pub(crate) written: Option<Written>,
    /// The brokers were asked at least once since this replica leads.
    pub(crate) asked: bool,
    /// Ready replicas by address.
    pub(crate) replicas: BTreeMap<String, Replica>,
}

/// What one replica says about one document or server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a, T> {
    /// It serves the current document.
    Current(T),
    /// It serves another document, shortly after a change.
    Stale(T),
    /// It was not asked yet, or missed a question or two.
    Pending,
    /// It does not serve: name of the pod.
    Silent(&'a str),
}

impl Namespace {
    /// Replaces the document; true when it differs in anything that a status shows.
    pub(crate) fn set_written(&mut self, written: Written) -> bool {
        if let Some(former) = &mut self.written
            && former.hash == written.hash
            && former.extension == written.extension
        {
            let changed = former.problems != written.problems || former.served != written.served;
            (former.problems, former.served) = (written.problems, written.served);
            former.policies = written.policies;
            return changed;
        }
        self.written = Some(written);
        true
    }

    pub(crate) fn belongs_to(&self, extension: &ObjectKey) -> bool {
        self.written
            .as_ref()
            .is_some_and(|written| written.extension == *extension)
    }

    /// What each replica says about the document as a whole.
    pub(crate) fn documents(&self) -> Vec<Answer<'_, &BrokerStatus>> {
        self.replicas
            .values()
            .map(|replica| self.answer(replica))
            .collect()
    }

    /// What each replica says about one server.
    pub(crate) fn servers(&self, name: &str) -> Vec<Answer<'_, Option<&ServerStatus>>> {
        let answers = self.replicas.values().map(|replica| match self.answer(replica) {
            Answer::Current(status) => Answer::Current(server(status, name)),
            Answer::Stale(status) => Answer::Stale(server(status, name)),
            Answer::Pending => Answer::Pending,
            Answer::Silent(pod) => Answer::Silent(pod),
        });
        answers.collect()
    }

    /// Replicas that report the current document.
    pub(crate) fn current(&self) -> usize {
        self.documents()
            .iter()
            .filter(|answer| matches!(answer, Answer::Current(_)))
            .count()
    }

    /// True when every replica reports the current document, and there is one.
    pub(crate) fn all_current(&self) -> bool {
        !self.replicas.is_empty() && self.current() == self.replicas.len()
    }

    /// How long the document took to every broker, once: when all report it for the first time.
    pub(crate) fn propagated(&mut self) -> Option<Duration> {
        let all = self.all_current();
        let written = self.written.as_mut().filter(|written| all && written.under_way)?;
        written.under_way = false;
        Some(written.since.elapsed())
    }

    /// True when some enabled server is not ready somewhere.
    pub(crate) fn some_server_unready(&self) -> bool {
        let statuses = self
            .replicas
            .values()
            .filter_map(|replica| replica.status.as_ref());
        statuses
            .flat_map(|status| &status.servers)
            .any(|server| !server.ready)
    }

    fn answer<'a>(&'a self, replica: &'a Replica) -> Answer<'a, &'a BrokerStatus> {
        let Some(written) = &self.written else {
            return Answer::Pending;
        };
        match &replica.status {
            _ if replica.failures >= MAX_FAILURES => Answer::Silent(&replica.pod),
            Some(status) if status.config.hash == written.hash => Answer::Current(status),
            Some(status) if written.since.elapsed() < PROPAGATION => Answer::Stale(status),
            Some(_) => Answer::Silent(&replica.pod),
            None => Answer::Pending,
        }
    }
}

fn server<'a>(status: &'a BrokerStatus, name: &str) -> Option<&'a ServerStatus> {
    status.servers.iter().find(|server| server.name == name)
}
