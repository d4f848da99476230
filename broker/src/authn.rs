//! Authentication of callers by JWT (operator.md 10.3, data-plane.md 11.2): providers from the config, their keys, and
//! the one check that router and front ask for every request. What a verified caller may do is decided elsewhere.

pub mod provider;
pub mod remote_keys;

#[cfg(test)]
mod tests;

use crate::auth::jwt::{self, TokenError, Unverified, Verified};
use crate::config::model::Snapshot;
use crate::transport::address::AddressPolicy;
use arc_swap::ArcSwap;
use futures::future::join_all;
use mcp_gateway_api::broker_status::KeyProblem;
use provider::Provider;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Verified identities that are remembered (data-plane.md 15.1).
const MAX_REMEMBERED: usize = 50_000;
/// How long one is remembered, seconds.
const REMEMBERED: u64 = 60;

/// What the check says about the caller.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// No provider is configured: nobody is verified here.
    NotConfigured,
    /// The token is good.
    Verified(Arc<Verified>),
    /// The request does not pass.
    Refused(Unauthenticated),
}

/// Why a request does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// No token.
    Missing {
        /// Scopes that a token needs, when all providers agree.
        scopes: Vec<String>,
    },
    /// A token that is not accepted.
    Invalid(TokenError),
    /// A good token without these scopes.
    Scope(Vec<String>),
    /// There are no keys: those of the token's issuer, or without a token of any issuer, were never loaded or are past
    /// their bound. Nobody can tell a good caller from a bad one then, so that none is sent to log in anew.
    KeysUnavailable,
}

struct Remembered {
    verified: Arc<Verified>,
    until: u64,
    epoch: u64,
}

/// Counts changes of providers and keys: what was verified before a change counts no more.
#[derive(Clone, Debug, Default)]
pub struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// Providers or keys are others now.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The check, with the providers of the moment.
pub struct Authenticator {
    providers: ArcSwap<Vec<Provider>>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    epoch: Epoch,
    addresses: AddressPolicy,
    default_audience: String,
}

impl Authenticator {
    /// Without providers. `default_audience` is the canonical resource URL, for providers that name no audience.
    pub fn new(addresses: AddressPolicy, default_audience: String) -> Self {
        Self {
            providers: ArcSwap::default(),
            remembered: Mutex::default(),
            epoch: Epoch::default(),
            addresses,
            default_audience,
        }
    }

    /// Takes over the providers of a config. Remote keys that are asked for as before stay loaded.
    pub fn apply(&self, config: &Snapshot) {
        let before = self.providers.load_full();
        let mut providers: Vec<Provider> = Vec::new();
        for entry in &config.providers {
            // The operator orders policies by age: of two providers with one issuer the older counts.
            if providers.iter().all(|known| known.demands.issuer != entry.issuer) {
                providers.push(Provider::new(entry, self, &before));
            }
        }
        self.providers.store(Arc::new(providers));
        self.epoch.advance();
    }

    /// False when no provider is configured: then every caller is as good as another.
    pub fn is_active(&self) -> bool {
        !self.providers.load().is_empty()
    }

    /// Issuers that are URLs, for the protected-resource metadata.
    pub fn issuers(&self) -> Vec<String> {
        let providers = self.providers.load();
        let issuers = providers.iter().map(|provider| provider.demands.issuer.clone());
        issuers.filter(|issuer| issuer.starts_with("http")).collect()
    }

    /// What is wrong with the keys of providers, for status and metrics.
    pub fn problems(&self) -> Vec<KeyProblem> {
        let providers = self.providers.load();
        providers.iter().filter_map(Provider::problem).collect()
    }

    /// Checks the values of `Authorization`. An unknown `kid` may cost one fetch of the issuer's keys.
    pub async fn check(&self, authorization: &[String], now: u64) -> Authentication {
        let epoch = self.epoch.now();
        let providers = self.providers.load_full();
        if providers.is_empty() {
            return Authentication::NotConfigured;
        }
        if !some_keys(&providers).await {
            return Authentication::Refused(Unauthenticated::KeysUnavailable);
        }
        let token = match bearer(authorization) {
            Ok(Some(token)) => token,
            Ok(None) => {
                let scopes = providers.first().map(|first| first.required_scopes.clone());
                let scopes =
                    scopes.filter(|wanted| providers.iter().all(|one| one.required_scopes == *wanted));
                return Authentication::Refused(Unauthenticated::Missing {
                    scopes: scopes.unwrap_or_default(),
                });
            }
            Err(error) => return Authentication::Refused(Unauthenticated::Invalid(error)),
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.recall(&digest, now) {
            return Authentication::Verified(verified);
        }
        match verify(&providers, token, now).await {
            Ok(claims) => {
                let verified = Arc::new(Verified::new(claims, digest));
                self.remember(&verified, epoch, now);
                Authentication::Verified(verified)
            }
            Err(refused) => Authentication::Refused(refused),
        }
    }

    fn recall(&self, digest: &[u8; 32], now: u64) -> Option<Arc<Verified>> {
        let epoch = self.epoch.now();
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.get(digest)?;
        (known.until > now && known.epoch == epoch).then(|| Arc::clone(&known.verified))
    }

    fn remember(&self, verified: &Arc<Verified>, epoch: u64, now: u64) {
        let until = jwt::expiry(&verified.claims).unwrap_or(0).min(now + REMEMBERED);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, known| known.until > now && known.epoch == epoch);
        }
        if remembered.len() < MAX_REMEMBERED {
            let known = Remembered {
                verified: Arc::clone(verified),
                until,
                epoch,
            };
            remembered.insert(verified.digest, known);
        }
    }
}

/// False when no issuer has keys, also not after a moment's wait for a fetch.
async fn some_keys(providers: &[Provider]) -> bool {
    let loaded = || providers.iter().any(Provider::has_keys);
    if !loaded() {
        join_all(providers.iter().map(Provider::load)).await;
    }
    loaded()
}

async fn verify(
    providers: &[Provider],
    token: &str,
    now: u64,
) -> Result<jwt::VerifiedClaims, Unauthenticated> {
    let issuer = Unverified::read(token)
        .map_err(Unauthenticated::Invalid)?
        .issuer()
        .map(str::to_owned);
    let provider = providers
        .iter()
        .find(|provider| Some(&provider.demands.issuer) == issuer.as_ref())
        .ok_or(Unauthenticated::Invalid(TokenError::Issuer))?;
    let claims = provider.verify(token, now).await?;
    if provider
        .required_scopes
        .iter()
        .all(|scope| has_scope(&claims, scope))
    {
        Ok(claims)
    } else {
        Err(Unauthenticated::Scope(provider.required_scopes.clone()))
    }
}

fn has_scope(claims: &jwt::VerifiedClaims, scope: &String) -> bool {
    let wanted = std::slice::from_ref(scope);
    ["scope", "scp"]
        .iter()
        .any(|name| mcp_gateway_api::authorization::claim_matches(claims, name, wanted))
}

/// The token of the one `Authorization: Bearer`.
fn bearer(values: &[String]) -> Result<Option<&str>, TokenError> {
    let value = match values {
        [] => return Ok(None),
        [value] => value,
        _ => return Err(TokenError::Malformed),
    };
    let (scheme, token) = value.split_once(' ').ok_or(TokenError::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(token.trim()))
    } else {
        Err(TokenError::Malformed)
    }
}
