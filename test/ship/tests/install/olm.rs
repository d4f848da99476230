//! What OLM does with a bundle, without OLM: exactly the CSV's Deployments, accounts, rules and webhook definitions as objects,
//! OLM's Service and certificate (SEC1 key, mounted twice), configurations for the namespaces of the OperatorGroup, the
//! OperatorCondition, and the order of an upgrade (olm.md 1.4–1.7, 2.2, 2.4).

pub(crate) mod certificate;

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{apply, get, kubectl, kubectl_with};
use mcp_gateway_ship::helm::root;
use serde_json::{Value, json};

use certificate::Pair;

/// Namespace of the operator, and target of the OperatorGroup.
pub(crate) const NAMESPACE: &str = "mcp-system";
const SERVICE: &str = "mcp-gateway-webhook-service";
const CERTIFICATE: &str = "mcp-gateway-webhook-service-cert";
/// The label that OLM puts on the namespaces of an OperatorGroup.
const GROUP: &str = "olm.operatorgroup.uid/5a1f0c0e-0000-4000-8000-000000000001";

/// A bundle on disk.
pub(crate) struct Bundle {
    folder: PathBuf,
    /// Its ClusterServiceVersion.
    pub(crate) csv: Value,
}

impl Bundle {
    /// That of this tree.
    pub(crate) fn candidate() -> anyhow::Result<Self> {
        Self::read(root().join("bundle"))
    }

    /// The released ones, oldest first.
    pub(crate) fn released() -> anyhow::Result<Vec<Self>> {
        let mut bundles = fs::read_dir(root().join("bundle/released"))?
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .map(|entry| Self::read(entry.path()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let version = |bundle: &Self| -> Vec<u64> {
            let text = bundle.csv["spec"]["version"].as_str().unwrap();
            text.split('.').map(|part| part.parse().unwrap()).collect()
        };
        bundles.sort_by_key(version);
        Ok(bundles)
    }

    fn read(folder: PathBuf) -> anyhow::Result<Self> {
        let path = folder.join("manifests/mcp-gateway.clusterserviceversion.yaml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            csv: serde_saphyr::from_str(&text)?,
            folder,
        })
    }

    /// Name of the CSV, and of its OperatorCondition.
    pub(crate) fn name(&self) -> &str {
        self.csv["metadata"]["name"].as_str().unwrap()
    }

    /// What it asks for in `relatedImages`: the reference of the part `name`.
    pub(crate) fn image(&self, name: &str) -> &str {
        let images = self.csv["spec"]["relatedImages"].as_array().unwrap();
        let found = images.iter().find(|image| image["name"] == name);
        found.unwrap()["image"].as_str().unwrap()
    }

    /// Puts its CRDs into the place of whatever is there, as OLM does.
    pub(crate) fn crds(&self) -> anyhow::Result<()> {
        for (name, text) in self.manifests("CustomResourceDefinition")? {
            if kubectl(&format!("get -f {}", name.display())).is_ok() {
                kubectl_with(&["replace", "-f", "-"], &text)?;
            } else {
                kubectl_with(&["create", "-f", "-"], &text)?;
            }
        }
        kubectl("wait --for=condition=Established crd --all --timeout=60s").map(drop)
    }

    fn manifests(&self, kind: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.join("manifests"))? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            if text.lines().any(|line| line == format!("kind: {kind}")) {
                found.push((path, text));
            }
        }
        Ok(found)
    }

    /// Everything that goes with the CSV: what only this version has.
    fn own_objects(&self, authority: &str) -> Vec<Value> {
        let mut objects = accounts(&self.csv);
        objects.extend(granted_by_olm(&self.csv));
        objects.extend(configurations(&self.csv, authority));
        objects
    }

    /// Installs it: CRDs, then all that the CSV says.
    pub(crate) fn install(&self, pair: &Pair) -> anyhow::Result<()> {
        self.crds()?;
        apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {GROUP: ""}}}).to_string(),
        )?;
        for (_, text) in self.manifests("PodDisruptionBudget")? {
            kubectl_with(&["apply", "-n", NAMESPACE, "-f", "-"], &text)?;
        }
        apply_all(&[pair.secret.clone(), service()])?;
        self.settle(pair)
    }

    /// Accounts, condition, configurations and Deployments, and the wait for `Succeeded`.
    fn settle(&self, pair: &Pair) -> anyhow::Result<()> {
        apply_all(&self.own_objects(&pair.authority))?;
        if kubectl(&format!("get operatorcondition {} -n {NAMESPACE}", self.name())).is_err() {
            apply(&condition(self.name(), &[]).to_string())?;
        }
        // OLM waits for the rules before it makes Deployments; the accounts of the old version are the same.
        apply_all(&deployments(&self.csv))?;
        for name in ["mcp-gateway-controller", "mcp-gateway-webhook"] {
            kubectl(&format!(
                "rollout status deployment/{name} -n {NAMESPACE} --timeout=180s"
            ))?;
        }
        Ok(())
    }

    /// Takes the place of `old`: CRDs first, and the rest only when the old version lets it.
    pub(crate) fn replace(&self, old: &Self, pair: &Pair) -> anyhow::Result<()> {
        let condition = get(&format!("operatorcondition {} -n {NAMESPACE}", old.name()))?;
        let conditions = condition["spec"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let blocked = conditions
            .iter()
            .any(|condition| condition["type"] == "Upgradeable" && condition["status"] == "False");
        ensure!(!blocked, "the old version blocks the upgrade: {condition}");
        self.settle(pair)?;
        let mut gone = old.own_objects(&pair.authority);
        gone.retain(|object| object["kind"] != "ServiceAccount");
        gone.push(self::condition(old.name(), &[]));
        remove_all(&gone)
    }

    /// The deletion of the CSV; CRDs and objects are left. Rights go before the pods that have them: the operator can do
    /// nothing more when it is told to stop.
    pub(crate) fn delete(&self, pair: &Pair) -> anyhow::Result<()> {
        let mut gone = self.own_objects(&pair.authority);
        gone.extend(deployments(&self.csv));
        gone.extend([service(), pair.secret.clone(), condition(self.name(), &[])]);
        remove_all(&gone)?;
        // Those that lost their rights may still be ending.
        kubectl(&format!(
            "wait --for=delete pod --all -n {NAMESPACE} --timeout=60s"
        ))
        .map(drop)
    }

    /// OLM's rotation: the new authority is in the configurations at once, then the Secret has the new pair; pods roll only
    /// later ([`Bundle::roll_webhook`]).
    pub(crate) fn rotate(&self, pair: &Pair) -> anyhow::Result<()> {
        apply_all(&configurations(&self.csv, &pair.authority))?;
        apply(&pair.secret.to_string()).map(drop)
    }

    /// The rollout that follows a rotation.
    pub(crate) fn roll_webhook(&self) -> anyhow::Result<()> {
        let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"olmcahash":"rotated"}}}}}"#;
        kubectl(&format!(
            "patch deployment mcp-gateway-webhook -n {NAMESPACE} -p {patch}"
        ))?;
        kubectl(&format!(
            "rollout status deployment/mcp-gateway-webhook -n {NAMESPACE} --timeout=120s"
        ))
        .map(drop)
    }
}

