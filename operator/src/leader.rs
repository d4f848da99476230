//! Leader election by one Lease (operator.md 11.1): 15 s lease, 10 s renew deadline, 2 s retries. The decision is a
//! pure function; every write carries the resourceVersion that was read, so two replicas never both hold it. A lease
//! has run out when it was not seen to change for its duration: clocks of two nodes are never compared.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use mcp_gateway_api::names::{OPERATOR, OPERATOR_LEASE, UNINSTALLED_ANNOTATION, UNINSTALLING_ANNOTATION};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metrics::Metrics};

const LEASE_SECONDS: i32 = 15;
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One candidate.
pub(crate) struct Election {
    api: Api<Lease>,
    deployments: Api<Deployment>,
    identity: String,
    leads: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    /// The Lease says that the operator is being uninstalled.
    uninstalling: Arc<AtomicBool>,
}

/// The Lease as it was last seen to change, by our own clock.
pub(crate) struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Default for Seen {
    /// Never seen.
    fn default() -> Self {
        Self {
            version: None,
            since: Instant::now(),
        }
    }
}

impl Seen {
    /// How long the Lease has been as it is now.
    pub(crate) fn unchanged(&mut self, version: Option<String>) -> Duration {
        if self.version != version {
            *self = Self {
                version,
                since: Instant::now(),
            };
        }
        self.since.elapsed()
    }
}

/// What a candidate may do with the Lease as it is.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Write this.
    Write(Box<LeaseSpec>),
    /// Somebody else holds it.
    Wait,
}

/// How long an attempt or a pause may last: nothing reaches past the moment at which a leader that could not renew has to
/// stop.
fn patience(renewed: Instant) -> Duration {
    let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
    if left.is_zero() { RETRY } else { RETRY.min(left) }
}

impl Election {
    pub(crate) fn new(context: &Context, identity: String) -> Self {
        Self {
            api: Api::namespaced(context.client.clone(), &context.settings.namespace),
            deployments: Api::namespaced(context.client.clone(), &context.settings.namespace),
            identity,
            leads: watch::Sender::new(false),
            metrics: Arc::clone(&context.metrics),
            uninstalling: Arc::clone(&context.uninstalling),
        }
    }

    /// True while this replica leads.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Leads without an election: a single process in development.
    pub(crate) fn assume(&self) {
        self.set(true);
    }

