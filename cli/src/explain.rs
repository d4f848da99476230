//! `mcpgw explain`: may this caller use this item, by which rule of which policy, and what would have to change. The
//! decision is the brokers' own function over manifests or over a cluster.

use std::io::{self, Write};

use mcp_gateway_api::{
    attachment::{self, Entrance},
    auth_policy::{Effect, MCPAuthPolicy, PolicyTargetKind, ResourceKind},
    authorization::{
        Claims, Item, ItemKind, Outcome, Policies, Purpose, Request, claim_matches, condition,
        resource_name_covers,
    },
    config::AuthPolicyEntry,
    extension::{Authorization, MCPGatewayExtension},
    object_key::{ObjectKey, is_live},
    world::{World, gateway_of},
};
use serde_json::Value;

use crate::{
    cluster::{self, JUDGED, Listing, NoClusterError, Snapshot},
    lint::{ReadError, read},
    world::{placed, world_of_files},
};

mod advice;
mod print;

/// What decides: our kinds and Gateways.
const KINDS: [Listing; 5] = {
    let [extension, registration, virtual_server, policy, gateway, ..] = JUDGED;
    [extension, registration, virtual_server, policy, gateway]
};

/// How the answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A few lines for people.
    Text,
    /// One JSON object.
    Json,
}

/// What to explain.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("item").required(true).args(["tool", "prompt", "resource"])))]
pub struct Explain {
    /// File with the claims of the caller's token as a JSON object; `-` is standard input. Without it: a caller without token.
    #[arg(long = "as", value_name = "CLAIMS")]
    pub claims: Option<String>,
    /// Tool, `<namespace>/<registration>:<tool>` with the server's own name, without prefix.
    #[arg(long)]
    pub tool: Option<String>,
    /// Prompt, in the same form.
    #[arg(long)]
    pub prompt: Option<String>,
    /// Resource, `<namespace>/<registration>:<URI>`.
    #[arg(long)]
    pub resource: Option<String>,
    /// File with the arguments of the call as a JSON object, for conditions. Without it: may the caller see the item?
    #[arg(long, value_name = "FILE")]
    pub arguments: Option<String>,
    /// File with the annotations of the tool or resource as a JSON object, for conditions. Without it there are none.
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<String>,
    /// Gateway, `<namespace>/<name>`; needed when there are several with an extension.
    #[arg(long)]
    pub gateway: Option<String>,
    /// Extension, `<namespace>/<name>`; needed when the Gateway has several.
    #[arg(long)]
    pub extension: Option<String>,
    /// Virtual server that the caller uses, `<namespace>/<name>`.
    #[arg(long)]
    pub virtual_server: Option<String>,
    /// Files or directories with manifests; without one the cluster of the current context is asked.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub files: Vec<String>,
    /// Namespace of objects that name none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file of an option.
    #[error("{0} {1}: must hold one JSON object")]
    Object(&'static str, String),
    /// The item.
    #[error("{0:?} is no name of an item; use <namespace>/<registration>:<name>, without the prefix")]
    Item(String),
    /// Which extension is meant.
    #[error("{0}")]
    Entrance(String),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] NoClusterError),
    /// A kind that decides and may not be read.
    #[error("cluster: {0}: {1}")]
    Unreadable(&'static str, String),
    /// The output.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// What the files of the options hold.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Claims of the caller's token.
    pub claims: Option<Claims>,
    /// Arguments of the call.
    pub arguments: Option<Claims>,
    /// Annotations of the item.
    pub annotations: Option<Claims>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict of the brokers' function.
    pub outcome: Outcome,
    /// Extension that was looked at.
    pub extension: ObjectKey,
    /// Policies that concern the item, oldest first.
    pub policies: Vec<String>,
    /// What should be known beside the verdict.
    pub notes: Vec<String>,
    /// What would turn it.
    pub changes: Vec<String>,
}

