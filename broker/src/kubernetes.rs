//! The broker's only use of the Kubernetes API: it watches its own config Secret by name (data-plane.md 3.1). Nothing of
//! the routing path depends on it.

pub mod secret;
