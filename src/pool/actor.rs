//! The one task that changes which models are in memory. It feeds what happens to the plan and
//! carries out what the plan decides; slow work runs elsewhere and comes back as an [`Outcome`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::PoolError;
use super::lease::Lease;
use super::loader::{Loaded, Loader, Prepared};
use super::outlook::{LoadHistory, ModelOutlook};
use super::plan::{Event, Known, Plan, WaiterId, Wish};
use super::report::Reporter;
use super::status::{LoadEvent, LoadStage, ModelId, ModelState, ModelStatus, ReadyStatus};
use crate::keep_alive::KeepAlive;

mod act;
mod foresee;

/// What handles ask of the actor.
pub(super) enum Command {
    Acquire {
        model: ModelId,
        wish: Wish,
        reply: oneshot::Sender<Result<Lease, PoolError>>,
    },
    Unload {
        model: ModelId,
        reply: oneshot::Sender<bool>,
    },
    /// Answered with whether the model is in memory, or on its way.
    Keep {
        model: ModelId,
        keep_alive: KeepAlive,
        reply: oneshot::Sender<bool>,
    },
    Status {
        reply: oneshot::Sender<Vec<ModelStatus>>,
    },
    /// `file_bytes`, where it is known, speaks for a model that was never loaded.
    Outlook {
        model: ModelId,
        file_bytes: Option<u64>,
        reply: oneshot::Sender<ModelOutlook>,
    },
    Shutdown {
        bound: Duration,
        reply: oneshot::Sender<u32>,
    },
}

/// How slow work ended.
enum Outcome {
    Prepared(ModelId, Result<Box<Prepared>, String>),
    Loaded(ModelId, Result<Arc<Loaded>, String>),
    Unloaded(ModelId),
}

impl Outcome {
    fn model(&self) -> &ModelId {
        match self {
            Self::Prepared(model, _) | Self::Loaded(model, _) | Self::Unloaded(model) => model,
        }
    }
}

/// A model in memory, as the actor holds it.
struct Instance {
    loaded: Arc<Loaded>,
    /// Leases given back since the actor last looked.
    n_released: Arc<AtomicU32>,
}

struct Closing {
    by: tokio::time::Instant,
    reply: oneshot::Sender<u32>,
}

pub(super) struct Actor {
    plan: Plan,
    loader: Arc<Loader>,
    commands: mpsc::Receiver<Command>,
    /// Rung when a lease is given back and when a waiter leaves.
    bell: Arc<Notify>,
    events: broadcast::Sender<LoadEvent>,
    next_waiter: u64,
    waiters: BTreeMap<WaiterId, oneshot::Sender<Result<Lease, PoolError>>>,
    reporters: HashMap<ModelId, Arc<Reporter>>,
    prepared: HashMap<ModelId, Box<Prepared>>,
    instances: HashMap<ModelId, Instance>,
    /// The loads there were.
    history: LoadHistory,
    /// What calls off the fetch or load of a model.
    under_way: HashMap<ModelId, CancellationToken>,
    /// Models whose memory is being freed.
    leaving: HashSet<ModelId>,
    unload_waiters: HashMap<ModelId, Vec<oneshot::Sender<bool>>>,
    tasks: JoinSet<Outcome>,
    closing: Option<Closing>,
}

impl Actor {
    pub(super) fn new(
        plan: Plan,
        loader: Arc<Loader>,
        commands: mpsc::Receiver<Command>,
        bell: Arc<Notify>,
        events: broadcast::Sender<LoadEvent>,
    ) -> Self {
        Self {
            plan,
            loader,
            commands,
            bell,
            events,
            next_waiter: 0,
            waiters: BTreeMap::new(),
            reporters: HashMap::new(),
            prepared: HashMap::new(),
            instances: HashMap::new(),
            history: LoadHistory::default(),
            under_way: HashMap::new(),
            leaving: HashSet::new(),
            unload_waiters: HashMap::new(),
            tasks: JoinSet::new(),
            closing: None,
        }
    }

