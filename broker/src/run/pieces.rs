//! What router, front and background share, made once.

use super::Environment;
use super::bounds::Bounds;
use super::upkeep::Upkeep;
use crate::aggregation::catalog::OwnHosts;
use crate::aggregation::federation::{Federation, Published};
use crate::aggregation::meta::MetaSettings;
use crate::aggregation::user_lists::UserLists;
use crate::auth::capabilities::{CapabilityKey, CapabilityRules};
use crate::auth::hairpin::UseCounter;
use crate::auth::keys::Keys;
use crate::authn::Authenticator;
use crate::decision::Rules;
use crate::front::forwarding::Forwarding;
use crate::front::tls::ServingPair;
use crate::front::{FrontState, Health, listen, older, questions, relay, running, streams, updates};
use crate::options::Options;
use crate::pipeline::asked::Asked;
use crate::pipeline::facts::{MAX_ANSWERS, Pipeline};
use crate::router::replies::Extension;
use crate::sessions::hairpin::Hairpin;
use crate::sessions::kept::KeptCalls;
use crate::sessions::memory::MemoryStore;
use crate::sessions::opener::Opener;
use crate::sessions::shared::SharedStore;
use crate::sessions::store::SessionStore;
use crate::sessions::way::{Direct, Way};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::transport::address::AddressPolicy;
use crate::upstreams::connection::ConnectionSettings;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The router answers this much before Envoy gives up.
const ROUTER_MARGIN: Duration = Duration::from_secs(2);
/// Longest wait for a backend session within a request.
const OPEN_DEADLINE: Duration = Duration::from_secs(8);

/// What router and front share.
pub(super) struct Pieces {
    pub(super) published: Arc<Published>,
    pub(super) store: Arc<SessionStore>,
    pub(super) way: Arc<Way>,
    pub(super) opener: Arc<Opener>,
    pub(super) kept: Arc<KeptCalls>,
    pub(super) user_lists: Arc<UserLists>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) asked: Arc<Asked>,
    pub(super) traces: Traces,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) rules: Rules,
}

/// The canonical URL of the MCP endpoint, which tokens are for unless their provider says otherwise.
fn resource(options: &Options) -> String {
    let resource = options.oauth.resource.trim_end_matches('/');
    if options.oauth.resource.starts_with('/') {
        format!("https://{}{resource}", options.public_host)
    } else {
        resource.to_owned()
    }
}

/// How long Envoy waits for a reply, extended or not.
fn reply_time(options: &Options) -> Duration {
    let extension = Extension::of(options.message_timeout, options.max_message_timeout);
    let extended = extension.map(|extension| extension.after + extension.wait);
    extended.unwrap_or_default().max(options.message_timeout)
}

impl Pieces {
    pub(super) async fn new(
        options: &Options,
        keys: &Arc<Keys>,
        addresses: AddressPolicy,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::<Metrics>::default();
        let store = if options.cache_connection.is_empty() {
            SessionStore::memory(MemoryStore::default(), Arc::clone(&metrics))
        } else {
            let shared = SharedStore::connect(&options.cache_connection).await?;
            SessionStore::shared(shared, Arc::clone(&metrics))
        };
        let store = Arc::new(store);
        let way = if options.forwards {
            Way::Direct(Arc::new(Direct::new(addresses)))
        } else {
            Way::Hairpin(Box::new(Hairpin::new(
                options.private_host.clone(),
                options.public_host.clone(),
                Arc::clone(keys),
                &[],
            )?))
        };
        let way = Arc::new(way);
        let opener = Arc::new(Opener::new(Arc::clone(&way), Arc::clone(&store)));
        let lists = UserLists::new(Arc::clone(&opener), Arc::clone(&store), Arc::clone(keys));
        let trusted = options.trusted_header_key.as_deref().map(CapabilityKey::from_pem);
        let rules = Rules {
            max_body: options.max_request_body,
            url_elicitation: options.url_elicitation,
            holds_calls: options.forwards,
            capabilities: CapabilityRules {
                key: trusted.transpose().context("TRUSTED_HEADER_PUBLIC_KEY")?,
                enforce: options.enforce_capability_filtering,
            },
        };
        let asked = Asked::new(Arc::clone(&metrics), store.is_shared());
        Ok(Self {
            published: Arc::default(),
            store,
            way,
            opener,
            kept: Arc::default(),
            user_lists: Arc::new(lists),
            asked: Arc::new(asked),
            metrics,
            traces: Traces::from_environment(),
            authenticator: Arc::new(Authenticator::new(addresses, resource(options))),
            rules,
        })
    }

