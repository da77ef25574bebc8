//! Spans as OpenTelemetry has them: made while a request is answered, and sent to a collector in batches, by a thread of
//! their own. Where nobody says where to, there are none and they cost nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol as Wire, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use reqwest::Client;

use super::collector::Collector;
use crate::config::telemetry::{Protocol, Sampling, TelemetrySettings};
use crate::egress::Telemetry;

/// Who makes the spans.
const SCOPE: &str = "ingle";
/// How long the last spans may take to leave when all is over.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Why there are no spans though there should be.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint}: {reason}")]
pub struct SpansError {
    /// Where to.
    pub endpoint: String,
    /// Why not.
    pub reason: String,
}

/// Where spans are made; by default nowhere. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Spans {
    /// Sends spans as `settings` say, through `client`; none where they name no endpoint. Call it within a runtime.
    ///
    /// # Errors
    /// [`SpansError`].
    pub fn start(
        settings: &TelemetrySettings,
        client: Client,
        _permit: &Telemetry,
    ) -> Result<Self, SpansError> {
        let Some(endpoint) = &settings.endpoint else {
            return Ok(Self::default());
        };
        let wrong = |reason: String| SpansError {
            endpoint: endpoint.clone(),
            reason,
        };
        let collector = Collector::new(client, settings.timeout, endpoint);
        let collector = collector.map_err(|error| wrong(error.to_string()))?;
        let headers = settings.headers.iter();
        let headers: HashMap<String, String> = headers
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(endpoint)
            .with_timeout(settings.timeout)
            .with_headers(headers)
            .with_protocol(match settings.protocol {
                Protocol::Protobuf => Wire::HttpBinary,
                Protocol::Json => Wire::HttpJson,
            })
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.sampling))
            .with_resource(resource(settings))
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer(SCOPE);
        Ok(Self(Some(Arc::new(Inner { provider, tracer }))))
    }

    /// Who makes them, if anybody does.
    pub fn tracer(&self) -> Option<&SdkTracer> {
        self.0.as_deref().map(|inner| &inner.tracer)
    }

    /// Sends what is still here. Later spans go nowhere.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let provider = inner.provider.clone();
        let close = move || provider.shutdown_with_timeout(CLOSE_PATIENCE);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(close).await {
            tracing::debug!(%error, "the last spans did not leave");
        }
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    let own = Sampler::TraceIdRatioBased(sampling.ratio);
    if sampling.follows_parent {
        Sampler::ParentBased(Box::new(own))
    } else {
        own
    }
}

fn resource(settings: &TelemetrySettings) -> Resource {
    let named = settings.resource.iter().cloned();
    let process = uuid::Uuid::new_v4().to_string();
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", process),
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
            KeyValue::new("telemetry.sdk.language", "rust"),
        ])
        .with_attributes(named.map(|(key, value)| KeyValue::new(key, value)))
        .with_service_name(settings.service_name.clone())
        .build()
}

/// The span that another one belongs under, as W3C's `traceparent` and `tracestate` tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent(SpanContext);

impl Parent {
    /// Reads the headers; nothing where they are not as they should be.
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let state = tracestate.map(|text| (TRACESTATE.to_owned(), text.to_owned()));
        let parent = (TRACEPARENT.to_owned(), traceparent.to_owned());
        let headers: HashMap<String, String> = state.into_iter().chain([parent]).collect();
        let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        let context = found.span().span_context().clone();
        context.is_valid().then_some(Self(context))
    }

    /// That of a span.
    pub fn of(context: SpanContext) -> Self {
        Self(context)
    }

    /// Where a span under it begins.
    pub fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }

    /// The headers that tell it to the next.
    pub fn headers(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let mut headers = HashMap::new();
        TraceContextPropagator::new().inject_context(&self.context(), &mut headers);
        headers.into_iter().filter(|(_, value)| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_told_to_the_next_as_it_was_told() {
        let parent = Parent::read(PARENT, Some("vendor=1")).unwrap();
        let headers: HashMap<_, _> = parent.headers().collect();
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "vendor=1");
        let alone = Parent::read(PARENT, None).unwrap();
        assert_eq!(alone.headers().count(), 1);
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c\r\nx: y",
        ] {
            assert_eq!(Parent::read(text, None), None, "{text:?}");
        }
    }

    #[test]
    fn without_an_endpoint_nobody_makes_spans() {
        let permit = crate::egress::Egress::new(true)
            .telemetry("localhost")
            .unwrap();
        let settings = TelemetrySettings::default();
        // No runtime is needed for it, nor a client used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let spans = Spans::start(&settings, Client::new(), &permit).unwrap();
        assert!(spans.tracer().is_none());
    }
}
