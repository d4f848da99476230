//! The findings of a set of documents.

use mcp_gateway_api::{
    admission::{self, Facts, Kind, ObjectFact, Subject, Violation, Write, schema},
    intake::key_of,
    names,
    world::World,
};
use serde_json::Value;

use super::{Document, Finding, Level, lines, migrate};
use crate::world::{placed, world_of_files};

/// One document that holds an object, on its way through the rules.
struct Item {
    document: Document,
    object: Value,
}

impl Item {
    fn finding(&self, level: Level, rule: &'static str, message: String) -> Finding {
        let path = message.split(": ").next().unwrap_or_default();
        let kind = self
            .object
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("object");
        Finding {
            file: self.document.file.clone(),
            line: self.document.line + lines::offset(&self.document.text, path),
            level,
            rule,
            object: format!("{kind} {}", key_of(&self.object)),
            message,
        }
    }

    fn kind(&self) -> Option<Kind> {
        let ours = self
            .object
            .get("apiVersion")
            .and_then(Value::as_str)?
            .starts_with(&format!("{}/", names::GROUP));
        self.object
            .get("kind")
            .and_then(Value::as_str)
            .and_then(Kind::from_name)
            .filter(|_| ours)
    }

    fn text(&self, member: &str) -> &str {
        self.object
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Judges every document of ours over all of them. `namespace` is that of objects that name none.
#[must_use]
pub fn lint(documents: Vec<Document>, namespace: &str) -> Vec<Finding> {
    let (mut findings, mut items) = (Vec::new(), Vec::new());
    for document in documents {
        match document.object.clone() {
            Ok(object) => items.push(Item {
                object: placed(object, namespace),
                document,
            }),
            Err(error) => findings.push(unreadable(&document, &error)),
        }
    }
    for item in &mut items {
        let old = migrate::modernise(&mut item.object);
        findings.extend(
            old.into_iter()
                .map(|(field, what)| item.finding(Level::Error, "old-spelling", format!("{field}: {what}"))),
        );
    }
    let world = world_of_files(items.iter().map(|item| &item.object));
    for item in &items {
        findings.extend(judge(&world, &items, item));
    }
    findings
        .sort_by(|a, b| (&a.file, a.line, a.level, &a.message).cmp(&(&b.file, b.line, b.level, &b.message)));
    findings
}

fn unreadable(document: &Document, error: &str) -> Finding {
    Finding {
        file: document.file.clone(),
        line: document.line,
        level: Level::Error,
        rule: "syntax",
        object: "document".to_owned(),
        message: format!("is no object: {}", error.lines().next().unwrap_or_default()),
    }
}

fn judge(world: &World, items: &[Item], item: &Item) -> Vec<Finding> {
    let Some(kind) = item.kind() else {
        return stranger(item).into_iter().collect();
    };
    let mut findings: Vec<Finding> = schema::unknown_fields(kind, &item.object)
        .into_iter()
        .map(|field| {
            item.finding(
                Level::Error,
                "unknown-field",
                format!("{field}: is no field of {}", kind.as_str()),
            )
        })
        .collect();
    let refused = |violation: Violation| item.finding(Level::Error, violation.rule, text(&violation));
    match Subject::read(kind, &item.object) {
        Err(violations) => findings.extend(violations.into_iter().map(refused)),
        Ok(subject) => {
            let verdict = admission::judge(
                world,
                Write {
                    old: None,
                    new: &subject,
                },
                &facts(items, item),
            );
            findings.extend(verdict.violations.into_iter().map(refused));
            let warned = verdict.warnings.into_iter();
            findings.extend(warned.map(|warning| item.finding(Level::Warning, warning.rule, warning.text)));
        }
    }
    findings
}

fn text(violation: &Violation) -> String {
    format!("{}: {}", violation.field, violation.message)
}

/// An object of our group that we do not serve.
fn stranger(item: &Item) -> Option<Finding> {
    let ours = item.text("apiVersion").starts_with(&format!("{}/", names::GROUP));
    ours.then(|| {
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        let message = format!(
            "kind: {} is not served; there are {}",
            item.text("kind"),
            kinds.join(", ")
        );
        item.finding(Level::Error, "unknown-kind", message)
    })
}

/// Secrets and ConfigMaps that are among the documents. Others may exist in the cluster, so nothing is missing.
fn facts(items: &[Item], item: &Item) -> Facts {
    let namespace = key_of(&item.object).namespace;
    let mut facts = Facts::default();
    for other in items {
        let key = key_of(&other.object);
        let meta = other
            .object
            .get("metadata")
            .cloned()
            .and_then(|meta| serde_json::from_value(meta).ok());
        let present = ObjectFact::present(&meta.unwrap_or_default());
        match other.text("kind") {
            "Secret" if key.namespace == namespace => drop(facts.secrets.insert(key.name, present)),
            "ConfigMap" if key.namespace == namespace => drop(facts.config_maps.insert(key.name, present)),
            _ => {}
        }
    }
    facts
}
