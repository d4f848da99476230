//! Metrics of what goes between servers and clients beside the answers of calls (data-plane.md 10, 18.2): questions of
//! servers, notices, and the replies that are rewritten on their way.

use super::metrics::{Histograms, histograms};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Notices that have a label of their own; their methods begin with `notifications/`.
const NOTICES: [&str; 9] = [
    "tools/list_changed",
    "prompts/list_changed",
    "resources/list_changed",
    "resources/updated",
    "roots/list_changed",
    "elicitation/complete",
    "message",
    "progress",
    "cancelled",
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AskedLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NoticeLabels {
    kind: &'static str,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PlanLabel {
    plan: &'static str,
}

/// What became of a question of a server to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The client gave a result.
    Ok,
    /// The client gave an error.
    ClientError,
    /// The client cannot be asked this: it did not say that it can, or takes no streams.
    Denied,
    /// The client has no stream that it could be asked on.
    Unavailable,
    /// No answer came while somebody waited for one.
    Timeout,
    /// The server took it back.
    Cancelled,
}

impl Answered {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a notice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a server to the gateway.
    FromServer,
    /// From the gateway to a client.
    ToClient,
    /// From a client to a server.
    ToServer,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::FromServer => "from_server",
            Self::ToClient => "to_client",
            Self::ToServer => "to_server",
        }
    }
}

/// The label of a question by its method.
#[must_use]
pub fn kind(method: &str) -> &'static str {
    match method {
        "sampling/createMessage" => "sampling",
        "elicitation/create" => "elicitation",
        "roots/list" => "roots",
        _ => "other",
    }
}

/// The metrics.
pub struct RelayMetrics {
    requests: Family<AskedLabels, Counter>,
    waits: Histograms<KindLabel>,
    rewritten: Family<PlanLabel, Counter>,
    notices: Family<NoticeLabels, Counter>,
}

impl Default for RelayMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            waits: histograms(),
            rewritten: Family::default(),
            notices: Family::default(),
        }
    }
}

impl RelayMetrics {
    /// Registers all of them.
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "mcp_relay_requests",
            "Requests of servers to clients by what became of them",
            self.requests.clone(),
        );
        to.register(
            "mcp_relay_wait_seconds",
            "Time from a request of a server to the answer of the client",
            self.waits.clone(),
        );
        to.register(
            "mcp_router_rewritten_bytes",
            "Bytes of replies that clients got from a rewriter",
            self.rewritten.clone(),
        );
        to.register(
            "mcp_broker_notifications",
            "Notifications that the broker got or sent outside of calls",
            self.notices.clone(),
        );
    }

    /// Counts a question that is over.
    pub fn asked(&self, kind: &'static str, answered: Answered) {
        let outcome = answered.word();
        self.requests.get_or_create(&AskedLabels { kind, outcome }).inc();
    }

    /// Counts a question that the client answered after this time.
    pub fn answered(&self, kind: &'static str, good: bool, waited: Duration) {
        let answered = if good { Answered::Ok } else { Answered::ClientError };
        self.asked(kind, answered);
        let wait = self.waits.get_or_create(&KindLabel { kind });
        wait.observe(waited.as_secs_f64());
    }

    /// The counter of bytes under this plan, for as long as a reply lasts.
    #[must_use]
    pub fn rewritten(&self, plan: &'static str) -> Counter {
        self.rewritten.get_or_create_owned(&PlanLabel { plan })
    }

    /// Counts notices by their method; those that have no label of their own share one.
    pub fn notices(&self, method: &str, direction: Direction, number: u64) {
        let name = method.strip_prefix("notifications/").unwrap_or_default();
        let kind = NOTICES.into_iter().find(|known| *known == name);
        let labels = NoticeLabels {
            kind: kind.unwrap_or("other"),
            direction: direction.word(),
        };
        self.notices.get_or_create(&labels).inc_by(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn strange_notices_share_one_series() {
        let (metrics, mut registry) = (RelayMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        for method in [
            "notifications/evil\"",
            "tools/list_changed",
            "notifications/message",
        ] {
            metrics.notices(method, Direction::FromServer, 1);
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let of = |line: &str| text.contains(&format!("mcp_broker_notifications_total{{{line}"));
        assert!(of(r#"kind="other",direction="from_server"} 2"#), "{text}");
        assert!(of(r#"kind="message",direction="from_server"} 1"#), "{text}");
    }
}
