//! F0: logs and the names of metrics. A prompt is never logged.

mod collector;
pub mod spans;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

/// The series of `/metrics`.
pub mod names {
    /// A series that is written as things stand: of every model in memory, or of every provider.
    #[derive(Clone, Copy, Debug)]
    pub struct EngineFigure {
        /// The series.
        pub name: &'static str,
        /// `gauge` or `counter`.
        pub kind: &'static str,
        /// One sentence.
        pub help: &'static str,
    }

    macro_rules! figures {
        ($($id:ident: $kind:literal, $name:literal, $help:literal;)*) => {$(
            #[doc = $help]
            pub const $id: EngineFigure =
                EngineFigure { name: $name, kind: $kind, help: $help };
        )*};
    }

    figures! {
        REQUESTS_RUNNING: "gauge", "ingle_requests_running", "Requests in the engine.";
        REQUESTS_WAITING: "gauge", "ingle_requests_waiting", "Requests that wait for the engine.";
        REQUESTS_PAUSED: "gauge", "ingle_requests_paused", "Requests that wait for their reader.";
        KV_BLOCKS: "gauge", "ingle_kv_blocks", "Blocks of the KV cache.";
        KV_BLOCKS_USED: "gauge", "ingle_kv_blocks_used", "Blocks of the KV cache in use.";
        PREFILL_RATE: "gauge", "ingle_prefill_tokens_per_second",
            "Measured rate of prompt tokens.";
        DECODE_RATE: "gauge", "ingle_decode_tokens_per_second",
            "Measured rate of one sequence's tokens.";
        HEARTBEAT_AGE: "gauge", "ingle_engine_heartbeat_age_seconds",
            "Time since the engine last began or ended a step; 0 while it has nothing to do.";
        PROMPT_TOKENS: "counter", "ingle_prompt_tokens_total", "Prompt tokens evaluated.";
        GENERATED_TOKENS: "counter", "ingle_generated_tokens_total", "Tokens generated.";
        FINISHED: "counter", "ingle_requests_finished_total", "Requests that finished.";
        CANCELLED: "counter", "ingle_requests_cancelled_total",
            "Requests whose reader went away.";
        FAILED: "counter", "ingle_requests_failed_total", "Requests that failed.";
        PREEMPTIONS: "counter", "ingle_preemptions_total",
            "Times a request gave its cache blocks back to be computed again.";
        BREAKER: "gauge", "ingle_provider_breaker_state",
            "Breaker before a provider, or before one of its models: 0 closed, 1 trying, 2 open.";
    }

    /// Memory a model holds. Units: bytes.
    pub const MODEL_MEMORY: &str = "ingle_model_memory_bytes";
    /// From a queued request to its first text.
    pub const TIME_TO_FIRST_TOKEN: &str = "ingle_time_to_first_token_seconds";
    /// Between two pieces of text of one answer.
    pub const INTER_TOKEN: &str = "ingle_inter_token_seconds";
    /// From a queued request to its end, by outcome.
    pub const REQUEST_DURATION: &str = "ingle_request_duration_seconds";
    /// Answers, by who gave them.
    pub const SELECTED: &str = "ingle_model_selection_count";
    /// Requests that are over, by why who answered was asked, and by outcome.
    pub const ROUTED: &str = "ingle_routing_decisions";
    /// What was spent, by team. Units: micro-dollars.
    pub const COST: &str = "ingle_cost_per_team_micro_usd";
    /// Of all answers, those of this machine.
    pub const LOCAL_SHARE: &str = "ingle_local_vs_cloud_ratio";
    /// From a request to the first content, by who answered.
    pub const ROUTED_FIRST: &str = "ingle_response_first_content_seconds";
    /// From a request to its end, by who answered.
    pub const ROUTED_WHOLE: &str = "ingle_response_times_seconds";
    /// Answers of providers after this machine was asked, by why.
    pub const ESCALATIONS: &str = "ingle_escalations_total";
    /// How good answers were, as somebody reported it, by model.
    pub const QUALITY: &str = "ingle_quality_scores";
    /// Times the configuration was read again, by what came of it.
    pub const RELOADS: &str = "ingle_config_reloads_total";
    /// What first contents took, of what was predicted.
    pub const PREDICTION_RATIO: &str = "ingle_prediction_ratio";
    /// Requests answered, by route and status.
    pub const HTTP_REQUESTS: &str = "ingle_http_requests_total";
}

