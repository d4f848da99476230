use super::*;

const BAD: &str = "\
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata:
  name: a
  namespace: team
spec:
  targetRef: {name: gw, sectionName: mcp}
  privateHost: a/b
---
# The second one of the namespace.
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata: {name: b, namespace: team}
spec:
  targetRef: {name: gw}
  hint: x
---
apiVersion: mcp.kagenti.com/v1alpha1
kind: MCPServer
metadata: {name: s, namespace: team}
spec:
  targetRef: {name: route}
  toolPrefix: Bad-
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: unrelated}
";

fn lines(text: &str) -> Vec<String> {
    let findings = lint(parse("m.yaml", text), "default");
    let mut out = Vec::new();
    output::write(&mut out, Format::Text, &findings).expect("a Vec takes everything");
    String::from_utf8(out)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn findings_name_file_line_object_field_and_rule() {
    let lines = lines(BAD);
    for expected in [
        "m.yaml:8: error: MCPGatewayExtension team/a: spec.privateHost: is not a host; use [http://|https://]host[:port] [spec]",
        "m.yaml:15: error: MCPGatewayExtension team/b: spec.targetRef.sectionName: is required [schema]",
        "m.yaml:16: error: MCPGatewayExtension team/b: spec.hint: is no field of MCPGatewayExtension [unknown-field]",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}\nin\n{}",
            lines.join("\n")
        );
    }
}

#[test]
fn old_spellings_are_named_with_their_replacement_and_judged_under_it() {
    let lines = lines(BAD);
    for expected in [
        "m.yaml:18: error: MCPServerRegistration team/s: apiVersion: mcp.kagenti.com/v1alpha1 is not served; use mcp.kuadrant.io/v1alpha1 [old-spelling]",
        "m.yaml:19: error: MCPServerRegistration team/s: kind: MCPServer is not served; use MCPServerRegistration [old-spelling]",
        "m.yaml:23: error: MCPServerRegistration team/s: spec.toolPrefix: is now called prefix; use spec.prefix [old-spelling]",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}\nin\n{}",
            lines.join("\n")
        );
    }
    assert!(
        lines.iter().any(|line| line.contains("spec.prefix: must match")),
        "{lines:?}"
    );
}

#[test]
fn two_extensions_of_one_namespace_conflict_with_each_other() {
    let one = |name: &str| {
        format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {{name: {name}}}, spec: {{targetRef: {{name: gw-{name}, sectionName: mcp}}}}}}\n"
        )
    };
    let lines = lines(&format!("{}---\n{}", one("a"), one("b")));
    let conflicts = lines
        .iter()
        .filter(|line| line.contains("conflict: namespace default already has"))
        .count();
    assert_eq!(conflicts, 2, "{lines:?}");
}

#[test]
fn json_and_sarif_hold_every_finding() {
    let findings = lint(parse("m.yaml", BAD), "default");
    let written = |format| {
        let mut out = Vec::new();
        output::write(&mut out, format, &findings).expect("a Vec takes everything");
        serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
    };
    assert_eq!(
        written(Format::Json).as_array().map(Vec::len),
        Some(findings.len())
    );
    let sarif = written(Format::Sarif);
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(
        sarif["runs"][0]["results"].as_array().map(Vec::len),
        Some(findings.len())
    );
    assert_eq!(
        sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "m.yaml"
    );
}

#[test]
fn broken_yaml_is_a_finding_and_lists_are_taken_apart() {
    assert!(
        lines("a: [\n")
            .iter()
            .any(|line| line.starts_with("m.yaml:1: error: document: is no object"))
    );
    let list = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPVirtualServer, metadata: {name: v}, spec: {tools: [a, a]}}\n";
    assert!(
        lines(list).iter().any(|line| line.contains("listed twice")),
        "{:?}",
        lines(list)
    );
    assert!(lines("# nothing\n---\n").is_empty());
}

#[test]
fn the_projects_own_samples_are_clean() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
    let lint = Lint {
        files: vec![samples.to_owned()],
        output: Format::Text,
        namespace: "default".to_owned(),
        strict: true,
    };
    let mut out = Vec::new();
    let code = lint.run(&mut out).expect("readable");
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&out));
}

#[test]
fn a_server_with_several_routes_is_told_to_become_several() {
    let lines = lines(
        "apiVersion: mcp.kagenti.com/v1alpha1\nkind: MCPServer\nmetadata: {name: s, namespace: team}\nspec:\n  targetRefs:\n\
        \x20 - {name: one}\n  - {name: two}\n",
    );
    let expected = "m.yaml:5: error: MCPServerRegistration team/s: spec.targetRefs: is now one spec.targetRef; make a \
        registration for each of the 2 routes [old-spelling]";
    assert!(lines.iter().any(|line| line == expected), "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("is required")),
        "{lines:?}"
    );
}
