//! The serving certificate of the admission webhook, issued by the operator in `--webhook-certs=managed` mode
//! (operator.md 11.1): a CA of its own and one leaf for the webhook's Service. Pure but for the clock it is given.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Validity of CA and leaf.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// The pair is issued again when less than this is left.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Allowance for clocks that run behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// PEM texts of one issue. No `Debug`: it holds a private key.
pub(crate) struct Pair {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The pair that was issued and is not in the Secret yet: a write that is refused again and again must not push the
/// authorities in use out of what the API server trusts, so every try has the same pair.
#[derive(Default)]
pub(crate) struct Unwritten(Mutex<Option<Arc<Pair>>>);

impl Unwritten {
    /// The pair of the last try, or the first one.
    pub(crate) fn get_or_issue<E>(&self, issue: impl FnOnce() -> Result<Pair, E>) -> Result<Arc<Pair>, E> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(pair) => Ok(Arc::clone(pair)),
            None => Ok(Arc::clone(slot.insert(Arc::new(issue()?)))),
        }
    }

    /// The Secret holds a good pair.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Issues a pair for `dns_names`, valid around `now`, the time since the epoch.
pub(crate) fn issue(dns_names: &[String], now: Duration) -> Result<Pair, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.distinguished_name
        .push(DnType::CommonName, "mcp-gateway-webhook-ca");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut ca, now);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new(dns_names.to_vec())?;
    let name = dns_names.first().map_or("mcp-gateway-webhook", String::as_str);
    leaf.distinguished_name
        .push(DnType::CommonName, name.chars().take(64).collect::<String>());
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    validity(&mut leaf, now);
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(Pair {
        ca: issuer.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn validity(params: &mut CertificateParams, now: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + VALID_FOR;
}

/// True when a pair that runs out at `not_after` (seconds since the epoch) has to be issued again.
pub(crate) fn runs_out(not_after: i64, now: Duration) -> bool {
    let left = not_after.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    left < i64::try_from(RENEW_BEFORE.as_secs()).unwrap_or(i64::MAX)
}

/// When the first certificate of a PEM text runs out, in seconds since the epoch.
pub(crate) fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Most authorities that are kept beside a new one: more than pairs can be in use.
const MAX_FORMER: usize = 3;

/// The first few certificates of a PEM text that are valid at `now`, each once, and not `without`.
pub(crate) fn still_valid(pem: &str, without: &str, now: Duration) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut kept: Vec<&str> = Vec::new();
    for block in pem.split_inclusive(END).map(str::trim) {
        let lasts = not_after(block.as_bytes()).is_some_and(|end| end > now);
        let known = kept.contains(&block) || block == without.trim();
        if lasts && kept.len() < MAX_FORMER && !known {
            kept.push(block);
        }
    }
    kept.iter().map(|block| format!("{block}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_pair_runs_out_in_a_year_and_is_renewed_before() {
        let now = Duration::from_secs(1_800_000_000);
        let pair = issue(&["mcp-gateway-webhook.ns.svc".to_owned()], now).expect("a pair");
        let end = not_after(pair.certificate.as_bytes()).expect("a certificate");
        assert_eq!(end, 1_800_000_000 + 365 * 24 * 3600);
        assert!(!runs_out(end, now));
        assert!(runs_out(end, now + Duration::from_secs(300 * 24 * 3600)));
        assert!(pair.ca.contains("BEGIN CERTIFICATE") && pair.key.contains("PRIVATE KEY"));
    }
    #[test]
    fn of_the_authorities_so_far_those_that_are_valid_are_kept_once() {
        let at = |seconds: u64| Duration::from_secs(1_800_000_000 + seconds);
        let names = ["mcp-gateway-webhook.ns.svc".to_owned()];
        let [old, new] = [0, 1000].map(|seconds| issue(&names, at(seconds)).expect("a pair").ca);
        let both = format!("{old}{new}{old}");
        let trimmed = |pem: &str| format!("{}\n", pem.trim());
        assert_eq!(
            still_valid(&both, "", at(2000)),
            [trimmed(&old), trimmed(&new)].concat()
        );
        let year = 365 * 24 * 3600;
        assert_eq!(still_valid(&both, "", at(year + 500)), trimmed(&new));
        assert_eq!(still_valid(&both, &new, at(2000)), trimmed(&old));
        assert_eq!(still_valid("no certificate", "", at(0)), "");
    }
}
