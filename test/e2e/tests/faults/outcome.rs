//! What is there in the end: the objects of a site without what differs from run to run, and a site's name in no place.

use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_e2e::{Site, get, kubectl};
use serde_json::{Map, Value, json};

const KINDS: &str =
    "secrets,serviceaccounts,roles,rolebindings,networkpolicies,services,deployments,httproutes,envoyfilters";
const OURS: &str = "-l app.kubernetes.io/managed-by=mcp-gateway-controller";

/// Members whose value another run gives anew.
const CHANGING: [&str; 18] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "lastProbeTime",
    "observedGeneration",
    "mcp.kuadrant.io/env-secrets-hash",
    "deployment.kubernetes.io/revision",
    "message",
    "kubectl.kubernetes.io/last-applied-configuration",
    "secrets",
    "ipFamilies",
    "ipFamilyPolicy",
    "status",
];

/// The objects of a site in a form that can be compared.
pub(crate) fn outcome(site: &Site) -> anyhow::Result<Value> {
    let name = site.name();
    let mut found = json!({
        "team": ours(name)?,
        "gateway": ours(&format!("{name}-gw"))?,
        "extension": verdict(&get(&format!("mcpge ext -n {name}"))?),
        "registration": verdict(&get(&format!("mcpsr one -n {name}-servers"))?),
        "listeners": listeners(name)?,
        "parents": parents(name)?,
        "claims": claims(name)?.len(),
    });
    let text = found.to_string().replace(name, "SITE");
    found = serde_json::from_str(&text)?;
    Ok(found)
}

/// Everything that still belongs to the extension of a site, wherever it is.
pub(crate) fn objects_of(site: &Site) -> anyhow::Result<Vec<String>> {
    let name = site.name();
    let mut found: Vec<String> = Vec::new();
    for namespace in [name.to_owned(), format!("{name}-gw")] {
        found.extend(
            ours(&namespace)?
                .into_iter()
                .map(|(key, _)| format!("{namespace}/{key}")),
        );
    }
    let marked = listeners(name)?;
    if marked != json!([]) {
        found.push(format!("listener condition {marked}"));
    }
    found.extend(claims(name)?);
    found.extend(
        kubectl(&format!("get mcpge -n {name} -o name"))?
            .lines()
            .map(str::to_owned),
    );
    Ok(found)
}

/// The config document of a namespace.
pub(crate) fn document(namespace: &str) -> anyhow::Result<String> {
    let secret = get(&format!("secret mcp-gateway-config -n {namespace}"))?;
    Ok(decoded(&secret["data"]["config.yaml"]))
}

/// The first few lines that differ.
pub(crate) fn difference(wanted: &Value, found: &Value) -> String {
    let (wanted, found) = (format!("{wanted:#}"), format!("{found:#}"));
    let missing = wanted
        .lines()
        .filter(|line| !found.contains(*line))
        .map(|line| format!("-{line}"));
    let more = found
        .lines()
        .filter(|line| !wanted.contains(*line))
        .map(|line| format!("+{line}"));
    let lines: Vec<String> = missing.chain(more).take(12).collect();
    lines.join("\n")
}

fn decoded(value: &Value) -> String {
    let bytes = STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Our children in a namespace by kind and name.
fn ours(namespace: &str) -> anyhow::Result<Map<String, Value>> {
    let list = get(&format!("{KINDS} -n {namespace} {OURS}"))?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|item| {
            let key = format!("{} {}", item["kind"], item["metadata"]["name"]).replace('"', "");
            (key, compared(item))
        })
        .collect())
}

fn compared(mut object: Value) -> Value {
    if object["kind"] == "Secret" {
        let document = decoded(&object["data"]["config.yaml"]);
        let lasting = document.lines().filter(|line| {
            !["uid:", "createdAt:", "hash:"]
                .iter()
                .any(|member| line.trim_start().starts_with(member))
        });
        let lasting: Vec<&str> = lasting.collect();
        let keys: Vec<String> = object["data"]
            .as_object()
            .map_or(Vec::new(), |data| data.keys().cloned().collect());
        object["data"] = json!({"keys": keys, "document": lasting});
    }
    strip(&mut object);
    object
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !CHANGING.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Finalizers and conditions of an object of the user's.
fn verdict(object: &Value) -> Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|condition| json!([condition["type"], condition["status"], condition["reason"]]))
        .collect();
    json!({"finalizers": object["metadata"]["finalizers"], "conditions": conditions})
}

/// Listeners of the site's Gateway that carry our condition.
fn listeners(site: &str) -> anyhow::Result<Value> {
    let gateway = get(&format!("gateway gw -n {site}-gw"))?;
    let entries = gateway["status"]["listeners"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let marked = entries.iter().filter(|entry| {
        entry["conditions"]
            .to_string()
            .contains("\"MCPGatewayExtension\"")
    });
    Ok(marked.map(|entry| entry["name"].clone()).collect())
}

/// Controllers that have an entry in the status of the server's route.
fn parents(site: &str) -> anyhow::Result<Value> {
    let route = get(&format!("httproute one -n {site}-servers"))?;
    let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let mut controllers: Vec<&str> = parents
        .iter()
        .filter_map(|parent| parent["controllerName"].as_str())
        .collect();
    // Each controller puts its entries where it likes.
    controllers.sort_unstable();
    Ok(json!(controllers))
}

/// The exclusivity claims of the site's extension.
fn claims(site: &str) -> anyhow::Result<Vec<String>> {
    let leases = get("lease -n mcp-system -l mcp.kuadrant.io/claim=true")?;
    let leases = leases["items"].as_array().cloned().unwrap_or_default();
    let holder = format!("{site}/ext");
    Ok(leases
        .iter()
        .filter(|lease| lease["spec"]["holderIdentity"] == holder.as_str())
        .map(|lease| {
            format!(
                "claim {}",
                lease["metadata"]["annotations"]["mcp.kuadrant.io/claim-key"]
            )
        })
        .collect())
}
