//! The spans of one request: one for it, and one for each candidate that was asked, in the words of OpenTelemetry's
//! conventions for generative AI. They say who answered, when, and what it took; nothing of what was asked or said,
//! and no message of an error, which may repeat it.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{SpanKind, SpanRef, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::decision::{Attempt, Decision};
use crate::chat::Usage;
use crate::config::router::LOCAL;
use crate::telemetry::spans::{Parent, Spans};

/// Characters of a text that a stranger made up.
const CHARS_MOST: usize = 200;
/// Who answers on this machine.
const US: &str = "ingle";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Chat,
    Embeddings,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
        }
    }
}

/// The spans of a request; where none are made, the trace it came with.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    came_with: Option<Parent>,
    live: Option<Arc<Live>>,
}

#[derive(Debug)]
struct Live {
    what: &'static str,
    tracer: SdkTracer,
    request: Context,
    attempts: Mutex<Vec<Context>>,
}

impl Trace {
    /// Begins the span of a request that came with `parent`.
    pub(super) fn begin(
        spans: &Spans,
        parent: Option<Parent>,
        (decision, what): (&Decision, Operation),
    ) -> Self {
        let live = spans.tracer().map(|tracer| {
            let above = parent.as_ref().map(Parent::context).unwrap_or_default();
            let (what, model) = (what.name(), cut(&decision.model));
            let mut attributes = vec![
                KeyValue::new("gen_ai.operation.name", what),
                KeyValue::new("gen_ai.request.model", model.clone()),
                KeyValue::new("ingle.request.id", decision.id.clone()),
                KeyValue::new("ingle.privacy", decision.privacy.clone()),
            ];
            let named = [
                ("ingle.team", &decision.team),
                ("ingle.task", &decision.task),
            ];
            attributes.extend(
                named
                    .into_iter()
                    .filter_map(|(key, value)| Some(KeyValue::new(key, cut(value.as_deref()?)))),
            );
            let span = tracer
                .span_builder(format!("{what} {model}"))
                .with_kind(SpanKind::Server)
                .with_attributes(attributes);
            let span = tracer.build_with_context(span, &above);
            Arc::new(Live {
                what,
                tracer: tracer.clone(),
                request: above.with_span(span),
                attempts: Mutex::default(),
            })
        });
        Self {
            came_with: parent,
            live,
        }
    }

