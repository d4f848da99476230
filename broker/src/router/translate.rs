//! Decisions ↔ ext_proc messages. Nothing is decided here.

use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::decision::{Answer, Edits, Guard, Head, Metadata};
use crate::protocol::header;
use crate::protocol::message::splice;
use crate::transport::exchange::Failure;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{
    BodySendMode, HeaderSendMode,
};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpHeaders,
    ImmediateResponse, ProcessingResponse, body_mutation, common_response::ResponseStatus,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use mcp_gateway_api::envoy_filter::{GUARD_NAMESPACE, METADATA_NAMESPACE};

/// Purpose of the seal that the guard shows to the broker.
pub const REPAIR_PURPOSE: &str = "repair";

/// Reads the header phase.
pub fn head(headers: HttpHeaders) -> Head {
    let fields = headers.headers.map(|map| map.headers).unwrap_or_default();
    let value = |field: HeaderValue| {
        if field.raw_value.is_empty() {
            field.value.into_bytes()
        } else {
            field.raw_value
        }
    };
    Head {
        fields: fields
            .into_iter()
            .map(|field| (field.key.to_ascii_lowercase(), value(field)))
            .collect(),
        end_of_stream: headers.end_of_stream,
        caller: None,
    }
}

/// Which phases follow: the request's body, the response's headers, the response's body.
#[derive(Clone, Copy, Default)]
struct Phases {
    body: BodySendMode,
    reply_headers: bool,
    reply_body: BodySendMode,
}

fn mode(phases: Phases) -> ProcessingMode {
    let reply_headers = if phases.reply_headers {
        HeaderSendMode::Send
    } else {
        HeaderSendMode::Skip
    };
    ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: reply_headers.into(),
        request_body_mode: phases.body.into(),
        response_body_mode: phases.reply_body.into(),
        request_trailer_mode: HeaderSendMode::Skip.into(),
        response_trailer_mode: HeaderSendMode::Skip.into(),
    }
}

fn set_header((name, value): (&str, &str)) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

fn mutation(edits: &Edits) -> HeaderMutation {
    HeaderMutation {
        set_headers: edits
            .set
            .iter()
            .map(|(name, value)| (*name, value))
            .chain(edits.mirrored.iter().map(|(name, value)| (name.as_str(), value)))
            .map(|(name, value)| set_header((name, value)))
            .collect(),
        remove_headers: edits.remove.clone(),
    }
}

fn routes_anew(edits: &Edits) -> bool {
    edits
        .set
        .iter()
        .any(|(name, _)| matches!(*name, ":authority" | ":path"))
}

/// Not ours: no edits and no further phase.
pub fn untouched() -> ProcessingResponse {
    ProcessingResponse {
        response: Some(Response::RequestHeaders(HeadersResponse {
            response: Some(CommonResponse::default()),
        })),
        mode_override: Some(mode(Phases::default())),
        ..ProcessingResponse::default()
    }
}

fn headers(edits: &Edits, phases: Phases, keys: Option<&Keys>) -> ProcessingResponse {
    let common = CommonResponse {
        header_mutation: Some(mutation(edits)),
        clear_route_cache: routes_anew(edits),
        ..CommonResponse::default()
    };
    ProcessingResponse {
        response: Some(Response::RequestHeaders(HeadersResponse {
            response: Some(common),
        })),
        mode_override: Some(mode(phases)),
        dynamic_metadata: dynamic(edits, keys),
        ..ProcessingResponse::default()
    }
}

/// The request goes on without its body being read.
pub fn headers_pass(edits: &Edits) -> ProcessingResponse {
    headers(edits, Phases::default(), None)
}

/// The request goes to a server without its body being read; with `reply` the response's headers are wanted.
pub fn headers_forward(edits: &Edits, keys: &Keys, reply: bool) -> ProcessingResponse {
    let phases = Phases {
        reply_headers: reply,
        ..Phases::default()
    };
    headers(edits, phases, Some(keys))
}

