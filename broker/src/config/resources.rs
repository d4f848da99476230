//! Custom resources in a file (data-plane.md 13): the manifests of a cluster → the plain document, without any Kubernetes type.
//! What a file cannot carry out is said.

use super::document::{DocumentError, Notes};
use super::policies;
use serde_json::{Map, Value, json};
use serde_saphyr::Spanned;

/// The URL of a registration that has no route in the file.
const URL_ANNOTATION: &str = "mcp.kuadrant.io/url";
/// Members of a registration that mean the same in the plain document.
const SAME: [&str; 9] = [
    "prefix",
    "state",
    "category",
    "hint",
    "tags",
    "forwardHeaders",
    "tokenURLElicitation",
    "transport",
    "protocol",
];

/// True for text that holds manifests.
pub(super) fn are_there(text: &str) -> bool {
    let first = |line: &str| line.starts_with("apiVersion:") || line.starts_with("kind:");
    text.lines().any(first)
}

/// The plain document of manifests, of which there may be several, `kind: List` included.
///
/// # Errors
/// [`DocumentError::Yaml`].
pub(super) fn document(text: &str, notes: &mut Notes) -> Result<Map<String, Value>, DocumentError> {
    let parsed = serde_saphyr::from_multiple::<Spanned<Value>>(text);
    let parsed = parsed.map_err(|error| DocumentError::Yaml(mcp_gateway_api::config::position_of(&error)))?;
    let mut objects = Vec::new();
    for document in parsed {
        let line = document.referenced.line();
        match document.value.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().map(|item| (line, item.clone()))),
            None => objects.push((line, document.value)),
        }
    }
    let file = File(objects);
    let mut servers = Vec::new();
    for registration in file.of_kind("MCPServerRegistration") {
        match file.server(registration) {
            Ok(server) => servers.push(server),
            Err(reason) => notes
                .errors
                .push(format!("server {:?}: {reason}", key(registration))),
        }
    }
    let virtual_servers: Vec<Value> = file.of_kind("MCPVirtualServer").map(virtual_server).collect();
    let mut top = Map::new();
    top.insert("servers".to_owned(), servers.into());
    top.insert("virtualServers".to_owned(), virtual_servers.into());
    let mut entries = Vec::new();
    for (line, policy) in &file.0 {
        if policy.get("kind").and_then(Value::as_str) != Some("MCPAuthPolicy") {
            continue;
        }
        let (entry, problem) = policies::entry(&file, policy);
        notes.errors.extend(problem.map(|why| {
            let name = key(policy);
            format!("line {line}: MCPAuthPolicy {name:?}: {why}; what it concerns is denied")
        }));
        entries.extend(serde_json::to_value(entry));
    }
    top.insert("authPolicies".to_owned(), entries.into());
    Ok(top)
}

/// The objects of a file, each with the line where its document begins.
pub(super) struct File(Vec<(u64, Value)>);

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(super) fn namespace(object: &Value) -> &str {
    match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    }
}

pub(super) fn key(object: &Value) -> String {
    format!("{}/{}", namespace(object), text(object, "/metadata/name"))
}

