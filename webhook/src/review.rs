//! AdmissionReview v1 in and out. Reading is lenient, because an answer must carry the request's uid whatever else
//! is wrong with the body; writing follows operator.md 3.4.

use base64::{Engine, prelude::BASE64_STANDARD};
use json_patch::Patch;
use mcp_gateway_api::{
    admission::{Kind, Verdict, Violation, Warning},
    conditions::PolicyReason,
    intake::key_of,
    object_key::ObjectKey,
};
use serde_json::{Value, json};

/// Longest uid that is echoed; real ones have 36 characters.
const MAX_UID: usize = 128;

/// What the API server asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// To be echoed.
    pub uid: String,
    /// Kind of the object.
    pub kind: Kind,
    /// What is done.
    pub operation: Operation,
    /// Namespace of the object.
    pub namespace: String,
    /// The object as it is to be stored.
    pub object: Value,
    /// The stored object, for an update.
    pub old: Option<Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// What is done with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is created.
    Create,
    /// It is changed.
    Update,
}

impl Operation {
    /// As it stands in reviews.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
        }
    }
}

/// A body that is no request for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It cannot be decoded: refuse with 400.
    Malformed {
        /// As far as it could be found.
        uid: String,
        /// What is wrong.
        what: String,
    },
    /// Another kind, a subresource, or an operation that we have no rule for: let it through.
    NotOurs {
        /// To be echoed.
        uid: String,
    },
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Unusable`], with the uid.
    pub fn read(body: &[u8]) -> Result<Self, Unusable> {
        let review: Value = serde_json::from_slice(body).map_err(|error| Unusable::Malformed {
            uid: find_uid(body),
            what: format!("the body is not JSON: {error}"),
        })?;
        let text = |path: &str| review.pointer(path).and_then(Value::as_str);
        let uid = uid_of(&review).unwrap_or_default();
        let malformed = |what: &str| Unusable::Malformed {
            uid: uid.clone(),
            what: what.to_owned(),
        };
        if text("/apiVersion") != Some("admission.k8s.io/v1") || text("/kind") != Some("AdmissionReview") {
            return Err(malformed("the body is no AdmissionReview of admission.k8s.io/v1"));
        }
        if uid.is_empty() {
            return Err(malformed("request.uid is missing"));
        }
        let operation = match text("/request/operation") {
            Some("CREATE") => Operation::Create,
            Some("UPDATE") => Operation::Update,
            Some(_) => return Err(Unusable::NotOurs { uid }),
            None => return Err(malformed("request.operation is missing")),
        };
        let ours = text("/request/resource/group") == Some(mcp_gateway_api::names::GROUP)
            && text("/request/subResource").unwrap_or_default().is_empty();
        let kind = text("/request/resource/resource")
            .and_then(Kind::from_plural)
            .filter(|_| ours);
        let Some(kind) = kind else {
            return Err(Unusable::NotOurs { uid });
        };
        let object = |path: &str| review.pointer(path).filter(|object| object.is_object()).cloned();
        let old = object("/request/oldObject");
        if operation == Operation::Update && old.is_none() {
            return Err(malformed("request.oldObject is missing"));
        }
        Ok(Self {
            kind,
            operation,
            namespace: text("/request/namespace").unwrap_or_default().to_owned(),
            object: object("/request/object").ok_or_else(|| malformed("request.object is missing"))?,
            old: old.filter(|_| operation == Operation::Update),
            dry_run: review
                .pointer("/request/dryRun")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
            uid,
        })
    }

    /// The object that is written.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), key_of(&self.object).name)
    }
}

/// The uid to echo, bounded.
fn uid_of(review: &Value) -> Option<String> {
    let uid = review.pointer("/request/uid")?.as_str()?;
    Some(uid.chars().take(MAX_UID).collect())
}

/// Looks for `"uid": "…"` in bytes that are no JSON document.
fn find_uid(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let value = || {
        let (_, after) = text.split_once("\"uid\"")?;
        let after = after
            .trim_start()
            .strip_prefix(':')?
            .trim_start()
            .strip_prefix('"')?;
        let (uid, _) = after.split_once('"')?;
        (uid.len() <= MAX_UID
            && uid
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .then_some(uid)
    };
    value().unwrap_or_default().to_owned()
}

/// The answer to a validating request.
#[must_use]
pub fn answer(uid: &str, verdict: &Verdict) -> Value {
    let warnings: Vec<&str> = verdict
        .warnings
        .iter()
        .map(|warning| warning.text.as_str())
        .collect();
    let mut response = json!({"uid": uid, "allowed": verdict.allowed()});
    if let Some(members) = response.as_object_mut() {
        if !warnings.is_empty() {
            members.insert("warnings".to_owned(), json!(warnings));
        }
        if let Some(first) = verdict.violations.first() {
            members.insert(
                "status".to_owned(),
                status(403, answer_reason(first.reason), &verdict.violations),
            );
        }
    }
    review(response)
}

/// The answer to a mutating request.
#[must_use]
pub fn patched(uid: &str, patch: &Patch) -> Value {
    if patch.0.is_empty() {
        return review(json!({"uid": uid, "allowed": true}));
    }
    let text = serde_json::to_vec(patch).unwrap_or_default();
    let encoded = BASE64_STANDARD.encode(text);
    review(json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": encoded}))
}

/// The answer to an advisory request: let through, with what `judge` says about the object that is being deleted.
pub fn advice(body: &[u8], judge: impl FnOnce(&Value) -> Vec<Warning>) -> Value {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let uid = uid_of(&request).unwrap_or_else(|| find_uid(body));
    let warnings = request
        .pointer("/request/oldObject")
        .map(judge)
        .unwrap_or_default();
    answer(
        &uid,
        &Verdict {
            violations: Vec::new(),
            warnings,
        },
    )
}

/// The answer that lets something through unseen.
#[must_use]
pub fn allowed(uid: &str) -> Value {
    review(json!({"uid": uid, "allowed": true}))
}

/// The answer to a body that cannot be decoded.
#[must_use]
pub fn undecodable(uid: &str, what: &str) -> Value {
    review(json!({"uid": uid, "allowed": false,
        "status": {"status": "Failure", "code": 400, "reason": "BadRequest", "message": what}}))
}

/// The answer when the judgement itself failed.
#[must_use]
pub fn failed(uid: &str) -> Value {
    review(
        json!({"uid": uid, "allowed": false, "status": {"status": "Failure", "code": 500,
        "reason": "InternalError", "message": "the webhook failed to judge this request; see its log"}}),
    )
}

/// The status reason, but never `Invalid`: kubectl has a form of its own for that one, without our text.
fn answer_reason(reason: &'static str) -> &'static str {
    if reason == PolicyReason::Invalid.as_str() {
        "InvalidMCPAuthPolicy"
    } else {
        reason
    }
}

fn status(code: u16, reason: &str, violations: &[Violation]) -> Value {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let causes: Vec<Value> = violations
        .iter()
        .map(|violation| json!({"reason": violation.reason, "message": violation.message, "field": violation.field}))
        .collect();
    json!({"status": "Failure", "code": code, "reason": reason, "message": lines.join("\n"),
        "details": {"causes": causes}})
}

#[expect(clippy::needless_pass_by_value, reason = "json! takes it by value")]
fn review(response: Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests;