impl Explain {
    /// Explains and prints; the exit code is 0 when the item is allowed and 1 when it is denied.
    ///
    /// # Errors
    /// [`ExplainError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, ExplainError> {
        let given = Given {
            claims: object("--as", self.claims.as_ref())?,
            arguments: object("--arguments", self.arguments.as_ref())?,
            annotations: object("--annotations", self.annotations.as_ref())?,
        };
        self.item(None)?;
        let world = if self.files.is_empty() {
            let client = cluster::connect().await?;
            let snapshot = Snapshot::take(&client, &KINDS).await;
            if let Some((kind, why)) = snapshot.unreadable().next() {
                return Err(ExplainError::Unreadable(kind, why.to_owned()));
            }
            snapshot.world()
        } else {
            self.world_of_files()?
        };
        let explanation = self.explain(&world, &given)?;
        match self.output {
            Format::Text => print::text(out, self.name(), &explanation)?,
            Format::Json => writeln!(out, "{:#}", print::json(&explanation))?,
        }
        Ok(u8::from(!explanation.outcome.permits()))
    }

    fn world_of_files(&self) -> Result<World, ExplainError> {
        let mut objects = Vec::new();
        for file in &self.files {
            // What is no object is `mcpgw lint`'s to say.
            let found = read(file)?
                .into_iter()
                .filter_map(|document| document.object.ok());
            objects.extend(found.map(|object| placed(object, &self.namespace)));
        }
        Ok(world_of_files(&objects))
    }

    fn item<'a>(&'a self, annotations: Option<&'a Claims>) -> Result<Item<'a>, ExplainError> {
        let (kind, name) = match (&self.tool, &self.prompt, &self.resource) {
            (Some(name), ..) => (ItemKind::Tool, name),
            (_, Some(name), _) => (ItemKind::Prompt, name),
            (.., name) => (
                ItemKind::Resource,
                name.as_ref().ok_or(ExplainError::Item(String::new()))?,
            ),
        };
        let bad = || ExplainError::Item(name.clone());
        let slash = name.find('/').ok_or_else(bad)?;
        let colon = name
            .get(slash..)
            .and_then(|rest| rest.find(':'))
            .ok_or_else(bad)?
            + slash;
        let (server, item) = (name.get(..colon), name.get(colon + 1..));
        match (server, item) {
            (Some(server), Some(item)) if !item.is_empty() => Ok(Item {
                kind,
                server,
                name: item,
                annotations,
            }),
            _ => Err(bad()),
        }
    }

    /// The name of the item that is asked about.
    fn name(&self) -> &str {
        let named = [&self.tool, &self.prompt, &self.resource];
        named.into_iter().flatten().next().map_or("", String::as_str)
    }

    /// Explains over a world. Pure.
    ///
    /// # Errors
    /// [`ExplainError`] when it is not clear what is meant.
    pub fn explain(&self, world: &World, given: &Given) -> Result<Explanation, ExplainError> {
        let claims = given.claims.as_ref();
        let item = self.item(given.annotations.as_ref())?;
        let extension = self.chosen(world)?;
        let key = ObjectKey::of(&extension.metadata);
        let gateway = gateway_of(extension);
        let gateway = world
            .gateway(&gateway)
            .ok_or_else(|| ExplainError::Entrance(format!("gateway {gateway} is not among the objects")))?;
        let section = extension.spec.target_ref.section_name.as_str();
        let entrance = Entrance {
            gateway,
            port: gateway.listener(section).map_or(0, |listener| listener.port),
            extension: &key,
        };
        let policies = concerned(world, &entrance, (&item, self.virtual_server.as_deref()));
        let mut notes = Vec::new();
        let verified = policies.iter().any(|policy| policy.spec.authentication.is_some());
        if claims.is_some() && !verified {
            notes.push(
                "no JWT provider is attached here, so no token is verified and its claims count for nothing"
                    .to_owned(),
            );
        }
        let caller = claims.filter(|_| verified);
        let entries: Vec<AuthPolicyEntry> = policies
            .iter()
            .map(|policy| entry(world, policy, &entrance))
            .collect();
        let required = extension.spec.authorization == Authorization::Required;
        let arguments = given
            .arguments
            .clone()
            .map(|members| Value::Object(members).to_string());
        let request = Request {
            claims: caller,
            virtual_server: self.virtual_server.as_deref(),
            purpose: arguments.as_deref().map_or(Purpose::List, Purpose::Call),
        };
        let outcome = Policies::new(&entries, required).decide(&request, &item);
        if claims.is_none() && verified {
            notes.push("a request without a token is answered with 401 before any rule is asked".to_owned());
        }
        notes.extend(condition_notes(&policies, (&outcome, &item), given));
        Ok(Explanation {
            changes: advice::changes(world, &policies, (&outcome, &item, caller)),
            outcome,
            extension: key,
            policies: policies
                .iter()
                .map(|policy| ObjectKey::of(&policy.metadata).to_string())
                .collect(),
            notes,
        })
    }

    /// The extension that is meant.
    fn chosen<'w>(&self, world: &'w World) -> Result<&'w MCPGatewayExtension, ExplainError> {
        let named = |given: &Option<String>, key: &ObjectKey| {
            given.as_ref().is_none_or(|name| *name == key.to_string())
        };
        let found: Vec<&MCPGatewayExtension> = world
            .extensions()
            .map(AsRef::as_ref)
            .filter(|extension| is_live(&extension.metadata))
            .filter(|extension| named(&self.extension, &ObjectKey::of(&extension.metadata)))
            .filter(|extension| named(&self.gateway, &gateway_of(extension)))
            .collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(ExplainError::Entrance(
                "no MCPGatewayExtension fits --gateway and --extension".to_owned(),
            )),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|extension| {
                        format!(
                            "{} on gateway {}",
                            ObjectKey::of(&extension.metadata),
                            gateway_of(extension)
                        )
                    })
                    .collect();
                Err(ExplainError::Entrance(format!(
                    "there are several extensions, choose one with --extension: {}",
                    names.join(", ")
                )))
            }
        }
    }
}

