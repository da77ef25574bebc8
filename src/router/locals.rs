//! The models of this machine, as the policy sees them: looked at anew a few times a second, not with every request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::policy::{LocalModel, LocalState};
use crate::backend::local::LocalBackend;
use crate::chat::ChatRequest;
use crate::engine::predict::{Deadlines, Verdict, judge};
use crate::pool::{ModelState, ModelStatus};

/// How long what was seen is good.
const FRESH: Duration = Duration::from_millis(250);
/// How long it will do while somebody looks anew.
const STALE: Duration = Duration::from_millis(500);

/// What was seen last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Locals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Option<Seen>>,
    /// Whether somebody looks, for whoever comes next.
    is_looking: AtomicBool,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    models: Arc<[Known]>,
}

#[derive(Clone, Debug)]
struct Known {
    model: LocalModel,
    n_ctx: Option<u32>,
}

impl Locals {
    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens that fit the context of a model in memory, by its first name.
    pub(super) fn context(&self, model: &str) -> Option<u32> {
        let seen = self.seen();
        let mut models = seen.as_ref()?.models.iter();
        models
            .find(|known| known.model.names.iter().any(|name| name == model))?
            .n_ctx
    }

    /// Looks anew the next time.
    pub(super) fn forget(&self) {
        *self.seen() = None;
    }

    /// All models, with what is predicted for a `request`; and whether they were looked at for it.
    pub(super) async fn for_request(
        &self,
        local: &LocalBackend,
        request: Option<&ChatRequest>,
        deadlines: &Deadlines,
    ) -> (Vec<LocalModel>, bool) {
        let seen = self.seen().clone();
        let seen = seen.filter(|seen| seen.at.elapsed() < STALE);
        let is_fresh = seen.is_none();
        let models = match seen {
            Some(seen) => {
                if seen.at.elapsed() >= FRESH {
                    self.look_meanwhile(local);
                }
                seen.models
            }
            None => self.look(local).await,
        };
        let mut predicted = Vec::with_capacity(models.len());
        for known in models.iter() {
            let mut model = known.model.clone();
            if let Some(request) = request
                && matches!(model.state, LocalState::Ready | LocalState::Loading)
            {
                predict(local, (request, deadlines), &mut model).await;
            }
            predicted.push(model);
        }
        (predicted, is_fresh)
    }

    /// Looks while requests are answered by what was seen before: where many come, none has to wait for it.
    fn look_meanwhile(&self, local: &LocalBackend) {
        if self.0.is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (locals, local) = (self.clone(), local.clone());
        tokio::spawn(async move {
            locals.look(&local).await;
            locals.0.is_looking.store(false, Ordering::Release);
        });
    }

    async fn look(&self, local: &LocalBackend) -> Arc<[Known]> {
        let (entries, states) = tokio::join!(local.pool().models(), local.pool().status());
        let known = entries.into_iter().map(|entry| {
            let status = states.iter().find(|status| status.id == entry.id);
            let names = std::iter::once(entry.id.to_string()).chain(entry.aliases);
            Known {
                model: LocalModel {
                    names: names.collect(),
                    state: state(status, entry.file.is_some()),
                    ..LocalModel::default()
                },
                n_ctx: status.and_then(|status| Some(status.ready.as_ref()?.n_ctx)),
            }
        });
        let models: Arc<[Known]> = known.collect();
        *self.seen() = Some(Seen {
            at: Instant::now(),
            models: Arc::clone(&models),
        });
        models
    }
}

/// When a model would answer `request`, as its engine's queue and its load foretell it.
async fn predict(
    local: &LocalBackend,
    (request, deadlines): (&ChatRequest, &Deadlines),
    model: &mut LocalModel,
) {
    let Some(name) = model.names.first() else {
        return;
    };
    let foresight = local.predict_by(name, request).await;
    if let Some(prediction) = foresight.ok().and_then(|foresight| foresight.prediction) {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        model.first = time(prediction.ttft.p50);
        model.total = time(prediction.total.p50);
        model.is_late = Some(judge(&prediction, 0.0, deadlines) == Verdict::Leave);
    }
}

fn state(status: Option<&ModelStatus>, is_here: bool) -> LocalState {
    match status.map(|status| &status.state) {
        Some(ModelState::Ready { .. }) => LocalState::Ready,
        Some(ModelState::Fetching | ModelState::Queued | ModelState::Loading) => {
            LocalState::Loading
        }
        // Once its time has come it may be tried again.
        Some(ModelState::Failed { retry_in, .. }) if !retry_in.is_zero() => LocalState::Failed,
        _ if is_here => LocalState::Stored,
        _ => LocalState::Absent,
    }
}
