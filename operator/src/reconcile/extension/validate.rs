//! Second call: rows 1–11 of operator.md 2.1, and the blueprint of the children. Pure. A [`Validated`] can only be
//! made here, so nothing is built for an extension that was not accepted.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use mcp_gateway_api::{
    acceptance::{Accepted, Finding},
    conditions::ExtensionReason,
    config::{GatewayConfig, RenderedConfig, parse},
    extension::MCPGatewayExtension,
    hosts, names,
    object_key::ObjectKey,
};
use serde_json::Value;
use sha2::Sha256;

use super::{
    fetch::{Fetched, OWN_SECRETS, beside},
    news::Change,
};
use crate::{
    blueprint::{Blueprint, Settings, SigningKey},
    brokers::Contents,
    children::{
        command::{MAX_BODY_FLAG, PRIVATE_HOST_FLAG},
        deployment::{is_for, live_tokens},
        env::{self, STORE_KEY},
        signing_key, trusted_headers,
    },
    document::{Document, Sources, document},
    policies::PolicyInputs,
    preserve::value_of,
    reconcile::ReconcileError,
    secrets::{Demand, MAX_BUNDLE, Reading, Readings, SecretProblem, certificates_for, kept, value_for},
};

/// What is to be done with an extension.
pub(crate) enum Verdict {
    /// Rows 1–11 hold.
    Accepted(Box<Validated>),
    /// Row 10 or 11: nothing is changed, nothing is removed.
    Paused(Paused),
    /// One of rows 1–9: what was programmed goes.
    Refused(Refused),
}

/// An accepted extension, ready to be built.
pub(crate) struct Validated {
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) accepted: Accepted,
    pub(super) config: RenderedConfig,
    pub(super) contents: Contents,
    /// The former document stays, because the one that is wanted would be too large: what makes it so.
    pub(super) oversize: Option<String>,
    pub(super) trusted_pair: Vec<NewHalf>,
    /// [`OWN_SECRETS`] as they were read.
    pub(super) stored: [Option<Arc<Value>>; 2],
    /// How the document differs from the one that is stored.
    pub(super) change: Change,
    inconclusive: bool,
}

impl Validated {
    /// True when some input could not be read now and a former value stands in.
    pub(super) fn inconclusive(&self) -> bool {
        self.inconclusive
    }

    /// True while the broker keeps its former image because others roll.
    pub(super) fn awaits_turn(&self) -> bool {
        self.blueprint.broker_image != self.blueprint.settings.broker_image
    }
}

/// One Secret of a generated key pair that has to be made.
pub(super) struct NewHalf {
    pub(super) name: String,
    pub(super) pem: String,
}

/// An extension whose Secrets are not in order.
pub(crate) struct Paused {
    pub(super) extension: Arc<MCPGatewayExtension>,
    pub(super) reason: ExtensionReason,
    pub(super) message: String,
    pub(super) inconclusive: bool,
}

/// An extension that may not have its Gateway.
pub(crate) struct Refused {
    pub(super) extension: Arc<MCPGatewayExtension>,
    pub(super) findings: Vec<Finding>,
}

pub(crate) fn validate(fetched: Fetched, settings: &Arc<Settings>) -> Result<Verdict, ReconcileError> {
    let judgement = fetched.snapshot.judgement(&fetched.key).cloned();
    let (findings, accepted) = judgement.map_or((Vec::new(), None), |found| (found.findings, found.accepted));
    let Some(accepted) = accepted else {
        return Ok(Verdict::Refused(Refused {
            extension: fetched.extension,
            findings,
        }));
    };
    let inputs = match inputs(&fetched) {
        Ok(inputs) => inputs,
        Err(SecretProblem {
            reason,
            message,
            inconclusive,
        }) => {
            return Ok(Verdict::Paused(Paused {
                extension: fetched.extension,
                reason,
                message,
                inconclusive,
            }));
        }
    };
    let signing_key = signing_key(&fetched)?;
    let former = former(&fetched)?;
    let document = document(&Sources {
        snapshot: &fetched.snapshot,
        extension: &fetched.extension,
        accepted: &accepted,
        secrets: &fetched.secrets,
        policy_inputs: PolicyInputs {
            secrets: &fetched.secrets,
            config_maps: &fetched.config_maps,
        },
        ca_bundle: inputs.ca_bundle,
        former: former.as_ref(),
    })?;
    let hash = env_hash(&fetched, &signing_key, &inputs);
    let blueprint = blueprint(&fetched, &accepted, settings, (&document, hash));
    let change = Change::to(&document.rendered.hash, &document.contents, former.as_ref());
    let Document {
        rendered,
        contents,
        oversize,
        inconclusive,
    } = document;
    Ok(Verdict::Accepted(Box::new(Validated {
        blueprint: Arc::new(blueprint),
        accepted,
        config: rendered,
        contents,
        oversize,
        trusted_pair: inputs.trusted.new_halves,
        stored: OWN_SECRETS.map(|name| kept(&fetched.secrets, &beside(&fetched.key, name))),
        change,
        inconclusive,
    })))
}

