//! The cases: each a step of a request, of a rebuild or of admission, with its world made beforehand.

use std::{
    collections::HashSet,
    hint::black_box,
    iter::{once, repeat},
    sync::Arc,
};

use anyhow::Context as _;
use axum::{Router, body::Body, http::Request as HttpRequest};
use mcp_gateway_api::config::{self, GatewayConfig};
use mcp_gateway_broker::{
    aggregation::{
        catalog::{Catalog, ConfigFacts, OwnHosts, Sources},
        lists::{self, Paging},
        meta::MetaSettings,
        view::{Selection, View},
    },
    auth::{
        capabilities::{Capabilities, CapabilityRules},
        keys::Keys,
        session::{self, NewSession, SessionClaims},
    },
    config::document,
    decision::{
        Facts, Head, Rules,
        message::{Request, judge},
        relay::{Place, Relay},
        rewrite::{Form, ReplyPlan, Rewriter},
    },
    protocol::message,
    secret::Secret,
    sessions::store::BackendSession,
    upstreams::{
        items::{ItemKind, Items},
        snapshot::{ServerSnapshot, State},
    },
};
use serde_json::json;

const SERVERS: usize = 200;
const TOOLS: usize = 50;
const NOW: u64 = 1_800_000_000;
const LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

/// One measured step: its name, and what does it once.
pub(crate) struct Case {
    /// As `--only` and the table name it.
    pub(crate) name: &'static str,
    /// Does it once.
    pub(crate) step: Box<dyn FnMut()>,
}

fn case(name: &'static str, step: impl FnMut() + 'static) -> Case {
    Case {
        name,
        step: Box::new(step),
    }
}

/// A call as clients send it.
fn call() -> Vec<u8> {
    let arguments = json!({"query": "weather in the north", "limit": 10, "fields": ["wind", "rain", "sun"]});
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "s7_tool_7", "arguments": arguments, "_meta": {"progressToken": "t1"}}})
    .to_string()
    .into_bytes()
}

fn definition(number: usize) -> String {
    json!({"name": format!("tool_{number}"), "title": "A tool", "description": "Looks something up and says what it found.",
        "inputSchema": {"type": "object", "properties": {
            "query": {"type": "string", "description": "what to look for"}, "limit": {"type": "integer", "default": 10},
            "fields": {"type": "array", "items": {"type": "string"}}}, "required": ["query"]},
        "annotations": {"readOnlyHint": true}})
    .to_string()
}

/// Everything that a catalog is built from.
struct Parts {
    config: ConfigFacts,
    hosts: OwnHosts,
    snapshot: Arc<ServerSnapshot>,
}

impl Parts {
    fn new() -> Self {
        let servers: Vec<_> = (0..SERVERS)
            .map(|n| json!({"name": format!("bench/s{n}"), "url": format!("http://s{n}.test/mcp"), "hostname": format!("s{n}.mock.test"), "prefix": format!("s{n}_")}))
            .collect();
        let text = json!({"servers": servers, "virtualServers": []}).to_string();
        let mut items = Items::default();
        let mut known = HashSet::new();
        for number in 0..TOOLS {
            items
                .of_mut(ItemKind::Tool)
                .add(ItemKind::Tool, &definition(number), &mut known);
        }
        let snapshot = ServerSnapshot {
            state: State::Ready,
            version: "2025-11-25".to_owned(),
            version_ok: true,
            items: Arc::new(items),
            served: true,
            ready: true,
            attempted: true,
            ..ServerSnapshot::default()
        };
        Self {
            config: ConfigFacts {
                snapshot: document::read(text.as_bytes()).ok().map(Arc::new),
                ..ConfigFacts::default()
            },
            hosts: OwnHosts::default(),
            snapshot: Arc::new(snapshot),
        }
    }

    fn catalog(&self) -> Catalog {
        self.next(None)
    }

    /// The catalog after this one: the first server has listed anew.
    fn next(&self, before: Option<&Catalog>) -> Catalog {
        let configs = self.config.snapshot.iter().flat_map(|snapshot| &snapshot.servers);
        let anew = ServerSnapshot {
            items: Arc::new(Items::clone(&self.snapshot.items)),
            ..ServerSnapshot::clone(&self.snapshot)
        };
        let snapshots = once(Arc::new(anew)).chain(repeat(Arc::clone(&self.snapshot)));
        Catalog::build(Sources {
            config: &self.config,
            servers: configs.map(Arc::clone).zip(snapshots).collect(),
            hosts: &self.hosts,
            meta: MetaSettings::default(),
            allowed_origins: &[],
            before,
        })
    }
}

fn keys() -> Keys {
    Keys::new(Secret::new("0123456789abcdef0123456789abcdef"), None)
}

fn token(keys: &Keys) -> (String, SessionClaims) {
    let new = NewSession {
        version: "2025-11-25",
        capabilities: "es".to_owned(),
        binding: None,
        length: LIFE,
    };
    session::mint(keys, new, NOW)
}

