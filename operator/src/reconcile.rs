//! Evaluation of work items: one module for each kind. An extension goes through five calls, fetch → validate → build
//! → apply → status, each of which takes only what the one before returned.

use std::{sync::Arc, time::Instant};

use crate::{
    context::Context,
    queue::{Outcome, WorkItem},
};

pub(crate) mod auth_policy;
pub(crate) mod brokers;
pub(crate) mod claims;
pub(crate) mod extension;
pub(crate) mod listener_status;
pub(crate) mod registration;
pub(crate) mod route_status;
pub(crate) mod status;
pub(crate) mod supplementary;
pub(crate) mod upgradeable;
pub(crate) mod virtual_server;
pub(crate) mod webhook;

/// A run that has to be repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] crate::apply::ApplyError),
    /// A status could not be written.
    #[error("write status of {what}: {source}")]
    Status {
        /// The object.
        what: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Another request failed.
    #[error("{step}: {source}")]
    Request {
        /// What was tried.
        step: &'static str,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The config document could not be made.
    #[error(transparent)]
    Document(#[from] mcp_gateway_api::config::ConfigError),
    /// A Secret that decides could not be read.
    #[error("secret {0} cannot be read now")]
    SecretUnknown(String),
    /// A key could not be made.
    #[error("make key or certificate: {0}")]
    Key(String),
}

impl ReconcileError {
    /// A request that failed in a step; for `map_err`.
    pub(crate) fn request(step: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Request {
            step,
            source: Box::new(source),
        }
    }

    /// A status that could not be written.
    pub(crate) fn status(what: String, source: kube::Error) -> Self {
        Self::Status {
            what,
            source: Box::new(source),
        }
    }

    /// True when the API server answered with this HTTP status.
    pub(crate) fn is_answer(&self, code: u16) -> bool {
        match self {
            Self::Status { source, .. } | Self::Request { source, .. } => {
                matches!(source.as_ref(), kube::Error::Api(status) if status.code == code)
            }
            Self::Apply(crate::apply::ApplyError::Request { source, .. }) => {
                matches!(source.as_ref(), kube::Error::Api(status) if status.code == code)
            }
            _ => false,
        }
    }
}

/// Runs one item to its end and says when to look again.
pub(crate) async fn run(context: Arc<Context>, item: &WorkItem) -> Outcome {
    let start = Instant::now();
    let result = match item {
        WorkItem::Extension(key) => extension::reconcile(&context, key).await,
        WorkItem::Registration(key) => registration::reconcile(&context, key).await,
        WorkItem::VirtualServer(key) => virtual_server::reconcile(&context, key).await,
        WorkItem::AuthPolicy(key) => auth_policy::reconcile(&context, key).await,
        WorkItem::ListenerStatus(key) => listener_status::reconcile(&context, key).await,
        WorkItem::RouteStatus(key) => route_status::reconcile(&context, key).await,
        WorkItem::Brokers(namespace) => brokers::reconcile(&context, namespace).await,
        WorkItem::Claims => claims::reconcile(&context).await,
        WorkItem::WebhookCertificates => webhook::reconcile(&context).await,
        WorkItem::SupplementaryWebhooks => supplementary::reconcile(&context).await,
        WorkItem::Upgradeable => upgradeable::reconcile(&context).await,
    };
    let (outcome, label) = match &result {
        Ok(Outcome::Failed) => (Outcome::Failed, "error"),
        Ok(outcome) => (*outcome, "ok"),
        Err(error) => {
            tracing::warn!(kind = item.kind(), name = %item.name(), %error, "Evaluation failed and is repeated");
            (Outcome::Failed, "error")
        }
    };
    context.metrics.reconciled(item.kind(), label, start.elapsed());
    outcome
}

#[cfg(test)]
mod tests;