    pub(super) fn front_state(
        &self,
        (options, keys): (&Options, &Arc<Keys>),
        pipeline: &Arc<Pipeline>,
        (tls, exposed): (Arc<ServingPair>, bool),
        bounds: Bounds,
    ) -> Arc<FrontState> {
        let forwarding = match self.way.as_ref() {
            Way::Hairpin(_) => None,
            Way::Direct(direct) => Some(Forwarding {
                pipeline: Arc::clone(pipeline),
                direct: Arc::clone(direct),
                slots: Arc::default(),
            }),
        };
        Arc::new(FrontState {
            forwarding,
            tls,
            exposed,
            older: older::OlderClients::default(),
            published: Arc::clone(&self.published),
            keys: Arc::clone(keys),
            authenticator: Arc::clone(&self.authenticator),
            store: Arc::clone(&self.store),
            user_lists: Arc::clone(&self.user_lists),
            opener: Some(Arc::clone(&self.opener)),
            metrics: Arc::clone(&self.metrics),
            traces: self.traces.clone(),
            asked: Arc::clone(&self.asked),
            kept: Arc::clone(&self.kept),
            streams: streams::Streams::new(bounds.client_streams, Arc::clone(&self.metrics)),
            listeners: listen::Listeners::default(),
            questions: questions::Questions::new(options.bridge_wait),
            relays: relay::Relays::default(),
            running: running::RunningCalls::default(),
            unsolicited: Arc::new(Semaphore::new(bounds.backend_streams)),
            updates: Arc::new(Semaphore::new(updates::MAX_SOURCES)),
            health: Arc::new(Health::default()),
            rules: self.rules.clone(),
            page_size: options.page_size,
            session_length: options.session_length,
            oauth: options.oauth.clone(),
            replica: options.replica.clone(),
        })
    }

    pub(super) fn upkeep(&self, state: &Arc<FrontState>) -> Upkeep {
        Upkeep {
            state: Arc::clone(state),
            store: Arc::clone(&self.store),
            opener: Arc::clone(&self.opener),
            published: Arc::clone(&self.published),
        }
    }

    pub(super) fn pipeline(&self, options: &Options, keys: &Arc<Keys>) -> Arc<Pipeline> {
        Arc::new(Pipeline {
            published: Arc::clone(&self.published),
            keys: Arc::clone(keys),
            authenticator: Arc::clone(&self.authenticator),
            store: Arc::clone(&self.store),
            opener: Arc::clone(&self.opener),
            user_lists: Arc::clone(&self.user_lists),
            uses: UseCounter::default(),
            kept: Arc::clone(&self.kept),
            answers: Arc::new(Semaphore::new(MAX_ANSWERS)),
            asked: Arc::clone(&self.asked),
            rules: self.rules.clone(),
            open_deadline: OPEN_DEADLINE.min(reply_time(options).saturating_sub(ROUTER_MARGIN)),
            metrics: Arc::clone(&self.metrics),
            traces: self.traces.clone(),
        })
    }

    pub(super) fn federation(&self, options: &Options, environment: &Environment) -> Federation {
        Federation {
            settings: ConnectionSettings {
                check_interval: options.check_interval,
                addresses: environment.addresses,
                invalid_tool_policy: options.invalid_tool_policy,
                metrics: Arc::clone(&self.metrics),
                traces: self.traces.clone(),
            },
            hosts: OwnHosts {
                public: options.public_host.clone(),
                private: options.private_host.host.clone(),
            },
            meta: MetaSettings {
                enabled: options.discovery_tools,
                threshold: options.discovery_threshold,
            },
            allowed_origins: options.allowed_origins.clone(),
            way: Arc::clone(&self.way),
            ca_file: options.gateway_ca_cert.clone(),
            authenticator: Arc::clone(&self.authenticator),
            published: Arc::clone(&self.published),
        }
    }
}
