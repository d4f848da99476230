//! The part of a kubelet's API that the API server proxies for `kubectl logs`.

/// The port of the kubelet API.
pub(crate) const PORT: u16 = 10250;
