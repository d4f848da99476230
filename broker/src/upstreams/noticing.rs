//! The notice stream of a server: kept open, its notices posted into slots (data-plane.md 6.2).

use super::peer::{Hello, Peer};
use crate::protocol::header;
use crate::transport::exchange;
use crate::transport::notices::{Notice, Notices};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A notice stream without a byte, not even a comment, is lost.
const NOTICE_IDLE: Duration = Duration::from_secs(90);
/// A notice stream that lasted longer was a good one: the next is opened without a longer pause.
const LASTING: Duration = Duration::from_secs(10);
/// A notice waits this long for others, so that a server that changes its lists in a loop costs one list per beat.
const NOTICE_SETTLE: Duration = Duration::from_millis(100);

/// Waits for a notice and those that come with it.
pub(super) async fn noticed(notices: Option<Arc<Notices>>) {
    match notices {
        Some(notices) => {
            notices.wait().await;
            sleep(NOTICE_SETTLE).await;
        }
        None => std::future::pending().await,
    }
}

/// Keeps the notice stream open; ends when the server has none (D62).
pub(super) async fn watch_notices(peer: Arc<Peer>, hello: Hello) {
    let mut pause = FIRST_PAUSE;
    let mut last_event: Option<String> = None;
    loop {
        if let Ok(response) = peer.open_notices(&hello, last_event.as_deref()).await {
            let status = response.status().as_u16();
            let content_type = response
                .headers()
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let has_none = matches!(status, 405 | 404 | 501)
                || (response.status().is_success() && !header::is_sse(content_type));
            if has_none {
                return;
            }
            if response.status().is_success() {
                let opened = Instant::now();
                let mut remember = |id: &str| last_event = Some(id.to_owned());
                let reverse = exchange::listen(response, NOTICE_IDLE, &peer.notices, &mut remember).await;
                peer.refuse(&reverse, &hello).await;
                if opened.elapsed() > LASTING {
                    pause = FIRST_PAUSE;
                }
                // Something may have changed while nobody listened.
                peer.notices.post(Notice::Tools);
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
