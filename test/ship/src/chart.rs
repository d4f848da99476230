//! What `helm template` makes of the chart, as objects.

use anyhow::Context;
use serde_json::Value;

use crate::helm::Helm;

/// The release's objects for `--set` values, hooks included.
pub struct Rendered(Vec<Value>);

impl Rendered {
    /// Renders release `name` in `namespace`.
    ///
    /// # Errors
    /// When Helm refuses the values or the output is not YAML.
    pub fn new(helm: Helm, name: &str, namespace: &str, values: &[&str]) -> anyhow::Result<Self> {
        let mut arguments = vec![
            "template",
            name,
            "charts/mcp-gateway",
            "--namespace",
            namespace,
            "--kube-version",
            "1.36.0",
        ];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        let text = helm.output(&arguments)?;
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&text).context("the rendered chart is not YAML")?;
        Ok(Self(
            objects.into_iter().filter(|object| !object.is_null()).collect(),
        ))
    }

    /// All of them.
    #[must_use]
    pub fn objects(&self) -> &[Value] {
        &self.0
    }

    /// Those of one kind, without hooks.
    #[must_use]
    pub fn kind(&self, kind: &str) -> Vec<&Value> {
        let hook = |object: &&Value| object.pointer("/metadata/annotations/helm.sh~1hook").is_none();
        self.0
            .iter()
            .filter(|object| object["kind"] == kind)
            .filter(hook)
            .collect()
    }

    /// The one of this kind and name.
    #[must_use]
    pub fn one(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|object| object["kind"] == kind && name_of(object) == name)
    }

    /// `kind/name` of all objects that are not hooks, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter(|object| object.pointer("/metadata/annotations/helm.sh~1hook").is_none())
            .map(|object| format!("{}/{}", text(&object["kind"]), name_of(object)))
            .collect();
        names.sort();
        names
    }
}

fn name_of(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
