//! One session over a link: requests wait for their answers under ids of the bridge's own, everything else that the server
//! says goes to the call that is running, else to the open stream.

use super::link::Link;
use crate::protocol::reply::{INTERNAL, error};
use crate::protocol::server_message::{self, ServerMessage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// Messages that wait for one client.
const QUEUE: usize = 256;
/// Calls that run in one session (data-plane.md 15.1).
const MAX_CALLS: usize = 64;
/// A session that nobody uses ends after this time.
const IDLE: Duration = Duration::from_secs(600);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// A server that does not read for so long is stuck.
const WRITE: Duration = Duration::from_secs(30);

/// What a waiting call gets.
pub(super) enum Said {
    /// Its answer.
    Answer(String),
    /// Something else that the server says meanwhile.
    Aside(String),
}

struct Waiting {
    /// The client's id, raw.
    id: String,
    /// The progress token that the client gave it, raw.
    token: Option<String>,
    /// Closed when the client is gone; the call stays until its answer, so that it can still be cancelled.
    to: mpsc::Sender<Said>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    calls: HashMap<u64, Waiting>,
    stream: Option<mpsc::Sender<String>>,
    used: Option<Instant>,
}

/// A session.
pub(super) struct Session {
    outgoing: mpsc::Sender<String>,
    waits: Mutex<Waits>,
    end: CancellationToken,
}

/// A message could not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSent {
    /// The connection has ended.
    Ended,
    /// Too many calls run.
    Busy,
    /// It is no message.
    Unreadable,
}

/// What the server says to a call.
pub(super) type Call = mpsc::Receiver<Said>;

impl Session {
    /// Takes a link over.
    pub(super) fn start(link: Link) -> Arc<Self> {
        let session = Arc::new(Self {
            outgoing: link.outgoing,
            waits: Mutex::default(),
            end: link.end,
        });
        tokio::spawn(Arc::clone(&session).read(link.incoming));
        session
    }

    /// True once the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_cancelled()
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    async fn read(self: Arc<Self>, mut incoming: mpsc::Receiver<String>) {
        // A clock of its own: a server that keeps talking is not in use by that.
        let mut look = interval_at(Instant::now() + LOOK, LOOK);
        loop {
            tokio::select! {
                () = self.end.cancelled() => break,
                _ = look.tick() => if self.is_idle() { break },
                message = incoming.recv() => match message {
                    Some(text) => self.arrived(text),
                    None => break,
                },
            }
        }
        self.end.cancel();
        let calls = self
            .waits
            .lock()
            .map(|mut waits| std::mem::take(&mut waits.calls));
        for call in calls.into_iter().flatten().map(|(_, call)| call) {
            let text = error(Some(&call.id), INTERNAL, "MCP server unavailable", None);
            let _ = call.to.try_send(Said::Answer(text));
        }
    }

    fn is_idle(&self) -> bool {
        self.waits.lock().is_ok_and(|waits| {
            let quiet = waits.used.is_none_or(|used| used.elapsed() > IDLE);
            let listening = waits.stream.as_ref().is_some_and(|stream| !stream.is_closed());
            quiet && waits.calls.values().all(|call| call.to.is_closed()) && !listening
        })
    }

    fn arrived(&self, text: String) {
        let Some(message) = server_message::read(&text) else {
            return;
        };
        let Ok(mut waits) = self.waits.lock() else { return };
        if message.method.is_some() {
            let token = message.param_token.and_then(|range| text.get(range));
            let concerned = |call: &&Waiting| token.is_none() || call.token.as_deref() == token;
            let mut calls = waits.calls.values().filter(|call| !call.to.is_closed());
            let call = calls.find(concerned);
            // A client that does not keep up loses what it was told beside its answer.
            match (call.map(|call| call.to.clone()), &waits.stream) {
                // The last place is that of the answer.
                (Some(to), _) if to.capacity() > 1 => drop(to.try_send(Said::Aside(text))),
                (Some(_), _) => {}
                // Progress of a call whose client is gone concerns nobody.
                (None, Some(stream)) if token.is_none() => drop(stream.try_send(text)),
                (None, _) => {}
            }
            return;
        }
        let number = message.id.clone().and_then(|id| text.get(id)?.parse().ok());
        if let (Some(range), Some(call)) = (message.id, number.and_then(|number| waits.calls.remove(&number)))
        {
            let _ = call.to.try_send(Said::Answer(replaced(&text, range, &call.id)));
        }
    }

    /// Sends a request; the call's answer follows.
    pub(super) async fn call(&self, text: &str) -> Result<Call, NotSent> {
        let message = server_message::read(text).ok_or(NotSent::Unreadable)?;
        let range = message.id.ok_or(NotSent::Unreadable)?;
        let id = text.get(range.clone()).ok_or(NotSent::Unreadable)?.to_owned();
        let token = message.progress_token.and_then(|range| text.get(range));
        let token = token.map(str::to_owned);
        let (to, call) = mpsc::channel(QUEUE);
        let number = {
            let mut waits = self.waits.lock().map_err(|_| NotSent::Ended)?;
            if waits.calls.len() >= MAX_CALLS {
                waits.calls.retain(|_, call| !call.to.is_closed());
            }
            if waits.calls.len() >= MAX_CALLS {
                return Err(NotSent::Busy);
            }
            waits.next += 1;
            let number = waits.next;
            waits.calls.insert(number, Waiting { id, token, to });
            number
        };
        self.write(replaced(text, range, &number.to_string())).await?;
        Ok(call)
    }

