//! A container's command line and environment, as Kubernetes defines them: references, expansion, image defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

use crate::node::images::Image;
use crate::objects::Objects;

/// Why a container's environment cannot be made now; the kubelet's reason is CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EnvError {
    /// A Secret or ConfigMap does not exist.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `secret` or `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists without the key.
    #[error("couldn't find key {key} in {kind} {name:?}")]
    MissingKey {
        /// `secret` or `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field or source that the kit does not play.
    #[error("the kit does not play env source {0}")]
    Unsupported(String),
    /// Neither the container nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
}

/// Variables in the order in which they were defined; later definitions replace earlier ones.
pub(crate) type Variables = Vec<(String, String)>;

/// The pod's own values for `fieldRef`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    pub(crate) pod_ip: String,
    pub(crate) host_ip: String,
}

/// The whole environment of a container: the image's, `envFrom`, `env`, and where the API server is.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    image: &Image,
    objects: &Objects,
    fields: &Fields,
) -> Result<Variables, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut variables = base(pod, image);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let data = if let Some(reference) = &source.secret_ref {
            secret_data(objects, namespace, &reference.name, reference.optional)?
        } else if let Some(reference) = &source.config_map_ref {
            config_map_data(objects, namespace, &reference.name, reference.optional)?
        } else {
            BTreeMap::new()
        };
        variables.extend(
            data.into_iter()
                .map(|(key, value)| (format!("{prefix}{key}"), value)),
        );
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, variable, objects, fields, &variables)? {
            variables.push((variable.name.clone(), value));
        }
    }
    Ok(last_wins(variables))
}

fn base(pod: &Pod, image: &Image) -> Variables {
    let mut variables: Variables = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/"),
        ("KUBERNETES_SERVICE_HOST", crate::control_plane::NODE_ADDRESS),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let port = crate::control_plane::API_PORT.to_string();
    variables.push(("KUBERNETES_SERVICE_PORT".to_owned(), port.clone()));
    variables.push(("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), port));
    variables.push((
        "HOSTNAME".to_owned(),
        pod.metadata.name.clone().unwrap_or_default(),
    ));
    variables.extend(image.env.clone());
    variables
}

fn value_of(
    pod: &Pod,
    variable: &EnvVar,
    objects: &Objects,
    fields: &Fields,
    defined: &Variables,
) -> Result<Option<String>, EnvError> {
    match (&variable.value, &variable.value_from) {
        (None, Some(source)) => from_source(pod, source, objects, fields),
        (value, _) => Ok(Some(expand(value.as_deref().unwrap_or_default(), defined))),
    }
}

fn from_source(
    pod: &Pod,
    source: &EnvVarSource,
    objects: &Objects,
    fields: &Fields,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &source.secret_key_ref {
        let data = secret_data(objects, namespace, &reference.name, reference.optional)?;
        return key_of(
            data,
            "secret",
            &reference.name,
            &reference.key,
            reference.optional,
        );
    }
    if let Some(reference) = &source.config_map_key_ref {
        let data = config_map_data(objects, namespace, &reference.name, reference.optional)?;
        return key_of(
            data,
            "configmap",
            &reference.name,
            &reference.key,
            reference.optional,
        );
    }
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, fields).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return Err(EnvError::Unsupported(format!(
            "resourceFieldRef {}",
            reference.resource
        )));
    }
    Ok(Some(String::new()))
}

fn key_of(
    mut data: BTreeMap<String, String>,
    kind: &'static str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, EnvError> {
    match data.remove(key) {
        None if optional != Some(true) => Err(EnvError::MissingKey {
            kind,
            name: name.to_owned(),
            key: key.to_owned(),
        }),
        value => Ok(value),
    }
}

