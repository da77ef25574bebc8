//! `GET /api/models`, `GET /api/models/{name}` and `DELETE /api/models/{name}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::view;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::pool::ModelStatus;

/// The name in a path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) fn name(name: Name) -> Result<String, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    Ok(name)
}

/// Every model there is, where it stands, and what all together may hold.
pub(in crate::http) async fn list(State(state): State<AppState>) -> Json<Value> {
    let pool = state.backend.pool();
    let (entries, known) = (pool.models().await, pool.status().await);
    let status = |id| known.iter().find(|model| model.id == id);
    let models = entries
        .iter()
        .map(|entry| view::entry(entry, status(entry.id.clone())));
    let held = known.iter().map(|model| model.memory).sum();
    Json(json!({
        "models": models.collect::<Vec<_>>(),
        "memory": {"held": view::bytes(held), "budget": view::bytes(pool.budget())},
    }))
}

/// What one is, what it asks of this machine, and where it stands.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    name: Name,
) -> Result<Json<Value>, ApiError> {
    let pool = state.backend.pool();
    let description = pool.describe(&self::name(name)?).await?;
    let known = pool.status().await;
    let is_it = |model: &&ModelStatus| model.id == description.id;
    let mut value = view::description(&description, pool.budget());
    let status = known.iter().find(is_it).map(view::status);
    view::extend(
        &mut value,
        status.unwrap_or_else(|| json!({"state": "absent"})),
    );
    Ok(Json(value))
}

/// Removes one's file, and the model from memory.
pub(in crate::http) async fn remove(
    State(state): State<AppState>,
    name: Name,
) -> Result<Json<Value>, ApiError> {
    let name = self::name(name)?;
    let freed = state.backend.pool().remove(&name).await?;
    Ok(Json(json!({"removed": name, "freed_bytes": freed})))
}
