//! The rules over one bundle, a file a group.

pub(crate) mod crds;
pub(crate) mod csv;
pub(crate) mod format;
pub(crate) mod hub;
pub(crate) mod images;
pub(crate) mod permissions;
pub(crate) mod pods;
pub(crate) mod scorecard;
pub(crate) mod webhooks;