/// The body is wanted; the request waits for it. With `reply` the response's headers may be wanted too: they come unless
/// the stream is closed before.
pub fn headers_then_body(edits: &Edits, reply: bool) -> ProcessingResponse {
    let phases = Phases {
        body: BodySendMode::Buffered,
        reply_headers: reply,
        ..Phases::default()
    };
    headers(edits, phases, None)
}

/// The reply passes as it is.
pub fn reply_pass() -> ProcessingResponse {
    ProcessingResponse {
        response: Some(Response::ResponseHeaders(HeadersResponse {
            response: Some(CommonResponse::default()),
        })),
        ..ProcessingResponse::default()
    }
}

/// The reply's body comes chunk by chunk; `json` makes it a JSON answer, `ok` gives it status 200.
pub fn reply_rewrite(json: bool, ok: bool) -> ProcessingResponse {
    let content_type = json.then(|| set_header(("content-type", "application/json")));
    let status = ok.then(|| set_header((":status", "200")));
    let common = CommonResponse {
        header_mutation: Some(HeaderMutation {
            set_headers: content_type.into_iter().chain(status).collect(),
            remove_headers: vec!["content-length".to_owned()],
        }),
        ..CommonResponse::default()
    };
    let phases = Phases {
        reply_headers: true,
        reply_body: BodySendMode::Streamed,
        ..Phases::default()
    };
    ProcessingResponse {
        response: Some(Response::ResponseHeaders(HeadersResponse {
            response: Some(common),
        })),
        mode_override: Some(mode(phases)),
        ..ProcessingResponse::default()
    }
}

/// What a chunk of the reply becomes.
pub fn reply_chunk(bytes: Vec<u8>) -> ProcessingResponse {
    let common = CommonResponse {
        body_mutation: Some(BodyMutation {
            mutation: Some(body_mutation::Mutation::Body(bytes)),
        }),
        ..CommonResponse::default()
    };
    ProcessingResponse {
        response: Some(Response::ResponseBody(BodyResponse {
            response: Some(common),
        })),
        ..ProcessingResponse::default()
    }
}

/// The request goes on after its body was read; `body` is given when it is spliced.
pub fn body_pass(edits: &Edits, keys: &Keys, body: Option<&[u8]>) -> ProcessingResponse {
    let mut headers = mutation(edits);
    let spliced = edits
        .splice
        .as_ref()
        .zip(body)
        .and_then(|((range, text), body)| splice(body, range, text));
    let body_mutation = spliced.map(|bytes| {
        headers
            .set_headers
            .push(set_header(("content-length", &bytes.len().to_string())));
        BodyMutation {
            mutation: Some(body_mutation::Mutation::Body(bytes)),
        }
    });
    let common = CommonResponse {
        status: ResponseStatus::Continue.into(),
        header_mutation: Some(headers),
        body_mutation,
        clear_route_cache: routes_anew(edits),
        ..CommonResponse::default()
    };
    ProcessingResponse {
        response: Some(Response::RequestBody(BodyResponse {
            response: Some(common),
        })),
        dynamic_metadata: dynamic(edits, Some(keys)),
        ..ProcessingResponse::default()
    }
}

fn immediate(status: u16, headers: &[(&str, &str)], body: Vec<u8>, details: &str) -> ProcessingResponse {
    let response = ImmediateResponse {
        status: Some(HttpStatus {
            code: i32::from(status),
        }),
        headers: Some(HeaderMutation {
            set_headers: headers.iter().map(|pair| set_header(*pair)).collect(),
            remove_headers: Vec::new(),
        }),
        body,
        details: format!("mcp_{details}"),
        ..ImmediateResponse::default()
    };
    ProcessingResponse {
        response: Some(Response::ImmediateResponse(response)),
        ..ProcessingResponse::default()
    }
}

