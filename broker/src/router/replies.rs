//! The replies of one ext_proc stream: one for each message, and before one that takes long a request to wait for it
//! (data-plane.md 8.9).

use super::machine::Machine;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use futures::Stream;
use futures::stream::BoxStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::ReusableBoxFuture;
use tonic::Status;

/// Longest extension.
const LONGEST: Duration = Duration::from_secs(30);

/// When Envoy is asked to wait longer for a reply, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// From the message.
    pub after: Duration,
    /// From the request to wait.
    pub wait: Duration,
}

impl Extension {
    /// What fits these timeouts of Envoy; `None` when it accepts no extension.
    pub fn of(timeout: Duration, longest: Duration) -> Option<Self> {
        let wait = longest.min(LONGEST);
        (!wait.is_zero()).then_some(Self {
            after: timeout / 2,
            wait,
        })
    }
}

/// Tells Envoy to wait this much longer.
fn waiting(more: Duration) -> ProcessingResponse {
    ProcessingResponse {
        override_message_timeout: Some(ProtoDuration {
            seconds: i64::try_from(more.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(more.subsec_nanos()).unwrap_or_default(),
        }),
        ..ProcessingResponse::default()
    }
}

/// What a message makes: the reply, and the machine for the next one.
type Work = ReusableBoxFuture<'static, (ProcessingResponse, Machine)>;

enum Phase {
    /// Waits for a message.
    Reading(Machine),
    /// Works on one.
    Working,
    Over,
}

/// The replies.
pub(super) struct Replies {
    inbound: BoxStream<'static, Result<ProcessingRequest, Status>>,
    phase: Phase,
    work: Option<Work>,
    extension: Option<Extension>,
    /// Runs while a message is worked on that was not ready at once.
    patience: Option<Pin<Box<Sleep>>>,
    extended: bool,
}

impl Replies {
    pub(super) fn new(
        inbound: BoxStream<'static, Result<ProcessingRequest, Status>>,
        machine: Machine,
        extension: Option<Extension>,
    ) -> Self {
        Self {
            inbound,
            phase: Phase::Reading(machine),
            work: None,
            extension,
            patience: None,
            extended: false,
        }
    }

    fn begin(&mut self, mut machine: Machine, message: ProcessingRequest) {
        let work = async move {
            let reply = machine.step(message.request).await;
            (reply, machine)
        };
        match &mut self.work {
            Some(place) => place.set(work),
            None => self.work = Some(ReusableBoxFuture::new(work)),
        }
        (self.phase, self.patience, self.extended) = (Phase::Working, None, false);
    }

    /// True once it is time to ask for more time.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(extension) = self.extension.filter(|_| !self.extended) else {
            return false;
        };
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(sleep(extension.after)));
        self.extended = patience.as_mut().poll(context).is_ready();
        self.extended
    }
}

impl Stream for Replies {
    type Item = ProcessingResponse;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ProcessingResponse>> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return Poll::Ready(None),
                Phase::Reading(machine) => match self.inbound.as_mut().poll_next(context) {
                    Poll::Pending => {
                        self.phase = Phase::Reading(machine);
                        return Poll::Pending;
                    }
                    // An error or the end of the inbound side is Envoy's: the request is over.
                    Poll::Ready(None | Some(Err(_))) => return Poll::Ready(None),
                    Poll::Ready(Some(Ok(message))) => self.begin(machine, message),
                },
                Phase::Working => {
                    let Some(work) = &mut self.work else {
                        return Poll::Ready(None);
                    };
                    if let Poll::Ready((reply, machine)) = work.poll(context) {
                        if !machine.is_done() {
                            self.phase = Phase::Reading(machine);
                        }
                        return Poll::Ready(Some(reply));
                    }
                    self.phase = Phase::Working;
                    let wait = self.extension.map(|extension| extension.wait);
                    return match (self.is_late(context), wait) {
                        (true, Some(wait)) => Poll::Ready(Some(waiting(wait))),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }
}
