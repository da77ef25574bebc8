//! The plan, driven through random histories that check its laws after every step.
#![cfg(test)]

use std::collections::BTreeSet;

use super::tests::{Script, id};
use super::*;

/// The actor's side of the plan as a random walk plays it: what is open, loading, in memory, held.
#[derive(Default)]
struct World {
    preparing: BTreeSet<ModelId>,
    prepared: BTreeSet<ModelId>,
    loading: BTreeMap<ModelId, Bytes>,
    resident: BTreeMap<ModelId, Bytes>,
    leaving: BTreeSet<ModelId>,
    leases: BTreeMap<ModelId, u32>,
    /// Waiters without an answer, in order of arrival.
    waiting: Vec<(WaiterId, ModelId)>,
    n_answers: u64,
}

impl World {
    /// Carries out one decision, checking that it is allowed.
    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Prepare(model) => {
                assert!(!self.prepared.contains(&model), "{model} is open already");
                assert!(
                    !self.loading.contains_key(&model),
                    "{model} is loading already"
                );
                assert!(
                    !self.resident.contains_key(&model),
                    "{model} is in memory already"
                );
                assert!(self.preparing.insert(model), "two loads of one model");
            }
            Decision::Load(model, bytes) => {
                assert!(self.prepared.remove(&model), "{model} was not prepared");
                assert!(
                    !self.resident.contains_key(&model),
                    "{model} is in memory already"
                );
                assert_eq!(
                    self.loading.insert(model, bytes),
                    None,
                    "two loads of one model"
                );
            }
            Decision::Discard(model) => {
                assert!(self.prepared.remove(&model), "{model} was not prepared");
            }
            Decision::Serve(waiter, model) => {
                assert!(
                    self.resident.contains_key(&model),
                    "{model} is not in memory"
                );
                assert!(!self.leaving.contains(&model), "{model} is leaving");
                self.answer(waiter, &model);
                *self.leases.entry(model).or_default() += 1;
            }
            Decision::Refuse(waiter, model, _) => self.answer(waiter, &model),
            Decision::Cancel(model) => {
                assert!(
                    self.preparing.contains(&model) || self.loading.contains_key(&model),
                    "nothing is under way for {model}"
                );
            }
            Decision::Unload(model) => {
                assert!(
                    self.resident.contains_key(&model),
                    "{model} is not in memory"
                );
                assert_eq!(
                    self.leases.get(&model).copied().unwrap_or(0),
                    0,
                    "{model} is held"
                );
                assert!(self.leaving.insert(model), "it is leaving already");
            }
        }
    }

    /// Each waiter once, and the first of its model first.
    fn answer(&mut self, waiter: WaiterId, model: &ModelId) {
        let first = self
            .waiting
            .iter()
            .position(|(_, wanted)| wanted == model)
            .unwrap();
        assert_eq!(
            self.waiting.remove(first).0,
            waiter,
            "answered out of turn, or twice"
        );
        self.n_answers += 1;
    }

    fn held_bytes(&self) -> Bytes {
        let held = self.loading.values().chain(self.resident.values());
        held.copied().sum()
    }
}

/// A walk through random histories; SplitMix64 draws them.
struct Walk {
    script: Script,
    world: World,
    random: u64,
}

/// What each needs of the host's memory and of the GPU's.
const MODELS: [(&str, u64, u64); 7] = [
    ("a", 30, 0),
    ("b", 45, 0),
    ("c", 60, 0),
    ("d", 100, 20),
    ("e", 101, 0),
    ("f", 5, 70),
    ("g", 10, 40),
];

