//! What is known about the brokers of one namespace: which document they are to serve and what each ready replica said
//! when it was asked (operator.md 8.11). Plain state; asking is `reconcile/brokers.rs`.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{
    broker_status::{BrokerStatus, ServerItems, ServerStatus},
    object_key::ObjectKey,
};
use tokio::time::Instant;

use crate::queue::WorkItem;

/// Unanswered questions after which a replica counts as not serving.
pub(crate) const MAX_FAILURES: u32 = 3;
/// How long after a new document a replica may still report the former one without losing a verdict.
const PROPAGATION: Duration = Duration::from_secs(60);

/// What a document holds, by object with the generation that it was made from, so that no verdict names a generation
/// that no broker runs (T46).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Registrations.
    pub(crate) served: BTreeMap<ObjectKey, i64>,
    /// Virtual servers.
    pub(crate) virtual_servers: BTreeMap<ObjectKey, i64>,
    /// Policies.
    pub(crate) policies: BTreeMap<ObjectKey, i64>,
    /// What is left out, or kept with a former value, and why.
    pub(crate) problems: BTreeMap<WorkItem, String>,
}

impl Contents {
    /// Everything whose status is judged from the document.
    pub(crate) fn concerned(&self) -> impl Iterator<Item = WorkItem> {
        let registrations = self.served.keys().cloned().map(WorkItem::Registration);
        let virtual_servers = self.virtual_servers.keys().cloned().map(WorkItem::VirtualServer);
        let policies = self.policies.keys().cloned().map(WorkItem::AuthPolicy);
        let problems = self.problems.keys().cloned();
        registrations
            .chain(virtual_servers)
            .chain(policies)
            .chain(problems)
    }
}

/// The document of an accepted extension, as written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) extension: ObjectKey,
    pub(crate) hash: String,
    pub(crate) contents: Contents,
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
    /// When they were last asked, some replica had had its time to take the document and had not.
    pub(crate) overdue: bool,
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
            let changed = former.contents != written.contents;
            former.contents = written.contents;
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

    /// True while some replica may still be about to report the current document.
    pub(crate) fn is_settling(&self) -> bool {
        let recent = self
            .written
            .as_ref()
            .is_some_and(|written| written.since.elapsed() < PROPAGATION);
        self.documents().iter().any(|answer| match answer {
            Answer::Pending | Answer::Stale(_) => true,
            Answer::Silent(_) => recent,
            Answer::Current(_) => false,
        })
    }

    /// True when some replica does not report the current document and is not expected to soon.
    pub(crate) fn is_overdue(&self) -> bool {
        !self.replicas.is_empty() && !self.all_current() && !self.is_settling()
    }

    /// How long the document took to every broker, once: when all report it for the first time.
    pub(crate) fn propagated(&mut self) -> Option<Duration> {
        let all = self.all_current();
        let written = self.written.as_mut().filter(|written| all && written.under_way)?;
        written.under_way = false;
        Some(written.since.elapsed())
    }

    /// True when some server that `is_enabled`, by name, is not ready somewhere, or keys of an issuer are missing or old.
    pub(crate) fn something_missing(&self, is_enabled: impl Fn(&str) -> bool) -> bool {
        let mut statuses = self
            .replicas
            .values()
            .filter_map(|replica| replica.status.as_ref());
        statuses.any(|status| {
            let mut servers = status.servers.iter();
            !status.key_problems.is_empty() || servers.any(|server| !server.ready && is_enabled(&server.name))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn written(hash: &str) -> Written {
        Written {
            extension: ObjectKey::new("gw", "ext"),
            hash: hash.to_owned(),
            contents: Contents::default(),
            since: Instant::now(),
            under_way: false,
        }
    }

    fn namespace(replica: Replica) -> Namespace {
        Namespace {
            written: Some(written("new")),
            replicas: BTreeMap::from([("192.0.2.1".to_owned(), replica)]),
            ..Namespace::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn brokers_that_do_not_take_a_document_are_waited_for_a_minute_only() {
        let silent = Replica {
            failures: MAX_FAILURES,
            ..Replica::default()
        };
        let stale = Replica {
            status: Some(BrokerStatus::default()),
            ..Replica::default()
        };
        for replica in [silent, stale] {
            let observed = namespace(replica);
            assert!(observed.is_settling() && !observed.is_overdue());
            tokio::time::advance(PROPAGATION).await;
            assert!(!observed.is_settling() && observed.is_overdue());
        }
        tokio::time::advance(PROPAGATION).await;
        assert!(
            namespace(Replica::default()).is_settling(),
            "it was not asked yet"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn t46_a_new_generation_in_equal_bytes_is_a_change() {
        let mut observed = namespace(Replica::default());
        assert!(!observed.set_written(written("new")));
        let mut next = written("new");
        let server = ObjectKey::new("team", "weather");
        next.contents.served.insert(server.clone(), 2);
        assert!(observed.set_written(next));
        let held = observed.written.map(|written| written.contents.served);
        assert_eq!(held, Some(BTreeMap::from([(server, 2)])));
    }
}