/// The one JSON object of the file that an option names.
fn object(option: &'static str, file: Option<&String>) -> Result<Option<Claims>, ExplainError> {
    let Some(file) = file else { return Ok(None) };
    let object = read(file)?
        .into_iter()
        .next()
        .and_then(|document| document.object.ok());
    match object {
        Some(Value::Object(members)) => Ok(Some(members)),
        _ => Err(ExplainError::Object(option, file.clone())),
    }
}

/// What a condition of a rule for the item would have to know, and what its error means for the caller.
fn condition_notes(
    policies: &[&MCPAuthPolicy],
    (outcome, item): (&Outcome, &Item<'_>),
    given: &Given,
) -> Vec<String> {
    let rules = policies.iter().flat_map(|policy| &policy.spec.rules);
    let named: Vec<_> = rules
        .filter(|rule| advice::covers(&rule.resource, item))
        .filter_map(|rule| condition::check(rule.condition.as_deref()?).ok())
        .collect();
    let mut notes = Vec::new();
    if named.iter().any(|named| named.arguments) && given.arguments.is_none() {
        notes.push("says whether it is listed; a call depends on its arguments, too: --arguments".to_owned());
    }
    if named.iter().any(|named| named.annotations) && given.annotations.is_none() {
        notes.push("a condition looks at annotations, taken as empty: --annotations".to_owned());
    }
    if matches!(outcome, Outcome::Refused(_)) {
        notes.push("it is listed; this call is answered with -32602 Denied by policy".to_owned());
    }
    notes
}

/// Policies that concern the item at this entrance, oldest first.
fn concerned<'w>(
    world: &'w World,
    entrance: &Entrance<'_>,
    (item, virtual_server): (&Item<'_>, Option<&str>),
) -> Vec<&'w MCPAuthPolicy> {
    let mut policies = attachment::by_age(world);
    policies.retain(|policy| {
        policy.spec.target_refs.iter().any(|target| {
            let key = attachment::target_key(policy, target).to_string();
            match target.kind {
                PolicyTargetKind::MCPServerRegistration => key == item.server,
                PolicyTargetKind::MCPVirtualServer => virtual_server == Some(key.as_str()),
                _ => attachment::is_on(entrance, policy, target),
            }
        })
    });
    policies
}

/// The policy as the brokers of this entrance get it.
fn entry(world: &World, policy: &MCPAuthPolicy, entrance: &Entrance<'_>) -> AuthPolicyEntry {
    let accepted = attachment::acceptable(world, policy).is_ok();
    let targets = policy.spec.target_refs.iter().filter(|target| match target.kind {
        PolicyTargetKind::MCPServerRegistration | PolicyTargetKind::MCPVirtualServer => true,
        _ => attachment::is_on(entrance, policy, target),
    });
    attachment::entry(policy, targets, entrance.port, accepted)
}

#[cfg(test)]
mod tests;
