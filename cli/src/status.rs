//! `mcpgw status`: gateways, their servers, and what is wrong with the next step, on one screen.

use std::{
    io::{self, Write},
    time::Duration,
};

use kube::Client;
use mcp_gateway_api::{
    acceptance::Accepted,
    names,
    object_key::ObjectKey,
    resolution::Plan,
    world::{World, gateway_of},
};
use serde_json::{Value, json};

use crate::{
    cluster::{self, DEPLOYMENTS, JUDGED, Listing, NoClusterError, Snapshot, condition, number, text},
    output::{self, Format, OutputError, Tone},
    remedy::{self, Remedy},
};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Status {
    /// Only what is in this namespace.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Looks again every two seconds and prints what changed, until it is stopped.
    #[arg(long, short)]
    pub watch: bool,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] NoClusterError),
    /// A kind that may not be read.
    #[error("{0}: {1}")]
    Unreadable(&'static str, String),
    /// The output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    object: String,
    remedy: Remedy,
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    versions: Vec<[String; 2]>,
    extensions: Vec<[String; 7]>,
    servers: Vec<[String; 9]>,
    troubles: Vec<Trouble>,
}

impl Status {
    /// Looks and prints; the exit code is 1 when something is not ready.
    ///
    /// # Errors
    /// [`StatusError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, StatusError> {
        let client = cluster::connect().await?;
        let mut shown = None;
        loop {
            let report = self.look(&client).await?;
            if shown.as_ref() != Some(&report) {
                self.show(out, &report)?;
            }
            if !self.watch {
                return Ok(u8::from(!report.troubles.is_empty()));
            }
            shown = Some(report);
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(0),
            }
        }
    }

    async fn look(&self, client: &Client) -> Result<Report, StatusError> {
        let kinds: Vec<Listing> = JUDGED.into_iter().chain([DEPLOYMENTS]).collect();
        let snapshot = Snapshot::take(client, &kinds).await;
        let needed = snapshot
            .unreadable()
            .find(|(kind, _)| kind.starts_with("MCP") || *kind == "Gateway");
        if let Some((kind, why)) = needed {
            return Err(StatusError::Unreadable(kind, why.to_owned()));
        }
        Ok(report(&snapshot, self.namespace.as_deref()))
    }

    fn show(&self, out: &mut impl Write, report: &Report) -> Result<(), StatusError> {
        if output::document(out, self.output, &as_json(report))?.is_none() {
            print(out, report).map_err(OutputError::from)?;
        }
        out.flush().map_err(OutputError::from)?;
        Ok(())
    }
}

/// Reads a snapshot. Pure.
fn report(snapshot: &Snapshot, namespace: Option<&str>) -> Report {
    let world = snapshot.world();
    let view = View {
        plan: Plan::compute(&world, "cluster.local"),
        world,
        snapshot,
    };
    let shown = |object: &&Value| namespace.is_none_or(|only| text(object, "/metadata/namespace") == only);
    let (extensions, servers) = ("MCPGatewayExtension", "MCPServerRegistration");
    let mut report = Report {
        versions: versions(snapshot),
        ..Report::default()
    };
    for object in snapshot.all(extensions).iter().filter(shown) {
        report.extensions.push(view.extension(object));
        report.troubles.extend(view.trouble(extensions, object));
    }
    for object in snapshot.all(servers).iter().filter(shown) {
        report.servers.push(view.server(object));
        report.troubles.extend(view.trouble(servers, object));
    }
    for kind in ["MCPVirtualServer", "MCPAuthPolicy"] {
        let objects = snapshot.all(kind).iter().filter(shown);
        report
            .troubles
            .extend(objects.filter_map(|object| view.trouble(kind, object)));
    }
    report
}

/// Versions of operator and webhook.
fn versions(snapshot: &Snapshot) -> Vec<[String; 2]> {
    let named = ["mcp-gateway-operator", mcp_gateway_api::webhooks::NAME];
    let deployments = snapshot.all("Deployment").iter();
    deployments
        .filter_map(|object| {
            let name = text(object, "/metadata/labels/app.kubernetes.io~1name");
            named
                .contains(&name)
                .then(|| [name.to_owned(), image_version(object).to_owned()])
        })
        .collect()
}

/// What stands after the colon of the first container's image.
pub(crate) fn image_version(deployment: &Value) -> &str {
    let image = text(deployment, "/spec/template/spec/containers/0/image");
    let name = image.split('@').next().unwrap_or(image);
    name.rsplit_once(':').map_or("unknown", |(_, tag)| tag)
}

struct View<'s> {
    snapshot: &'s Snapshot,
    world: World,
    plan: Plan,
}

