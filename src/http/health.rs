//! `/health` (may requests come?) and `/health/live` (does the process need a restart?): no key, no
//! detail.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::AppState;
use crate::pool::{GpuStatus, ModelStatus};

/// A step older than this is stuck: the largest step of the slowest model takes seconds.
const STEP_STUCK: Duration = Duration::from_mins(1);
/// Stuck for so long, it will not come back by itself.
const STEP_DEAD: Duration = Duration::from_mins(5);

/// Says whether requests may come.
pub(super) async fn ready(State(state): State<AppState>) -> (StatusCode, Json<Value>) {
    let (status, mut body) = readiness(&state).await;
    if let Some(gpu) = gpu(&state) {
        body["gpu"] = gpu;
    }
    (status, Json(body))
}

async fn readiness(state: &AppState) -> (StatusCode, Value) {
    if state.is_draining() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "draining");
    }
    if !state.is_ready() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "loading");
    }
    let models = state.backend.pool().status().await;
    if models.iter().any(|model| is_stuck(model, STEP_STUCK)) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "stuck");
    }
    answer(StatusCode::OK, "ok")
}

/// Whether a GPU is used, and if not, why; none where none was looked for. A failed one is no reason to
/// send nobody here: the processor computes.
fn gpu(state: &AppState) -> Option<Value> {
    if let Some(reason) = &state.gpu_not_used {
        return Some(json!({"used": false, "reason": **reason}));
    }
    let GpuStatus { name, failure } = state.backend.pool().gpu()?;
    Some(match failure {
        None => json!({"used": true, "name": name}),
        Some(reason) => json!({"used": false, "name": name, "reason": reason}),
    })
}

/// Says whether the process does its work at all.
pub(super) async fn live(State(state): State<AppState>) -> (StatusCode, Json<Value>) {
    let models = state.backend.pool().status().await;
    let is_dead = models.iter().any(|model| is_stuck(model, STEP_DEAD));
    let (status, body) = if is_dead {
        answer(StatusCode::SERVICE_UNAVAILABLE, "stuck")
    } else {
        answer(StatusCode::OK, "ok")
    };
    (status, Json(body))
}

/// Whether the model's engine has work and has not ended a step for so long. A failed engine is no
/// reason to send nobody here: the next request for its model replaces it.
fn is_stuck(model: &ModelStatus, bound: Duration) -> bool {
    let ready = model.ready.as_ref();
    let age = ready.and_then(|ready| ready.engine.last_step_age);
    age.is_some_and(|age| age > bound)
}

fn answer(status: StatusCode, word: &str) -> (StatusCode, Value) {
    (status, json!({"status": word}))
}
