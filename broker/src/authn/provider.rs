//! One issuer of tokens: what it demands and where its keys are.

use super::remote_keys::RemoteKeys;
use super::{Authenticator, Unauthenticated};
use crate::auth::jwks::{Algorithm, KeySet};
use crate::auth::jwt::{Demands, TokenError, Unverified, VerifiedClaims};
use mcp_gateway_api::broker_status::KeyProblem;
use mcp_gateway_api::config::PolicyProvider;
use std::sync::Arc;

/// Accepted when a provider names no algorithm (operator.md 10.1).
const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];
/// Clock leeway when a provider names none, seconds.
const LEEWAY: u64 = 30;

/// An issuer.
pub struct Provider {
    /// What its tokens must say.
    pub demands: Demands,
    /// Scopes that a token must have.
    pub required_scopes: Vec<String>,
    keys: Keys,
}

enum Keys {
    Fixed(KeySet),
    Remote(Arc<RemoteKeys>),
    Unusable(String),
}

impl Provider {
    /// A provider of the config. `before` are those of the former config: their fetched keys are taken over.
    pub fn new(entry: &PolicyProvider, authenticator: &Authenticator, before: &[Self]) -> Self {
        let named = entry.algorithms.iter().filter_map(|name| Algorithm::named(name));
        let audiences = if entry.audiences.is_empty() {
            vec![authenticator.default_audience.clone()]
        } else {
            entry.audiences.clone()
        };
        Self {
            demands: Demands {
                issuer: entry.issuer.clone(),
                audiences,
                algorithms: if entry.algorithms.is_empty() {
                    ALGORITHMS.to_vec()
                } else {
                    named.collect()
                },
                leeway: entry.leeway_seconds.map_or(LEEWAY, u64::from),
            },
            required_scopes: entry.required_scopes.clone(),
            keys: keys(entry, authenticator, before),
        }
    }

    /// Checks a token of this issuer.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    pub async fn verify(&self, token: &str, now: u64) -> Result<VerifiedClaims, Unauthenticated> {
        let with = |keys: &KeySet| Unverified::read(token)?.verify(keys, &self.demands, now);
        let remote = match &self.keys {
            Keys::Fixed(keys) => return with(keys).map_err(Unauthenticated::Invalid),
            Keys::Unusable(_) => return Err(Unauthenticated::KeysUnavailable),
            Keys::Remote(remote) => remote,
        };
        let checked = remote.current().map(|keys| with(&keys));
        match checked {
            Some(Err(TokenError::UnknownKey)) | None => {
                remote.refresh().await;
                let keys = remote.current().ok_or(Unauthenticated::KeysUnavailable)?;
                with(&keys).map_err(Unauthenticated::Invalid)
            }
            Some(verdict) => verdict.map_err(Unauthenticated::Invalid),
        }
    }

    /// True when tokens can be verified now.
    pub fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::Fixed(_) => true,
            Keys::Unusable(_) => false,
            Keys::Remote(remote) => remote.current().is_some(),
        }
    }

    /// Waits a moment for the keys, when they are fetched.
    pub async fn load(&self) {
        if let Keys::Remote(remote) = &self.keys {
            remote.refresh().await;
        }
    }

    /// What is wrong with its keys.
    pub fn problem(&self) -> Option<KeyProblem> {
        let message = match &self.keys {
            Keys::Fixed(_) => return None,
            Keys::Unusable(why) => format!("cannot be used: {why}"),
            Keys::Remote(remote) => remote.problem()?,
        };
        Some(KeyProblem {
            issuer: self.demands.issuer.clone(),
            usable: self.has_keys(),
            message,
        })
    }
}

fn keys(entry: &PolicyProvider, authenticator: &Authenticator, before: &[Provider]) -> Keys {
    if !entry.jwks.is_empty() {
        return KeySet::parse(&entry.jwks)
            .map_or_else(|error| Keys::Unusable(error.to_string()), Keys::Fixed);
    }
    let mut remote = before.iter().filter_map(|provider| match &provider.keys {
        Keys::Remote(remote) => Some(remote),
        _ => None,
    });
    let former = remote.clone().find(|former| former.is_at(entry));
    if let Some(same) = remote.find(|former| former.is_for(entry)) {
        return Keys::Remote(Arc::clone(same));
    }
    let (addresses, epoch) = (authenticator.addresses, authenticator.epoch.clone());
    match RemoteKeys::start(entry, addresses, epoch, former.map(Arc::as_ref)) {
        Ok(remote) => Keys::Remote(remote),
        Err(error) => Keys::Unusable(error.to_string()),
    }
}
