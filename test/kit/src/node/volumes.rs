//! A pod's volumes as directories: what is in them, when they must be written again, and which kinds are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume, VolumeMount, VolumeProjection,
};

use crate::node::env::{Fields, field};
use crate::node::swap::{self, File, Files};
use crate::node::tokens::{TokenError, Tokens};
use crate::objects::Objects;

const DEFAULT_MODE: i32 = 0o644;
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-kit";

/// Why a volume cannot be set up now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// A Secret or ConfigMap does not exist.
    #[error("MountVolume.SetUp failed for volume {volume:?}: {kind} {name:?} not found")]
    Missing {
        /// The volume.
        volume: String,
        /// `secret` or `configmap`.
        kind: &'static str,
        /// The object's name.
        name: String,
    },
    /// An item names a key that the object lacks.
    #[error("MountVolume.SetUp failed for volume {volume:?}: references non-existent key {key:?}")]
    MissingKey {
        /// The volume.
        volume: String,
        /// The key.
        key: String,
    },
    /// A service-account token was not given.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A field reference that the kit does not play.
    #[error("downward API: {0}")]
    Field(#[from] crate::node::env::EnvError),
    /// A file could not be written.
    #[error("write volume {volume:?}: {source}")]
    Write {
        /// The volume.
        volume: String,
        /// The reason of the operating system.
        source: std::io::Error,
    },
}

/// The volumes of one pod.
pub(crate) struct PodVolumes {
    dir: PathBuf,
    objects: Objects,
    tokens: Tokens,
    fields: Fields,
}

impl PodVolumes {
    pub(crate) fn new(dir: PathBuf, objects: Objects, tokens: Tokens, fields: Fields) -> Self {
        Self {
            dir,
            objects,
            tokens,
            fields,
        }
    }

    /// The directory of a volume.
    pub(crate) fn path(&self, volume: &str) -> PathBuf {
        self.dir.join(volume)
    }

    /// Writes every volume whose content is not what it should be.
    pub(crate) async fn refresh(&mut self, pod: &Pod) -> Result<(), VolumeError> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let dir = self.path(&volume.name);
            let write = |source| VolumeError::Write {
                volume: volume.name.clone(),
                source,
            };
            match self.content(pod, volume).await? {
                Some(files) => swap::replace(&dir, &files).map(drop).map_err(write)?,
                None => std::fs::create_dir_all(&dir).map_err(write)?,
            }
        }
        Ok(())
    }

    /// The files of a volume; `None` for an emptyDir, whose content is the pod's own.
    async fn content(&mut self, pod: &Pod, volume: &Volume) -> Result<Option<Files>, VolumeError> {
        let source = Source {
            objects: &self.objects,
            pod,
            volume: &volume.name,
        };
        if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
            return source
                .secret(name, secret.items.as_deref(), secret.optional, mode)
                .map(Some);
        }
        if let Some(map) = &volume.config_map {
            let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
            return source
                .config_map(&map.name, map.items.as_deref(), map.optional, mode)
                .map(Some);
        }
        if let Some(downward) = &volume.downward_api {
            let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
            return source
                .downward(downward.items.as_deref(), &self.fields, mode)
                .map(Some);
        }
        if let Some(projected) = &volume.projected {
            return self.projected(pod, &volume.name, projected).await.map(Some);
        }
        Ok(None)
    }

    async fn projected(
        &mut self,
        pod: &Pod,
        volume: &str,
        projected: &ProjectedVolumeSource,
    ) -> Result<Files, VolumeError> {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Files::new();
        for projection in projected.sources.iter().flatten() {
            files.extend(self.projection(pod, volume, projection, mode).await?);
        }
        Ok(files)
    }

    async fn projection(
        &mut self,
        pod: &Pod,
        volume: &str,
        projection: &VolumeProjection,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let source = Source {
            objects: &self.objects,
            pod,
            volume,
        };
        if let Some(secret) = &projection.secret {
            return source.secret(&secret.name, secret.items.as_deref(), secret.optional, mode);
        }
        if let Some(map) = &projection.config_map {
            return source.config_map(&map.name, map.items.as_deref(), map.optional, mode);
        }
        if let Some(downward) = &projection.downward_api {
            return source.downward(downward.items.as_deref(), &self.fields, mode);
        }
        if let Some(token) = &projection.service_account_token {
            let audience = token.audience.as_deref().unwrap_or_default();
            let text = self
                .tokens
                .get(pod, audience, token.expiration_seconds.unwrap_or(3600))
                .await?;
            return Ok(Files::from([(token.path.clone(), file(text.into_bytes(), mode))]));
        }
        Ok(Files::new())
    }
}

