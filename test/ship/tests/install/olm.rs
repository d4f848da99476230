//! The bundle, installed as OLM does it: exactly the CSV's Deployments, accounts, rules and webhook definitions, OLM's Service and
//! certificate (SEC1 key, mounted twice), configurations for the namespaces of the OperatorGroup (olm.md 1.4–1.7).

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_e2e::{Site, apply, kubectl, kubectl_with, refused};
use mcp_gateway_ship::helm::root;
use serde_json::{Value, json};

use crate::{
    CLUSTER,
    cluster::{brokers, clear, prepare, program},
};

const NAMESPACE: &str = "mcp-system";
const SERVICE: &str = "mcp-gateway-webhook-service";
const CERTIFICATE: &str = "mcp-gateway-webhook-service-cert";
/// The label that OLM puts on the namespaces of an OperatorGroup.
const GROUP: &str = "olm.operatorgroup.uid/5a1f0c0e-0000-4000-8000-000000000001";

#[tokio::test]
async fn o10_what_the_bundle_says_works_and_gateways_outlive_it() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    let site = Site::create("olm")?;
    let csv = csv()?;
    let mine = install(&csv)?;
    kubectl(&format!(
        "wait --for=condition=Available deployment --all -n {NAMESPACE} --timeout=120s"
    ))?;

    examples(&csv)?;
    // A team outside of the OperatorGroup is served.
    apply(&site.extension("olm", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n olm")?;
    site.server("weather")?;
    site.register("weather", "w_")?;
    site.wait_ready("mcpsr/weather -n olm-servers")?;
    call(&site).await?;
    // Admission decides in the namespaces of the OperatorGroup.
    let first = site
        .extension(NAMESPACE, "one", "other", "")
        .replace("name: gw, namespace: olm-gw", "name: none");
    apply(&first)?;
    let second = refused(&first.replace("name: one", "name: two"))?;
    ensure!(second.contains("only one per namespace allowed"), "{second}");
    kubectl(&format!("delete mcpge one -n {NAMESPACE} --timeout=60s"))?;

    let before = brokers("olm")?;
    let released = Command::new(program())
        .args(["uninstall", "--namespace", NAMESPACE])
        .output()?;
    ensure!(
        released.status.success(),
        "{}",
        String::from_utf8_lossy(&released.stderr)
    );
    for object in &mine {
        kubectl(&format!("delete {object} --ignore-not-found --timeout=60s"))?;
    }
    kubectl("annotate mcpge/ext -n olm edited=yes")?;
    call(&site).await?;
    assert_eq!(
        brokers("olm")?,
        before,
        "deleting the CSV must not touch gateways"
    );
    clear(&["olm"])
}

#[tokio::test]
async fn olm_s_own_schemas_accept_csv_catalog_group_and_subscription() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    let Some(crds) = env::var_os("MCPGW_OLM_CRDS").map(PathBuf::from) else {
        writeln(&"SKIPPED: MCPGW_OLM_CRDS does not name a folder with OLM's CRDs");
        return Ok(());
    };
    prepare()?;
    kubectl(&format!("apply --server-side -f {}", crds.display()))?;
    for namespace in [NAMESPACE, "openshift-marketplace"] {
        apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string(),
        )?;
    }
    kubectl("wait --for=condition=Established crd --all --timeout=60s")?;
    let mut csv = csv()?;
    csv["metadata"]["namespace"] = json!(NAMESPACE);
    kubectl_with(
        &[
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ],
        &csv.to_string(),
    )?;
    let config = root().join("config/olm");
    kubectl(&format!(
        "apply --server-side --dry-run=server --validate=strict -k {}",
        config.display()
    ))?;
    for namespace in [NAMESPACE, "openshift-marketplace"] {
        kubectl(&format!("delete namespace {namespace} --timeout=60s"))?;
    }
    kubectl(&format!("delete -f {} --timeout=60s", crds.display())).map(drop)
}

