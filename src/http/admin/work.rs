//! `POST /api/models/{name}/load`, `…/unload` and `…/pull`. Slow work is told line by line, as JSON; its
//! last line says how it ended. Who stops reading leaves it going.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::models::{Name, name};
use super::view;
use crate::http::AppState;
use crate::http::body::OptionalJsonBody;
use crate::http::error::ApiError;
use crate::http::fields::Fields;
use crate::keep_alive::KeepAlive;
use crate::pool::{LoadEvent, LoadStage, ModelId, Pool, PoolError, Wish};

/// Lines that wait for a slow reader; more are left out, the last one never.
const LINES_MOST: usize = 64;

/// What a body may say.
struct Asked {
    keep_alive: Option<KeepAlive>,
    /// Whether progress is told, and not the end alone.
    stream: bool,
}

impl Asked {
    fn parse(body: &Value) -> Result<Self, ApiError> {
        let fields = Fields::of(body, "")?;
        let known = ["keep_alive", "stream"];
        if let Some(other) = fields.keys().find(|key| !known.contains(key)) {
            let message = format!("there is no field {other:?}: there are keep_alive and stream");
            return Err(ApiError::invalid(other, message));
        }
        Ok(Self {
            keep_alive: fields.keep_alive("keep_alive")?,
            stream: fields.bool("stream")?.unwrap_or(true),
        })
    }
}

/// Loads a model, or sets how long a loaded one stays.
pub(in crate::http) async fn load(
    State(state): State<AppState>,
    name: Name,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    let asked = Asked::parse(&body)?;
    let pool = state.backend.pool().clone();
    let id = pool.canonical(&self::name(name)?)?;
    let events = pool.load_events();
    let (lines, reader) = mpsc::channel(LINES_MOST);
    tokio::spawn(async move {
        let load = load_one(&pool, &id, asked.keep_alive);
        let end = tell_load(load, events, &id, &lines).await;
        // Nobody reads: nobody to tell.
        let _ = lines.send(end).await;
    });
    answer(reader, asked.stream).await
}

/// Loads a model, or sets how long a loaded one stays; what came of it.
pub(in crate::http) async fn load_one(
    pool: &Pool,
    id: &ModelId,
    keep_alive: Option<KeepAlive>,
) -> Result<Value, PoolError> {
    let wish = Wish {
        keep_alive,
        ..Wish::default()
    };
    let lease = pool.acquire_with(id.as_str(), wish, None).await?;
    Ok(json!({
        "model": lease.id.as_str(),
        "stage": "ready",
        "context": lease.n_ctx,
        "memory": view::bytes(lease.memory.total()),
        "load_seconds": lease.load_time.as_secs_f64(),
    }))
}

/// Passes the steps of a load on until it has ended.
async fn tell_load(
    load: impl Future<Output = Result<Value, PoolError>>,
    mut events: broadcast::Receiver<LoadEvent>,
    id: &ModelId,
    lines: &mpsc::Sender<Line>,
) -> Line {
    tokio::pin!(load);
    loop {
        let event = tokio::select! {
            ended = &mut load => return ended.map_err(Into::into),
            // Who does not read any more waits for nothing; the load goes on.
            () = lines.closed() => return Ok(Value::Null),
            event = events.recv() => event,
        };
        if let Ok(event) = event
            && event.model == *id
            && !event.stage.is_last()
        {
            let _ = lines.try_send(Ok(line(id, &event.stage)));
        }
    }
}

/// Takes a model out of memory, or calls its load off.
pub(in crate::http) async fn unload(
    State(state): State<AppState>,
    name: Name,
) -> Result<Json<Value>, ApiError> {
    let name = self::name(name)?;
    let pool = state.backend.pool();
    let id = pool.canonical(&name)?;
    let unloaded = pool.unload(&name).await?;
    Ok(Json(json!({"model": id.as_str(), "unloaded": unloaded})))
}

/// Fetches a model's file.
pub(in crate::http) async fn pull(
    State(state): State<AppState>,
    name: Name,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    let asked = Asked::parse(&body)?;
    let pool = state.backend.pool().clone();
    let id = pool.canonical(&self::name(name)?)?;
    let (lines, reader) = mpsc::channel(LINES_MOST);
    tokio::spawn(async move {
        let tell = |stage: LoadStage| {
            let _ = lines.try_send(Ok(line(&id, &stage)));
        };
        let fetched = tokio::select! {
            fetched = pool.fetch(id.as_str(), tell) => fetched,
            // What has arrived stays for a later pull.
            () = lines.closed() => return,
        };
        let end = fetched.map(|path| {
            json!({
                "model": id.as_str(),
                "stage": "ready",
                "path": path.to_string_lossy(),
            })
        });
        let _ = lines.send(end.map_err(Into::into)).await;
    });
    answer(reader, asked.stream).await
}

fn line(id: &ModelId, stage: &LoadStage) -> Value {
    let mut line = json!({"model": id.as_str()});
    view::extend(&mut line, view::stage(stage));
    line
}

/// A line of progress, or the error that ends it.
type Line = Result<Value, ApiError>;

/// Streams the lines, or waits for the last one.
async fn answer(mut lines: mpsc::Receiver<Line>, is_streamed: bool) -> Result<Response, ApiError> {
    // An error before anything was told has a status of its own.
    let mut first = lines.recv().await.unwrap_or(Ok(Value::Null))?;
    if !is_streamed {
        while let Some(line) = lines.recv().await {
            first = line?;
        }
        return Ok(Json(first).into_response());
    }
    let lines = stream::unfold((Some(first), lines), |(first, mut lines)| async move {
        let line = match first {
            Some(first) => first,
            None => lines.recv().await?.unwrap_or_else(|error| error.body()),
        };
        let text = format!("{line}\n");
        Some((Ok::<_, Infallible>(text), (None, lines)))
    });
    let mut response = Body::from_stream(lines).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