    /// Runs until the pool is shut down or its last handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            let closing_by = self.closing.as_ref().map(|closing| closing.by);
            let expiry = self.plan.next_expiry().map(Into::into);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(outcome) = self.tasks.join_next() => self.outcome(outcome),
                () = self.bell.notified() => self.sweep(),
                () = until(expiry) => self.event(Event::Tick),
                () = until(closing_by) => break,
            }
            let is_empty = self.instances.is_empty() && self.leaving.is_empty();
            if self.closing.is_some() && is_empty {
                break;
            }
        }
        self.close();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Acquire { reply, .. } if reply.is_closed() => {}
            Command::Acquire { model, wish, reply } => {
                self.notice_failed_engine(&model);
                let waiter = WaiterId(self.next_waiter);
                self.next_waiter += 1;
                self.waiters.insert(waiter, reply);
                self.event(Event::Acquire {
                    waiter,
                    model,
                    wish,
                });
            }
            Command::Unload { model, reply } => {
                if self.plan.state(&model, Instant::now()).is_some() {
                    let waiters = self.unload_waiters.entry(model.clone());
                    waiters.or_default().push(reply);
                    self.event(Event::Unload(model.clone()));
                    self.tell_unloaded(&model);
                } else {
                    let _ = reply.send(false);
                }
            }
            Command::Keep {
                model,
                keep_alive,
                reply,
            } => {
                let is_known = self.plan.state(&model, Instant::now()).is_some();
                self.event(Event::Keep(model, keep_alive));
                let _ = reply.send(is_known);
            }
            Command::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Command::Outlook {
                model,
                file_bytes,
                reply,
            } => {
                let _ = reply.send(self.outlook(&model, file_bytes));
            }
            Command::Shutdown { bound, reply } => {
                let by = tokio::time::Instant::now() + bound;
                self.closing = Some(Closing { by, reply });
                self.event(Event::Shutdown);
            }
        }
    }

    /// Tells those who wanted the model out of memory, once it is on its way out no more.
    fn tell_unloaded(&mut self, model: &ModelId) {
        let state = self.plan.state(model, Instant::now());
        if matches!(state, Some(ModelState::Draining { .. })) {
            return;
        }
        for reply in self.unload_waiters.remove(model).unwrap_or_default() {
            let _ = reply.send(true);
        }
    }

    fn outcome(&mut self, outcome: Result<Outcome, JoinError>) {
        // The tasks turn a panic of the work inside them into an outcome.
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "a task of the pool ended early");
                return;
            }
        };
        let model = outcome.model().clone();
        if !matches!(outcome, Outcome::Unloaded(_)) {
            self.under_way.remove(&model);
        }
        self.take_in(outcome);
        self.tell_unloaded(&model);
    }

    fn take_in(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Prepared(model, Ok(prepared)) => {
                let ask = prepared.ask();
                self.prepared.insert(model.clone(), prepared);
                self.event(Event::Prepared(model.clone(), ask));
                if self.prepared.contains_key(&model) {
                    self.tell(&model, LoadStage::WaitingForMemory);
                }
            }
            Outcome::Loaded(model, Ok(loaded)) => {
                let bytes = loaded.memory.total();
                tracing::info!(
                    model = %model,
                    memory = %bytes,
                    n_ctx = loaded.n_ctx,
                    seconds = loaded.load_time.as_secs_f64(),
                    "model ready"
                );
                self.history.loaded(
                    &model,
                    loaded.memory.weights.total(),
                    bytes,
                    loaded.load_time,
                );
                self.note_speed(&model, &loaded);
                let n_released = Arc::new(AtomicU32::new(0));
                self.instances
                    .insert(model.clone(), Instance { loaded, n_released });
                self.tell(&model, LoadStage::Ready);
                self.event(Event::Loaded(model, bytes));
            }
            Outcome::Prepared(model, Err(reason)) | Outcome::Loaded(model, Err(reason)) => {
                tracing::warn!(model = %model, reason, "model not loaded");
                self.tell(
                    &model,
                    LoadStage::Failed {
                        reason: reason.clone(),
                    },
                );
                self.event(Event::LoadFailed(model, reason));
            }
            Outcome::Unloaded(model) => {
                tracing::info!(model = %model, "model unloaded");
                self.leaving.remove(&model);
                self.reporters.remove(&model);
                self.event(Event::Unloaded(model));
            }
        }
    }

    /// Counts leases given back, forgets waiters that left, and looks for engines that stopped.
    fn sweep(&mut self) {
        let mut events = Vec::new();
        let gone = self.waiters.extract_if(.., |_, reply| reply.is_closed());
        events.extend(gone.map(|(waiter, _)| Event::Cancelled(waiter)));
        for (model, instance) in &self.instances {
            // Acquire pairs with the release of the lease that was dropped.
            for _ in 0..instance.n_released.swap(0, Ordering::Acquire) {
                events.push(Event::Released(model.clone()));
            }
        }
        for event in events {
            self.event(event);
        }
        let models: Vec<ModelId> = self.instances.keys().cloned().collect();
        for model in models {
            self.notice_failed_engine(&model);
        }
    }

    fn notice_failed_engine(&mut self, model: &ModelId) {
        let Some(instance) = self.instances.get(model) else {
            return;
        };
        let Some(reason) = instance.loaded.snapshot().failed else {
            return;
        };
        self.event(Event::EngineFailed(model.clone(), reason));
    }

    fn event(&mut self, event: Event) {
        tracing::trace!(?event, "pool");
        for decision in self.plan.decide(event, Instant::now()) {
            tracing::debug!(?decision, "pool");
            self.carry_out(decision);
        }
    }

    /// Tells the end of a load, unless its end was told.
    fn tell_failed(&self, model: &ModelId, reason: &str) {
        let Some(reporter) = self.reporters.get(model) else {
            return;
        };
        if !matches!(reporter.latest(), LoadStage::Failed { .. }) {
            reporter.tell(LoadStage::Failed {
                reason: reason.to_owned(),
            });
        }
    }

    fn tell(&self, model: &ModelId, stage: LoadStage) {
        if let Some(reporter) = self.reporters.get(model) {
            reporter.tell(stage);
        }
    }

    fn status(&self) -> Vec<ModelStatus> {
        let status = |known: Known<'_>| {
            let loaded = self.instances.get(known.id);
            let ready = loaded.map(|Instance { loaded, .. }| ReadyStatus {
                n_ctx: loaded.n_ctx,
                needs: loaded.memory,
                load_time: loaded.load_time,
                engine: loaded.snapshot(),
            });
            ModelStatus {
                id: known.id.clone(),
                state: known.state,
                load: self.reporters.get(known.id).map(|load| load.latest()),
                memory: known.memory,
                idle: known.idle,
                keep_alive: known.keep_alive,
                expires_in: known.expires_in,
                n_waiting: known.n_waiting,
                ready,
            }
        };
        self.plan.known(Instant::now()).map(status).collect()
    }

    /// Lets go of everything. Leases still out keep their models alive until they are dropped.
    fn close(mut self) {
        for under_way in self.under_way.values() {
            under_way.cancel();
        }
        self.tasks.abort_all();
        let known = self.plan.known(Instant::now());
        let n_leases = known.map(|known| match known.state {
            ModelState::Ready { n_leases } | ModelState::Draining { n_leases } => n_leases,
            _ => 0,
        });
        let n_leases = n_leases.sum();
        let instances = std::mem::take(&mut self.instances);
        drop(tokio::task::spawn_blocking(move || drop(instances)));
        if let Some(closing) = self.closing {
            let _ = closing.reply.send(n_leases);
        }
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