/// The examples and the resource that the console offers first are accepted, webhooks included.
fn examples(csv: &Value) -> anyhow::Result<()> {
    let annotation = |name: &str| csv["metadata"]["annotations"][name].as_str().unwrap().to_owned();
    let mut examples: Vec<Value> = serde_json::from_str(&annotation("alm-examples"))?;
    examples.push(serde_json::from_str(&annotation(
        "operatorframework.io/initialization-resource",
    ))?);
    for example in &mut examples {
        example["metadata"]["namespace"] = json!(NAMESPACE);
        kubectl_with(
            &["create", "--dry-run=server", "--validate=strict", "-f", "-"],
            &example.to_string(),
        )
        .with_context(|| format!("example {}", example["kind"]))?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn writeln(text: &dyn std::fmt::Display) {
    eprintln!("{text}");
}

fn csv() -> anyhow::Result<Value> {
    let path = root().join("bundle/manifests/mcp-gateway.clusterserviceversion.yaml");
    Ok(serde_saphyr::from_str(&fs::read_to_string(path)?)?)
}

async fn call(site: &Site) -> anyhow::Result<()> {
    let mut client = site.client().await?;
    client.initialize().await?;
    let result = client.call("w_add", json!({"a": 19, "b": 23})).await?;
    assert_eq!(result["content"][0]["text"], "42", "{result}");
    Ok(())
}

/// Applies everything; returns what the deletion of the CSV deletes, as `kind/name -n namespace`.
fn install(csv: &Value) -> anyhow::Result<Vec<String>> {
    for entry in fs::read_dir(root().join("bundle/manifests"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if text.contains("kind: CustomResourceDefinition") {
            kubectl(&format!("apply --server-side -f {}", path.display()))?;
        }
    }
    let (authority, pair) = certificate()?;
    let mut objects = vec![pair, service(), budget()?];
    objects.extend(accounts(csv));
    objects.extend(deployments(csv));
    objects.extend(configurations(csv, &authority));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {GROUP: ""}}});
    apply(&namespace.to_string())?;
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    apply(&texts.join("\n---\n"))?;
    Ok(objects.iter().map(name).collect())
}

fn name(object: &Value) -> String {
    let (kind, name) = (
        object["kind"].as_str().unwrap(),
        object["metadata"]["name"].as_str().unwrap(),
    );
    format!("{kind}/{name} -n {NAMESPACE}")
}

/// An authority, and the Secret with a pair for the Service, the key as SEC1 like OLM's.
fn certificate() -> anyhow::Result<(String, Value)> {
    let names = vec![
        format!("{SERVICE}.{NAMESPACE}"),
        format!("{SERVICE}.{NAMESPACE}.svc"),
    ];
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let encoded = |text: &str| STANDARD.encode(text);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": CERTIFICATE, "namespace": NAMESPACE},
        "data": {"tls.crt": encoded(&leaf.pem()), "tls.key": encoded(&sec1(&key.serialize_der())?), "olmCAKey": encoded(&certificate.pem())},
    });
    Ok((encoded(&certificate.pem()), secret))
}

/// The ECPrivateKey (RFC 5915) inside of a PKCS#8 document, as PEM.
fn sec1(pkcs8: &[u8]) -> anyhow::Result<String> {
    // OneAsymmetricKey of P-256: sequence, version, algorithm (two object identifiers), then the octet string with the key.
    let at = pkcs8
        .windows(4)
        .position(|bytes| bytes[0] == 0x04 && bytes[2] == 0x30)
        .context("no ECPrivateKey inside")?;
    let inner = &pkcs8[at + 2..at + 2 + usize::from(pkcs8[at + 1])];
    let text: Vec<char> = STANDARD.encode(inner).chars().collect();
    let lines: Vec<String> = text.chunks(64).map(|line| line.iter().collect()).collect();
    Ok(format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        lines.join("\n")
    ))
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app.kubernetes.io/name": "mcp-gateway-webhook"},
            "ports": [{"name": "443", "port": 443, "targetPort": 9443}],
        },
    })
}

fn budget() -> anyhow::Result<Value> {
    let path = root().join("bundle/manifests/mcp-gateway-webhook.poddisruptionbudget.yaml");
    let mut budget: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    budget["metadata"]["namespace"] = json!(NAMESPACE);
    Ok(budget)
}

