//! Waiting for a condition with a deadline. The failure says what was awaited, for how long, and the last reason.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// No single look may outlast this: a hanging look must not eat the deadline in silence.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// A condition that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {} for {what}: {last}", crate::progress::human(*.waited))]
pub struct Unmet {
    /// What was awaited, as said by the caller.
    pub what: String,
    /// How long it was awaited.
    pub waited: Duration,
    /// What the last look found instead.
    pub last: String,
}

/// Looks again and again until `look` returns `Ok`, at most for `deadline`. Each `Err` says what is still missing; the
/// last one is part of the failure. Pauses grow from 20 to 250 ms.
///
/// # Errors
/// When the deadline passes first.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, Unmet> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let limit = LONGEST_LOOK.min(left.max(Duration::from_secs(1)));
        let last = match tokio::time::timeout(limit, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(last)) => last,
            Err(_) => "the look itself did not end in time".to_owned(),
        };
        if begun.elapsed() + pause > deadline {
            return Err(Unmet {
                what: what.to_owned(),
                waited: begun.elapsed(),
                last,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_failure_names_what_was_awaited_and_the_last_reason() {
        let mut looks = 0;
        let unmet = eventually(Duration::from_millis(100), "the moon", async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}: still a crescent"))
        })
        .await
        .unwrap_err();
        let text = unmet.to_string();
        assert!(
            text.contains("the moon") && text.contains("still a crescent"),
            "{text}"
        );
        assert!(looks > 1);
    }

    #[tokio::test]
    async fn the_first_success_ends_the_wait() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(5), "three", async || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err("not yet".to_owned())
            }
        });
        assert_eq!(value.await.unwrap(), 3);
    }
}
