//! Container images without a container engine: layers, images and indexes as plain values, the same bytes for the same
//! input on every machine, written as an OCI layout (olm.md 6.6).

pub mod chart;
pub mod contents;
pub mod image;
pub mod layer;
pub mod layout;
pub mod platform;
pub mod recipe;
pub mod registry;
pub mod sbom;
pub mod traces;

/// Registry path of every image of the project.
pub const REGISTRY: &str = "ghcr.io/mcp-gateway-operator";
/// The user in the images: nobody, by number, so that `runAsNonRoot` can be checked.
pub const USER: &str = "65532:65532";
