//! What the tools do: the verbs of the pool.

use std::sync::Arc;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::progress::Teller;
use crate::http::admin::{models, work};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, wrong_type};
use crate::keep_alive::KeepAlive;
use crate::pool::{LoadEvent, LoadStage, ModelId, Pool, PoolError};

/// Slow calls that are waited for at once: a client that went away waits on.
const SLOW_MOST: usize = 256;
/// Steps of a pull that wait for a slow reader; more are left out.
const STEPS_MOST: usize = 64;

/// The tools over one pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tools {
    pool: Pool,
    slow: Arc<Semaphore>,
}

/// How a call came to nothing.
pub(super) enum Failure {
    /// No such tool, or arguments of another shape: an error of the protocol.
    Malformed(String),
    /// The tool could not do it: one sentence for whoever called it.
    Failed(String),
    /// The client takes no answer any more.
    Cancelled,
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Malformed(error.message)
    }
}

impl Failure {
    pub(super) fn into_result(self) -> Result<CallToolResult, ErrorData> {
        match self {
            Self::Malformed(message) => Err(ErrorData::invalid_params(message, None)),
            Self::Failed(message) => Ok(CallToolResult::error(vec![ContentBlock::text(message)])),
            Self::Cancelled => Err(ErrorData::internal_error("the call was cancelled", None)),
        }
    }
}

/// Who waits for a slow tool.
pub(super) struct Caller {
    pub(super) teller: Teller,
    /// Set when the client takes its call back.
    pub(super) cancelled: CancellationToken,
}

impl Tools {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            slow: Arc::new(Semaphore::new(SLOW_MOST)),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Does what the tool called `name` does.
    pub(super) async fn call(
        &self,
        name: &str,
        arguments: JsonObject,
        caller: Caller,
    ) -> Result<Value, Failure> {
        let arguments = Value::Object(arguments);
        match name {
            "list_models" => {
                read(&arguments, &[])?;
                Ok(models::all(&self.pool).await)
            }
            "model_info" => {
                let model = model(read(&arguments, &["model"])?)?;
                Ok(models::described(&self.pool, model).await?)
            }
            "unload_model" => {
                let model = model(read(&arguments, &["model"])?)?;
                self.unload(&self.pool.canonical(model)?, caller).await
            }
            "load_model" => {
                let fields = read(&arguments, &["model", "keep_alive"])?;
                let (model, keep_alive) = (model(fields)?, keep_alive(fields)?);
                self.load(&self.pool.canonical(model)?, keep_alive, caller)
                    .await
            }
            "pull_model" => {
                let model = model(read(&arguments, &["model"])?)?;
                self.pull(&self.pool.canonical(model)?, caller).await
            }
            other => Err(Failure::Malformed(format!("Unknown tool: {other}"))),
        }
    }

    /// Loads a model. A cancelled call ends the wait, and the load goes on.
    async fn load(
        &self,
        id: &ModelId,
        keep_alive: Option<KeepAlive>,
        mut caller: Caller,
    ) -> Result<Value, Failure> {
        let _place = self.place()?;
        let mut events = self.pool.load_events();
        let load = work::load_one(&self.pool, id, keep_alive);
        tokio::pin!(load);
        let loaded = loop {
            let event = tokio::select! {
                biased;
                () = caller.cancelled.cancelled() => return Err(Failure::Cancelled),
                event = events.recv() => event,
                loaded = &mut load => break loaded?,
            };
            match event {
                Ok(event) => tell(&mut caller.teller, id, event).await,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // No more of them: nothing but the end is left to wait for.
                Err(broadcast::error::RecvError::Closed) => break load.await?,
            }
        };
        while let Ok(event) = events.try_recv() {
            tell(&mut caller.teller, id, event).await;
        }
        caller.teller.done(format!("{id} is loaded")).await;
        Ok(loaded)
    }

    /// Takes a model out of memory once nobody uses it. A cancelled call ends the wait for that.
    async fn unload(&self, id: &ModelId, caller: Caller) -> Result<Value, Failure> {
        let _place = self.place()?;
        tokio::select! {
            () = caller.cancelled.cancelled() => Err(Failure::Cancelled),
            unloaded = self.pool.unload(id.as_str()) => {
                Ok(json!({"model": id.as_str(), "unloaded": unloaded?}))
            }
        }
    }

    /// Fetches a model's file. A cancelled call ends it; what has arrived stays for a later one.
    async fn pull(&self, id: &ModelId, mut caller: Caller) -> Result<Value, Failure> {
        let _place = self.place()?;
        let (steps, mut told) = mpsc::channel(STEPS_MOST);
        let tell = move |stage: LoadStage| {
            let _ = steps.try_send(stage);
        };
        let fetch = self.pool.fetch(id.as_str(), tell);
        tokio::pin!(fetch);
        let path = loop {
            tokio::select! {
                biased;
                () = caller.cancelled.cancelled() => return Err(Failure::Cancelled),
                Some(stage) = told.recv() => caller.teller.tell(&stage).await,
                fetched = &mut fetch => break fetched?,
            }
        };
        caller.teller.done(format!("{id} is here")).await;
        Ok(json!({"model": id.as_str(), "path": path.to_string_lossy()}))
    }

    fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        self.slow.try_acquire().map_err(|_| {
            let text = format!("{SLOW_MOST} calls like this are waited for already: try later");
            Failure::Failed(text)
        })
    }
}

async fn tell(teller: &mut Teller, id: &ModelId, event: LoadEvent) {
    if event.model == *id {
        teller.tell(&event.stage).await;
    }
}

/// The arguments, after checking that each is one of `known`.
fn read<'a>(arguments: &'a Value, known: &[&str]) -> Result<Fields<'a>, Failure> {
    let fields = Fields::of(arguments, "")?;
    match fields.keys().find(|key| !known.contains(key)) {
        None => Ok(fields),
        Some(other) if known.is_empty() => {
            let text = format!("there is no argument {other:?}: this tool takes none");
            Err(Failure::Malformed(text))
        }
        Some(other) => {
            let known = known.join(" and ");
            let text = format!("there is no argument {other:?}: there is {known}");
            Err(Failure::Malformed(text))
        }
    }
}

fn model(fields: Fields<'_>) -> Result<&str, Failure> {
    let missing = "model is missing: name a model, as list_models gives them";
    let model = fields.str("model")?;
    model.ok_or_else(|| Failure::Malformed(missing.to_owned()))
}

fn keep_alive(fields: Fields<'_>) -> Result<Option<KeepAlive>, Failure> {
    match fields.get("keep_alive") {
        None => Ok(None),
        Some(Value::String(_) | Value::Number(_)) => {
            // A time that is none may be said better: the caller is told, not its program.
            let said = fields.keep_alive("keep_alive");
            said.map_err(|error| Failure::Failed(error.message))
        }
        Some(other) => Err(wrong_type("keep_alive", "a string or a number", other).into()),
    }
}