fn backend() -> BackendSession {
    BackendSession {
        id: Some("0123456789abcdef".to_owned()),
        version: "2025-11-25".to_owned(),
        logging: true,
    }
}

/// The decision about a call of a session that has called this server before.
fn decide() -> Case {
    let (keys, catalog, body) = (keys(), Parts::new().catalog(), call());
    let head = Head {
        fields: [
            (":method", "POST"),
            (":path", "/mcp"),
            (":authority", "mcp.test"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
            ("user-agent", "bench"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec(),
        ..Head::default()
    };
    let rules = Rules {
        max_body: 5 << 20,
        capabilities: CapabilityRules::default(),
        url_elicitation: false,
        holds_calls: false,
    };
    let facts = Facts {
        claims: Some(token(&keys).1),
        revoked: Some(false),
        asked: Some("bench/s7".to_owned()),
        backend: Some(backend()),
        now: NOW,
        ..Facts::default()
    };
    case("decide about a tools/call among 10,000 tools", move || {
        let message = message::read(&body);
        let request = Request {
            head: &head,
            rules: &rules,
            keys: &keys,
            message: &message,
        };
        black_box(judge(&request, &catalog, &facts));
    })
}

/// A reply of three events through a session's plan.
fn rewrite() -> anyhow::Result<Case> {
    let keys = keys();
    let (_, claims) = token(&keys);
    let catalog = Parts::new().catalog();
    let server = catalog.servers.first().context("the catalog has no servers")?;
    let relay = Relay::new(&claims, (&server.config, &backend()), Place::Call, true);
    let plan = ReplyPlan {
        relay,
        form: Form::Events,
        id: Some("7".to_owned()),
        bridge: None,
        completion: false,
    };
    let event = |data: &str| format!("id: 1\ndata: {data}\n\n");
    let stream = [
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t1","progress":1}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"working"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"sunny"}]}}"#,
    ]
    .map(event)
    .concat();
    Ok(case("rewrite an event stream of three messages", move || {
        let mut rewriter = Rewriter::new(plan.clone());
        black_box(rewriter.push(&keys, stream.as_bytes(), true));
    }))
}

fn rebuilt(parts: Parts) -> Case {
    let mut catalog = parts.catalog();
    case("rebuild it after one server's change", move || {
        catalog = parts.next(Some(&catalog));
    })
}

fn list() -> Case {
    let (keys, catalog) = (keys(), Parts::new().catalog());
    let selection = Selection {
        // No page is kept for these.
        capabilities: Capabilities::Only(Default::default()),
        ..Selection::default()
    };
    case("list a page of 1,000 tools among 10,000", move || {
        let view = View::new(&catalog, &selection);
        let paging = Paging {
            keys: &keys,
            size: 1_000,
            now: NOW,
        };
        let _ = black_box(lists::page(&view, &selection, ItemKind::Tool, None, &paging));
    })
}

fn config_document() -> Case {
    let servers = (0..SERVERS)
        .map(|n| config::ServerEntry {
            name: format!("bench/s{n}"),
            url: format!("http://s{n}.test/mcp"),
            hostname: format!("s{n}.mock.test"),
            prefix: format!("s{n}_"),
            ..config::ServerEntry::default()
        })
        .collect();
    let config = GatewayConfig {
        servers,
        ..GatewayConfig::default()
    };
    case("render a config of 200 servers", move || {
        let _ = black_box(config::render(&config));
    })
}

/// A registration that changes, among 2,000 extensions and 10,000 registrations. `router` is the webhook's handler.
fn admission(router: Router, review: String) -> anyhow::Result<Case> {
    use tower::ServiceExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(case("admit a changed registration among 10,000", move || {
        let request = HttpRequest::post("/validate?timeout=5s").body(Body::from(review.clone()));
        if let Ok(request) = request {
            let _ = black_box(runtime.block_on(router.clone().oneshot(request)));
        }
    }))
}

/// All cases whose name contains `only`; `webhook` makes the handler and a review for it.
///
/// # Errors
/// When no runtime can be made.
pub(crate) fn all(only: &str, webhook: impl FnOnce() -> (Router, String)) -> anyhow::Result<Vec<Case>> {
    let (body, keys) = (call(), keys());
    let (token, _) = token(&keys);
    let parts = Parts::new();
    let spliced = call();
    let mut cases = vec![
        case("classify a tools/call", move || {
            let _ = black_box(message::read(black_box(&body)));
        }),
        case("classify and splice a tools/call", move || {
            if let Ok(message) = message::read(&spliced)
                && let Some(name) = &message.name
            {
                black_box(message::splice(&spliced, &name.range, "\"tool_7\""));
            }
        }),
        case("verify a session token", move || {
            black_box(session::verify(&keys, &token, None, NOW));
        }),
        decide(),
        rewrite()?,
        list(),
        case("build the catalog of 200 × 50 tools", move || {
            black_box(parts.catalog());
        }),
        rebuilt(Parts::new()),
        config_document(),
    ];
    let (router, review) = webhook();
    cases.push(admission(router, review)?);
    cases.retain(|case| case.name.contains(only));
    Ok(cases)
}