fn secret_data(
    objects: &Objects,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvError> {
    match objects.secret(namespace, name) {
        Some(secret) => {
            let data = secret.data.iter().flatten();
            Ok(data
                .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
                .collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvError::Missing {
            kind: "secret",
            name: name.to_owned(),
        }),
    }
}

fn config_map_data(
    objects: &Objects,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvError> {
    match objects.config_map(namespace, name) {
        Some(map) => Ok(map.data.clone().unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvError::Missing {
            kind: "configmap",
            name: name.to_owned(),
        }),
    }
}

/// The value of a `fieldRef`.
pub(crate) fn field(pod: &Pod, path: &str, fields: &Fields) -> Result<String, EnvError> {
    let metadata = &pod.metadata;
    let of_map = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.iter()
            .flatten()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => fields.host_ip.clone(),
        "status.podIP" | "status.podIPs" => fields.pod_ip.clone(),
        _ => match subscript(path) {
            Some(("metadata.labels", key)) => of_map(&metadata.labels, key),
            Some(("metadata.annotations", key)) => of_map(&metadata.annotations, key),
            _ => return Err(EnvError::Unsupported(format!("fieldRef {path}"))),
        },
    })
}

/// `metadata.labels['key']` → (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn last_wins(variables: Variables) -> Variables {
    let mut unique: Variables = Vec::new();
    for (name, value) in variables {
        match unique.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => unique.push((name, value)),
        }
    }
    unique
}

/// Replaces `$(NAME)` by the value of a defined variable; `$$(NAME)` escapes; unknown names stay as they are.
#[must_use]
pub(crate) fn expand(text: &str, variables: &Variables) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = behind;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// The program and its arguments: `command` replaces the image's entrypoint **and** its default arguments, `args` replaces
/// the default arguments.
pub(crate) fn command_line(
    container: &Container,
    image: &Image,
    variables: &Variables,
) -> Result<Vec<String>, EnvError> {
    let command = container.command.clone().unwrap_or_default();
    let args = container.args.clone().unwrap_or_default();
    let mut line: Vec<String> = if command.is_empty() {
        image.entrypoint.clone()
    } else {
        Vec::new()
    };
    line.extend(command.iter().map(|word| expand(word, variables)));
    if !args.is_empty() {
        line.extend(args.iter().map(|word| expand(word, variables)));
    } else if command.is_empty() {
        line.extend(image.cmd.clone());
    }
    if line.is_empty() {
        Err(EnvError::NoCommand)
    } else {
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        vec![("A".into(), "1".into()), ("B".into(), "two".into())]
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        for (text, expected) in [
            ("$(A)-$(B)", "1-two"),
            ("$$(A)", "$(A)"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &variables()), expected, "{text}");
        }
    }

    #[test]
    fn command_replaces_entrypoint_and_args_replace_cmd() {
        let image = Image {
            entrypoint: vec!["e".into()],
            cmd: vec!["c".into()],
            ..Image::default()
        };
        let line = |command: &[&str], args: &[&str]| {
            let words = |list: &[&str]| Some(list.iter().map(|word| (*word).to_owned()).collect());
            let container = Container {
                command: words(command),
                args: words(args),
                ..Container::default()
            };
            command_line(&container, &image, &variables()).unwrap()
        };
        assert_eq!(line(&[], &[]), ["e", "c"]);
        assert_eq!(line(&[], &["$(A)"]), ["e", "1"]);
        assert_eq!(line(&["x"], &[]), ["x"]);
        assert_eq!(line(&["x"], &["y"]), ["x", "y"]);
        let nothing = command_line(&Container::default(), &Image::default(), &Vec::new());
        assert_eq!(nothing, Err(EnvError::NoCommand));
    }

    #[test]
    fn the_last_definition_of_a_name_wins() {
        let all = last_wins(vec![
            ("A".into(), "1".into()),
            ("B".into(), "2".into()),
            ("A".into(), "3".into()),
        ]);
        assert_eq!(
            all,
            [("A".to_owned(), "3".to_owned()), ("B".to_owned(), "2".to_owned())]
        );
    }

    #[test]
    fn fields_of_the_pod_can_be_referred_to() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"app.kubernetes.io/name": "x"}}}))
        .unwrap();
        let fields = Fields {
            pod_ip: "192.0.2.7".into(),
            host_ip: "192.0.2.1".into(),
        };
        assert_eq!(field(&pod, "status.podIP", &fields).unwrap(), "192.0.2.7");
        assert_eq!(
            field(&pod, "metadata.labels['app.kubernetes.io/name']", &fields).unwrap(),
            "x"
        );
        assert_eq!(
            field(&pod, "spec.serviceAccountName", &fields).unwrap(),
            "default"
        );
        assert!(field(&pod, "status.phase", &fields).is_err());
    }
}
