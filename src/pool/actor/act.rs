//! The actor's hands: what it does about each decision of the plan. Slow work goes on beside it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pool::bytes::Bytes;
use crate::pool::error::PoolError;
use crate::pool::lease::{Lease, Ticket};
use crate::pool::loader::{LoadError, Watch, panicked};
use crate::pool::plan::{Decision, Refusal};
use crate::pool::report::Reporter;
use crate::pool::status::ModelId;

use super::{Actor, Outcome};

impl Actor {
    pub(super) fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Prepare(model) => self.prepare(model),
            Decision::Load(model, granted) => self.load(model, granted),
            Decision::Cancel(model) => {
                if let Some(under_way) = self.under_way.get(&model) {
                    under_way.cancel();
                }
            }
            Decision::Discard(model) => {
                // A refusal has said why already; without one, all who waited have left.
                self.tell_failed(&model, "nobody waits for it any more");
                self.reporters.remove(&model);
                // Unmapping a big file takes its time too.
                let prepared = self.prepared.remove(&model);
                drop(tokio::task::spawn_blocking(move || drop(prepared)));
            }
            Decision::Serve(waiter, model) => {
                let Some(instance) = self.instances.get(&model) else {
                    tracing::error!(model = %model, "a model that is not in memory was to serve");
                    return;
                };
                let ticket = Ticket::new(Arc::clone(&instance.n_released), Arc::clone(&self.bell));
                let lease = Lease::new(Arc::clone(&instance.loaded), ticket);
                // If the waiter is gone the lease is dropped here: given back.
                if let Some(reply) = self.waiters.remove(&waiter) {
                    let _ = reply.send(Ok(lease));
                }
            }
            Decision::Refuse(waiter, model, refusal) => {
                let error = self.explain(&model, refusal);
                // The others were told by what made them be, or are nothing to be told.
                let is_end = matches!(
                    error,
                    PoolError::NotEnoughMemory { .. } | PoolError::PinnedInTheWay { .. }
                );
                if is_end {
                    self.tell_failed(&model, &error.to_string());
                }
                if let Some(reply) = self.waiters.remove(&waiter) {
                    let _ = reply.send(Err(error));
                }
            }
            Decision::Unload(model) => self.unload(model),
        }
    }

    fn prepare(&mut self, model: ModelId) {
        let reporter = Arc::new(Reporter::new(model.clone(), self.events.clone()));
        self.reporters.insert(model.clone(), Arc::clone(&reporter));
        let work = Arc::clone(&self.loader).prepare(model.clone(), reporter);
        // A task of its own, so that a panic in it is one model's failure; it ends with this one.
        let work = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(work));
        let stop = self.begin(&model);
        self.tasks.spawn(async move {
            let result = match stop.run_until_cancelled(work).await {
                Some(result) => result.unwrap_or_else(|error| Err(panicked(error))),
                None => Err(LoadError::Abandoned),
            };
            Outcome::Prepared(model, result.map_err(|error| error.to_string()))
        });
    }

    fn load(&mut self, model: ModelId, granted: Bytes) {
        let Some(prepared) = self.prepared.remove(&model) else {
            return;
        };
        let Some(reporter) = self.reporters.get(&model).map(Arc::clone) else {
            return;
        };
        let loader = Arc::clone(&self.loader);
        let stop = self.begin(&model);
        let work = tokio::task::spawn_blocking(move || {
            let watch = Watch {
                reporter: &reporter,
                stop: &stop,
            };
            loader.load(*prepared, granted, watch).map(Arc::new)
        });
        self.tasks.spawn(async move {
            let result = work.await.unwrap_or_else(|error| Err(panicked(error)));
            Outcome::Loaded(model, result.map_err(|error| error.to_string()))
        });
    }

    /// What calls off the work that begins for `model`.
    fn begin(&mut self, model: &ModelId) -> CancellationToken {
        let stop = CancellationToken::new();
        self.under_way.insert(model.clone(), stop.clone());
        stop
    }

    /// Frees a model nobody holds. Its engine's thread is joined off the actor.
    fn unload(&mut self, model: ModelId) {
        let instance = self.instances.remove(&model);
        if let Some(instance) = &instance {
            self.note_speed(&model, &instance.loaded);
        }
        let work = tokio::task::spawn_blocking(move || {
            drop(instance);
            ingle_kernels::heap::return_free_pages();
        });
        self.leaving.insert(model.clone());
        self.tasks.spawn(async move {
            // Whether or not the engine ended well, its memory is given up.
            let _ = work.await;
            Outcome::Unloaded(model)
        });
    }

    fn explain(&self, model: &ModelId, refusal: Refusal) -> PoolError {
        let of = model.clone();
        match refusal {
            Refusal::NotEnoughMemory { budget, .. } => {
                let (needed, n_ctx) = self
                    .prepared
                    .get(model)
                    .map(|prepared| (prepared.least.needs, prepared.n_ctx))
                    .unwrap_or_default();
                PoolError::NotEnoughMemory {
                    model: of,
                    needed,
                    n_ctx,
                    budget,
                }
            }
            Refusal::Failed { reason, retry_in } => PoolError::LoadFailed {
                model: of,
                reason,
                retry_in,
            },
            Refusal::PinnedInTheWay { free, pinned, .. } => PoolError::PinnedInTheWay {
                needed: self
                    .prepared
                    .get(model)
                    .map(|prepared| prepared.least.needs.total())
                    .unwrap_or_default(),
                model: of,
                free,
                pinned,
            },
            Refusal::NotLoaded => PoolError::NotLoaded { model: of },
            Refusal::Cancelled => PoolError::Cancelled { model: of },
            Refusal::ShuttingDown => PoolError::ShuttingDown,
        }
    }
}
