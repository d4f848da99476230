//! Input that nobody should send, all of it at once beside good objects.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

/// A name, what is put into its spec, and a part of what its status has to say.
type Case = (&'static str, Value, &'static str);

fn long_host() -> String {
    format!("{}.mcp.local", "h".repeat(300))
}

fn servers() -> Vec<Case> {
    let ca = |name: &str| json!({"caCertSecretRef": {"name": name}});
    let token = |name: &str| json!({"credentialRef": {"name": name}});
    vec![
        (
            "text",
            ca("text"),
            "secret apps/text: is invalid: only CERTIFICATE blocks",
        ),
        (
            "bytes",
            ca("bytes"),
            "secret apps/bytes: is invalid: not PEM text",
        ),
        (
            "cut",
            ca("cut"),
            "secret apps/cut: is invalid: only CERTIFICATE blocks",
        ),
        (
            "key",
            ca("key"),
            "secret apps/key: is invalid: only CERTIFICATE blocks",
        ),
        (
            "large",
            ca("large"),
            "secret apps/large: exceeds maximum size of 65536 bytes (key ca.crt)",
        ),
        ("empty", token("empty"), "secret apps/empty: missing key token"),
        (
            "renamed",
            token("renamed"),
            "secret apps/renamed: missing key token",
        ),
        ("binary", token("binary"), "secret apps/binary"),
        (
            "missing",
            token("missing"),
            "secret apps/missing not found (spec.credentialRef",
        ),
        (
            "typed",
            json!({"credentialRef": {"name": 5}}),
            "spec.credentialRef.name: ",
        ),
        ("listed", json!({"tags": "wet"}), "spec.tags: "),
        ("path", json!({"path": "no slash"}), "spec.path"),
        ("prefix", json!({"prefix": "UPPER".repeat(20)}), "spec.prefix"),
        ("host", json!({}), "hostname"),
        (
            "foreign",
            json!({"targetRef": {"name": "far", "namespace": "elsewhere"}}),
            "ReferenceGrant required",
        ),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        (
            "other/ext",
            json!({"caCertBundleRef": {"name": "bundle"}}),
            "secret other/bundle: is invalid: only CERTIFICATE",
        ),
        (
            "third/ext",
            json!({"publicHost": long_host()}),
            "invalid: spec.publicHost: is not a DNS-1123 subdomain",
        ),
    ]
}

/// Good servers, and all the bad ones.
fn world() -> Objects {
    let mut all = objects()
        .server("elsewhere/far", 3, &json!({}))
        .server("apps/many", 4, &json!({}));
    for (key, more, _) in extensions() {
        let (namespace, _) = key.split_once('/').expect("a key");
        let mut spec = json!({"targetRef": {"name": "gw", "namespace": namespace, "sectionName": "mcp"}});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let gateway = all
            .0
            .get(Kind::Gateway, &ObjectKey::new("other", "gw"))
            .expect("a Gateway");
        let gateway = json!({"spec": gateway["spec"], "status": gateway["status"]});
        all = all.put(Kind::Gateway, &format!("{namespace}/gw"), &gateway).put(
            Kind::Extension,
            key,
            &json!({"metadata": {"finalizers": [names::FINALIZER]}, "spec": spec}),
        );
    }
    for (second, (name, spec, _)) in (10..).zip(servers()) {
        all = all.server(&format!("apps/{name}"), second, &spec);
    }
    let mut route = all
        .0
        .get(Kind::HttpRoute, &ObjectKey::new("apps", "host"))
        .expect("a route");
    route["spec"]["hostnames"] = json!([long_host()]);
    all.put(Kind::HttpRoute, "apps/host", &route)
}

/// A Secret that may be named, with one key.
fn secret(name: &str, key: &str, value: &[u8]) -> Value {
    json!({"metadata": {"namespace": "apps", "name": name, "labels": {names::SECRET_LABEL: "true"}},
        "data": {key: STANDARD.encode(value)}})
}

fn secrets() -> Vec<Value> {
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let mut bundle = secret("bundle", "ca.crt", b"no certificate");
    bundle["metadata"]["namespace"] = json!("other");
    vec![
        bundle,
        secret("text", "ca.crt", b"no certificate"),
        secret("bytes", "ca.crt", &[0xff, 0xfe, 0]),
        secret("cut", "ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA"),
        secret(
            "key",
            "ca.crt",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ),
        secret("large", "ca.crt", certificate.repeat(2000).as_bytes()),
        secret("empty", "token", b""),
        secret("renamed", "tok", b"x"),
        secret("binary", "token", &[0xff, 0, 0xfe]),
    ]
}

#[tokio::test(start_paused = true)]
async fn bad_input_gets_a_status_that_names_the_field_and_drops_nothing_good() {
    let (context, _server) = at_rest(world(), &secrets()).await;
    let mut wrong = Vec::new();
    for (name, _, says) in servers() {
        let said = message(&context, Kind::Registration, &format!("apps/{name}"));
        if !said.contains(says) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    for (key, _, says) in extensions() {
        let said = message(&context, Kind::Extension, key);
        if !said.contains(says) {
            wrong.push(format!("{key}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for good in ["apps/one", "apps/two", "elsewhere/far", "apps/many"] {
        assert_eq!(ready(&context, Kind::Registration, good)[0], "True", "{good}");
    }
    let many = context
        .cache
        .get(Kind::Registration, &ObjectKey::new("apps", "many"));
    assert_eq!(many.expect("cached")["status"]["discoveredTools"], 10_000);
}