struct Source<'a> {
    objects: &'a Objects,
    pod: &'a Pod,
    volume: &'a str,
}

impl Source<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let secret = self.objects.secret(self.namespace(), name);
        let data = secret.map(|secret| {
            let data = secret.data.iter().flatten();
            data.map(|(key, value)| (key.clone(), value.0.clone()))
                .collect::<BTreeMap<_, _>>()
        });
        self.pick("secret", name, data, (items, optional, mode))
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let map = self.objects.config_map(self.namespace(), name);
        let data = map.map(|map| {
            let text = map
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            let binary = map
                .binary_data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.0.clone()));
            text.chain(binary).collect::<BTreeMap<_, _>>()
        });
        self.pick("configmap", name, data, (items, optional, mode))
    }

    fn pick(
        &self,
        kind: &'static str,
        name: &str,
        data: Option<BTreeMap<String, Vec<u8>>>,
        (items, optional, mode): (Option<&[KeyToPath]>, Option<bool>, i32),
    ) -> Result<Files, VolumeError> {
        let optional = optional == Some(true);
        let volume = || self.volume.to_owned();
        let Some(data) = data else {
            let missing = VolumeError::Missing {
                volume: volume(),
                kind,
                name: name.to_owned(),
            };
            return if optional { Ok(Files::new()) } else { Err(missing) };
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return Ok(data
                .into_iter()
                .map(|(key, bytes)| (key, file(bytes, mode)))
                .collect());
        };
        let mut files = Files::new();
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => {
                    files.insert(item.path.clone(), file(bytes.clone(), item.mode.unwrap_or(mode)));
                }
                None if optional => {}
                None => {
                    return Err(VolumeError::MissingKey {
                        volume: volume(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(files)
    }

    fn downward(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        fields: &Fields,
        mode: i32,
    ) -> Result<Files, VolumeError> {
        let mut files = Files::new();
        for item in items.unwrap_or_default() {
            let path = item
                .field_ref
                .as_ref()
                .map(|reference| reference.field_path.as_str())
                .unwrap_or_default();
            let text = field(self.pod, path, fields)?;
            files.insert(
                item.path.clone(),
                file(text.into_bytes(), item.mode.unwrap_or(mode)),
            );
        }
        Ok(files)
    }
}

fn file(bytes: Vec<u8>, mode: i32) -> File {
    File {
        bytes,
        mode: u32::try_from(mode).unwrap_or(0o644),
    }
}

/// The pod with the volume and mounts that the ServiceAccount admission plugin would have added, unless the pod or its
/// service account opted out.
pub(crate) fn with_token_mount(pod: &Pod, objects: &Objects) -> Pod {
    let mut pod = pod.clone();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = pod.spec.as_mut() else { return pod };
    let account = spec
        .service_account_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let of_account = objects
        .service_account(&namespace, account)
        .and_then(|it| it.automount_service_account_token);
    if spec.automount_service_account_token.or(of_account) == Some(false) {
        return pod;
    }
    let all = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for container in all {
        let mounts = container.volume_mounts.get_or_insert_default();
        if !mounts
            .iter()
            .any(|mount| mount.mount_path.trim_end_matches('/') == TOKEN_MOUNT)
        {
            let mount = VolumeMount {
                name: TOKEN_VOLUME.to_owned(),
                mount_path: TOKEN_MOUNT.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            };
            mounts.push(mount);
        }
    }
    let volumes = spec.volumes.get_or_insert_default();
    if !volumes.iter().any(|volume| volume.name == TOKEN_VOLUME) {
        volumes.push(token_volume());
    }
    pod
}

fn token_volume() -> Volume {
    let sources = serde_json::json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]);
    Volume {
        name: TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: None,
            sources: serde_json::from_value(sources).unwrap_or_default(),
        }),
        ..Volume::default()
    }
}

/// What a mount shows: the volume's directory, or one file or folder of it.
pub(crate) fn mount_source(volume_dir: &Path, mount: &VolumeMount) -> PathBuf {
    match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
        Some(sub) => super::rootfs::inside(volume_dir, Path::new(sub)),
        None => volume_dir.to_owned(),
    }
}

/// A shared handle, because containers restart while volumes change.
pub(crate) type SharedVolumes = Arc<tokio::sync::Mutex<PodVolumes>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_shows_one_file() {
        let mount = VolumeMount {
            sub_path: Some("ca.crt".to_owned()),
            ..VolumeMount::default()
        };
        assert_eq!(mount_source(Path::new("/v"), &mount), Path::new("/v/ca.crt"));
        assert_eq!(
            mount_source(Path::new("/v"), &VolumeMount::default()),
            Path::new("/v")
        );
    }
}