/// ServiceAccounts, and roles with bindings for both lists of permissions.
fn accounts(csv: &Value) -> Vec<Value> {
    let install = &csv["spec"]["install"]["spec"];
    let mut objects = Vec::new();
    for (list, kind) in [("clusterPermissions", "ClusterRole"), ("permissions", "Role")] {
        for entry in install[list].as_array().unwrap() {
            let account = entry["serviceAccountName"].as_str().unwrap();
            let meta = json!({"name": format!("{}-{account}", csv["metadata"]["name"].as_str().unwrap()), "namespace": NAMESPACE});
            objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": NAMESPACE}}));
            objects.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": meta, "rules": entry["rules"]}));
            objects.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
            }));
        }
    }
    for object in objects
        .iter_mut()
        .filter(|object| object["kind"].as_str().unwrap().starts_with("Cluster"))
    {
        object["metadata"].as_object_mut().unwrap().remove("namespace");
    }
    objects
}

/// Deployments with what OLM adds: the condition's name, the CSV's annotations, the certificate at both paths.
fn deployments(csv: &Value) -> Vec<Value> {
    let serves: Vec<&str> = csv["spec"]["webhookdefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["deploymentName"].as_str().unwrap())
        .collect();
    let deployments = csv["spec"]["install"]["spec"]["deployments"].as_array().unwrap();
    deployments
        .iter()
        .map(|deployment| {
            let mut spec = deployment["spec"].clone();
            spec["revisionHistoryLimit"] = json!(1);
            let mut annotations = csv["metadata"]["annotations"].clone();
            annotations["olm.targetNamespaces"] = json!(NAMESPACE);
            annotations["olm.operatorNamespace"] = json!(NAMESPACE);
            spec["template"]["metadata"]["annotations"] = annotations;
            let container = &mut spec["template"]["spec"]["containers"][0];
            if let Some(env) = container["env"].as_array_mut() {
                env.push(json!({"name": "OPERATOR_CONDITION_NAME", "value": csv["metadata"]["name"]}));
            }
            if serves.contains(&deployment["name"].as_str().unwrap()) {
                container["volumeMounts"] = json!([
                    {"name": "apiservice-cert", "mountPath": "/apiserver.local.config/certificates"},
                    {"name": "webhook-cert", "mountPath": "/tmp/k8s-webhook-server/serving-certs"},
                ]);
                spec["template"]["spec"]["volumes"] = json!([volume("apiservice-cert", "apiserver"), volume("webhook-cert", "tls")]);
            }
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": deployment["name"], "namespace": NAMESPACE, "labels": deployment["label"]},
                "spec": spec,
            })
        })
        .collect()
}

fn volume(name: &str, file: &str) -> Value {
    let item =
        |extension: &str| json!({"key": format!("tls.{extension}"), "path": format!("{file}.{extension}")});
    json!({"name": name, "secret": {"secretName": CERTIFICATE, "items": [item("crt"), item("key")]}})
}

/// One object for each definition, for the namespaces of the OperatorGroup.
fn configurations(csv: &Value, authority: &str) -> Vec<Value> {
    let definitions = csv["spec"]["webhookdefinitions"].as_array().unwrap();
    definitions
        .iter()
        .map(|definition| {
            let kind = definition["type"].as_str().unwrap().replace("AdmissionWebhook", "WebhookConfiguration");
            let generate = definition["generateName"].as_str().unwrap();
            let mut webhook = json!({
                "name": generate,
                "namespaceSelector": {"matchLabels": {GROUP: ""}},
                "clientConfig": {
                    "caBundle": authority,
                    "service": {"name": SERVICE, "namespace": NAMESPACE, "path": definition["webhookPath"], "port": definition["containerPort"]},
                },
            });
            for member in ["admissionReviewVersions", "failurePolicy", "matchPolicy", "reinvocationPolicy", "rules", "sideEffects", "timeoutSeconds"] {
                if !definition[member].is_null() {
                    webhook[member] = definition[member].clone();
                }
            }
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": format!("{generate}-x7k2p"), "labels": {
                    "olm.managed": "true", "olm.owner": csv["metadata"]["name"], "olm.owner.namespace": NAMESPACE,
                    "olm.owner.kind": "ClusterServiceVersion", "olm.webhook-description-generate-name": generate,
                }},
                "webhooks": [webhook],
            })
        })
        .collect()
}