    /// Somebody is asked.
    pub(super) fn asked(&self, target: &str, why: &'static str) {
        let Some(live) = &self.live else { return };
        let (provider, model) = parts(target);
        let model = cut(model);
        let kind = if provider == LOCAL {
            SpanKind::Internal
        } else {
            SpanKind::Client
        };
        let span = live
            .tracer
            .span_builder(format!("{} {model}", live.what))
            .with_kind(kind)
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", live.what),
                KeyValue::new("gen_ai.provider.name", known_as(provider)),
                KeyValue::new("gen_ai.request.model", model),
                KeyValue::new("ingle.why", why),
            ]);
        let span = live.tracer.build_with_context(span, &live.request);
        live.attempts().push(live.request.with_span(span));
    }

    /// An attempt leaves for a host, which may have a port.
    pub(super) fn sent_to(&self, attempt: usize, host: &str) {
        self.at(attempt, |span| span.set_attributes(address(host)));
    }

    /// What is told to who is asked, so that its spans stand under this attempt's.
    pub(super) fn parent_for(&self, attempt: usize) -> Option<Parent> {
        let Some(live) = &self.live else {
            return self.came_with.clone();
        };
        let attempts = live.attempts();
        let span = attempts.get(attempt)?.span();
        Some(Parent::of(span.span_context().clone()))
    }

    /// The first content of an attempt is here.
    pub(super) fn began_to_answer(&self, attempt: usize) {
        self.at(attempt, |span| span.add_event("first_content", Vec::new()));
    }

    /// What an attempt took.
    pub(super) fn used(&self, attempt: usize, taken: &Usage) {
        self.at(attempt, |span| span.set_attributes(usage(taken)));
    }

    /// An attempt is over, as `about` says.
    pub(super) fn attempt_ended(&self, attempt: usize, about: &Attempt) {
        self.at(attempt, |span| {
            let model = about
                .answered_by
                .as_deref()
                .unwrap_or(parts(&about.target).1);
            let outcome = about.outcome.unwrap_or("cancelled");
            span.set_attribute(KeyValue::new("ingle.outcome", outcome));
            if outcome == "answered" {
                span.set_attribute(KeyValue::new("gen_ai.response.model", cut(model)));
            }
            let cost = about.cost_micro_usd.map(whole);
            span.set_attributes(cost.map(|cost| KeyValue::new("ingle.cost_micro_usd", cost)));
            let ratio = about.prediction_ratio;
            span.set_attributes(ratio.map(|ratio| KeyValue::new("ingle.prediction_ratio", ratio)));
            if let Some(fault) = about.fault {
                fail(&span, fault);
            }
            span.end();
        });
    }

    /// The request is over, as `decision` says, in the way of `fault` if it failed.
    pub(super) fn finished(&self, decision: &Decision, fault: Option<&'static str>) {
        let Some(live) = &self.live else { return };
        let span = live.request.span();
        let outcome = decision.outcome.unwrap_or("cancelled");
        span.set_attribute(KeyValue::new("ingle.outcome", outcome));
        let mut attempts = decision.attempts.iter().rev();
        let served_by = decision.served_by.as_deref();
        if let Some(by) = served_by {
            let (provider, model) = parts(by);
            let answer = attempts.find(|one| one.target == by);
            let model = answer
                .and_then(|one| one.answered_by.as_deref())
                .unwrap_or(model);
            span.set_attributes([
                KeyValue::new("gen_ai.provider.name", known_as(provider)),
                KeyValue::new("gen_ai.response.model", cut(model)),
                KeyValue::new("ingle.cost_micro_usd", whole(decision.cost_micro_usd)),
            ]);
            span.set_attributes(usage(&decision.usage));
        } else {
            span.set_attribute(KeyValue::new("gen_ai.provider.name", US));
        }
        let escalated = decision.escalated;
        span.set_attributes(escalated.map(|why| KeyValue::new("ingle.escalated", why)));
        match (outcome, fault) {
            (_, Some(fault)) => fail(&span, fault),
            ("cancelled", None) => {}
            (reason, None) => {
                let reasons = Array::String(vec![StringValue::from(reason)]);
                let reasons = Value::Array(reasons);
                span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
            }
        }
        span.end();
    }

    fn at(&self, attempt: usize, change: impl FnOnce(SpanRef<'_>)) {
        let Some(live) = &self.live else { return };
        if let Some(context) = live.attempts().get(attempt) {
            change(context.span());
        }
    }
}

impl Live {
    fn attempts(&self) -> std::sync::MutexGuard<'_, Vec<Context>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fail(span: &SpanRef<'_>, fault: &'static str) {
    span.set_attribute(KeyValue::new("error.type", fault));
    span.set_status(Status::error(""));
}

fn usage(usage: &Usage) -> [KeyValue; 3] {
    let tokens = |key, n: u32| KeyValue::new(key, i64::from(n));
    [
        tokens("gen_ai.usage.input_tokens", usage.prompt_tokens),
        tokens("gen_ai.usage.output_tokens", usage.completion_tokens),
        tokens("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
    ]
}

fn address(host: &str) -> Vec<KeyValue> {
    let name = |name: &str| KeyValue::new("server.address", cut(name));
    match host
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse()))
    {
        Some((host, Ok(port))) => vec![name(host), KeyValue::new::<_, i64>("server.port", port)],
        _ => vec![name(host)],
    }
}

/// Whose model, and which.
fn parts(target: &str) -> (&str, &str) {
    target.split_once(':').unwrap_or((LOCAL, target))
}

fn known_as(provider: &str) -> String {
    let name = if provider == LOCAL { US } else { provider };
    name.to_owned()
}

fn cut(text: &str) -> String {
    text.chars().take(CHARS_MOST).collect()
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
