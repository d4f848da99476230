//! A container's file system: a small tmpfs root of its own, the machine's programs in it read-only, an empty `/tmp`,
//! `/var`, `/run`, a handful of files in `/etc`, and the pod's volumes. Runs in the container's process, before its program.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};
use serde::{Deserialize, Serialize};

/// Everything that the process needs to become the container's program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    /// An empty directory that the new root is mounted on.
    pub(crate) root: PathBuf,
    /// `securityContext.readOnlyRootFilesystem`.
    pub(crate) read_only: bool,
    /// Directories of this machine that must be visible under their own path, wherever they are.
    pub(crate) visible: Vec<PathBuf>,
    /// The hosts file shared by all pods.
    pub(crate) hosts: PathBuf,
    /// The host name of the pod.
    pub(crate) host_name: String,
    /// Links: path in the container → path on this machine.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Volumes.
    pub(crate) mounts: Vec<Mount>,
    /// Working directory.
    pub(crate) working_dir: PathBuf,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
}

/// One volume mount.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// Top-level directories that a container has of its own.
const OWN: &[&str] = &[
    "etc",
    "tmp",
    "var",
    "run",
    "proc",
    "sys",
    "dev",
    "lost+found",
    "boot",
    "media",
    "mnt",
];
/// What programs read in `/etc` that is not configuration of this machine.
const ETC: &[&str] = &[
    "passwd",
    "group",
    "nsswitch.conf",
    "ssl",
    "pki",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "protocols",
    "services",
    "mime.types",
    "host.conf",
    "localtime",
    "gai.conf",
];

/// Builds the root, enters it and becomes the program. Returns only when that fails.
pub(crate) fn become_container(plan: &ContainerPlan) -> std::io::Error {
    if let Err(error) = enter(plan) {
        return error;
    }
    let Some((program, args)) = plan.command.split_first() else {
        return std::io::Error::other("no command");
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(plan.env.iter().map(|(name, value)| (name, value)));
    let error = command.exec();
    std::io::Error::new(error.kind(), format!("exec {program}: {error}"))
}

fn enter(plan: &ContainerPlan) -> std::io::Result<()> {
    let root = &plan.root;
    rustix::system::sethostname(plan.host_name.as_bytes())?;
    mount(
        "tmpfs",
        root,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"size=64m,mode=755"),
    )?;
    for dir in ["etc", "tmp", "var/tmp", "run"] {
        fs::create_dir_all(root.join(dir))?;
    }
    std::os::unix::fs::symlink("../run", root.join("var/run"))?;
    machine(root)?;
    etc(root, plan)?;
    for path in &plan.visible {
        let target = inside(root, path);
        if !target.exists() {
            fs::create_dir_all(&target)?;
            bind(path, &target, true)?;
        }
    }
    for (path, target) in &plan.links {
        let path = inside(root, path);
        make_parent(&path)?;
        std::os::unix::fs::symlink(target, path)?;
    }
    for mount in &plan.mounts {
        volume(root, mount).map_err(|error| named(&mount.target, &error))?;
    }
    fs::create_dir_all(inside(root, &plan.working_dir))?;
    if plan.read_only {
        mount_remount(
            root,
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
            c"",
        )?;
    }
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir(&plan.working_dir)
}

/// The machine's own directories: programs read-only, the kernel's file systems as they are.
fn machine(root: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir("/")?.flatten() {
        let name = entry.file_name();
        let target = root.join(&name);
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_dir() && !OWN.iter().any(|own| name == *own) {
            fs::create_dir(&target)?;
            // A directory that this user may not enter is none that a program needs.
            let _ = bind(&entry.path(), &target, true);
        }
    }
    for kernel in ["proc", "sys", "dev"] {
        let target = root.join(kernel);
        fs::create_dir(&target)?;
        mount_bind_recursive(Path::new("/").join(kernel), &target)?;
    }
    Ok(())
}

fn etc(root: &Path, plan: &ContainerPlan) -> std::io::Result<()> {
    for name in ETC {
        let source = Path::new("/etc").join(name);
        let Ok(metadata) = fs::metadata(&source) else {
            continue;
        };
        let target = root.join("etc").join(name);
        if metadata.is_dir() {
            fs::create_dir(&target)?;
            bind(&source, &target, true)?;
        } else {
            // Copied, not bound: small, and links lead anywhere.
            fs::copy(&source, &target)?;
        }
    }
    fs::write(root.join("etc/hostname"), format!("{}\n", plan.host_name))?;
    fs::write(root.join("etc/resolv.conf"), "")?;
    fs::write(root.join("etc/hosts"), "")?;
    mount_bind(&plan.hosts, root.join("etc/hosts"))?;
    Ok(())
}

fn volume(root: &Path, mount: &Mount) -> std::io::Result<()> {
    let target = inside(root, &mount.target);
    if mount.source.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        make_parent(&target)?;
        fs::write(&target, "")?;
    }
    bind(&mount.source, &target, mount.read_only)
}

fn bind(source: &Path, target: &Path, read_only: bool) -> std::io::Result<()> {
    mount_bind_recursive(source, target)?;
    if read_only {
        let kept = rustix::fs::statvfs(target)?.f_flag;
        mount_remount(
            target,
            MountFlags::BIND | MountFlags::RDONLY | kept_flags(kept),
            c"",
        )?;
    }
    Ok(())
}

/// Flags of the machine's mount that a user namespace may not take away.
fn kept_flags(flags: StatVfsMountFlags) -> MountFlags {
    let mut kept = MountFlags::empty();
    for (have, keep) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if flags.contains(have) {
            kept |= keep;
        }
    }
    kept
}

/// `path` below `root`; `..` is dropped, so that nothing leads out.
pub(crate) fn inside(root: &Path, path: &Path) -> PathBuf {
    let mut target = root.to_owned();
    target.extend(
        path.components()
            .filter(|part| matches!(part, Component::Normal(_))),
    );
    target
}

fn make_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn named(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("mount at {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root() {
        assert_eq!(
            inside(Path::new("/r"), Path::new("/etc/../../x")),
            Path::new("/r/etc/x")
        );
        assert_eq!(inside(Path::new("/r"), Path::new("/")), Path::new("/r"));
    }

    #[test]
    fn locked_flags_are_kept() {
        let kept = kept_flags(StatVfsMountFlags::NODEV | StatVfsMountFlags::RELATIME);
        assert_eq!(kept, MountFlags::NODEV | MountFlags::RELATIME);
    }
}