impl File {
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let objects = self.0.iter().map(|(_, object)| object);
        objects.filter(move |object| text(object, "/kind") == kind)
    }

    pub(super) fn find<'a>(&'a self, kind: &'a str, (place, name): (&str, &str)) -> Option<&'a Value> {
        let is_it = |object: &&Value| namespace(object) == place && text(object, "/metadata/name") == name;
        self.of_kind(kind).find(is_it)
    }

    fn server(&self, registration: &Value) -> Result<Value, String> {
        let spec = registration.get("spec").cloned().unwrap_or_default();
        let mut entry = Map::new();
        entry.insert("name".to_owned(), key(registration).into());
        entry.insert("url".to_owned(), self.url(registration)?.into());
        for name in SAME {
            entry.extend(spec.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        if let Some(seconds) = spec.get("callTimeoutSeconds").and_then(Value::as_u64) {
            entry.insert("callTimeout".to_owned(), format!("{seconds}s").into());
        }
        let own_list = text(&spec, "/userSpecificList") == "Enabled";
        entry.insert("userSpecificList".to_owned(), own_list.into());
        for (member, name, key) in [
            ("credentialRef", "credential", "token"),
            ("caCertSecretRef", "caCert", "ca.crt"),
        ] {
            if let Some(reference) = spec.get(member) {
                let value = self.secret(namespace(registration), (reference, key));
                entry.insert(
                    name.to_owned(),
                    value
                        .ok_or_else(|| format!("{member}: the Secret is not in the file, as stringData"))?
                        .into(),
                );
            }
        }
        Ok(Value::Object(entry))
    }

    pub(super) fn secret(&self, namespace: &str, (reference, default): (&Value, &str)) -> Option<String> {
        let secret = self.find("Secret", (namespace, text(reference, "/name")))?;
        let key = match text(reference, "/key") {
            "" => default,
            key => key,
        };
        let value = secret.get("stringData")?.get(key)?;
        value.as_str().map(str::to_owned)
    }

    /// Where the annotation, or the first backend of the route, leads.
    fn url(&self, registration: &Value) -> Result<String, String> {
        let annotations = registration.pointer("/metadata/annotations");
        let named = annotations
            .and_then(|all| all.get(URL_ANNOTATION))
            .and_then(Value::as_str);
        if let Some(url) = named {
            return Ok(url.to_owned());
        }
        let place = match text(registration, "/spec/targetRef/namespace") {
            "" => namespace(registration),
            other => other,
        };
        let name = text(registration, "/spec/targetRef/name");
        let missing =
            || format!("HTTPRoute {place}/{name} is not in the file; add it, or annotate {URL_ANNOTATION}");
        let route = self.find("HTTPRoute", (place, name)).ok_or_else(missing)?;
        let backend = route
            .pointer("/spec/rules/0/backendRefs/0")
            .ok_or("its HTTPRoute has no backend")?;
        let path = match text(registration, "/spec/path") {
            "" => "/mcp",
            path => path,
        };
        let port = backend.get("port").and_then(Value::as_u64).unwrap_or(80);
        let name = text(backend, "/name");
        Ok(match text(backend, "/kind") {
            "Hostname" => format!("https://{name}:{port}{path}"),
            _ => {
                let place = match text(backend, "/namespace") {
                    "" => place,
                    other => other,
                };
                format!("http://{name}.{place}.svc.cluster.local:{port}{path}")
            }
        })
    }
}

fn virtual_server(object: &Value) -> Value {
    let mut entry = Map::from_iter([("name".to_owned(), json!(key(object)))]);
    for name in ["tools", "prompts", "resources"] {
        let names = object.get("spec").and_then(|spec| spec.get(name));
        entry.extend(names.map(|names| (name.to_owned(), names.clone())));
    }
    Value::Object(entry)
}

#[cfg(test)]
mod tests {
    use crate::config::document::{Dialect, read_as};

    const FILE: &str = "
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: one, namespace: team}
spec: {targetRef: {kind: HTTPRoute, name: route}, prefix: one_, callTimeoutSeconds: 30, credentialRef: {name: s, key: token}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route, namespace: team}
spec: {rules: [{backendRefs: [{name: svc, port: 9090}]}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: team}, stringData: {token: Bearer x}}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: two, namespace: team, annotations: {mcp.kuadrant.io/url: 'http://localhost:1/x'}}
spec: {targetRef: {kind: HTTPRoute, name: none}}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: three, namespace: team}
spec: {targetRef: {kind: HTTPRoute, name: none}}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPVirtualServer
metadata: {name: v, namespace: team}
spec: {tools: [one_a]}
";

    fn local() -> Dialect {
        Dialect {
            forwards: true,
            local: Some(|_| None),
        }
    }

    #[test]
    fn manifests_of_a_cluster_are_a_config() {
        let snapshot = read_as(FILE.as_bytes(), local()).unwrap();
        let found: Vec<_> = snapshot
            .servers
            .iter()
            .map(|server| (server.name.as_str(), server.url.as_str(), server.prefix.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("team/one", "http://svc.team.svc.cluster.local:9090/mcp", "one_"),
                ("team/two", "http://localhost:1/x", "")
            ]
        );
        assert_eq!(snapshot.servers[0].credential.expose(), "Bearer x");
        assert!(snapshot.virtual_servers["team/v"].tools.contains("one_a"));
        assert!(
            snapshot
                .errors
                .iter()
                .any(|error| error.contains("team/three") && error.contains("team/none")),
            "{:?}",
            snapshot.errors
        );
        assert!(snapshot.policies.is_empty());
    }
}
