//! The body of a request: read whole, within a limit and a deadline (data-plane.md 15.1).

use crate::decision::head::too_large;
use crate::protocol::reply::{INVALID_REQUEST, PARSE_ERROR, Refusal};
use axum::body::{Body, Bytes};
use std::time::Duration;
use tokio::time::timeout;

const BODY_READ: Duration = Duration::from_secs(30);

/// Reads it.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match timeout(BODY_READ, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(400, PARSE_ERROR, "parse error", "body")),
        Err(_) => Err(Refusal::new(
            408,
            INVALID_REQUEST,
            "request body timed out",
            "body_timeout",
        )),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt as _, stream};
    use std::convert::Infallible;
    use tokio::time::{Instant, sleep};

    #[tokio::test]
    async fn s23_a_body_has_its_size() {
        let body = |size: usize| Body::from(vec![b' '; size]);
        assert_eq!(read_body(body(100), 100).await.unwrap().len(), 100);
        assert_eq!(read_body(body(101), 100).await.unwrap_err().status, 413);
        // Without a length it is found out by reading.
        let chunks = || stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 10])));
        let endless = Body::from_stream(chunks());
        assert_eq!(read_body(endless, 100).await.unwrap_err().status, 413);
        let fits = Body::from_stream(chunks().take(10));
        assert_eq!(read_body(fits, 100).await.unwrap().len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn s23_a_client_that_sends_slowly_is_gone_after_thirty_seconds() {
        let begun = Instant::now();
        let drops = stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        let refused = read_body(Body::from_stream(drops), 1000).await.unwrap_err();
        assert_eq!((refused.status, begun.elapsed().as_secs()), (408, 30));
    }
}