/// A JSON-RPC error of the gateway.
pub fn answer(answer: &Answer) -> ProcessingResponse {
    let refusal = &answer.refusal;
    let retry = refusal.retry_after.map(|seconds| seconds.to_string());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(answer.session.as_deref().map(|token| (header::SESSION, token)));
    headers.extend(retry.as_deref().map(|seconds| ("retry-after", seconds)));
    let challenge = refusal.challenge.as_deref();
    headers.extend(challenge.map(|challenge| ("www-authenticate", challenge)));
    immediate(
        refusal.status,
        &headers,
        refusal.body(answer.id.as_deref()).into_bytes(),
        refusal.reason,
    )
}

/// The answers to a batch; without any it was taken.
pub fn answers(answers: Option<String>, session: Option<&str>) -> ProcessingResponse {
    let mut headers: Vec<_> = session
        .map(|token| (header::SESSION, token))
        .into_iter()
        .collect();
    let Some(text) = answers else {
        return immediate(202, &headers, Vec::new(), "batch");
    };
    headers.push(("content-type", "application/json"));
    immediate(200, &headers, text.into_bytes(), "batch")
}

/// A plain text answer.
pub fn text(status: u16, text: &str) -> ProcessingResponse {
    immediate(
        status,
        &[("content-type", "text/plain")],
        text.as_bytes().to_vec(),
        "refused",
    )
}

/// The answer of a policy that refused our own request for the client.
pub fn policy(failure: &Failure) -> ProcessingResponse {
    let mut headers = Vec::new();
    if !failure.content_type.is_empty() {
        headers.push(("content-type", failure.content_type.as_str()));
    }
    headers.extend(
        failure
            .challenge
            .as_deref()
            .map(|challenge| ("www-authenticate", challenge)),
    );
    immediate(failure.status, &headers, failure.body.to_vec(), "policy")
}

fn string(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}

fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value {
        kind: Some(Kind::StructValue(Struct {
            fields: fields.into_iter().collect(),
        })),
    }
}

fn dynamic(edits: &Edits, keys: Option<&Keys>) -> Option<Struct> {
    let mut fields = Vec::new();
    if !edits.metadata.text.is_empty() {
        fields.push((METADATA_NAMESPACE.to_owned(), facts(&edits.metadata)));
    }
    if let Some(guard) = &edits.guard {
        fields.push((GUARD_NAMESPACE.to_owned(), guard_value(guard, keys)));
    }
    (!fields.is_empty()).then(|| Struct {
        fields: fields.into_iter().collect(),
    })
}

fn facts(metadata: &Metadata) -> Value {
    let mut fields: Vec<(String, Value)> = metadata
        .text
        .iter()
        .map(|(name, text)| ((*name).to_owned(), string(text)))
        .collect();
    if let Some(hints) = metadata.hints {
        let hint = |name: &str, hint: Option<bool>| {
            hint.map(|hint| {
                (
                    name.to_owned(),
                    Value {
                        kind: Some(Kind::BoolValue(hint)),
                    },
                )
            })
        };
        let named = [
            hint("readOnly", hints.read_only),
            hint("destructive", hints.destructive),
            hint("idempotent", hints.idempotent),
            hint("openWorld", hints.open_world),
        ];
        fields.push(("hints".to_owned(), object(named.into_iter().flatten())));
    }
    object(fields)
}

fn guard_value(guard: &Guard, keys: Option<&Keys>) -> Value {
    let credential = |(name, value): &(&'static str, String)| {
        object([
            ("name".to_owned(), string(name)),
            ("value".to_owned(), string(value)),
        ])
    };
    let list = ListValue {
        values: guard.credentials.iter().map(credential).collect(),
    };
    let mut fields = vec![(
        "credentials".to_owned(),
        Value {
            kind: Some(Kind::ListValue(list)),
        },
    )];
    if let Some(session) = &guard.session {
        fields.push(("session".to_owned(), string(session)));
    }
    if let (Some(context), Some(keys)) = (&guard.repair, keys) {
        fields.push((
            "repair".to_owned(),
            string(&seal::seal(keys, REPAIR_PURPOSE, context)),
        ));
    }
    if guard.hairpin {
        fields.push(("hairpin".to_owned(), string("1")));
    }
    if guard.pass_challenge {
        fields.push(("challenge".to_owned(), string("pass")));
    }
    object(fields)
}
