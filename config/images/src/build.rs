//! The command: reads binaries and files, writes layouts and the file of digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use mcp_gateway_images::{
    chart,
    contents::{self, Texts},
    image::Image,
    layout::Published,
    platform::Platform,
    recipe::{PROGRAMS, Program, Release},
    registry::Registry,
    sbom, traces,
};
use serde_json::{Value, json};

/// What `make images` maps the folders of a build to.
const MAPPED: [&str; 3] = ["/src", "/cargo", "/target"];

/// Writes container images as OCI layouts.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Root of the repository.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Folder of the layouts.
    #[arg(long, default_value = "dist/images")]
    out: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Images of the programs; their digests go to config/manifests/images.yaml.
    Programs {
        /// Architecture (Go's name) and folder of its static binaries, `amd64=target/…/image`; once for each.
        #[arg(long = "binaries", required = true, value_parser = pair)]
        binaries: Vec<(String, PathBuf)>,
    },
    /// Images of bundle, catalog and chart, as `make generate` wrote them.
    Files,
    /// Push every layout to a registry. REGISTRY_USER and REGISTRY_PASSWORD log in.
    Push {
        /// `host[:port]/path`; the images' names are appended. The chart goes to `<path>/charts`.
        #[arg(long)]
        registry: String,
        /// By http instead of https.
        #[arg(long)]
        plain_http: bool,
    },
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (architecture, folder) = text.split_once('=').ok_or("expected ARCHITECTURE=FOLDER")?;
    Ok((architecture.to_owned(), folder.into()))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let release = Facts::read(&arguments.root)?;
    match &arguments.what {
        What::Programs { binaries } => programs(arguments, &release, binaries),
        What::Files => files(arguments, &release),
        What::Push { registry, plain_http } => push(&arguments.out, registry, *plain_http),
    }
}

/// What `config/manifests/release.yaml` and the repository say.
struct Facts {
    version: String,
    epoch: u64,
    license: String,
}

