//! The generator: so many connections, each with one request after the other (closed loop) or at fixed times (open loop),
//! on one thread of its own. Latencies of the open loop count from when a request was due, so that a stall is not hidden by
//! the requests that it kept from being sent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Highest latency that a histogram holds, in microseconds.
const LONGEST: u64 = 60_000_000;

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// Where it goes.
    pub(crate) to: SocketAddr,
    /// Path, from `/`.
    pub(crate) path: String,
    /// Headers beside the usual ones.
    pub(crate) headers: HeaderMap,
    /// JSON-RPC message.
    pub(crate) body: Bytes,
    /// What the answer must contain to count as one.
    pub(crate) expected: &'static [u8],
}

impl Shot {
    /// A POST of `body`, whose answer must be a result.
    pub(crate) fn new(to: SocketAddr, path: &str, body: &serde_json::Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert(
            "accept",
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        headers.insert("host", HeaderValue::from_static("mcp.test"));
        Self {
            to,
            path: path.to_owned(),
            headers,
            body: Bytes::from(body.to_string()),
            expected: b"\"result\"",
        }
    }

    /// The same with one more header; a value that is none is left out.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(self.path.as_str()).body(Full::new(self.body.clone()))?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn send(&mut self, shot: &Shot) -> anyhow::Result<Answer> {
        self.exchange(shot.request()?).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// GETs a path.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let request = Request::get(path)
            .header("host", "mcp.test")
            .body(Full::default())?;
        self.exchange(request).await
    }

    /// Sends; an answer that is not what was expected is an error.
    pub(crate) async fn shoot(&mut self, shot: &Shot) -> anyhow::Result<Answer> {
        let answer = self.send(shot).await?;
        let found = memchr::memmem::find(&answer.body, shot.expected).is_some();
        ensure!(
            answer.status.is_success() && found,
            "{} {}",
            answer.status,
            String::from_utf8_lossy(answer.body.get(..300).unwrap_or(&answer.body))
        );
        Ok(answer)
    }
}

/// What came of a load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Microseconds of each answered request.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) took: Duration,
    pub(crate) failed: u64,
    /// The first failure, for the reader.
    pub(crate) failure: Option<String>,
}

impl Load {
    fn empty() -> anyhow::Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1, LONGEST, 3)?,
            took: Duration::ZERO,
            failed: 0,
            failure: None,
        })
    }

    /// Answered requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency below which so much of all lie; `quantile` between 0 and 1.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(quantile))
    }

    fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros())
            .unwrap_or(LONGEST)
            .clamp(1, LONGEST);
        // Within the bounds, so it always fits.
        let _ = self.latencies.record(micros);
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| format!("{error:#}"));
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.latencies.add(&other.latencies);
        self.failed += other.failed;
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
    }
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next one when the last one is answered.
    Closed,
    /// One each so often on every connection, whatever became of the last one.
    Open(Duration),
}

/// Sends `shots` for `length`, each on a connection of its own, on a thread of its own.
pub(crate) async fn run(shots: Vec<Shot>, length: Duration, pace: Pace) -> anyhow::Result<Load> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let load = runtime
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(all(shots, length, pace)));
        // Nobody waits any more when the bench was stopped.
        let _ = done.send(load);
    });
    result.await.context("the generator died")?
}

async fn all(shots: Vec<Shot>, length: Duration, pace: Pace) -> anyhow::Result<Load> {
    let mut connections = Vec::with_capacity(shots.len());
    for shot in shots {
        connections.push((Connection::open(shot.to).await?, shot));
    }
    let begun = Instant::now();
    let count = connections.len().max(1);
    let runs: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(index, (connection, shot))| {
            // Open loops do not all fire in the same moment.
            let offset = match pace {
                Pace::Closed => Duration::ZERO,
                Pace::Open(every) => every.mul_f64(index as f64 / count as f64),
            };
            let load = Load::empty()?;
            Ok(tokio::spawn(one(
                load,
                connection,
                shot,
                (begun + offset, begun + length),
                pace,
            )))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut load = Load::empty()?;
    for run in runs {
        load.add(&run.await?);
    }
    load.took = begun.elapsed();
    Ok(load)
}

async fn one(
    mut load: Load,
    mut connection: Connection,
    shot: Shot,
    (begun, end): (Instant, Instant),
    pace: Pace,
) -> Load {
    let mut due = begun;
    loop {
        if let Pace::Open(every) = pace {
            tokio::time::sleep_until(due.into()).await;
            if due >= end {
                return load;
            }
            let from = due;
            due += every;
            finish(&mut load, &mut connection, &shot, from).await;
        } else {
            let from = Instant::now();
            if from >= end {
                return load;
            }
            finish(&mut load, &mut connection, &shot, from).await;
        }
        if connection.sender.is_closed() {
            match Connection::open(shot.to).await {
                Ok(fresh) => connection = fresh,
                Err(error) => {
                    load.fail(&error);
                    return load;
                }
            }
        }
    }
}

async fn finish(load: &mut Load, connection: &mut Connection, shot: &Shot, from: Instant) {
    match connection.shoot(shot).await {
        Ok(_) => load.record(from.elapsed()),
        Err(error) => load.fail(&error),
    }
}

/// So many copies of one shot.
pub(crate) fn copies(shot: &Shot, count: usize) -> Vec<Shot> {
    vec![shot.clone(); count]
}
