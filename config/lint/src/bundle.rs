//! A bundle, read from its files.

use std::collections::BTreeMap;

use semver::Version;
use serde_json::Value;

use crate::{Finding, finding::Report, rules};

/// Text files by path, relative to the folder of the bundle.
pub type Files = BTreeMap<String, String>;

/// The parsed objects of a bundle. What cannot be parsed is already reported and absent here.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Name of the CSV's file.
    pub csv_file: String,
    /// The ClusterServiceVersion, null when there is none.
    pub csv: Value,
    /// CRDs by file.
    pub crds: Vec<(String, Value)>,
    /// Every other manifest by file.
    pub others: Vec<(String, Value)>,
    /// The members of `annotations` in metadata/annotations.yaml.
    pub annotations: BTreeMap<String, String>,
}

/// Every rule that needs only the bundle.
#[must_use]
pub fn lint(files: &Files) -> Vec<Finding> {
    read_and_lint(files).1
}

/// The bundle, and what is wrong with it.
pub(crate) fn read_and_lint(files: &Files) -> (Bundle, Vec<Finding>) {
    let mut report = Report::default();
    let bundle = rules::format::read(files, &mut report);
    rules::format::check(files, &bundle, &mut report);
    if bundle.csv.is_object() {
        rules::csv::check(&bundle, &mut report);
        rules::images::check(&bundle, &mut report);
        rules::crds::check(&bundle, &mut report);
        rules::webhooks::check(&bundle, &mut report);
        rules::scorecard::check(&bundle, &mut report);
        rules::hub::check(&bundle, &mut report);
        rules::pods::check(&bundle, &mut report);
        rules::permissions::check(&bundle, &mut report);
    }
    (bundle, report.finish())
}

impl Bundle {
    /// Reads the objects; what is broken is left out.
    #[must_use]
    pub fn read(files: &Files) -> Self {
        rules::format::read(files, &mut Report::default())
    }

    /// `spec.version` of the CSV.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Version::parse(self.text("/spec/version")).ok()
    }

    /// The package that the annotations name.
    #[must_use]
    pub fn package(&self) -> &str {
        self.annotations
            .get("operators.operatorframework.io.bundle.package.v1")
            .map_or("", String::as_str)
    }

    /// A string of the CSV, empty when it is not there.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.csv
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The items of a list of the CSV.
    pub fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.csv
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }

    /// An annotation of the CSV, empty when it is not there.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        let annotations = self.csv.pointer("/metadata/annotations");
        annotations
            .and_then(|annotations| annotations.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Deployments of the CSV: name and spec.
    pub fn deployments(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.list("/spec/install/spec/deployments").map(|deployment| {
            (
                deployment["name"].as_str().unwrap_or_default(),
                &deployment["spec"],
            )
        })
    }

    /// Kinds that the CSV owns.
    pub fn owned(&self) -> impl Iterator<Item = &Value> {
        self.list("/spec/customresourcedefinitions/owned")
    }

    /// The examples; empty when they cannot be parsed.
    #[must_use]
    pub fn examples(&self) -> Vec<Value> {
        serde_json::from_str(self.annotation("alm-examples")).unwrap_or_default()
    }
}

/// Items of a member that is a list.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Strings of a member that is a list of strings.
pub(crate) fn strings<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    items(value, name).filter_map(Value::as_str)
}
