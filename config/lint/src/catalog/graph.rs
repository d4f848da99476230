//! The upgrade graph: heads, chains, circles, ranges.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde_json::Value;

use super::Catalog;
use crate::{
    bundle::{items, strings},
    finding::Report,
    rules::csv::skip_range,
};

/// One entry of a channel.
struct Entry<'a> {
    replaces: Option<&'a str>,
    skips: BTreeSet<&'a str>,
    range: Option<&'a str>,
}

pub(super) fn check(catalog: &Catalog<'_>, report: &mut Report) {
    let bundles = catalog.names("olm.bundle");
    let mut listed = BTreeSet::new();
    for channel in catalog.schema("olm.channel") {
        let name = channel.get("name").and_then(Value::as_str).unwrap_or_default();
        let entries: BTreeMap<&str, Entry<'_>> = items(channel, "entries").filter_map(entry).collect();
        let place = (catalog.file, name);
        let twice = items(channel, "entries").count() != entries.len();
        report.require(
            !twice,
            "catalog-entries",
            place,
            "an entry twice or without a name",
        );
        for entry in entries.keys() {
            report.require(
                bundles.contains(entry),
                "catalog-entries",
                place,
                format!("no bundle {entry}"),
            );
        }
        listed.extend(entries.keys().copied());
        channel_graph(place, &entries, report);
    }
    for bundle in bundles.difference(&listed) {
        report.add("catalog-entries", (catalog.file, bundle), "is in no channel");
    }
}

fn entry(entry: &Value) -> Option<(&str, Entry<'_>)> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    Some((
        text("name")?,
        Entry {
            replaces: text("replaces"),
            skips: strings(entry, "skips").collect(),
            range: text("skipRange"),
        },
    ))
}

fn channel_graph(place: (&str, &str), entries: &BTreeMap<&str, Entry<'_>>, report: &mut Report) {
    let replaced: BTreeSet<&str> = entries
        .iter()
        .filter_map(|(name, entry)| entry.replaces.filter(|other| other != name))
        .collect();
    let skipped: BTreeSet<&str> = entries
        .values()
        .flat_map(|entry| entry.skips.iter().copied())
        .collect();
    let heads: Vec<&&str> = entries
        .keys()
        .filter(|name| !replaced.contains(*name) && !skipped.contains(*name))
        .collect();
    report.require(
        heads.len() == 1,
        "catalog-head",
        place,
        format!("heads {heads:?}; there must be exactly one"),
    );
    if let [head] = heads.as_slice() {
        let mut reached = BTreeSet::new();
        let mut at = Some(**head);
        while let Some(name) = at {
            if !reached.insert(name) {
                report.add("catalog-chain", place, format!("a circle through {name}"));
                break;
            }
            at = entries.get(name).and_then(|entry| entry.replaces);
        }
        for name in entries
            .keys()
            .filter(|name| !reached.contains(*name) && !skipped.contains(*name))
        {
            report.add(
                "catalog-chain",
                place,
                format!("{name} is stranded: no chain of replaces leads to it"),
            );
        }
    }
    for (name, entry) in entries {
        let Some(text) = entry.range else { continue };
        let version = name
            .split_once(".v")
            .and_then(|(_, version)| Version::parse(version).ok());
        let good =
            skip_range(text).is_some_and(|range| version.is_some_and(|version| !range.matches(&version)));
        report.require(
            good,
            "catalog-skip-range",
            place,
            format!("{name}: {text:?} must be a range before its version"),
        );
    }
}
