use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;
use serde_json::Value;

use super::{read, root};

const FOLDER: &str = "config/observability";
/// Words of PromQL and label names that look like metrics.
const SUFFIXES: [&str; 5] = ["", "_total", "_bucket", "_sum", "_count"];

/// Metrics that an expression asks for: names that are followed by a selector, a range, or nothing that makes them a label.
fn asked(expression: &str) -> BTreeSet<String> {
    let without_labels = Regex::new(r#"\{[^}]*\}|\b(?:by|without|on|ignoring)\s*\([^)]*\)|"[^"]*""#).unwrap();
    let plain = without_labels.replace_all(expression, " ");
    let name = Regex::new(r"\b[a-z]+(?:_[a-z]+)+\b").unwrap();
    name.find_iter(&plain)
        .map(|found| found.as_str().to_owned())
        .filter(|name| !["histogram_quantile", "label_values"].contains(&name.as_str()))
        .collect()
}

fn known() -> BTreeSet<String> {
    let registered = mcp_gateway_docs::metrics::registered(&root()).unwrap();
    let metrics = registered.into_iter().flat_map(|(_, metrics)| metrics);
    metrics
        .flat_map(|metric| SUFFIXES.map(|suffix| format!("{}{suffix}", metric.name)))
        .collect()
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = root().join(FOLDER).join("dashboards");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&read(&path)).unwrap())
        })
        .collect()
}

fn rules() -> Vec<Value> {
    let text = read(&root().join(FOLDER).join("prometheus_rule.yaml"));
    let rule: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn every_panel_asks_for_metrics_that_are_registered() {
    let known = known();
    let mut panels = 0;
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            panels += 1;
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap();
                let asked = asked(expression);
                assert!(!asked.is_empty(), "{file}: {expression}");
                let strangers: Vec<_> = asked.difference(&known).collect();
                assert!(strangers.is_empty(), "{file}: {strangers:?} in {expression}");
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["query"].as_str().unwrap();
            if variable["type"] == "query" {
                let metric = query.split(['(', ',']).nth(1).unwrap();
                assert!(known.contains(metric), "{file}: {query}");
            }
        }
    }
    assert!(panels >= 30, "only {panels} panels");
}

/// What the panels of all dashboards ask for.
fn shown() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                found.extend(asked(target["expr"].as_str().unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_metric_is_in_a_panel() {
    let shown = shown();
    let registered = mcp_gateway_docs::metrics::registered(&root()).unwrap();
    let missing: Vec<String> = registered
        .into_iter()
        .flat_map(|(_, metrics)| metrics)
        .map(|metric| metric.name)
        .filter(|name| {
            !SUFFIXES
                .iter()
                .any(|suffix| shown.contains(&format!("{name}{suffix}")))
        })
        .collect();
    assert_eq!(missing, [""; 0], "no panel asks for these");
}

/// How often a metric is registered in the product's part of the sources below `folder`.
fn registrations(folder: &Path) -> usize {
    let call = Regex::new(r"\.register\(\s*[^&\s)]").unwrap();
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                return registrations(&path);
            }
            let text = read(&path);
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            call.find_iter(product).count()
        })
        .sum()
}

#[test]
fn the_reference_has_every_metric_that_the_sources_register() {
    let called: usize = ["api/src", "broker/src", "operator/src", "webhook/src"]
        .map(|folder| registrations(&root().join(folder)))
        .iter()
        .sum();
    let registered = mcp_gateway_docs::metrics::registered(&root()).unwrap();
    let listed: usize = registered.iter().map(|(_, metrics)| metrics.len()).sum();
    assert!(listed > 40);
    assert_eq!(
        listed, called,
        "a metric is registered where test/docs/src/metrics.rs does not look"
    );
}

#[test]
fn every_alert_asks_for_metrics_that_are_registered_and_has_a_runbook_with_its_expression() {
    let known = known();
    let rules = rules();
    assert!(rules.len() >= 10);
    for rule in &rules {
        let (name, expression) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        let asked = asked(expression);
        assert!(!asked.is_empty() && asked.is_subset(&known), "{name}: {asked:?}");
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("docs/runbooks/{name}.md")), "{url}");
        let page = read(&root().join("docs/runbooks").join(format!("{name}.md")));
        for part in [expression, "## Look", "## Mend"] {
            assert!(page.contains(part), "{name}: no {part}");
        }
    }
    let names: BTreeSet<String> = rules
        .iter()
        .map(|rule| format!("{}.md", rule["alert"].as_str().unwrap()))
        .collect();
    assert_eq!(files(&root().join("docs/runbooks")), names);
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_is_no_metric_is_noticed() {
    let asked = asked(
        r#"sum by (server_name) (rate(mcp_gone_total{namespace=~"$namespace"}[5m])) / on (pod) mcp_sessions"#,
    );
    assert_eq!(
        asked,
        BTreeSet::from(["mcp_gone_total".to_owned(), "mcp_sessions".to_owned()])
    );
    assert!(asked.is_disjoint(&known()));
}

#[test]
fn the_kustomization_holds_every_file_that_is_to_be_applied() {
    let text = read(&root().join(FOLDER).join("kustomization.yaml"));
    let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
    let maps = &kustomization["configMapGenerator"][0]["files"];
    let listed: BTreeSet<&str> = maps
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for (file, _) in dashboards() {
        assert!(listed.contains(format!("dashboards/{file}").as_str()), "{file}");
    }
}
