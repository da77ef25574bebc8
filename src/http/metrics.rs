//! `GET /metrics`: the engines' figures as they are now, and what was recorded along the way.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::AppState;
use crate::engine::EngineSnapshot;
use crate::pool::{Bytes, ModelStatus};
use crate::router::KnownBreaker;
use crate::telemetry::names::{self, EngineFigure};

/// Prometheus' text format.
pub(super) async fn render(State(state): State<AppState>) -> Response {
    let models = state.backend.pool().status().await;
    let mut text = state.recorded.render();
    write_models(&mut text, &models);
    write_breakers(&mut text, &state.router.breakers());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Reads a figure of an engine; `None` while it is not known.
type Read = fn(&EngineSnapshot) -> Option<f64>;

const FIGURES: [(EngineFigure, Read); 14] = [
    (names::REQUESTS_RUNNING, |engine| {
        Some(engine.n_running as f64)
    }),
    (names::REQUESTS_WAITING, |engine| {
        Some(engine.n_waiting as f64)
    }),
    (names::REQUESTS_PAUSED, |engine| {
        Some(engine.n_paused as f64)
    }),
    (names::KV_BLOCKS, |engine| Some(engine.n_blocks as f64)),
    (names::KV_BLOCKS_USED, |engine| {
        Some(engine.n_blocks.saturating_sub(engine.n_free_blocks) as f64)
    }),
    (names::PREFILL_RATE, |engine| {
        engine.prefill_tokens_per_second
    }),
    (names::DECODE_RATE, |engine| engine.decode_tokens_per_second),
    (names::HEARTBEAT_AGE, |engine| {
        Some(engine.last_step_age.map_or(0.0, |age| age.as_secs_f64()))
    }),
    (names::PROMPT_TOKENS, |engine| {
        Some(engine.n_prompt_total as f64)
    }),
    (names::GENERATED_TOKENS, |engine| {
        Some(engine.n_generated_total as f64)
    }),
    (names::FINISHED, |engine| {
        Some(engine.n_finished_total as f64)
    }),
    (names::CANCELLED, |engine| {
        Some(engine.n_cancelled_total as f64)
    }),
    (names::FAILED, |engine| Some(engine.n_failed_total as f64)),
    (names::PREEMPTIONS, |engine| {
        Some(engine.n_preempted_total as f64)
    }),
];

fn write_models(text: &mut String, models: &[ModelStatus]) {
    for (figure, read) in FIGURES {
        let EngineFigure { name, kind, help } = figure;
        let values = models.iter().filter_map(|model| {
            let value = read(&model.ready.as_ref()?.engine)?;
            Some((model.id.as_str(), value))
        });
        let mut values = values.peekable();
        if values.peek().is_none() {
            continue;
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (model, value) in values {
            let _ = writeln!(text, "{name}{{model=\"{}\"}} {value}", escaped(model));
        }
    }
    let _ = writeln!(
        text,
        "# HELP {0} Memory a model holds, in bytes.\n# TYPE {0} gauge",
        names::MODEL_MEMORY
    );
    for model in models {
        let (name, id) = (names::MODEL_MEMORY, escaped(model.id.as_str()));
        let Bytes { host, device } = model.memory;
        for (place, n_bytes) in [("host", host), ("gpu", device)] {
            if n_bytes > 0 {
                let labels = format!("model=\"{id}\",memory=\"{place}\"");
                let _ = writeln!(text, "{name}{{{labels}}} {n_bytes}");
            }
        }
    }
}

fn write_breakers(text: &mut String, breakers: &[KnownBreaker]) {
    if breakers.is_empty() {
        return;
    }
    let EngineFigure { name, kind, help } = names::BREAKER;
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for breaker in breakers {
        let (provider, level) = (escaped(&breaker.provider), breaker.level());
        let model = breaker.model.as_deref().map(escaped);
        let model = model.map_or_else(String::new, |model| format!(",model=\"{model}\""));
        let _ = writeln!(text, "{name}{{provider=\"{provider}\"{model}}} {level}");
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
