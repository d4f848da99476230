//! A proxy in front of the API server that fails on purpose: it answers 500 or 429, drops connections before or after the
//! request got through, cuts watches, hides API groups, or lets only so many writes through.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

const API_SERVER: &str = "https://192.0.2.1:6443";
const LARGEST: usize = 16 * 1024 * 1024;
/// A watch that is cut lives between one and so many tenths of a second.
const WATCH_TENTHS: u32 = 25;

#[derive(Default)]
struct Faults {
    /// Of a hundred calls so many fail.
    percent: AtomicU32,
    cut_watches: AtomicBool,
    /// Writes that get through; negative means all.
    writes_left: AtomicI64,
    hidden: Mutex<Vec<String>>,
    failed: AtomicUsize,
    /// Changes with every draw: the sequence is the same in every run.
    draws: AtomicU32,
}

/// The proxy, running until the test ends.
pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    faults: Arc<Faults>,
    cut: watch::Receiver<bool>,
    set_cut: watch::Sender<bool>,
}

#[derive(Clone)]
struct Server {
    http: reqwest::Client,
    faults: Arc<Faults>,
    cut: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults {
            writes_left: AtomicI64::new(-1),
            ..Faults::default()
        });
        let (set_cut, cut) = watch::channel(false);
        let server = Server {
            // The operator's own token goes through; the certificate is the kit's.
            http: reqwest::Client::builder()
                .no_proxy()
                .danger_accept_invalid_certs(true)
                .build()?,
            faults: Arc::clone(&faults),
            cut: set_cut.clone(),
        };
        let router = Router::new().fallback(handle).with_state(server);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            faults,
            cut,
            set_cut,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.faults.percent.store(0, Ordering::SeqCst);
        self.faults.cut_watches.store(false, Ordering::SeqCst);
        self.faults.writes_left.store(-1, Ordering::SeqCst);
        self.set_cut.send_replace(false);
        self.hide(&[]);
    }

    /// `percent` of all calls fail in one way or another, and watches are cut.
    pub(crate) fn disturb(&self, percent: u32) {
        self.faults.percent.store(percent, Ordering::SeqCst);
        self.faults.cut_watches.store(true, Ordering::SeqCst);
    }

    /// Calls that failed on purpose.
    pub(crate) fn failed(&self) -> usize {
        self.faults.failed.load(Ordering::SeqCst)
    }

    /// API groups that seem not to be served.
    pub(crate) fn hide(&self, groups: &[&str]) {
        let mut hidden = self.faults.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        *hidden = groups.iter().map(|group| format!("/apis/{group}/")).collect();
    }

    /// So many writes get through; the answer to the last one is lost, and nothing gets through after it.
    pub(crate) fn cut_after(&self, writes: i64) {
        self.set_cut.send_replace(false);
        self.faults.writes_left.store(writes, Ordering::SeqCst);
    }

    /// Waits until the last write got through.
    pub(crate) async fn is_cut(&self, limit: Duration) -> bool {
        let mut cut = self.cut.clone();
        let waited = tokio::time::timeout(limit, cut.wait_for(|cut| *cut)).await;
        waited.is_ok_and(|waited| waited.is_ok())
    }
}

/// What happens to a call.
enum Fate {
    Through,
    Answered(StatusCode),
    /// The connection breaks, after the call got through or before.
    Dropped {
        through: bool,
    },
}

impl Faults {
    fn draw(&self, below: u32) -> u32 {
        let draw = self.draws.fetch_add(1, Ordering::SeqCst);
        draw.wrapping_add(1).wrapping_mul(2_654_435_761).rotate_left(15) % below
    }

    fn fate(&self, path: &str) -> Fate {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let in_group = |group: &String| format!("{path}/").starts_with(group.as_str());
        if hidden.iter().any(in_group) {
            return Fate::Answered(StatusCode::NOT_FOUND);
        }
        if self.draw(100) >= self.percent.load(Ordering::SeqCst) {
            return Fate::Through;
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        match self.draw(4) {
            0 => Fate::Answered(StatusCode::INTERNAL_SERVER_ERROR),
            1 => Fate::Answered(StatusCode::TOO_MANY_REQUESTS),
            2 => Fate::Dropped { through: false },
            _ => Fate::Dropped { through: true },
        }
    }

    /// Counts a write; true when it is the last one.
    fn is_last_write(&self, request: &Request) -> bool {
        let counts = ![Method::GET, Method::HEAD].contains(request.method())
            && !request.uri().path().contains("/leases")
            && !request.uri().path().contains("/events");
        counts
            && self.writes_left.load(Ordering::SeqCst) > 0
            && self.writes_left.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    if *server.cut.borrow() {
        return dropped();
    }
    let is_last = server.faults.is_last_write(&request);
    let fate = server.faults.fate(request.uri().path());
    let is_watch = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch="));
    match fate {
        Fate::Answered(status) => return answered(status),
        Fate::Dropped { through: false } => return dropped(),
        Fate::Dropped { through: true } if is_watch => return dropped(),
        Fate::Dropped { .. } | Fate::Through => {}
    }
    let lost = matches!(fate, Fate::Dropped { .. });
    let answer = forwarded(&server, request, is_watch).await;
    if is_last {
        server.cut.send_replace(true);
    }
    if is_last || lost {
        dropped()
    } else {
        answer.unwrap_or_else(|_| dropped())
    }
}

async fn forwarded(server: &Server, request: Request, is_watch: bool) -> anyhow::Result<Response> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut headers = parts.headers;
    headers.remove("host");
    let body = to_bytes(body, LARGEST).await?;
    let answer = server
        .http
        .request(parts.method, format!("{API_SERVER}{target}"))
        .headers(headers)
        .body(body)
        .send()
        .await?;
    let mut response = Response::builder().status(answer.status());
    for name in ["content-type", "retry-after", "audit-id"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    let chunks = answer.bytes_stream().map(|chunk| chunk.map_err(io::Error::other));
    let life = server.faults.draw(WATCH_TENTHS) + 1;
    let cut = server.cut.subscribe();
    let life = (is_watch && server.faults.cut_watches.load(Ordering::SeqCst)).then_some(life);
    let chunks = until_cut(
        chunks,
        life.map(|tenths| Duration::from_millis(100) * tenths),
        cut,
    );
    Ok(response.body(Body::from_stream(chunks))?)
}

/// The chunks until `life` is over, or nothing gets through any more; then the connection breaks.
fn until_cut(
    chunks: impl Stream<Item = io::Result<Bytes>>,
    life: Option<Duration>,
    mut cut: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Bytes>> {
    let end = async move {
        let over = async {
            match life {
                Some(life) => tokio::time::sleep(life).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
    };
    stream::unfold(Some((Box::pin(chunks), Box::pin(end))), async |state| {
        let (mut chunks, mut end) = state?;
        tokio::select! {
            chunk = chunks.next() => chunk.map(|chunk| (chunk, Some((chunks, end)))),
            () = &mut end => Some((Err(io::Error::other("cut")), None)),
        }
    })
}

fn answered(status: StatusCode) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(),
        "reason": "Fault", "message": "failed on purpose"});
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

/// An answer that breaks off: its reader cannot know what became of the call.
fn dropped() -> Response {
    let broken = stream::once(async { Err::<Bytes, _>(io::Error::other("dropped")) });
    Response::new(Body::from_stream(broken))
}
