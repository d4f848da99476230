//! Bounds of a replica whose true numbers are too many for most tests (data-plane.md 15.1).

use crate::front::{streams, unsolicited};
use crate::router::server;

/// What may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Streams of Envoy's ext_proc filter.
    pub router_streams: usize,
    /// GET streams of clients.
    pub client_streams: usize,
    /// Streams of backend sessions.
    pub backend_streams: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            router_streams: server::MAX_STREAMS,
            client_streams: streams::MAX_STREAMS,
            backend_streams: unsolicited::MAX_STREAMS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_a_replica_has_the_documented_bounds() {
        let documented = Bounds {
            router_streams: 100_000,
            client_streams: 20_000,
            backend_streams: 2_000,
        };
        assert_eq!(Bounds::default(), documented);
    }
}
