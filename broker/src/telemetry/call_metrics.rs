//! Metrics of calls, of lists, and of decisions about callers (data-plane.md 18.2). A tool is named only when it was found in
//! the catalog, and past [`MAX_SERIES`] all others share one series, so that no caller and no server can fill the memory.

use super::metrics::{Histograms, histograms, known};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most series of calls by tool.
pub const MAX_SERIES: usize = 2000;
/// Label of what has no series of its own.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ToolLabels {
    server: String,
    tool: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AuthLabels {
    source: &'static str,
    outcome: &'static str,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReplyLabels {
    server: String,
    method: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListLabels {
    kind: &'static str,
    cached: &'static str,
}

/// Counters of calls and of decisions about callers.
pub struct CallMetrics {
    tools: Family<ToolLabels, Counter>,
    series: AtomicUsize,
    decisions: Family<AuthLabels, Counter>,
    replies: Histograms<ReplyLabels>,
    lists: Histograms<ListLabels>,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            tools: Family::default(),
            series: AtomicUsize::default(),
            decisions: Family::default(),
            replies: histograms(),
            lists: histograms(),
        }
    }
}

impl CallMetrics {
    /// Registers all of them.
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "mcp_router_tool_calls",
            "Calls of tools by what the gateway did with them",
            self.tools.clone(),
        );
        to.register(
            "mcp_auth_decisions",
            "Decisions about callers by who decided",
            self.decisions.clone(),
        );
        to.register(
            "mcp_router_call_duration_seconds",
            "Time to the head of the reply of a server, where the gateway carries calls itself",
            self.replies.clone(),
        );
        to.register(
            "mcp_broker_list_duration_seconds",
            "Time to make a page of a list, or to find it kept",
            self.lists.clone(),
        );
    }

    /// Observes the reply to a request that the gateway carried to a server: its status for the client, and the time from
    /// the headers of the request.
    pub fn replied(&self, (server, method): (&str, &str), status: u16, elapsed: Duration) {
        let labels = ReplyLabels {
            server: server.to_owned(),
            method: known(method).to_owned(),
            outcome: outcome(status),
        };
        self.replies.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts a call of a tool of the catalog; `tool` is the server's own name. `outcome` is `forwarded`, or why not.
    pub fn tool(&self, server: &str, tool: &str, outcome: &'static str) {
        let labels = ToolLabels {
            server: server.to_owned(),
            tool: tool.to_owned(),
            outcome,
        };
        if let Some(counter) = self.tools.get(&labels) {
            counter.inc();
            return;
        }
        if self.series.fetch_add(1, Ordering::Relaxed) < MAX_SERIES {
            self.tools.get_or_create(&labels).inc();
        } else {
            // Stays past the bound, however often it is counted.
            self.series.fetch_sub(1, Ordering::Relaxed);
            self.unnamed(outcome);
        }
    }

    /// Counts a call of a tool that has no series of its own.
    pub fn unnamed(&self, outcome: &'static str) {
        let labels = ToolLabels {
            server: OTHER.to_owned(),
            tool: OTHER.to_owned(),
            outcome,
        };
        self.tools.get_or_create(&labels).inc();
    }

    /// Observes the making of a page of items of this kind.
    pub fn listed(&self, kind: &'static str, cached: bool, elapsed: Duration) {
        let cached = if cached { "true" } else { "false" };
        let labels = ListLabels { kind, cached };
        self.lists.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts an item that a policy's rule allowed or denied.
    pub fn ruled(&self, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "denied" };
        self.decided("policy", outcome, "rule");
    }

    /// Counts a refusal when its reason is about the caller; every reason is a word of ours.
    pub fn refused(&self, reason: &str) {
        if let Some(source) = source(reason) {
            self.decided(source, "denied", reason);
        }
    }

    fn decided(&self, source: &'static str, outcome: &'static str, reason: &str) {
        let labels = AuthLabels {
            source,
            outcome,
            reason: reason.to_owned(),
        };
        self.decisions.get_or_create(&labels).inc();
    }
}

/// The word for a status.
#[must_use]
pub fn outcome(status: u16) -> &'static str {
    match status {
        0..=399 => "ok",
        401 | 403 => "denied",
        404 => "not_found",
        408 | 504 => "timeout",
        400..=499 => "client_error",
        502 | 503 => "unavailable",
        _ => "server_error",
    }
}

/// Who refuses for this reason; nobody when it is not about the caller.
fn source(reason: &str) -> Option<&'static str> {
    match reason {
        "authn" | "authn_keys" | "scope" => Some("authn"),
        "policy" => Some("policy"),
        "session" | "session_missing" => Some("session"),
        "origin" | "host" => Some("origin"),
        "hairpin" => Some("hairpin"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    fn text(metrics: &CallMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn tools_have_series_of_their_own_up_to_the_bound() {
        let metrics = CallMetrics::default();
        for number in 0..MAX_SERIES + 10 {
            metrics.tool("ns/one", &format!("tool{number}"), "forwarded");
        }
        metrics.tool("ns/one", "tool0", "forwarded");
        let text = text(&metrics);
        let named = text.lines().filter(|line| line.contains("tool=\"tool")).count();
        assert_eq!(named, MAX_SERIES);
        assert!(
            text.contains("{server=\"other\",tool=\"other\",outcome=\"forwarded\"} 10"),
            "{text}"
        );
        assert!(text.contains("{server=\"ns/one\",tool=\"tool0\",outcome=\"forwarded\"} 2"));
    }

    #[test]
    fn replies_are_timed_by_server_method_and_outcome() {
        let metrics = CallMetrics::default();
        let replies = [
            ("tools/call", 200, "tools/call", "ok"),
            ("prompts/get", 504, "prompts/get", "timeout"),
            ("evil", 503, "other", "unavailable"),
            ("tools/call", 500, "tools/call", "server_error"),
        ];
        for (method, status, ..) in replies {
            metrics.replied(("ns/one", method), status, Duration::from_millis(30));
        }
        let text = text(&metrics);
        for (.., method, outcome) in replies {
            let labels = format!(r#"server="ns/one",method="{method}",outcome="{outcome}""#);
            let of = |end: &str| text.contains(&format!("mcp_router_call_duration_seconds_{end}"));
            assert!(of(&format!(r#"bucket{{le="0.025",{labels}}} 0"#)), "{text}");
            assert!(of(&format!(r#"bucket{{le="0.05",{labels}}} 1"#)), "{text}");
        }
    }

    #[test]
    fn only_refusals_about_the_caller_are_decisions() {
        let metrics = CallMetrics::default();
        metrics.refused("authn");
        metrics.refused("parse");
        metrics.ruled(true);
        metrics.ruled(false);
        let text = text(&metrics);
        assert!(
            text.contains("{source=\"authn\",outcome=\"denied\",reason=\"authn\"} 1"),
            "{text}"
        );
        assert!(text.contains("{source=\"policy\",outcome=\"allowed\",reason=\"rule\"} 1"));
        assert_eq!(text.matches("mcp_auth_decisions_total{").count(), 3);
    }
}