/// What the Secrets of the spec contribute.
struct Inputs<'a> {
    ca_bundle: &'a str,
    trusted: Trusted,
}

/// The trusted-headers key: its public half, and what has to be made first.
#[derive(Default)]
struct Trusted {
    public: Vec<u8>,
    new_halves: Vec<NewHalf>,
}

fn inputs(fetched: &Fetched) -> Result<Inputs<'_>, SecretProblem> {
    let spec = &fetched.extension.spec;
    let trusted = trusted(fetched)?;
    if let Some(store) = &spec.session_store {
        let secret = beside(&fetched.key, &store.secret_name);
        let field = "sessionStore.secretName";
        value_for(
            &fetched.secrets,
            &Demand {
                secret: &secret,
                key: STORE_KEY,
                field,
                label: true,
            },
        )?;
    }
    let ca_bundle = match &spec.ca_cert_bundle_ref {
        Some(reference) => {
            let secret = beside(&fetched.key, &reference.name);
            let demand = Demand {
                secret: &secret,
                key: &reference.key,
                field: "caCertBundleRef.name",
                label: true,
            };
            certificates_for(&fetched.secrets, &demand, MAX_BUNDLE)?
        }
        None => "",
    };
    Ok(Inputs { ca_bundle, trusted })
}

fn trusted(fetched: &Fetched) -> Result<Trusted, SecretProblem> {
    let Some(wanted) = &fetched.extension.spec.trusted_headers_key else {
        return Ok(Trusted::default());
    };
    let secret = beside(&fetched.key, &wanted.secret_name);
    if wanted.generate.is_enabled() {
        return generated(fetched, &secret);
    }
    let field = "trustedHeadersKey.secretName";
    let demand = Demand {
        secret: &secret,
        key: trusted_headers::KEY,
        field,
        label: false,
    };
    let public = value_for(&fetched.secrets, &demand)?.to_vec();
    Ok(Trusted {
        public,
        new_halves: Vec::new(),
    })
}

/// The generated pair: made when both halves are missing, the public one derived again, the private one never.
fn generated(fetched: &Fetched, public_key: &ObjectKey) -> Result<Trusted, SecretProblem> {
    let private_key = beside(&fetched.key, &trusted_headers::private_name(&public_key.name));
    let private = half(fetched, &private_key)?;
    let public = half(fetched, public_key)?;
    let invalid = |secret: &ObjectKey, what: &str| SecretProblem {
        reason: ExtensionReason::SecretInvalid,
        message: format!("secret {secret}: {what}"),
        inconclusive: false,
    };
    let new = |key: &ObjectKey, pem: &str| NewHalf {
        name: key.name.clone(),
        pem: pem.to_owned(),
    };
    let derive = |pem: &str| {
        trusted_headers::public_of(pem).map_err(|error| invalid(&private_key, &error.to_string()))
    };
    match (private, public) {
        (Some(_), Some(public)) => Ok(Trusted {
            public,
            new_halves: Vec::new(),
        }),
        (None, Some(_)) => {
            let message = format!("is missing; delete secret {public_key} to generate a new pair");
            Err(invalid(&private_key, &message))
        }
        (Some(private), None) => {
            let pem = derive(&String::from_utf8_lossy(&private))?;
            Ok(Trusted {
                public: pem.clone().into_bytes(),
                new_halves: vec![new(public_key, &pem)],
            })
        }
        (None, None) => {
            let private = fetched
                .fresh_pair
                .as_deref()
                .ok_or_else(|| invalid(&private_key, "cannot be made"))?;
            let pem = derive(private)?;
            let new_halves = vec![new(&private_key, private), new(public_key, &pem)];
            Ok(Trusted {
                public: pem.into_bytes(),
                new_halves,
            })
        }
    }
}

/// One half of a pair of ours; a foreign Secret of that name is row 12 (T29).
fn half(fetched: &Fetched, key: &ObjectKey) -> Result<Option<Vec<u8>>, SecretProblem> {
    let uid = fetched.extension.metadata.uid.as_deref();
    match fetched.secrets.get(key) {
        Some(Reading::Present(content)) if content.controller.as_deref() == uid => Ok(Some(
            content.value(trusted_headers::KEY).unwrap_or_default().to_vec(),
        )),
        Some(Reading::Present(_)) => Err(SecretProblem {
            reason: ExtensionReason::InvalidMCPGatewayExtension,
            message: format!(
                "conflict: Secret {key} exists and is not controlled by this MCPGatewayExtension; rename or delete it"
            ),
            inconclusive: false,
        }),
        Some(Reading::Absent) => Ok(None),
        Some(Reading::Unknown) | None => Err(SecretProblem {
            reason: ExtensionReason::SecretNotFound,
            message: format!("secret {key} cannot be read now (spec.trustedHeadersKey.secretName); retrying"),
            inconclusive: true,
        }),
    }
}

