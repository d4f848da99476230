//! OTLP traces (data-plane.md 18.1, 18.3): off unless an endpoint is set, and nothing is made then. The span of a request
//! joins the trace of the client (or of Envoy) and is the parent of what the MCP server adds. In the router it ends with the
//! decision: that path has no response phase, so how long a server took is in Envoy's span and in the server's; where the
//! gateway carries the call `mcp-front.forward` says it. Arguments and results never enter a span.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
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
    /// Makes its parts.
    router: SdkTracer,
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

/// Where spans are sent, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// OTLP over HTTP, posted to this URL.
    Http(String),
    /// OTLP over gRPC, to this URL; `https` is TLS with the roots of the system.
    Grpc(String),
}

/// The endpoint that `variable` names; `None` when none is set.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Endpoint>, String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let signal = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let own = signal.is_some();
    let Some(url) = signal.or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT")) else {
        return Ok(None);
    };
    let plain = [
        "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
        "OTEL_EXPORTER_OTLP_INSECURE",
    ];
    let plain = plain
        .into_iter()
        .find_map(set)
        .is_some_and(|value| value == "true");
    match url.split_once("://") {
        Some(("http" | "https", _)) if own => Ok(Some(Endpoint::Http(url))),
        Some(("http" | "https", _)) => {
            let url = format!("{}/v1/traces", url.trim_end_matches('/'));
            Ok(Some(Endpoint::Http(url)))
        }
        Some(("rpc", place)) => {
            let scheme = if plain { "http" } else { "https" };
            Ok(Some(Endpoint::Grpc(format!("{scheme}://{place}"))))
        }
        _ => Err("the OTLP endpoint must begin with http:// or https:// (OTLP over HTTP, usually port 4318), or rpc:// (over gRPC, usually port 4317)".to_owned()),
    }
}

fn exporter(endpoint: &Endpoint) -> Result<SpanExporter, ExporterBuildError> {
    match endpoint {
        Endpoint::Http(url) => SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build(),
        Endpoint::Grpc(url) => {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(url);
            if url.starts_with("https://") {
                let tls = ClientTlsConfig::new().with_native_roots();
                exporter.with_tls_config(tls).build()
            } else {
                exporter.build()
            }
        }
    }
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
            Ok(Some(endpoint)) => Self::to(&endpoint, &service),
            Err(why) => Err(why),
        };
        built.unwrap_or_else(|error| {
            tracing::error!(component = "telemetry", %error, "No traces");
            Self::default()
        })
    }

    /// Traces to this collector, in the name of `service`. gRPC needs the runtime that this is called in.
    ///
    /// # Errors
    /// When no exporter can be made for the URL.
    pub fn to(endpoint: &Endpoint, service: &str) -> Result<Self, String> {
        let exporter = exporter(endpoint).map_err(|error| error.to_string())?;
        let version = std::env::var("OTEL_SERVICE_VERSION").unwrap_or_else(|_| crate::VERSION.to_owned());
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", version))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self {
            on: Some((provider.tracer("mcp-router"), provider)),
        })
    }

    /// Begins a span of a request whose headers `fields` reads; nothing when traces are off.
    #[must_use]
    pub fn begin(&self, name: &'static str, fields: &Fields<'_>) -> Option<RequestSpan> {
        let (router, _) = self.on.as_ref()?;
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), fields);
        Some(started(
            &self.tracer(name)?,
            router,
            (name, SpanKind::Server),
            &parent,
        ))
    }

    /// Begins a span that belongs to no request; nothing when traces are off.
    #[must_use]
    pub fn alone(&self, name: &'static str) -> Option<RequestSpan> {
        let (router, _) = self.on.as_ref()?;
        let span = (name, SpanKind::Internal);
        Some(started(&self.tracer(name)?, router, span, &Context::new()))
    }

    /// The tracer of a span, which its name begins with.
    fn tracer(&self, name: &str) -> Option<SdkTracer> {
        let (router, provider) = self.on.as_ref()?;
        Some(if name.starts_with("mcp-router.") {
            router.clone()
        } else {
            provider.tracer("mcp-broker")
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

fn started(
    tracer: &SdkTracer,
    router: &SdkTracer,
    (name, kind): (&'static str, SpanKind),
    parent: &Context,
) -> RequestSpan {
    let component = name.split_once(['-', '.']).map_or(name, |(_, rest)| rest);
    let component = component.split('.').next().unwrap_or_default();
    let builder = tracer
        .span_builder(name)
        .with_kind(kind)
        .with_attributes([KeyValue::new("component", component.to_owned())]);
    RequestSpan {
        span: tracer.build_with_context(builder, parent),
        router: router.clone(),
    }
}

impl RequestSpan {
    /// Begins a part of it.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Self {
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        started(&self.router, &self.router, (name, SpanKind::Internal), &parent)
    }

    /// Notes the HTTP status of a reply.
    pub fn status(&mut self, status: u16) {
        let attribute = KeyValue::new("http.response.status_code", i64::from(status));
        self.span.set_attribute(attribute);
        if status >= 500 {
            self.span.set_status(Status::error("reply"));
        }
    }

    /// Notes a fact; nothing secret, and no arguments.
    pub fn note(&mut self, name: &'static str, value: &str) {
        let text: String = value.chars().take(MAX_TEXT).collect();
        self.span.set_attribute(KeyValue::new(name, text));
    }

    /// Notes where a failure comes from.
    pub fn failed(&mut self, source: &'static str) {
        self.span.set_attribute(KeyValue::new("error_source", source));
        self.span.set_status(Status::error(source));
    }

    /// Notes that the request was refused.
    pub fn refused(&mut self, reason: &'static str, status: u16) {
        self.span.set_attribute(KeyValue::new("error.type", reason));
        self.status(status);
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