impl Facts {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let text = read(&root.join("config/manifests/release.yaml"))?;
        let release: BTreeMap<String, Value> =
            serde_saphyr::from_str(&text).context("config/manifests/release.yaml")?;
        Ok(Self {
            version: release
                .get("version")
                .and_then(Value::as_str)
                .context("release.yaml: version")?
                .to_owned(),
            epoch: release
                .get("epoch")
                .and_then(Value::as_u64)
                .context("release.yaml: epoch")?,
            license: read(&root.join("LICENSE"))?,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Programs for one processor.
struct Built {
    platform: &'static Platform,
    folder: PathBuf,
    metadata: Value,
}

fn programs(arguments: &Arguments, facts: &Facts, binaries: &[(String, PathBuf)]) -> anyhow::Result<()> {
    let built = |(architecture, folder): &(String, PathBuf)| {
        let platform =
            Platform::of(architecture).with_context(|| format!("unknown architecture {architecture}"))?;
        Ok(Built {
            platform,
            folder: folder.clone(),
            metadata: metadata(&arguments.root, platform)?,
        })
    };
    let built: Vec<Built> = binaries.iter().map(built).collect::<anyhow::Result<_>>()?;
    let mut digests = BTreeMap::new();
    for program in PROGRAMS {
        let published = publish(&program, facts, &built)?;
        published.write(&arguments.out)?;
        digests.insert(program.image, published.digest());
    }
    let architectures: BTreeSet<&str> = binaries
        .iter()
        .map(|(architecture, _)| architecture.as_str())
        .collect();
    let document = json!({"version": facts.version, "architectures": architectures, "digests": digests});
    let text = format!(
        "# Written by `make images`; what the bundle refers to.\n{}",
        serde_saphyr::to_string(&document)?
    );
    let path = arguments.root.join("config/manifests/images.yaml");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// A program for every processor that it was built for, each with what is linked into it.
fn publish(program: &Program, facts: &Facts, built: &[Built]) -> anyhow::Result<Published> {
    let (mut images, mut referrers) = (Vec::new(), Vec::new());
    for built in built {
        let components = sbom::components(&built.metadata, program.package);
        ensure!(
            !components.is_empty(),
            "cargo metadata does not know {}",
            program.package
        );
        let notices = sbom::notices(&components);
        let release = Release {
            version: &facts.version,
            epoch: facts.epoch,
            license: &facts.license,
            notices: &notices,
        };
        let binary = binary(program, facts, built)?;
        let image = program.image(built.platform.architecture, binary, &release)?;
        let bom = sbom::document(program.image, &facts.version, &components);
        referrers.push(Image::referrer(&image.manifest, sbom::MEDIA_TYPE, bom));
        images.push(image);
    }
    Ok(Published::new(program.image, &facts.version, images, referrers))
}

/// A program that starts in an empty root and that another build would give in the same bytes.
fn binary(program: &Program, facts: &Facts, built: &Built) -> anyhow::Result<Vec<u8>> {
    let path = built.folder.join(program.package);
    let binary = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        built.platform.runs(&binary),
        "{} is not a static ELF program for {}",
        path.display(),
        built.platform.architecture
    );
    let traces = traces::traces(&binary, &folders(&built.folder), facts.epoch);
    ensure!(
        traces.is_empty(),
        "{} would differ in another build, it carries {}: SOURCE_DATE_EPOCH and --remap-path-prefix take that out, as in \
         `make images`; remove what C compilers made without them ({}/build/*-sys-*)",
        path.display(),
        traces.join(", "),
        built.folder.display()
    );
    Ok(binary)
}

/// Folders that a build may leave in a program: the tree, that of what was built, Cargo's.
fn folders(built: &Path) -> Vec<String> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let all = [std::env::current_dir().ok(), built.canonicalize().ok(), cargo];
    let named = all
        .into_iter()
        .flatten()
        .map(|path| path.to_string_lossy().into_owned());
    // Where paths are mapped to is no trace.
    named
        .filter(|path| !MAPPED.contains(&path.as_str()) && path.len() > 1)
        .collect()
}

/// What Cargo knows about the crates that are linked on a platform.
fn metadata(root: &Path, platform: &Platform) -> anyhow::Result<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            platform.triple,
        ])
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn files(arguments: &Arguments, facts: &Facts) -> anyhow::Result<()> {
    let bundle = texts(
        &arguments.root.join("bundle"),
        &["manifests", "metadata", "tests"],
    )?;
    let annotations = bundle
        .get("metadata/annotations.yaml")
        .context("bundle/metadata/annotations.yaml is missing")?;
    let labels =
        contents::labels(&serde_saphyr::from_str(annotations).context("bundle/metadata/annotations.yaml")?);
    contents::bundle(&facts.version, &bundle, &labels, facts.epoch)?.write(&arguments.out)?;
    let catalog = texts(&arguments.root.join("catalog"), &["mcp-gateway"])?;
    let catalog = catalog
        .into_iter()
        .map(|(path, text)| (format!("configs/{path}"), text))
        .collect();
    contents::catalog(&facts.version, &catalog, facts.epoch)?.write(&arguments.out)?;
    chart(arguments, facts)
}

fn chart(arguments: &Arguments, facts: &Facts) -> anyhow::Result<()> {
    let files = texts(&arguments.root.join("charts"), &["mcp-gateway"])?;
    let files: Texts = files
        .into_iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("mcp-gateway/")?.to_owned(), text)))
        .collect();
    let definition = files
        .get("Chart.yaml")
        .context("charts/mcp-gateway/Chart.yaml is missing")?;
    let definition = serde_saphyr::from_str(definition).context("Chart.yaml")?;
    let artifact = chart::artifact("mcp-gateway", &definition, &files, facts.epoch)?;
    Published::artifact("mcp-gateway", &facts.version, artifact).write(&arguments.out.join("charts"))?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn push(layouts: &Path, address: &str, plain: bool) -> anyhow::Result<()> {
    // Only the first call in a process can succeed, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let login = std::env::var("REGISTRY_USER")
        .ok()
        .zip(std::env::var("REGISTRY_PASSWORD").ok());
    for (folder, address) in [
        (layouts.to_owned(), address.to_owned()),
        (layouts.join("charts"), format!("{address}/charts")),
    ] {
        let registry = Registry::new(&address, plain, login.clone())?;
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.join("oci-layout").is_file() {
                let pushed = registry
                    .push(&path)
                    .await
                    .with_context(|| format!("pushing {}", path.display()))?;
                writeln!(std::io::stdout(), "{pushed}")?;
            }
        }
    }
    Ok(())
}

/// The files below `folders` of `root`, by path relative to `root`.
fn texts(root: &Path, folders: &[&str]) -> anyhow::Result<Texts> {
    let mut texts = Texts::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let name = path
                .strip_prefix(root)
                .context("a file outside its folder")?
                .to_string_lossy()
                .into_owned();
            texts.insert(name, read(&path)?);
        }
    }
    Ok(texts)
}
