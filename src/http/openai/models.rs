//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::error::ApiError;
use crate::http::{AppState, OWNED_BY};
use crate::pool::ModelEntry;

/// Every model that can be asked for without fetching.
pub(in crate::http) async fn list(State(state): State<AppState>) -> Json<Value> {
    let models = state.backend.models().await;
    let models: Vec<Value> = models.iter().map(object).collect();
    Json(json!({"object": "list", "data": models}))
}

/// One of them.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    let canonical = state.backend.pool().canonical(&id);
    let canonical = canonical.as_ref().map_or(id.as_str(), |id| id.as_str());
    let models = state.backend.models().await;
    let found = models.iter().find(|model| model.id.as_str() == canonical);
    found
        .map(|model| Json(object(model)))
        .ok_or_else(|| ApiError {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..ApiError::new(
                StatusCode::NOT_FOUND,
                format!("model {id:?} is not here: `ingle pull` fetches models"),
            )
        })
}

fn object(model: &ModelEntry) -> Value {
    let modified = model.file.as_ref().map(|file| file.modified);
    let created = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    json!({
        "id": model.id.as_str(),
        "object": "model",
        "created": created.map_or(0, |since| since.as_secs()),
        "owned_by": OWNED_BY,
    })
}
