//! `GET /api/models`, `GET /api/models/{name}` and `DELETE /api/models/{name}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::view;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::pool::{ModelStatus, Pool, PoolError};

/// The name in a path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) fn name(name: Name) -> Result<String, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    Ok(name)
}

/// Every model there is, where it stands, and what all together may hold.
pub(in crate::http) async fn list(State(state): State<AppState>) -> Json<Value> {
    Json(all(state.backend.pool()).await)
}

/// [`list`], whoever asks.
pub(in crate::http) async fn all(pool: &Pool) -> Value {
    let (entries, known) = (pool.models().await, pool.status().await);
    let status = |id| known.iter().find(|model| model.id == id);
    let models = entries
        .iter()
        .map(|entry| view::entry(entry, status(entry.id.clone())));
    let held = known.iter().map(|model| model.memory).sum();
    json!({
        "models": models.collect::<Vec<_>>(),
        "memory": {"held": view::bytes(held), "budget": view::bytes(pool.budget())},
    })
}

/// What one is, what it asks of this machine, and where it stands.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    name: Name,
) -> Result<Json<Value>, ApiError> {
    let name = self::name(name)?;
    Ok(Json(described(state.backend.pool(), &name).await?))
}

/// [`one`], whoever asks.
///
/// Errors: as for [`Pool::describe`].
pub(in crate::http) async fn described(pool: &Pool, name: &str) -> Result<Value, PoolError> {
    let description = pool.describe(name).await?;
    let known = pool.status().await;
    let is_it = |model: &&ModelStatus| model.id == description.id;
    let mut value = view::description(&description, pool.budget());
    let status = known.iter().find(is_it).map(view::status);
    view::extend(
        &mut value,
        status.unwrap_or_else(|| json!({"state": "absent"})),
    );
    Ok(value)
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
