//! Who may use what, as a document says it: `authn`, `authPolicies` and `authRequired` (data-plane.md 11.2, 11.3;
//! operator.md 10.6). The short form of files is turned into that of the operator here. What cannot be read denies.

use super::document::{DocumentError, MAX_ITEMS, Notes, list};
use mcp_gateway_api::authorization::{Policies, condition};
use mcp_gateway_api::config::{AuthPolicyEntry, PolicyProvider};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Largest key file, bytes.
const MAX_KEY_FILE: u64 = 1024 * 1024;

/// Policies and issuers of a document.
pub(super) struct Access {
    pub(super) policies: Policies,
    pub(super) providers: Vec<PolicyProvider>,
}

/// The policy that concerns everything and denies it.
fn closed(index: usize) -> AuthPolicyEntry {
    AuthPolicyEntry {
        name: format!("authPolicies[{index}]"),
        ..AuthPolicyEntry::default()
    }
}

/// Takes the members about access out of the document.
pub(super) fn read(top: &mut Map<String, Value>, notes: &mut Notes) -> Result<Access, DocumentError> {
    let mut entries = Vec::new();
    let mut required = top.get("authRequired").and_then(Value::as_bool).unwrap_or(false);
    for (index, item) in list(top, "authPolicies")?.into_iter().enumerate() {
        if index >= MAX_ITEMS {
            let what = format!("authPolicies: more than {MAX_ITEMS}, everything is denied");
            notes.errors.push(what);
            // What is left out may deny: nothing may be allowed without it.
            entries.push(closed(index));
            break;
        }
        match entry(item) {
            Some(policy) => {
                notes.errors.extend(unusable_conditions(index, &policy));
                entries.push(policy);
            }
            None => {
                let what = format!("authPolicies[{index}]: does not validate, everything is denied");
                notes.errors.push(what);
                // An unreadable policy may concern anything, so it concerns everything and allows nothing.
                entries.push(closed(index));
            }
        }
    }
    let mut providers: Vec<PolicyProvider> = entries
        .iter()
        .flat_map(|policy| policy.providers.iter().cloned())
        .collect();
    if let Some(authn) = top.remove("authn") {
        required |= top.get("defaultAction").and_then(Value::as_str) != Some("Allow");
        match serde_json::from_value::<FileAuthn>(authn) {
            Ok(authn) => providers.extend(authn.providers(notes)),
            Err(_) => {
                notes
                    .errors
                    .push("authn: does not validate, nobody is let in".to_owned());
                // Without a readable issuer no token can be good; one that nobody has keeps the door shut.
                providers.push(PolicyProvider::default());
            }
        }
    }
    Ok(Access {
        policies: Policies::new(&entries, required),
        providers,
    })
}

/// Conditions that do not compile: the decision denies what such a policy concerns.
fn unusable_conditions(index: usize, policy: &AuthPolicyEntry) -> impl Iterator<Item = String> {
    let written = policy
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| !rule.condition.is_empty());
    written.filter_map(move |(at, rule)| {
        let error = condition::check(&rule.condition).err()?;
        Some(format!(
            "authPolicies[{index}].rules[{at}].condition: {error}; what the policy concerns is denied"
        ))
    })
}

/// A policy in the form of the operator or of a file.
fn entry(mut item: Value) -> Option<AuthPolicyEntry> {
    let policy = item.as_object_mut()?;
    // The operator always says whether it accepted the policy; who writes a file means it.
    policy.entry("valid").or_insert(Value::Bool(true));
    for rule in policy
        .get_mut("rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        flatten_rule(rule.as_object_mut()?)?;
    }
    AuthPolicyEntry::deserialize(item).ok()
}

/// `resource: {kind, name}` and `matches[].jwt{claim, value | values}` of the custom resource into the flat form.
fn flatten_rule(rule: &mut Map<String, Value>) -> Option<()> {
    // An absent effect means Allow in a file, as in the custom resource; the operator always writes it.
    rule.entry("effect").or_insert_with(|| "Allow".into());
    if let Some(Value::Object(resource)) = rule.get("resource").cloned() {
        rule.insert("kind".into(), resource.get("kind")?.clone());
        rule.insert("resource".into(), resource.get("name")?.clone());
    }
    for condition in rule
        .get_mut("matches")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let condition = condition.as_object_mut()?;
        let Some(jwt) = condition.remove("jwt") else {
            continue;
        };
        let claim = jwt.get("claim")?.clone();
        let values = match (jwt.get("value"), jwt.get("values")) {
            (Some(value), None) => Value::Array(vec![value.clone()]),
            (None, Some(values)) => values.clone(),
            _ => return None,
        };
        condition.insert("claim".into(), claim);
        condition.insert("values".into(), values);
    }
    Some(())
}

/// The short form of `authn` in a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileAuthn {
    r#type: String,
    #[serde(default)]
    issuer: OneOrMany,
    #[serde(default)]
    audience: OneOrMany,
    jwks: FileJwks,
    #[serde(default)]
    algorithms: Vec<String>,
    leeway_seconds: Option<u32>,
    #[serde(default)]
    required_scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum FileJwks {
    Local {
        source: FileSource,
    },
    #[serde(rename_all = "camelCase")]
    Remote {
        url: String,
        #[serde(default)]
        ca_cert: String,
        refresh_interval_seconds: Option<u32>,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "camelCase")]
enum FileSource {
    File(std::path::PathBuf),
    Inline(String),
}

impl FileAuthn {
    fn providers(self, notes: &mut Notes) -> Vec<PolicyProvider> {
        if !self.r#type.eq_ignore_ascii_case("jwt") {
            notes
                .errors
                .push("authn.type: must be jwt; nobody is let in".to_owned());
            return vec![PolicyProvider::default()];
        }
        let mut one = PolicyProvider {
            name: "authn".into(),
            audiences: self.audience.into_vec(),
            algorithms: self.algorithms,
            leeway_seconds: self.leeway_seconds,
            required_scopes: self.required_scopes,
            ..PolicyProvider::default()
        };
        match self.jwks {
            FileJwks::Local {
                source: FileSource::Inline(text),
            } => one.jwks = text,
            FileJwks::Local {
                source: FileSource::File(path),
            } => match key_file(&path) {
                Ok(text) => one.jwks = text,
                Err(why) => {
                    let what = format!("authn.jwks.source: {}: {why}; nobody is let in", path.display());
                    notes.errors.push(what);
                }
            },
            FileJwks::Remote {
                url,
                ca_cert,
                refresh_interval_seconds,
            } => {
                one.jwks_url = url;
                one.jwks_ca_cert = ca_cert;
                one.refresh_interval_seconds = refresh_interval_seconds;
            }
        }
        let issuers = self.issuer.into_vec();
        if issuers.is_empty() {
            notes
                .errors
                .push("authn.issuer: name at least one issuer; nobody is let in".to_owned());
            return vec![PolicyProvider::default()];
        }
        let named = issuers.into_iter().map(|issuer| PolicyProvider {
            issuer,
            ..one.clone()
        });
        named.collect()
    }
}

fn key_file(path: &std::path::Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_KEY_FILE {
        return Err("is larger than 1 MiB".to_owned());
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
