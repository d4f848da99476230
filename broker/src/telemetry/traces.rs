//! OTLP traces (data-plane.md 18.1, 18.3): off unless an endpoint is set. One span for each request that the router
//! decides; it joins the trace of the client (or of Envoy) and is the parent of what the MCP server adds. It ends with the
//! decision: the ordinary path has no response phase, so how long a server took is in Envoy's span and in the server's.
//! Arguments and results never enter a span.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::time::Duration;

/// Longest time that the last spans may take at the end of the process.
const FLUSH: Duration = Duration::from_secs(4);
/// Longest text of an attribute, characters.
const MAX_TEXT: usize = 256;

/// Headers that carry a trace.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Where spans go: nowhere, or to a collector.
#[derive(Clone, Default)]
pub struct Traces {
    on: Option<(SdkTracer, SdkTracerProvider)>,
}

/// One request.
pub struct RequestSpan {
    span: opentelemetry_sdk::trace::Span,
}

/// Reads header fields by name.
pub struct Fields<'a>(pub &'a dyn Fn(&str) -> Option<&'a str>);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }

    fn keys(&self) -> Vec<&str> {
        HEADERS.to_vec()
    }
}

struct Pairs(Vec<(&'static str, String)>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        if let Some(name) = HEADERS.into_iter().find(|name| *name == key) {
            self.0.push((name, value));
        }
    }
}

/// The URL that spans are posted to, from `variable`; `None` when none is set.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let url = match (
        set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        set("OTEL_EXPORTER_OTLP_ENDPOINT"),
    ) {
        (Some(url), _) => url,
        (None, Some(base)) => format!("{}/v1/traces", base.trim_end_matches('/')),
        (None, None) => return Ok(None),
    };
    let known = ["http://", "https://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    known.then_some(Some(url)).ok_or_else(|| {
        "the OTLP endpoint must begin with http:// or https:// (OTLP over HTTP, usually port 4318)".to_owned()
    })
}

impl Traces {
    /// Traces as the environment of the process says. An endpoint that cannot be used is logged, and the process goes on
    /// without traces.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "mcp-gateway".to_owned());
        let built = match endpoint(variable) {
            Ok(None) => return Self::default(),
            Ok(Some(url)) => Self::to(&url, &service),
            Err(why) => Err(why),
        };
        built.unwrap_or_else(|error| {
            tracing::error!(component = "telemetry", %error, "No traces");
            Self::default()
        })
    }

    /// Traces to the collector at `url`, in the name of `service`.
    ///
    /// # Errors
    /// When no exporter can be made for the URL.
    pub fn to(url: &str, service: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", crate::VERSION))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self {
            on: Some((provider.tracer("mcp-router"), provider)),
        })
    }

    /// Begins the span of a request whose headers `fields` reads; nothing when traces are off.
    #[must_use]
    pub fn begin(&self, fields: &Fields<'_>) -> Option<RequestSpan> {
        let (tracer, _) = self.on.as_ref()?;
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), fields);
        let builder = tracer
            .span_builder("mcp-router.process")
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("component", "router")]);
        Some(RequestSpan {
            span: tracer.build_with_context(builder, &parent),
        })
    }

    /// Sends what is left, for at most a few seconds. Blocks.
    pub fn flush(&self) {
        if let Some((_, provider)) = &self.on
            && let Err(error) = provider.shutdown_with_timeout(FLUSH)
        {
            tracing::warn!(component = "telemetry", %error, "The last spans were not sent");
        }
    }
}

impl RequestSpan {
    /// Notes a fact; nothing secret, and no arguments.
    pub fn note(&mut self, name: &'static str, value: &str) {
        let text: String = value.chars().take(MAX_TEXT).collect();
        self.span.set_attribute(KeyValue::new(name, text));
    }

    /// Notes that the request was refused.
    pub fn refused(&mut self, reason: &'static str, status: u16) {
        self.span.set_attribute(KeyValue::new("error.type", reason));
        self.span
            .set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        self.span.set_status(Status::error(reason));
    }

    /// The headers with which the next one joins the trace.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let context = Context::new().with_remote_span_context(self.span.span_context().clone());
        let mut pairs = Pairs(Vec::new());
        TraceContextPropagator::new().inject_context(&context, &mut pairs);
        // An empty state says nothing.
        pairs.0.retain(|(_, value)| !value.is_empty());
        pairs.0
    }
}

#[cfg(test)]
mod tests;