/// Time to the first token: from a warm small model to a long prompt on a slow machine.
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0,
];
/// Between tokens: from a GPU's to a large model's on a laptop.
const INTER_TOKEN_BUCKETS: &[f64] = &[
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0,
];
const DURATION_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

const SHARE_BUCKETS: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const RATIO_BUCKETS: &[f64] = &[
    0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0,
];

/// Starts logging to stderr. `INGLE_LOG` filters, e.g. `debug` or `ingle::pool=trace`; `level` is
/// what counts without it.
pub fn init_logs(format: LogFormat, level: &str) {
    let filter = EnvFilter::builder()
        .with_env_var("INGLE_LOG")
        .try_from_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},rmcp=error")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call, as tests make, keeps the first.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Starts recording metrics for this process, once, and returns the handle that renders them.
///
/// # Errors
/// Another part of the process records metrics already.
pub fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let exact = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(exact(names::TIME_TO_FIRST_TOKEN), FIRST_TOKEN_BUCKETS)?
        .set_buckets_for_metric(exact(names::INTER_TOKEN), INTER_TOKEN_BUCKETS)?
        .set_buckets_for_metric(exact(names::REQUEST_DURATION), DURATION_BUCKETS)?
        .set_buckets_for_metric(exact(names::ROUTED_FIRST), FIRST_TOKEN_BUCKETS)?
        .set_buckets_for_metric(exact(names::ROUTED_WHOLE), DURATION_BUCKETS)?
        .set_buckets_for_metric(exact(names::QUALITY), SHARE_BUCKETS)?
        .set_buckets_for_metric(exact(names::PREDICTION_RATIO), RATIO_BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        // Two callers at once: the other one's is in place, and its handle with it in a moment.
        return Ok(HANDLE.wait().clone());
    }
    metrics::describe_histogram!(
        names::TIME_TO_FIRST_TOKEN,
        "Time from a queued request to its first text."
    );
    metrics::describe_histogram!(
        names::INTER_TOKEN,
        "Time between two pieces of text of one answer."
    );
    metrics::describe_histogram!(
        names::REQUEST_DURATION,
        "Time from a queued request to its end, by outcome."
    );
    metrics::describe_counter!(
        names::HTTP_REQUESTS,
        "Requests answered, by route and status."
    );
    describe_routing();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// What the series of the router are.
fn describe_routing() {
    metrics::describe_counter!(names::SELECTED, "Answers, by who gave them.");
    metrics::describe_counter!(
        names::ROUTED,
        "Requests that are over, by why who answered was asked, and by outcome."
    );
    metrics::describe_counter!(names::COST, "What was spent, by team, in micro-dollars.");
    metrics::describe_gauge!(
        names::LOCAL_SHARE,
        "Of all answers, the share of this machine."
    );
    metrics::describe_histogram!(
        names::ROUTED_FIRST,
        "Time from a request to its first content, by who answered."
    );
    metrics::describe_histogram!(
        names::ROUTED_WHOLE,
        "Time from a request to its end, by who answered."
    );
    metrics::describe_counter!(
        names::ESCALATIONS,
        "Answers of providers where this machine was asked or would have been, by why."
    );
    metrics::describe_counter!(
        names::RELOADS,
        "Times the configuration was read again, by what came of it."
    );
    metrics::describe_histogram!(
        names::QUALITY,
        "How good answers were, as somebody reported it, by model."
    );
    metrics::describe_histogram!(
        names::PREDICTION_RATIO,
        "Time to the first content over what was predicted, by model of this machine."
    );
}
