//! What a judgement needs beside the world: objects that are not watched (Secrets and ConfigMaps, by their metadata
//! only) and what was read live. A fact that could not be had is absent and gives no warning.

use std::collections::{BTreeMap, BTreeSet};

use super::Subject;
use crate::{gateway::Gateway, names, object_key::ObjectKey};

/// Facts for one judgement.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Secrets of the object's namespace, by name.
    pub secrets: BTreeMap<String, ObjectFact>,
    /// ConfigMaps of the object's namespace, by name.
    pub config_maps: BTreeMap<String, ObjectFact>,
    /// Whether the cluster serves kind EnvoyFilter.
    pub envoy_filter_served: Option<bool>,
    /// The target Gateway of an extension by a live GET: `Some(None)` when it does not exist, `None` when it was not
    /// read and the world's is good enough.
    pub live_gateway: Option<Option<Gateway>>,
    /// Extensions that the world still shows but that a live GET did not find as rivals any more.
    pub former_rivals: BTreeSet<ObjectKey>,
}

/// Existence and labels of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectFact {
    /// It does not exist.
    Missing,
    /// It exists.
    Present {
        /// It carries the label `mcp.kuadrant.io/secret=true`.
        labelled: bool,
        /// UID of its controlling owner.
        controller_uid: Option<String>,
    },
}

impl ObjectFact {
    /// An object that exists, with its labels and controlling owner.
    #[must_use]
    pub fn present(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Self {
        let label = meta
            .labels
            .as_ref()
            .and_then(|labels| labels.get(names::SECRET_LABEL));
        Self::Present {
            labelled: label.is_some_and(|value| value == "true"),
            controller_uid: meta
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone()),
        }
    }
}

/// Names to look up in the object's namespace before [`super::judge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
}

/// What the rules will ask about `subject`.
#[must_use]
pub fn needs(subject: &Subject) -> Needs {
    let mut needs = Needs::default();
    match subject {
        Subject::Extension(extension) => {
            let spec = &extension.spec;
            needs
                .secrets
                .extend(spec.trusted_headers_key.iter().map(|key| key.secret_name.clone()));
            needs
                .secrets
                .extend(spec.session_store.iter().map(|store| store.secret_name.clone()));
            needs
                .secrets
                .extend(spec.ca_cert_bundle_ref.iter().map(|bundle| bundle.name.clone()));
        }
        Subject::Registration(registration) => {
            let spec = &registration.spec;
            needs.secrets.extend(
                spec.credential_ref
                    .iter()
                    .map(|credential| credential.name.clone()),
            );
            needs
                .secrets
                .extend(spec.ca_cert_secret_ref.iter().map(|bundle| bundle.name.clone()));
        }
        Subject::VirtualServer(_) => {}
        Subject::Policy(policy) => {
            for provider in policy
                .spec
                .authentication
                .iter()
                .flat_map(|auth| &auth.jwt.providers)
            {
                let jwks = &provider.jwks;
                needs
                    .secrets
                    .extend(jwks.secret_ref.iter().map(|secret| secret.name.clone()));
                needs
                    .config_maps
                    .extend(jwks.config_map_ref.iter().map(|map| map.name.clone()));
                let bundle = jwks
                    .remote
                    .iter()
                    .filter_map(|remote| remote.ca_cert_secret_ref.as_ref());
                needs.secrets.extend(bundle.map(|bundle| bundle.name.clone()));
            }
        }
    }
    needs
}
