//! A real Kubernetes control plane, Istio and Envoy as plain processes in an unprivileged sandbox, and a node that plays
//! pods as processes. `kit run -- COMMAND` boots it around a command; tests inside use [`Kit`].

mod apply;
mod audit;
mod binaries;
mod cache;
mod certificates;
mod cli;
mod command;
mod control_plane;
mod crds;
mod doctor;
mod envoy;
mod eventually;
mod forward;
mod gateways;
mod hosts;
mod init;
mod inside;
mod kit;
mod kubelet;
mod node;
mod objects;
mod progress;
mod sandbox;
mod selftest;
mod servers;
mod state_dir;
mod supervisor;

pub use apply::{ApplyError, apply, apply_yaml, parse_yaml};
pub use audit::{AuditMark, Request};
pub use binaries::Program;
pub use cli::{Arguments, run};
pub use eventually::{Unmet, eventually};
pub use kit::{Component, Kit, KitError, Stopped};
pub use node::images::Image;
