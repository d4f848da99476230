//! File and Secret watch become one stream of updates (data-plane.md 3.1): while the watch is healthy it decides; when it
//! is lost for 30 s the file does, and the watch again when it is back.

use super::document::Dialect;
use super::watch::{Source, Update, from_secret};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What the watch of the Secret says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The document.
    Document(Vec<u8>),
    /// The Secret, or its key, does not exist.
    Missing,
    /// The API server cannot be watched.
    Lost,
}

struct Sources {
    grace: Duration,
    dialect: Dialect,
    file: Option<Update>,
    watch_decides: bool,
    lost_at: Option<Instant>,
}

impl Sources {
    fn on_file(&mut self, update: Update) -> Option<Update> {
        self.file = Some(update.clone());
        (!self.watch_decides).then_some(update)
    }

    fn on_watch(&mut self, event: WatchEvent, now: Instant) -> Option<Update> {
        if event == WatchEvent::Lost {
            self.lost_at.get_or_insert(now);
            return None;
        }
        self.lost_at = None;
        self.watch_decides = true;
        Some(match event {
            WatchEvent::Document(bytes) => from_secret(&bytes, self.dialect),
            _ => Update::Bad(
                Source::Watch,
                "the config Secret does not exist or has no config.yaml".to_owned(),
            ),
        })
    }

    fn fall_back_at(&self) -> Option<Instant> {
        self.lost_at
            .filter(|_| self.watch_decides)
            .map(|lost| lost + self.grace)
    }

    fn on_grace_over(&mut self) -> Option<Update> {
        self.watch_decides = false;
        self.file.clone()
    }
}

/// How long a lost watch still decides.
pub const GRACE: Duration = Duration::from_secs(30);

/// Merges the two until the file watch ends or nobody listens.
pub async fn merge(
    mut file: mpsc::Receiver<Update>,
    mut watch: mpsc::Receiver<WatchEvent>,
    updates: mpsc::Sender<Update>,
    (grace, dialect): (Duration, Dialect),
) {
    let mut sources = Sources {
        grace,
        dialect,
        file: None,
        watch_decides: false,
        lost_at: None,
    };
    loop {
        let deadline = sources.fall_back_at();
        let update = tokio::select! {
            update = file.recv() => match update {
                Some(update) => sources.on_file(update),
                None => return,
            },
            Some(event) = watch.recv() => sources.on_watch(event, Instant::now()),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => sources.on_grace_over(),
        };
        if let Some(update) = update
            && updates.send(update).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(update: Option<Update>) -> Option<(Source, bool)> {
        update.map(|update| match update {
            Update::Good(source, _) => (source, true),
            Update::Bad(source, _) => (source, false),
        })
    }

    #[tokio::test]
    async fn the_watch_decides_while_healthy_and_the_file_after_the_grace() {
        let mut sources = Sources {
            grace: GRACE,
            dialect: Dialect::default(),
            file: None,
            watch_decides: false,
            lost_at: None,
        };
        let read = || crate::config::document::read(b"servers: []").unwrap();
        let file = || Update::Good(Source::File, std::sync::Arc::new(read()));
        let now = Instant::now();
        assert_eq!(source(sources.on_file(file())), Some((Source::File, true)));
        assert_eq!(source(sources.on_watch(WatchEvent::Lost, now)), None);
        assert_eq!(sources.fall_back_at(), None, "the file decides already");
        assert_eq!(
            source(sources.on_watch(WatchEvent::Document(b"servers: []".to_vec()), now)),
            Some((Source::Watch, true))
        );
        assert_eq!(source(sources.on_file(file())), None);
        assert_eq!(
            source(sources.on_watch(WatchEvent::Missing, now)),
            Some((Source::Watch, false))
        );
        sources.on_watch(WatchEvent::Lost, now);
        sources.on_watch(WatchEvent::Lost, now + GRACE);
        assert_eq!(sources.fall_back_at(), Some(now + GRACE), "the first loss counts");
        assert_eq!(source(sources.on_grace_over()), Some((Source::File, true)));
        assert_eq!(source(sources.on_file(file())), Some((Source::File, true)));
        assert_eq!(
            source(sources.on_watch(WatchEvent::Document(b"servers: []".to_vec()), now)),
            Some((Source::Watch, true))
        );
    }
}
