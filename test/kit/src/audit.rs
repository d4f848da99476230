//! The API server's audit log as typed records: who asked for what, when, and with what answer. Reads are in it for
//! service accounts of workloads only: what the kit and the control plane read concerns no test.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

/// A place in the audit log; see `Kit::audit_mark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditMark(u64);

/// One request, answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// User, e.g. `system:serviceaccount:mcp-system:mcp-gateway-operator`.
    pub user: String,
    /// What the client says it is.
    pub user_agent: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name, e.g. `deployments`.
    pub resource: String,
    /// E.g. `status`; empty for the object itself.
    pub subresource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name; empty for a create with a generated name.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Did the authorizer refuse it, so that no role allowed it?
    pub forbidden: bool,
    /// When the request came in.
    pub at: Timestamp,
    /// Was it a dry run, which stores nothing?
    pub dry_run: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            ..
        } = self;
        write!(
            f,
            "{user}: {verb} {group} {resource} {subresource} {namespace}/{name}"
        )
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(rename = "requestURI", default)]
    request_uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl From<Event> for Request {
    fn from(event: Event) -> Self {
        let object = event.object_ref.unwrap_or_default();
        Self {
            verb: event.verb,
            user: event.user.username,
            user_agent: event.user_agent,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: event.response_status.map_or(0, |status| status.code),
            forbidden: event
                .annotations
                .get("authorization.k8s.io/decision")
                .is_some_and(|decision| decision == "forbid"),
            at: event.request_received_timestamp,
            dry_run: event.request_uri.contains("dryRun="),
        }
    }
}

impl Request {
    /// True for a request that can change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// The end of the log now.
pub(crate) fn mark(log: &Path) -> std::io::Result<AuditMark> {
    Ok(AuditMark(std::fs::metadata(log)?.len()))
}

/// The requests after `mark`, in the order in which they were answered.
pub(crate) fn since(log: &Path, mark: AuditMark) -> std::io::Result<Vec<Request>> {
    let mut file = std::fs::File::open(log)?;
    file.seek(SeekFrom::Start(mark.0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    parse(&text)
}

/// Whole lines only: the last one may be half written.
fn parse(text: &str) -> std::io::Result<Vec<Request>> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !line.is_empty());
    let events: Result<Vec<Event>, _> = lines.map(serde_json::from_str).collect();
    Ok(events?.into_iter().map(Request::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","level":"Metadata","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/n/deployments/d?dryRun=All","verb":"patch","user":{"username":"system:serviceaccount:n:s","groups":[]},"sourceIPs":["192.0.2.1"],"userAgent":"kube","objectRef":{"resource":"deployments","namespace":"n","name":"d","apiGroup":"apps","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-21T08:00:00.123456Z","stageTimestamp":"2026-11-21T08:00:00.2Z"}"#;

    #[test]
    fn a_line_becomes_a_request() {
        let writes = parse(&format!("{LINE}\n{{\"half")).unwrap();
        assert_eq!(writes.len(), 1);
        let write = &writes[0];
        assert_eq!(
            (write.verb.as_str(), write.resource.as_str()),
            ("patch", "deployments")
        );
        assert_eq!(
            (write.group.as_str(), write.subresource.as_str()),
            ("apps", "status")
        );
        assert_eq!(
            (write.user.as_str(), write.code),
            ("system:serviceaccount:n:s", 200)
        );
        assert!(write.dry_run && write.is_write());
    }

    #[test]
    fn requests_before_the_mark_are_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.log");
        std::fs::write(&log, format!("{LINE}\n")).unwrap();
        let mark = mark(&log).unwrap();
        assert_eq!(since(&log, mark).unwrap(), []);
        assert_eq!(since(&log, AuditMark::default()).unwrap().len(), 1);
    }
}
