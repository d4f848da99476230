//! The terminal that the process was started in. Closing it ends a gateway that somebody runs in front of them; SIGHUP
//! otherwise means that files are to be read again (`config::watch`), also when it is sent by hand to such a gateway.

use std::io::{IsTerminal as _, stderr, stdin, stdout};
use tokio::signal::unix::Signal;

/// Which of the standard streams are a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal([bool; 3]);

impl Terminal {
    /// As it is now.
    pub fn now() -> Self {
        Self([
            stdin().is_terminal(),
            stdout().is_terminal(),
            stderr().is_terminal(),
        ])
    }

    /// Comes when a stream that was a terminal is none any more, which the system says by `hangup`. Without a terminal
    /// (a service, `nohup`) it never comes.
    pub async fn closed(self, hangup: &mut Signal) {
        while hangup.recv().await.is_some() {
            if self.lost_one(Self::now()) {
                tracing::info!(component = "broker", "The terminal was closed");
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn lost_one(self, now: Self) -> bool {
        self.0.into_iter().zip(now.0).any(|(was, is)| was && !is)
    }
}

#[cfg(test)]
mod tests {
    use super::Terminal;

    #[test]
    fn only_a_terminal_can_be_closed() {
        let [service, piped, window] = [[false; 3], [true, false, false], [true; 3]].map(Terminal);
        assert!(window.lost_one(service) && piped.lost_one(service));
        assert!(!window.lost_one(window), "somebody sent the signal by hand");
        assert!(!service.lost_one(service));
    }
}
