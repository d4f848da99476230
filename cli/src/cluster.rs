//! What a cluster holds, listed once, for the subcommands that look at it as a whole. A kind that is not served and one
//! that may not be read are facts like any other; the subcommands say what they mean.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use futures::future::join_all;
use kube::{
    Api, Client, Config,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{
    intake::{Watched, key_of},
    names,
    object_key::ObjectKey,
    world::World,
};
use serde_json::Value;

use crate::{reason::last_cause, world::world};

/// Objects that are listed at once.
const PAGE: u32 = 500;
/// Longest wait for one list.
const LIMIT: Duration = Duration::from_secs(20);

/// Why there is no cluster to look at.
#[derive(Debug, thiserror::Error)]
pub enum NoClusterError {
    /// Nothing says which one.
    #[error("no cluster is known: {0}; set KUBECONFIG, or choose a context with kubectl config use-context")]
    Unknown(String),
    /// Its API server does not answer.
    #[error("the cluster at {url} cannot be asked: {why}; is KUBECONFIG the right one?")]
    Silent {
        /// URL of the API server.
        url: String,
        /// What happened.
        why: String,
    },
}

/// A client of the cluster of the current context, whose API server answers.
///
/// # Errors
/// [`NoClusterError`].
pub(crate) async fn connect() -> Result<Client, NoClusterError> {
    let config = Config::infer().await.map_err(|error| {
        // That no pod's service account was found either is of no interest to people.
        let kubeconfig = error.source().map(ToString::to_string);
        NoClusterError::Unknown(kubeconfig.unwrap_or_else(|| error.to_string()))
    })?;
    let url = config.cluster_url.to_string();
    let silent = |why: String| NoClusterError::Silent {
        url: url.trim_end_matches('/').to_owned(),
        why,
    };
    let client = Client::try_from(config).map_err(|error| silent(last_cause(&error)))?;
    match tokio::time::timeout(LIMIT, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(client),
        // It answers; what this user may read is another question.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(client),
        Ok(Err(error)) => Err(silent(last_cause(&error))),
        Err(_) => Err(silent(format!("no answer within {} s", LIMIT.as_secs()))),
    }
}

/// A kind: API group, version, kind, plural.
pub(crate) type Listing = (&'static str, &'static str, &'static str, &'static str);

/// Our kinds and what the rules judge them by.
pub(crate) const JUDGED: [Listing; 9] = [
    judged(Watched::Extension),
    judged(Watched::Registration),
    judged(Watched::VirtualServer),
    judged(Watched::Policy),
    judged(Watched::Gateway),
    judged(Watched::HttpRoute),
    judged(Watched::ReferenceGrant),
    judged(Watched::Namespace),
    ("", "v1", "Service", "services"),
];

/// A kind in its preferred version; an older one is tried where that is not served yet.
const fn judged(kind: Watched) -> Listing {
    let served = kind.served_as();
    let version = match served.versions {
        [preferred, ..] => preferred,
        [] => "v1",
    };
    (served.group, version, kind.name(), served.plural)
}

/// Deployments: of the operator, the webhook and the brokers.
pub(crate) const DEPLOYMENTS: Listing = ("apps", "v1", "Deployment", "deployments");

/// One kind as it was listed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Listed {
    /// Its objects.
    Found(Vec<Value>),
    /// The API server does not know the kind.
    NotServed,
    /// It could not be listed, with the reason.
    Unreadable(String),
}

/// Objects of a cluster by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    lists: BTreeMap<&'static str, Listed>,
}

impl Snapshot {
    /// Lists `kinds` in all namespaces, all at the same time.
    pub(crate) async fn take(client: &Client, kinds: &[Listing]) -> Self {
        let lists = kinds.iter().map(async |&kind| (kind.2, list(client, kind).await));
        Self {
            lists: join_all(lists).await.into_iter().collect(),
        }
    }

    /// A snapshot of these lists.
    #[cfg(test)]
    pub(crate) fn of(lists: impl IntoIterator<Item = (&'static str, Listed)>) -> Self {
        Self {
            lists: lists.into_iter().collect(),
        }
    }

    /// How a kind was listed; not served when nobody asked for it.
    pub(crate) fn listed(&self, kind: &str) -> &Listed {
        self.lists.get(kind).unwrap_or(&Listed::NotServed)
    }

    /// The objects of a kind; none when it could not be listed.
    pub(crate) fn all(&self, kind: &str) -> &[Value] {
        match self.listed(kind) {
            Listed::Found(objects) => objects,
            Listed::NotServed | Listed::Unreadable(_) => &[],
        }
    }

    /// One object.
    pub(crate) fn one(&self, kind: &str, key: &ObjectKey) -> Option<&Value> {
        self.all(kind).iter().find(|object| key_of(object) == *key)
    }

    /// The kinds that could not be listed, with the reason.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.lists.iter().filter_map(|(kind, listed)| match listed {
            Listed::Unreadable(why) => Some((*kind, why.as_str())),
            Listed::Found(_) | Listed::NotServed => None,
        })
    }

    /// What the rules judge.
    pub(crate) fn world(&self) -> World {
        world(self.lists.keys().flat_map(|kind| self.all(kind)))
    }
}

/// Text of an object at a JSON pointer, empty when there is none.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Number of an object at a JSON pointer.
pub(crate) fn number(object: &Value, path: &str) -> Option<u64> {
    object.pointer(path).and_then(Value::as_u64)
}

/// Members of a list at a JSON pointer.
pub(crate) fn items<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object
        .pointer(path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A condition of an object by its type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = items(object, "/status/conditions").iter();
    conditions.find(|condition| text(condition, "/type") == kind)
}

/// Lists a kind. Gateway API serves some kinds in their older version only, depending on its release.
async fn list(client: &Client, listing: Listing) -> Listed {
    let (group, version, kind, plural) = listing;
    match list_version(client, listing).await {
        Listed::NotServed if group == names::GATEWAY_API_GROUP && version == "v1" => {
            list_version(client, (group, "v1beta1", kind, plural)).await
        }
        listed => listed,
    }
}

async fn list_version(client: &Client, listing: Listing) -> Listed {
    match tokio::time::timeout(LIMIT, pages(client, listing)).await {
        Ok(Ok(objects)) => Listed::Found(objects),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Listed::NotServed,
        Ok(Err(error)) => Listed::Unreadable(error.to_string()),
        Err(_) => Listed::Unreadable(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

async fn pages(client: &Client, (group, version, kind, plural): Listing) -> kube::Result<Vec<Value>> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut page = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let list = api.list(&page).await?;
        for object in list.items {
            let mut object = serde_json::to_value(object).unwrap_or(Value::Null);
            // Members of a list do not carry their kind.
            if let Some(members) = object.as_object_mut() {
                members.insert("kind".to_owned(), kind.into());
                members.insert("apiVersion".to_owned(), resource.api_version.clone().into());
            }
            objects.push(object);
        }
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => return Ok(objects),
        }
    }
}