fn signing_key(fetched: &Fetched) -> Result<SigningKey, ReconcileError> {
    let key = beside(&fetched.key, names::SIGNING_KEY_SECRET);
    match fetched.secrets.get(&key) {
        Some(Reading::Present(content)) => Ok(signing_key::choose(
            content.value(signing_key::KEY),
            fetched.random,
        )),
        Some(Reading::Absent) => Ok(signing_key::choose(None, fetched.random)),
        Some(Reading::Unknown) | None => Err(ReconcileError::SecretUnknown(key.to_string())),
    }
}

/// The document as it is now. Entries stay in it while their inputs cannot be read, so nothing is written when it cannot
/// be read itself (T42).
fn former(fetched: &Fetched) -> Result<Option<GatewayConfig>, ReconcileError> {
    let key = beside(&fetched.key, names::CONFIG_SECRET);
    match fetched.secrets.get(&key) {
        Some(Reading::Present(content)) => {
            let yaml = content.value(names::CONFIG_KEY).map(std::str::from_utf8);
            Ok(yaml.and_then(Result::ok).and_then(|yaml| parse(yaml).ok()))
        }
        Some(Reading::Absent) => Ok(None),
        Some(Reading::Unknown) | None => Err(ReconcileError::SecretUnknown(key.to_string())),
    }
}

/// Changes when a value that the broker reads from its env changes, and tells nothing about it (T30, T31).
fn env_hash(fetched: &Fetched, key: &SigningKey, inputs: &Inputs<'_>) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else {
        return String::new();
    };
    let mut part = |name: &str, value: &[u8]| {
        for bytes in [name.as_bytes(), value] {
            mac.update(&bytes.len().to_be_bytes());
            mac.update(bytes);
        }
    };
    for secret in env::secret_keys(&fetched.extension.spec) {
        let read = value_in(
            &fetched.secrets,
            &beside(&fetched.key, &secret.secret),
            secret.key,
        );
        match (secret.secret.as_str(), secret.key) {
            (names::SIGNING_KEY_SECRET, signing_key::KEY) => part(secret.variable, key.expose()),
            _ if secret.variable == "TRUSTED_HEADER_PUBLIC_KEY" => {
                part(secret.variable, &inputs.trusted.public);
            }
            _ => part(secret.variable, read),
        }
    }
    hex::encode(mac.finalize().into_bytes())
}

fn value_in<'r>(readings: &'r Readings, key: &ObjectKey, member: &str) -> &'r [u8] {
    match readings.get(key) {
        Some(Reading::Present(content)) => content.value(member).unwrap_or_default(),
        _ => &[],
    }
}

fn blueprint(
    fetched: &Fetched,
    accepted: &Accepted,
    settings: &Arc<Settings>,
    (document, env_secrets_hash): (&Document, String),
) -> Blueprint {
    let spec = &fetched.extension.spec;
    let (gateway, listener) = (accepted.gateway(), accepted.listener());
    let world = &fetched.snapshot.world;
    let command = fetched
        .deployment
        .as_ref()
        .and_then(|live| live_tokens(live, "command"))
        .unwrap_or_default();
    let same_gateway = fetched
        .deployment
        .as_ref()
        .is_some_and(|live| is_for(live, &gateway.key));
    let bound_port = hosts::gateway_service(world, gateway, listener.port)
        .and_then(|service| service.port(Some(listener.port)))
        .and_then(mcp_gateway_api::service::ServicePort::numeric_target)
        .unwrap_or(listener.port);
    let revision_of = |labels: &mcp_gateway_api::selector::Labels| labels.get("istio.io/rev").cloned();
    Blueprint {
        extension: Arc::clone(&fetched.extension),
        key: fetched.key.clone(),
        gateway: gateway.key.clone(),
        bound_port,
        public_host: accepted.public_host().to_owned(),
        private_host: hosts::private_host(
            world,
            (gateway, listener),
            spec.private_host.as_deref(),
            value_of(&command, PRIVATE_HOST_FLAG).filter(|_| same_gateway),
            &settings.cluster_domain,
        ),
        revision: revision_of(&gateway.labels)
            .or_else(|| revision_of(&world.namespace_labels(&gateway.key.namespace))),
        config_yaml: document.rendered.yaml.as_str().into(),
        env_secrets_hash,
        fresh_signing_key: signing_key::choose(None, fetched.random),
        broker_image: fetched.broker_image.clone(),
        users_max_body: value_of(&command, MAX_BODY_FLAG).and_then(|bytes| bytes.parse().ok()),
        settings: Arc::clone(settings),
    }
}
