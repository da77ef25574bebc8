//! The actor's eyes: what it foresees of a model.

use std::time::Instant;

use crate::engine::predict::{Outlook, Quantiles};
use crate::keep_alive::KeepAlive;
use crate::pool::bytes::Bytes;
use crate::pool::loader::Loaded;
use crate::pool::outlook::{ModelOutlook, Standing, remaining};
use crate::pool::plan::Known;
use crate::pool::status::{ModelId, ModelState};

use super::{Actor, Instance};

/// Tokens of a sequence of a model that is not loaded.
const N_CTX: u32 = 8192;

impl Actor {
    /// What is foreseen of a model whose file has so many bytes.
    pub(super) fn outlook(&self, model: &ModelId, file_bytes: Option<u64>) -> ModelOutlook {
        let unable = ModelOutlook {
            standing: Standing::Unable,
            load: None,
            engine: None,
        };
        if self.closing.is_some() {
            return unable;
        }
        let now = Instant::now();
        let whole = self.history.predict_load(model, file_bytes);
        match self.plan.state(model, now) {
            Some(ModelState::Ready { .. }) => match self.engine(model) {
                Some(engine) => ModelOutlook {
                    standing: Standing::Ready,
                    load: Some(Quantiles::default()),
                    engine: Some(engine),
                },
                None => unable,
            },
            Some(ModelState::Fetching | ModelState::Queued | ModelState::Loading) => {
                let load = self.reporters.get(model).and_then(|load| {
                    let (stage, since) = load.standing();
                    remaining(&stage, since, whole)
                });
                let known = self.plan.known(now).find(|known| known.id == model);
                let n_waiting = known.map_or(0, |known| known.n_waiting);
                ModelOutlook {
                    standing: Standing::Coming,
                    load,
                    engine: self.cold_engine(model, file_bytes, n_waiting),
                }
            }
            Some(ModelState::Failed { retry_in, .. }) if !retry_in.is_zero() => unable,
            Some(ModelState::Draining { .. }) => unable,
            Some(ModelState::Failed { .. }) | None => ModelOutlook {
                standing: Standing::Absent,
                load: whole.filter(|_| self.has_room_for(model, file_bytes, now)),
                engine: self.cold_engine(model, file_bytes, 0),
            },
        }
    }

    /// Remembers how fast a model is, for when it is not in memory.
    pub(super) fn note_speed(&mut self, model: &ModelId, loaded: &Loaded) {
        let outlook = loaded.chat().map(|chat| chat.engine.outlook());
        if let Some(outlook) = outlook
            && let Some(cost) = outlook.cost
        {
            self.history.measured(model, (cost, outlook.lengths));
        }
    }

    /// The queue of a model in memory that writes. Engines on the processor take turns: each of its steps waits for
    /// one of every other that is busy.
    fn engine(&self, model: &ModelId) -> Option<Outlook> {
        let of = |instance: &Instance| Some(instance.loaded.chat()?.engine.outlook());
        let mut engine = of(self.instances.get(model)?)?;
        let takes_turns = |instance: &Instance| instance.loaded.memory.weights.device == 0;
        let others = self.instances.iter().filter(|(id, _)| *id != model);
        let others = others.filter(|(_, instance)| takes_turns(instance));
        let steps = others.filter_map(|(_, instance)| Some(of(instance)?.next_step()));
        if self.instances.get(model).is_some_and(takes_turns) {
            engine.turn_wait = steps.sum();
        }
        Some(engine)
    }

    fn cold_engine(
        &self,
        model: &ModelId,
        file_bytes: Option<u64>,
        n_waiting: usize,
    ) -> Option<Outlook> {
        let speed = self.history.speed(model, file_bytes)?;
        let options = self.loader.engine_options();
        Some(Outlook::cold(options, N_CTX, speed, n_waiting))
    }

    /// Whether a model has room beside those that others use, which nobody can say how long they will.
    fn has_room_for(&self, model: &ModelId, file_bytes: Option<u64>, now: Instant) -> bool {
        let Some(needed) = self.history.held(model, file_bytes) else {
            return false;
        };
        let stays = |known: &Known<'_>| match known.state {
            ModelState::Ready { n_leases } => n_leases > 0 || known.keep_alive == KeepAlive::Pinned,
            _ => true,
        };
        let held: Bytes = self
            .plan
            .known(now)
            .filter(stays)
            .map(|known| known.memory)
            .sum();
        needed.fits(self.plan.budget().saturating_sub(held))
    }
}