fn apply_all(objects: &[Value]) -> anyhow::Result<()> {
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    apply(&texts.join("\n---\n")).map(drop)
}

/// Deletes them in their order, and waits until they are gone.
fn remove_all(objects: &[Value]) -> anyhow::Result<()> {
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    let words = ["delete", "--ignore-not-found", "--timeout=60s", "-f", "-"];
    kubectl_with(&words, &texts.join("\n---\n")).map(drop)
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

/// The OperatorCondition of a CSV as OLM makes it, with `conditions` of the operator.
pub(crate) fn condition(name: &str, conditions: &[Value]) -> Value {
    json!({"apiVersion": "operators.coreos.com/v2", "kind": "OperatorCondition",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"deployments": ["mcp-gateway-controller", "mcp-gateway-webhook"], "conditions": conditions}})
}

/// OLM's CRD of it, in short; OLM's own one takes its place where it is at hand.
pub(crate) fn condition_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "operatorconditions.operators.coreos.com"},
        "spec": {
            "group": "operators.coreos.com", "scope": "Namespaced",
            "names": {"kind": "OperatorCondition", "plural": "operatorconditions", "singular": "operatorcondition"},
            "versions": [{"name": "v2", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

/// What OLM itself grants: the condition to every account, the certificate's Secret to the one that serves webhooks.
fn granted_by_olm(csv: &Value) -> Vec<Value> {
    let name = csv["metadata"]["name"].as_str().unwrap();
    let role = |name: &str, rule: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": NAMESPACE}, "rules": [rule]})
    };
    let bound = |name: &str, account: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{name}-{account}"), "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]})
    };
    let (certificate, condition) = (format!("{name}-cert"), format!("{name}-condition"));
    vec![
        role(
            &certificate,
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [CERTIFICATE]}),
        ),
        bound(&certificate, "mcp-gateway-webhook"),
        role(
            &condition,
            json!({"apiGroups": ["operators.coreos.com"], "resources": ["operatorconditions"],
            "verbs": ["get", "update", "patch"], "resourceNames": [name]}),
        ),
        bound(&condition, "mcp-gateway-controller"),
        bound(&condition, "mcp-gateway-webhook"),
    ]
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
    let suffix = csv["spec"]["version"].as_str().unwrap().replace('.', "-");
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
                "metadata": {"name": format!("{generate}-{suffix}"), "labels": {
                    "olm.managed": "true", "olm.owner": csv["metadata"]["name"], "olm.owner.namespace": NAMESPACE,
                    "olm.owner.kind": "ClusterServiceVersion", "olm.webhook-description-generate-name": generate,
                }},
                "webhooks": [webhook],
            })
        })
        .collect()
}
