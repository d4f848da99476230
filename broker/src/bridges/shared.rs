//! One child for all sessions of a server (`isolation: shared`, data-plane.md 13). Each session has a link of its own into it
//! (`Shared::join`); the child sees one client that can do nothing but call. Ids and progress tokens are ours on its side, so
//! that nothing which it says to one session reaches another (S20, S26). What is decided is in `sharing`.

use super::link::{Link, LinkError, QUEUE};
use super::sharing::{Out, Session, Sharing};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// A child that does not read for so long is stuck.
const WRITE: Duration = Duration::from_secs(30);
/// Messages that wait for a child which does not read, of its own doing.
const MAX_PENDING: usize = 4 * QUEUE;
/// A child that owes an answer and was silent for so long hangs; one that only computes may be busy for minutes, and one that
/// is fetched first opens late.
const HUNG: Duration = Duration::from_secs(300);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What sessions are told by.
type Sessions = HashMap<Session, mpsc::Sender<String>>;

/// A child with the sessions that share it.
pub(super) struct Shared {
    inbox: mpsc::Sender<Arrival>,
    end: CancellationToken,
    next: AtomicU64,
}

enum Arrival {
    Joined(Session, mpsc::Sender<String>),
    Said(Session, String),
    Left(Session),
}

impl Shared {
    /// Takes the link to a child over.
    pub(super) fn start(child: Link) -> Self {
        let (inbox, arrivals) = mpsc::channel(QUEUE);
        let end = child.end.clone();
        tokio::spawn(run(child, arrivals));
        Self {
            inbox,
            end,
            next: AtomicU64::new(0),
        }
    }

    /// True once the child has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_cancelled()
    }

    /// A link for one more session; it ends with the child, and its end does not end the child.
    pub(super) fn join(&self) -> Result<Link, LinkError> {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let (outgoing, said) = mpsc::channel(QUEUE);
        let (to, incoming) = mpsc::channel(QUEUE);
        let joined = self.inbox.try_send(Arrival::Joined(session, to));
        joined.map_err(|_| LinkError::Busy)?;
        let end = self.end.child_token();
        tokio::spawn(pump(session, said, (self.inbox.clone(), end.clone())));
        Ok(Link {
            outgoing,
            incoming,
            end,
        })
    }
}

/// Passes on what one session says, and that it is gone.
async fn pump(
    session: Session,
    mut said: mpsc::Receiver<String>,
    (inbox, end): (mpsc::Sender<Arrival>, CancellationToken),
) {
    loop {
        let text = tokio::select! {
            () = end.cancelled() => None,
            text = said.recv() => text,
        };
        let arrival = text.map_or(Arrival::Left(session), |text| Arrival::Said(session, text));
        let last = matches!(arrival, Arrival::Left(_));
        if inbox.send(arrival).await.is_err() || last {
            return;
        }
    }
}

/// The task of one child.
async fn run(mut child: Link, mut arrivals: mpsc::Receiver<Arrival>) {
    let (mut sharing, mut sessions) = (Sharing::default(), Sessions::new());
    let mut pending = VecDeque::new();
    let mut moved = Instant::now();
    // When the child was heard, or owed nothing, last.
    let mut heard = Instant::now();
    let mut look = interval(LOOK);
    loop {
        if !sharing.is_owed() {
            heard = Instant::now();
        }
        let outs = tokio::select! {
            () = child.end.cancelled() => break,
            _ = look.tick() => {
                if heard.elapsed() >= HUNG {
                    break;
                }
                sharing.probe(heard.elapsed())
            }
            () = sleep_until(moved + WRITE), if !pending.is_empty() => break,
            place = child.outgoing.reserve(), if !pending.is_empty() => {
                let Ok(place) = place else { break };
                if let Some(text) = pending.pop_front() {
                    place.send(text);
                }
                moved = Instant::now();
                continue;
            }
            arrival = arrivals.recv(), if pending.len() < QUEUE => match arrival {
                Some(Arrival::Joined(session, to)) => {
                    sessions.insert(session, to);
                    continue;
                }
                Some(Arrival::Said(session, text)) => sharing.said_by(session, &text),
                Some(Arrival::Left(session)) => {
                    sessions.remove(&session);
                    sharing.left(session)
                }
                None => break,
            },
            text = child.incoming.recv() => match text {
                Some(text) => {
                    if !sharing.is_opening() {
                        heard = Instant::now();
                    }
                    sharing.said_by_child(&text)
                }
                None => break,
            },
        };
        if pending.is_empty() {
            moved = Instant::now();
        }
        deliver(outs, &mut sessions, &mut pending);
        if pending.len() > MAX_PENDING {
            break;
        }
    }
    child.end.cancel();
}

/// A session that does not keep up is told no more: its link ends, and with it its calls.
fn deliver(outs: Vec<Out>, sessions: &mut Sessions, pending: &mut VecDeque<String>) {
    for out in outs {
        match out {
            Out::Child(text) => pending.push_back(text),
            Out::Session(session, text) => {
                if sessions
                    .get(&session)
                    .is_some_and(|to| to.try_send(text).is_err())
                {
                    sessions.remove(&session);
                }
            }
            Out::All(text) => sessions.retain(|_, to| to.try_send(text.clone()).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridges::sharing::tests::{ANSWERS, ASKS, request};
    use crate::protocol::{reply, server_message};

    /// A process, which answers `initialize` and pings as it is told.
    async fn lasts(opens: bool, pings: bool) -> Duration {
        let (outgoing, mut hears) = mpsc::channel(QUEUE);
        let (says, incoming) = mpsc::channel(QUEUE);
        let end = CancellationToken::new();
        let child = Link {
            outgoing,
            incoming,
            end: end.clone(),
        };
        let shared = Shared::start(child);
        let link = shared.join().unwrap();
        let begun = Instant::now();
        link.outgoing.send(ASKS.to_owned()).await.unwrap();
        link.outgoing.send(request("7", "1")).await.unwrap();
        tokio::spawn(async move {
            while let Some(heard) = hears.recv().await {
                let message = server_message::read(&heard).unwrap();
                match message.method.as_deref() {
                    Some("initialize") if opens => says.send(ANSWERS.to_owned()).await.unwrap(),
                    Some("ping") if pings => {
                        let id = heard.get(message.id.unwrap()).unwrap();
                        says.send(reply::result(id, "{}")).await.unwrap();
                    }
                    _ => {}
                }
            }
        });
        let _ = tokio::time::timeout(4 * HUNG, end.cancelled()).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_hangs_is_given_up_and_one_that_works_for_long_is_not() {
        for (opens, pings, hangs) in [(false, false, true), (true, false, true), (true, true, false)] {
            let lasted = lasts(opens, pings).await;
            assert!(lasted >= HUNG, "{lasted:?}");
            assert_eq!(lasted < 2 * HUNG, hangs, "{opens} {pings} {lasted:?}");
        }
    }
}