    /// Takes part until `stop`, which comes when no work is under way any more; then the lease stays with this replica
    /// until [`Election::release`].
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        let mut seen = Seen::default();
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(patience(renewed), self.attempt(&mut seen)).await {
                Ok(Ok(true)) => {
                    renewed = begun;
                    self.set(true);
                }
                Ok(Ok(false)) => self.set(false),
                Ok(Err(error)) => tracing::warn!(%error, "Lease cannot be renewed"),
                Err(_) => tracing::warn!("Lease request takes too long"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(patience(renewed)) => {}
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                self.set(false);
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait for it to run out.
    pub(crate) async fn release(&self) {
        if !*self.leads.borrow() {
            return;
        }
        self.set(false);
        let Ok(Some(mut lease)) = self.api.get_opt(OPERATOR_LEASE).await else {
            return;
        };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(self.identity.as_str())
        {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            if let Err(error) = self
                .api
                .replace(OPERATOR_LEASE, &PostParams::default(), &lease)
                .await
            {
                tracing::warn!(%error, "Lease cannot be released");
            }
        }
    }

    async fn attempt(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let current = self.api.get_opt(OPERATOR_LEASE).await?;
        let mut unchanged = seen.unchanged(current.as_ref().and_then(ResourceExt::resource_version));
        if let Some(gone) = current.as_ref().and_then(uninstalled)
            && self.comes_after(gone).await?
        {
            unchanged = Duration::MAX;
        }
        let leaving = current
            .as_ref()
            .is_some_and(|lease| lease.annotations().contains_key(UNINSTALLING_ANNOTATION));
        self.uninstalling.store(leaving, Ordering::Relaxed);
        let spec = current.as_ref().and_then(|lease| lease.spec.as_ref());
        let Step::Write(spec) = decide(spec, &self.identity, (Timestamp::now(), unchanged)) else {
            return Ok(false);
        };
        let was_ours = spec_holder(current.as_ref()) == Some(self.identity.as_str());
        let mut metadata = current.map_or_else(
            || ObjectMeta {
                name: Some(OPERATOR_LEASE.to_owned()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata,
        );
        if !was_ours && let Some(annotations) = &mut metadata.annotations {
            // Left by an uninstall that was broken off: whoever takes the Lease now is a new installation.
            annotations.remove(UNINSTALLING_ANNOTATION);
            annotations.remove(UNINSTALLED_ANNOTATION);
            self.uninstalling.store(false, Ordering::Relaxed);
        }
        let is_new = metadata.resource_version.is_none();
        let lease = Lease {
            metadata,
            spec: Some(*spec),
        };
        let written = if is_new {
            self.api.create(&PostParams::default(), &lease).await
        } else {
            self.api
                .replace(OPERATOR_LEASE, &PostParams::default(), &lease)
                .await
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this operator was installed after the one that an uninstall took away.
    async fn comes_after(&self, gone: &str) -> Result<bool, kube::Error> {
        let own = self.deployments.get_metadata_opt(OPERATOR).await?;
        Ok(own.is_some_and(|own| is_another(&own.metadata, gone)))
    }

    fn set(&self, leads: bool) {
        let changed = self
            .leads
            .send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            tracing::info!(leads, identity = %self.identity, "Leadership changed");
            self.metrics.leads(leads);
        }
    }
}

/// The Deployment that an uninstall took away, while it holds the Lease.
pub(crate) fn uninstalled(lease: &Lease) -> Option<&str> {
    lease
        .annotations()
        .get(UNINSTALLED_ANNOTATION)
        .map(String::as_str)
}

/// Whether a Deployment stays and is not the one that goes.
fn is_another(own: &ObjectMeta, gone: &str) -> bool {
    own.deletion_timestamp.is_none() && own.uid.as_deref().is_some_and(|uid| uid != gone)
}

fn spec_holder(lease: Option<&Lease>) -> Option<&str> {
    lease?.spec.as_ref()?.holder_identity.as_deref()
}

/// What to do with the Lease `current`, which has not changed for the given time.
fn decide(current: Option<&LeaseSpec>, identity: &str, (now, unchanged): (Timestamp, Duration)) -> Step {
    let holder = current
        .and_then(|spec| spec.holder_identity.as_deref())
        .filter(|holder| !holder.is_empty());
    let is_ours = holder == Some(identity);
    if holder.is_some() && !is_ours && !current.is_some_and(|spec| ran_out(spec, unchanged)) {
        return Step::Wait;
    }
    let kept = current.filter(|_| is_ours);
    let transitions = current.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    Step::Write(Box::new(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        acquire_time: kept
            .and_then(|spec| spec.acquire_time.clone())
            .or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_ours {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }))
}

/// True when a holder that is alive would have renewed the lease.
pub(crate) fn ran_out(spec: &LeaseSpec, unchanged: Duration) -> bool {
    let seconds = spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
    unchanged > Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, at: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(at).expect("in range"))),
            lease_transitions: Some(2),
            ..LeaseSpec::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// `second` by our clock, with a Lease that has not changed for `unchanged` seconds.
    fn after(second: i64, unchanged: u64) -> (Timestamp, Duration) {
        (at(second), Duration::from_secs(unchanged))
    }

    #[tokio::test(start_paused = true)]
    async fn t62_a_lease_is_as_old_as_its_last_change_that_we_saw() {
        let mut seen = Seen::default();
        let version = |text: &str| Some(text.to_owned());
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(seen.unchanged(version("1")), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(seen.unchanged(version("1")), Duration::from_secs(14));
        assert_eq!(seen.unchanged(version("2")), Duration::ZERO);
    }

    #[test]
    fn t62_a_held_lease_is_waited_for_until_it_runs_out() {
        assert_eq!(decide(Some(&held("a", 100)), "b", after(114, 14)), Step::Wait);
        let ahead = after(9999, 14);
        assert_eq!(
            decide(Some(&held("a", 100)), "b", ahead),
            Step::Wait,
            "our clock is ahead"
        );
        let Step::Write(taken) = decide(Some(&held("a", 100)), "b", after(90, 16)) else {
            panic!("expired")
        };
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_transitions, Some(3));
    }

    #[test]
    fn only_a_newer_installation_takes_what_an_uninstall_holds() {
        let uid = |uid: &str| ObjectMeta {
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        assert!(is_another(&uid("new"), "old"));
        assert!(is_another(&uid("new"), ""), "the old one was gone before");
        assert!(!is_another(&uid("old"), "old"), "it is about to be removed");
        let going = ObjectMeta {
            deletion_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1))),
            ..uid("new")
        };
        assert!(!is_another(&going, "old"));
        let held_long = (at(100), Duration::MAX);
        assert!(matches!(
            decide(Some(&held("mcpgw-uninstall", 100)), "b", held_long),
            Step::Write(_)
        ));
    }

    #[test]
    fn the_holder_renews_and_a_released_lease_is_taken_at_once() {
        let Step::Write(renewed) = decide(Some(&held("a", 100)), "a", after(101, 1)) else {
            panic!("own")
        };
        assert_eq!(renewed.lease_transitions, Some(2));
        assert!(matches!(
            decide(Some(&held("", 100)), "b", after(101, 1)),
            Step::Write(_)
        ));
        assert!(matches!(decide(None, "b", after(101, 1)), Step::Write(_)));
    }
}