    /// Sends a notification, or the answer to a request of the server.
    pub(super) async fn tell(&self, text: &str) -> Result<(), NotSent> {
        let message = server_message::read(text).ok_or(NotSent::Unreadable)?;
        if message.method.as_deref() != Some("notifications/cancelled") {
            return self.write(text.to_owned()).await;
        }
        // Everybody's cancellations come to every server: one of a call that does not run here ends here, because the
        // server counts differently.
        match self.cancelled(text, message) {
            Some(mapped) => self.write(mapped).await,
            None => Ok(()),
        }
    }

    /// A cancellation with the id under which the server knows the call.
    fn cancelled(&self, text: &str, message: ServerMessage<'_>) -> Option<String> {
        let range = message.request_id?;
        let id = text.get(range.clone())?;
        let waits = self.waits.lock().ok()?;
        let (number, _) = waits.calls.iter().find(|(_, call)| call.id == id)?;
        Some(replaced(text, range, &number.to_string()))
    }

    async fn write(&self, text: String) -> Result<(), NotSent> {
        if let Ok(mut waits) = self.waits.lock() {
            waits.used = Some(Instant::now());
        }
        if self.has_ended() {
            return Err(NotSent::Ended);
        }
        let text = one_line(text);
        match timeout(WRITE, self.outgoing.send(text)).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                self.end();
                Err(NotSent::Ended)
            }
        }
    }

    /// The stream for what belongs to no call; it replaces an earlier one.
    pub(super) fn stream(&self) -> mpsc::Receiver<String> {
        let (to, stream) = mpsc::channel(QUEUE);
        if let Ok(mut waits) = self.waits.lock() {
            waits.stream = Some(to);
        }
        stream
    }

    /// Ends with the session.
    pub(super) fn ended(&self) -> CancellationToken {
        self.end.clone()
    }
}

fn replaced(text: &str, range: std::ops::Range<usize>, by: &str) -> String {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    format!("{}{by}{}", before.unwrap_or_default(), after.unwrap_or_default())
}

/// Line breaks may stand between the tokens of JSON, never within one.
fn one_line(text: String) -> String {
    if text.contains(['\n', '\r']) {
        text.replace(['\n', '\r'], " ")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        hears: mpsc::Receiver<String>,
        says: mpsc::Sender<String>,
    }

    fn session() -> (Arc<Session>, Server) {
        let (outgoing, hears) = mpsc::channel(QUEUE);
        let (says, incoming) = mpsc::channel(QUEUE);
        let end = CancellationToken::new();
        let link = Link {
            outgoing,
            incoming,
            end,
        };
        (Session::start(link), Server { hears, says })
    }

    fn request(id: &str, token: u32) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
        )
    }

    fn cancelled(id: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    }

    #[tokio::test]
    async fn d33_a_cancellation_reaches_the_server_only_for_a_call_that_runs_there() {
        let (session, mut server) = session();
        for id in ["7", "8", "\"g1-x\""] {
            let call = session.call(&request(id, 1)).await.unwrap();
            server.hears.recv().await.unwrap();
            // Its client leaves; the call runs on.
            drop(call);
        }
        // The server knows the calls as 1, 2 and 3: number 3 of somebody else is none of them.
        session.tell(&cancelled("3")).await.unwrap();
        session.tell(&cancelled("\"g1-x\"")).await.unwrap();
        assert_eq!(server.hears.recv().await.unwrap(), cancelled("3"));
        assert!(server.hears.try_recv().is_err());
    }

    #[tokio::test]
    async fn notices_take_no_place_from_the_answer() {
        let (session, server) = session();
        let mut call = session.call(&request("7", 1)).await.unwrap();
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#;
        for _ in 0..2 * QUEUE {
            server.says.send(notice.to_owned()).await.unwrap();
        }
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        server.says.send(answer.to_owned()).await.unwrap();
        let told = async {
            loop {
                match call.recv().await {
                    Some(Said::Aside(_)) => {}
                    Some(Said::Answer(text)) => return Some(text),
                    None => return None,
                }
            }
        };
        // Nobody reads before everything was said.
        while server.says.capacity() < QUEUE {
            tokio::task::yield_now().await;
        }
        assert_eq!(told.await.unwrap(), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_nobody_uses_ends_although_its_server_talks() {
        let (session, server) = session();
        session
            .tell(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
            .await
            .unwrap();
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#;
        let (begun, ended) = (Instant::now(), session.ended());
        while !ended.is_cancelled() && begun.elapsed() < 2 * IDLE {
            let _ = server.says.send(notice.to_owned()).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert!(ended.is_cancelled() && begun.elapsed() >= IDLE);
    }

    #[tokio::test]
    async fn progress_goes_to_the_call_that_asked_for_it() {
        let (session, server) = session();
        let mut first = session.call(&request("1", 10)).await.unwrap();
        let mut second = session.call(&request("2", 20)).await.unwrap();
        let progress = |token| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
            )
        };
        for token in [20, 10, 30] {
            server.says.send(progress(token)).await.unwrap();
        }
        let said = |said| match said {
            Some(Said::Aside(text)) => text,
            Some(Said::Answer(text)) => panic!("{text}"),
            None => panic!("nothing"),
        };
        assert_eq!(said(first.recv().await), progress(10));
        assert_eq!(said(second.recv().await), progress(20));
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
    }
}
