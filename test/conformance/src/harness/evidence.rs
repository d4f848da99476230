//! What the fixture must have seen for a scenario to count: some scenarios pass against a server that has nothing (an error text
//! is text, an empty list is a list), and a gateway could answer by itself what only the server can know.

use crate::fixture::{Entry, Kind};

/// A message that must be in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    kind: Kind,
    method: &'static str,
    target: Option<&'static str>,
    /// False: a gateway may answer it itself.
    routed: bool,
}

impl Evidence {
    fn seen_in(&self, entries: &[Entry]) -> bool {
        entries.iter().any(|entry| {
            entry.kind == self.kind
                && entry.method == self.method
                && self
                    .target
                    .is_none_or(|target| entry.target.as_deref() == Some(target))
        })
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == Kind::Response {
            "answer to "
        } else {
            ""
        };
        write!(formatter, "{kind}{}", self.method)?;
        self.target
            .map_or(Ok(()), |target| write!(formatter, " {target}"))
    }
}

const fn call(tool: &'static str) -> Evidence {
    Evidence {
        kind: Kind::Request,
        method: "tools/call",
        target: Some(tool),
        routed: true,
    }
}

const fn prompt(name: &'static str) -> Evidence {
    Evidence {
        kind: Kind::Request,
        method: "prompts/get",
        target: Some(name),
        routed: true,
    }
}

const fn resource(method: &'static str, uri: &'static str) -> Evidence {
    Evidence {
        kind: Kind::Request,
        method,
        target: Some(uri),
        routed: true,
    }
}

const fn answer(method: &'static str) -> Evidence {
    Evidence {
        kind: Kind::Response,
        method,
        target: None,
        routed: true,
    }
}

/// A request that a gateway answers itself.
const fn own(method: &'static str) -> Evidence {
    Evidence {
        kind: Kind::Request,
        method,
        target: None,
        routed: false,
    }
}

const WATCHED: &str = "test://watched-resource";

/// What a scenario must have left in the journal.
fn required(scenario: &str) -> Vec<Evidence> {
    match scenario {
        "server-initialize" => vec![own("initialize")],
        "ping" => vec![own("ping")],
        "logging-set-level" => vec![own("logging/setLevel")],
        "tools-list" | "server-sse-multiple-streams" | "http-header-validation" | "json-schema-2020-12" => {
            vec![own("tools/list")]
        }
        "prompts-list" => vec![own("prompts/list")],
        "resources-list" => vec![own("resources/list")],
        "server-stateless" => vec![own("server/discover"), own("subscriptions/listen")],
        "caching" => vec![own("resources/templates/list"), own("tools/list")],
        "sep-2164-resource-not-found" => vec![own("resources/read")],
        "completion-complete" => vec![Evidence {
            routed: true,
            ..own("completion/complete")
        }],
        "tools-call-simple-text" => vec![call("test_simple_text")],
        "tools-call-image" => vec![call("test_image_content")],
        "tools-call-audio" => vec![call("test_audio_content")],
        "tools-call-embedded-resource" => vec![call("test_embedded_resource")],
        "tools-call-mixed-content" => vec![call("test_multiple_content_types")],
        "tools-call-error" => vec![call("test_error_handling")],
        "tools-call-with-progress" => vec![call("test_tool_with_progress")],
        "tools-call-with-logging" => vec![call("test_tool_with_logging")],
        "tools-call-sampling" => vec![call("test_sampling"), answer("sampling/createMessage")],
        "tools-call-elicitation" => vec![call("test_elicitation"), answer("elicitation/create")],
        "elicitation-sep1034-defaults" => {
            vec![
                call("test_elicitation_sep1034_defaults"),
                answer("elicitation/create"),
            ]
        }
        "elicitation-sep1330-enums" => {
            vec![
                call("test_elicitation_sep1330_enums"),
                answer("elicitation/create"),
            ]
        }
        "server-sse-polling" => vec![call("test_reconnection")],
        "resources-read-text" => vec![resource("resources/read", "test://static-text")],
        "resources-read-binary" => vec![resource("resources/read", "test://static-binary")],
        "resources-templates-read" => vec![resource("resources/read", "test://template/123/data")],
        "resources-subscribe" => vec![resource("resources/subscribe", WATCHED)],
        "resources-unsubscribe" => vec![resource("resources/unsubscribe", WATCHED)],
        "prompts-get-simple" => vec![prompt("test_simple_prompt")],
        "prompts-get-with-args" => vec![prompt("test_prompt_with_arguments")],
        "prompts-get-embedded-resource" => vec![prompt("test_prompt_with_embedded_resource")],
        "prompts-get-with-image" => vec![prompt("test_prompt_with_image")],
        "http-custom-header-server-validation" => vec![call("test_custom_header")],
        other => rounds(other),
    }
}

/// The same for the scenarios of multi round-trip requests.
fn rounds(scenario: &str) -> Vec<Evidence> {
    match scenario {
        "input-required-result-basic-sampling" => vec![call("test_input_required_result_sampling")],
        "input-required-result-basic-list-roots" => vec![call("test_input_required_result_list_roots")],
        "input-required-result-request-state" => vec![call("test_input_required_result_request_state")],
        "input-required-result-multiple-input-requests" => {
            vec![call("test_input_required_result_multiple_inputs")]
        }
        "input-required-result-multi-round" => vec![call("test_input_required_result_multi_round")],
        "input-required-result-non-tool-request" => vec![prompt("test_input_required_result_prompt")],
        "input-required-result-tampered-state" => vec![call("test_input_required_result_tampered_state")],
        "input-required-result-capability-check" => vec![call("test_input_required_result_capabilities")],
        "input-required-result-unsupported-methods" => vec![own("tools/list"), own("prompts/list")],
        other if other.starts_with("input-required-result-") => {
            vec![call("test_input_required_result_elicitation")]
        }
        _ => Vec::new(),
    }
}

/// What is missing in the journal for a scenario to count. Through a gateway, what it may answer itself is not asked for.
pub(crate) fn missing(scenario: &str, entries: &[Entry], gateway: bool) -> Vec<Evidence> {
    let needed = required(scenario)
        .into_iter()
        .filter(|evidence| evidence.routed || !gateway);
    needed.filter(|evidence| !evidence.seen_in(entries)).collect()
}

/// Whether anything is known about a scenario: a scored one that nobody thought of must not pass unproven.
pub(crate) fn is_known(scenario: &str) -> bool {
    scenario == "dns-rebinding-protection" || !required(scenario).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, method: &str, target: Option<&str>) -> Entry {
        Entry {
            kind,
            era: "legacy".into(),
            method: method.into(),
            target: target.map(str::to_owned),
            session: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_call_that_never_arrived_is_missing() {
        let other = [entry(Kind::Request, "tools/call", Some("test_error_handling"))];
        assert_eq!(
            missing("tools-call-simple-text", &other, true),
            [call("test_simple_text")]
        );
        let right = [entry(Kind::Request, "tools/call", Some("test_simple_text"))];
        assert!(missing("tools-call-simple-text", &right, true).is_empty());
    }

    #[test]
    fn sampling_needs_the_call_and_the_answer() {
        let asked = [entry(Kind::Request, "tools/call", Some("test_sampling"))];
        let missing = missing("tools-call-sampling", &asked, false);
        assert_eq!(
            missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["answer to sampling/createMessage"]
        );
    }

    #[test]
    fn a_gateway_may_answer_some_things_itself() {
        assert!(missing("ping", &[], true).is_empty());
        assert_eq!(missing("ping", &[], false).len(), 1);
    }
}