impl View<'_> {
    fn extension(&self, object: &Value) -> [String; 7] {
        let key = mcp_gateway_api::intake::key_of(object);
        let extension = self.world.extension(&key);
        let broker = ObjectKey::new(key.namespace.as_str(), names::BROKER);
        let broker = self.snapshot.one("Deployment", &broker);
        let replicas = broker.map(|broker| {
            let ready = number(broker, "/status/readyReplicas").unwrap_or_default();
            format!("{ready}/{}", number(broker, "/spec/replicas").unwrap_or(1))
        });
        let accepted = self
            .plan
            .judgement(&key)
            .and_then(|judgement| judgement.accepted.as_ref());
        [
            key.to_string(),
            extension.map_or_else(String::new, |extension| gateway_of(extension).to_string()),
            text(object, "/spec/targetRef/sectionName").to_owned(),
            accepted.map(Accepted::url).unwrap_or_default(),
            ready(object).to_owned(),
            replicas.unwrap_or_default(),
            broker.map(image_version).unwrap_or_default().to_owned(),
        ]
    }

    fn server(&self, object: &Value) -> [String; 9] {
        let key = mcp_gateway_api::intake::key_of(object);
        let served_by = self.plan.resolution(&key).map(|resolution| {
            resolution
                .served_by
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        });
        // Of a server whose brokers were not asked yet nothing is known: the cell stays empty.
        let count = |members: &[&str]| {
            let known = members
                .iter()
                .filter_map(|member| number(object, &format!("/status/{member}")));
            known
                .reduce(|all, more| all + more)
                .map_or_else(String::new, |count| count.to_string())
        };
        [
            key.to_string(),
            text(object, "/spec/prefix").to_owned(),
            served_by.unwrap_or_default().join(", "),
            ready(object).to_owned(),
            count(&["discoveredTools"]),
            count(&["discoveredPrompts"]),
            count(&["discoveredResources", "discoveredResourceTemplates"]),
            text(object, "/status/era").to_owned(),
            text(object, "/status/protocolVersion").to_owned(),
        ]
    }

    fn trouble(&self, kind: &str, object: &Value) -> Option<Trouble> {
        let key = mcp_gateway_api::intake::key_of(object);
        let disabled = text(object, "/spec/state") == "Disabled";
        let wanted = if kind == "MCPAuthPolicy" {
            "Accepted"
        } else {
            "Ready"
        };
        let condition = condition(object, wanted);
        if disabled || condition.is_some_and(|condition| text(condition, "/status") == "True") {
            return None;
        }
        Some(Trouble {
            object: format!("{kind} {key}"),
            remedy: self.remedy(&key, condition),
        })
    }

    fn remedy(&self, key: &ObjectKey, condition: Option<&Value>) -> Remedy {
        let finding = self
            .plan
            .judgement(key)
            .and_then(|judgement| judgement.findings.first());
        if let (Some(extension), Some(finding)) = (self.world.extension(key), finding) {
            return remedy::of_extension(&self.world, extension, finding);
        }
        let problem = self
            .plan
            .resolution(key)
            .and_then(|resolution| resolution.problem.as_ref());
        if let (Some(registration), Some(problem)) = (self.world.registration(key), problem) {
            return remedy::of_registration(&self.world, registration, problem);
        }
        match condition {
            Some(condition) => remedy::of_condition(text(condition, "/reason"), text(condition, "/message")),
            None => Remedy {
                check: "operator",
                message: "has no status yet".to_owned(),
                fix: "see that the operator runs: mcpgw doctor".to_owned(),
            },
        }
    }
}

fn ready(object: &Value) -> &str {
    condition(object, "Ready").map_or("Unknown", |condition| text(condition, "/status"))
}

fn tone(ready: &str) -> Tone {
    match ready {
        "True" => Tone::Good,
        "False" => Tone::Bad,
        _ => Tone::Doubtful,
    }
}

/// Cells, the one with the state in its colour.
fn cells<const N: usize>(row: &[String; N], state: usize) -> Vec<(String, Tone)> {
    let cells = row.iter().enumerate().map(|(index, text)| {
        let tone = if index == state { tone(text) } else { Tone::Plain };
        (text.clone(), tone)
    });
    cells.collect()
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for [name, version] in &report.versions {
        writeln!(out, "{name} {version}")?;
    }
    if report.extensions.is_empty() {
        writeln!(
            out,
            "no MCPGatewayExtension; docs/guides/first-server.md begins with one"
        )?;
    } else {
        let head = [
            "EXTENSION",
            "GATEWAY",
            "LISTENER",
            "URL",
            "READY",
            "REPLICAS",
            "VERSION",
        ];
        let rows = report.extensions.iter().map(|row| cells(row, 4)).collect();
        output::table(out, &head, rows)?;
    }
    if !report.servers.is_empty() {
        writeln!(out)?;
        let head = [
            "SERVER",
            "PREFIX",
            "SERVED BY",
            "READY",
            "TOOLS",
            "PROMPTS",
            "RESOURCES",
            "ERA",
            "REVISION",
        ];
        let rows = report.servers.iter().map(|row| cells(row, 3)).collect();
        output::table(out, &head, rows)?;
    }
    for trouble in &report.troubles {
        writeln!(
            out,
            "\n{} {}: {}",
            output::painted_text("problem", Tone::Bad),
            trouble.object,
            trouble.remedy.message
        )?;
        writeln!(out, "    to mend it: {}", trouble.remedy.fix)?;
    }
    Ok(())
}

fn as_json(report: &Report) -> Value {
    let versions = report
        .versions
        .iter()
        .map(|[name, version]| json!({"name": name, "version": version}));
    let extensions = report
        .extensions
        .iter()
        .map(|[extension, gateway, listener, url, ready, replicas, version]| {
            json!({"extension": extension, "gateway": gateway, "listener": listener, "url": url, "ready": ready, "replicas": replicas, "version": version})
        });
    let servers = report.servers.iter().map(|[server, prefix, served_by, ready, tools, prompts, resources, era, revision]| {
        json!({"server": server, "prefix": prefix, "servedBy": served_by, "ready": ready, "tools": tools, "prompts": prompts,
            "resources": resources, "era": era, "revision": revision})
    });
    let problems = report.troubles.iter().map(|trouble| {
        json!({"object": trouble.object, "message": trouble.remedy.message, "fix": trouble.remedy.fix})
    });
    json!({
        "versions": versions.collect::<Vec<_>>(),
        "extensions": extensions.collect::<Vec<_>>(),
        "servers": servers.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
