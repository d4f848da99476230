//! What a pod may not ask for here: refused loudly, because a field that is silently ignored would make a test lie.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// A sentence for a pod that asks for what the kit does not play; `None` when it plays all of it.
pub(crate) fn refused(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let whole = [
        (spec.host_network, "hostNetwork"),
        (spec.host_pid, "hostPID"),
        (spec.host_ipc, "hostIPC"),
        (spec.share_process_namespace, "shareProcessNamespace"),
    ];
    let of_pod = whole
        .into_iter()
        .find(|(asked, _)| *asked == Some(true))
        .map(|(_, what)| what.to_owned());
    let of_volumes = || {
        spec.volumes
            .iter()
            .flatten()
            .find(|volume| !is_played(volume))
            .map(volume_sentence)
    };
    let of_containers = || {
        let all = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        all.filter_map(|container| {
            Some(format!(
                "{} (container {:?})",
                of_container(container)?,
                container.name
            ))
        })
        .next()
    };
    let of_init = || {
        let mut init = spec.init_containers.iter().flatten();
        let sidecar = init.find(|container| container.restart_policy.is_some())?;
        Some(format!("restartPolicy of init container {:?}", sidecar.name))
    };
    let what = of_pod
        .or_else(of_volumes)
        .or_else(of_containers)
        .or_else(of_init)?;
    Some(format!("the kit does not play {what}"))
}

fn is_played(volume: &Volume) -> bool {
    volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.empty_dir.is_some()
        || volume.downward_api.is_some()
        || volume.projected.as_ref().is_some_and(|projected| {
            let mut sources = projected.sources.iter().flatten();
            sources.all(|source| source.cluster_trust_bundle.is_none() && source.pod_certificate.is_none())
        })
}

fn volume_sentence(volume: &Volume) -> String {
    format!(
        "the source of volume {:?}: only secret, configMap, emptyDir, downwardAPI and projected",
        volume.name
    )
}

fn of_container(container: &Container) -> Option<&'static str> {
    let probes = [
        &container.liveness_probe,
        &container.readiness_probe,
        &container.startup_probe,
    ];
    if probes.into_iter().flatten().any(|probe| probe.grpc.is_some()) {
        return Some("grpc probes");
    }
    let hooks = container.lifecycle.as_ref();
    if hooks.is_some_and(|hooks| hooks.post_start.is_some()) {
        return Some("postStart hooks");
    }
    let before = hooks.and_then(|hooks| hooks.pre_stop.as_ref());
    if before.is_some_and(|hook| hook.http_get.is_some() || hook.tcp_socket.is_some()) {
        return Some("preStop hooks other than exec and sleep");
    }
    if container.volume_devices.is_some() {
        return Some("volumeDevices");
    }
    if container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| mount.sub_path_expr.is_some())
    {
        return Some("subPathExpr");
    }
    let mut ports = container.ports.iter().flatten();
    ports
        .any(|port| port.host_port.is_some_and(|number| number != 0))
        .then_some("hostPort")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judge(spec: &Value) -> Option<String> {
        refused(&serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    #[test]
    fn what_is_not_played_is_refused_by_name() {
        for (spec, words) in [
            (
                json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                "\"v\"",
            ),
            (json!({"containers": [], "hostNetwork": true}), "hostNetwork"),
            (
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
                "hostPort",
            ),
            (
                json!({"containers": [{"name": "c", "livenessProbe": {"grpc": {"port": 1}}}]}),
                "grpc",
            ),
            (
                json!({"containers": [], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
                "\"s\"",
            ),
        ] {
            let sentence = judge(&spec).unwrap_or_else(|| panic!("{spec} is not refused"));
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn what_is_played_is_not_refused() {
        let spec = json!({
            "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 1}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}}]}}],
        });
        assert_eq!(judge(&spec), None);
    }
}