impl Walk {
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }

    fn pick(&mut self, from: impl Iterator<Item = ModelId>) -> Option<ModelId> {
        let from: Vec<_> = from.collect();
        if from.is_empty() {
            None
        } else {
            Some(from[self.draw(from.len())].clone())
        }
    }

    fn tell(&mut self, event: Event) {
        for decision in self.script.event(event) {
            self.world.carry_out(decision);
        }
        let budget = self.script.plan.budget();
        assert!(self.world.held_bytes().fits(budget), "over the budget");
        assert_eq!(self.world.held_bytes(), self.script.plan.held_bytes());
    }

    fn acquire(&mut self) {
        let model = id(MODELS[self.draw(MODELS.len())].0);
        self.script.n_waiters += 1;
        let waiter = WaiterId(self.script.n_waiters);
        self.world.waiting.push((waiter, model.clone()));
        let keep_alive = match self.draw(6) {
            0 => Some(KeepAlive::Pinned),
            1 => Some(KeepAlive::For(Duration::from_secs(self.draw(4) as u64))),
            2 | 3 => Some(KeepAlive::UntilNeeded),
            _ => None,
        };
        let wish = Wish {
            keep_alive,
            may_load: self.draw(8) > 0,
        };
        self.tell(Event::Acquire {
            waiter,
            model,
            wish,
        });
    }

    fn end_prepare(&mut self, may_fail: bool) {
        let Some(model) = self.pick(self.world.preparing.clone().into_iter()) else {
            return;
        };
        self.world.preparing.remove(&model);
        if may_fail && self.draw(5) == 0 {
            return self.tell(Event::LoadFailed(model, "no such file".to_owned()));
        }
        let (_, host, device) = *MODELS.iter().find(|(name, ..)| id(name) == model).unwrap();
        let least = Bytes { host, device };
        self.world.prepared.insert(model.clone());
        let more = self.draw(30) as u64;
        let wanted = Bytes {
            host: host + more,
            device: if device > 0 { device + more } else { 0 },
        };
        self.tell(Event::Prepared(model, Ask { least, wanted }));
    }

    fn end_load(&mut self, may_fail: bool) {
        let loading = self.world.loading.clone();
        let Some(model) = self.pick(loading.keys().cloned()) else {
            return;
        };
        let bytes = self.world.loading.remove(&model).unwrap();
        if may_fail && self.draw(5) == 0 {
            return self.tell(Event::LoadFailed(model, "bad tensor".to_owned()));
        }
        self.world.resident.insert(model.clone(), bytes);
        self.tell(Event::Loaded(model, bytes));
    }

    fn release(&mut self) {
        let held = self
            .world
            .leases
            .clone()
            .into_iter()
            .filter(|(_, n)| *n > 0);
        let Some(model) = self.pick(held.map(|(id, _)| id)) else {
            return;
        };
        *self.world.leases.get_mut(&model).unwrap() -= 1;
        self.tell(Event::Released(model));
    }

    fn end_unload(&mut self) {
        let Some(model) = self.pick(self.world.leaving.clone().into_iter()) else {
            return;
        };
        self.world.leaving.remove(&model);
        self.world.resident.remove(&model);
        self.tell(Event::Unloaded(model));
    }

    /// The clock goes on to the next model whose time is up.
    fn expire(&mut self) {
        if let Some(at) = self.script.plan.next_expiry() {
            self.script.now = self.script.now.max(at);
            self.tell(Event::Tick);
        }
    }

    fn cancel(&mut self) {
        if self.world.waiting.is_empty() {
            return;
        }
        let idx = self.draw(self.world.waiting.len());
        let (waiter, _) = self.world.waiting.remove(idx);
        self.world.n_answers += 1;
        self.tell(Event::Cancelled(waiter));
    }

    fn step(&mut self) {
        let draw = self.draw(100);
        self.script.now += Duration::from_millis(200);
        match draw {
            0..30 => self.acquire(),
            30..45 => self.end_prepare(true),
            45..60 => self.end_load(true),
            60..80 => self.release(),
            80..90 => self.end_unload(),
            90..95 => self.cancel(),
            _ => {
                let Some(model) = self.pick(MODELS.iter().map(|(name, ..)| id(name))) else {
                    return;
                };
                match self.draw(4) {
                    0 => self.tell(Event::EngineFailed(model, "a task panicked".to_owned())),
                    1 => self.expire(),
                    _ => self.tell(Event::Unload(model)),
                }
            }
        }
    }
}

#[test]
fn random_histories_keep_the_laws_and_answer_every_waiter_once() {
    for seed in 0..200 {
        let mut walk = Walk {
            script: Script::new(100),
            world: World::default(),
            random: seed,
        };
        for _ in 0..400 {
            walk.step();
        }
        if seed % 2 == 0 {
            walk.tell(Event::Shutdown);
            assert!(
                walk.world.waiting.is_empty(),
                "shutdown answers all who wait"
            );
        }
        for _ in 0..2000 {
            walk.end_prepare(false);
            walk.end_load(false);
            walk.release();
            walk.end_unload();
        }
        // Whoever does not fit beside pinned ones was refused: nobody waits.
        assert!(
            walk.world.waiting.is_empty(),
            "seed {seed}: {:?}",
            walk.world.waiting
        );
        assert_eq!(walk.world.n_answers, walk.script.n_waiters);
        if seed % 2 == 0 {
            let held = walk.world.held_bytes();
            assert_eq!(held, Bytes::default(), "everything left memory");
        }
    }
}
