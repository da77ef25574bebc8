//! The plan, driven synchronously: scripted histories, and a random walk that checks the laws.

use std::collections::BTreeSet;

use super::*;

fn id(name: &str) -> ModelId {
    ModelId::new(name)
}

fn ask(bytes: u64) -> Ask {
    Ask {
        least_bytes: bytes,
        wanted_bytes: bytes,
    }
}

/// A plan with a clock that a test moves by hand.
struct Script {
    plan: Plan,
    now: Instant,
    n_waiters: u64,
}

impl Script {
    fn new(budget_bytes: u64) -> Self {
        Self {
            plan: Plan::new(budget_bytes),
            now: Instant::now(),
            n_waiters: 0,
        }
    }

    fn after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn event(&mut self, event: Event) -> Vec<Decision> {
        self.plan.decide(event, self.now)
    }

    /// Acquires for the next waiter: 1, 2, 3 ...
    fn acquire(&mut self, model: &str) -> Vec<Decision> {
        self.n_waiters += 1;
        self.event(Event::Acquire {
            waiter: WaiterId(self.n_waiters),
            model: id(model),
        })
    }

    /// Brings `model` into memory with one lease on it and gives that back.
    fn load_idle(&mut self, model: &str, bytes: u64) {
        self.after(1);
        assert_eq!(self.acquire(model), [Decision::Prepare(id(model))]);
        let waiter = WaiterId(self.n_waiters);
        assert_eq!(
            self.event(Event::Prepared(id(model), ask(bytes))),
            [Decision::Load(id(model), bytes)]
        );
        assert_eq!(
            self.event(Event::Loaded(id(model), bytes)),
            [Decision::Serve(waiter, id(model))]
        );
        assert_eq!(self.event(Event::Released(id(model))), []);
    }

    fn state(&self, model: &str) -> Option<ModelState> {
        let wanted = id(model);
        self.plan
            .states(self.now)
            .find(|(id, ..)| **id == wanted)
            .map(|(_, state, ..)| state)
    }
}

#[test]
fn cold_acquires_share_one_load_and_are_served_in_order() {
    let mut script = Script::new(100);
    assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Prepared(id("a"), ask(60))),
        [Decision::Load(id("a"), 60)]
    );
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Loaded(id("a"), 60)),
        [1, 2, 3].map(|n| Decision::Serve(WaiterId(n), id("a")))
    );
    assert_eq!(script.acquire("a"), [Decision::Serve(WaiterId(4), id("a"))]);
    assert_eq!(script.state("a"), Some(ModelState::Ready { n_leases: 4 }));
}

#[test]
fn a_grant_lies_between_least_and_wanted() {
    let mut script = Script::new(100);
    script.load_idle("a", 30);
    script.acquire("b");
    let ask = Ask {
        least_bytes: 50,
        wanted_bytes: 90,
    };
    assert_eq!(
        script.event(Event::Prepared(id("b"), ask)),
        [Decision::Load(id("b"), 70)]
    );
    assert_eq!(script.plan.held_bytes(), 100);
}

#[test]
fn what_never_fits_is_refused_with_the_numbers() {
    let mut script = Script::new(100);
    script.load_idle("a", 30);
    script.acquire("b");
    let refusal = Refusal::NotEnoughMemory {
        least_bytes: 101,
        budget_bytes: 100,
    };
    assert_eq!(
        script.event(Event::Prepared(id("b"), ask(101))),
        [
            Decision::Refuse(WaiterId(2), id("b"), refusal),
            Decision::Discard(id("b"))
        ]
    );
    assert_eq!(script.state("b"), None);
    assert_eq!(script.state("a"), Some(ModelState::Ready { n_leases: 0 }));
}

#[test]
fn the_least_recently_used_idle_model_leaves() {
    let mut script = Script::new(100);
    script.load_idle("a", 40);
    script.load_idle("b", 40);
    script.after(1);
    script.acquire("a"); // a is now the later used of the two
    script.event(Event::Released(id("a")));
    script.acquire("c");
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask(40))),
        [Decision::Unload(id("b"))]
    );
    assert_eq!(script.state("c"), Some(ModelState::Queued));
    assert_eq!(
        script.event(Event::Unloaded(id("b"))),
        [Decision::Load(id("c"), 40)]
    );
}

#[test]
fn a_busy_model_is_never_evicted() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    script.acquire("a");
    script.acquire("b");
    assert_eq!(script.event(Event::Prepared(id("b"), ask(60))), []);
    script.acquire("a");
    assert_eq!(script.event(Event::Released(id("a"))), []);
    assert_eq!(
        script.event(Event::Released(id("a"))),
        [Decision::Unload(id("a"))]
    );
    // Whoever asks for it while it leaves waits, and is not sent into it.
    assert_eq!(script.acquire("a"), []);
    let loads_b_and_prepares_a = script.event(Event::Unloaded(id("a")));
    assert_eq!(
        loads_b_and_prepares_a,
        [Decision::Prepare(id("a")), Decision::Load(id("b"), 60)]
    );
}

#[test]
fn idle_models_stay_when_evicting_them_would_not_make_room() {
    let mut script = Script::new(100);
    script.load_idle("idle", 20);
    script.load_idle("busy", 60);
    script.acquire("busy");
    script.acquire("big");
    assert_eq!(script.event(Event::Prepared(id("big"), ask(50))), []);
    assert_eq!(
        script.state("idle"),
        Some(ModelState::Ready { n_leases: 0 })
    );
    assert_eq!(
        script.event(Event::Released(id("busy"))),
        [Decision::Unload(id("idle")), Decision::Unload(id("busy"))]
    );
}

#[test]
fn two_that_need_room_share_one_eviction_and_keep_their_order() {
    let mut script = Script::new(100);
    script.load_idle("old", 80);
    script.acquire("b");
    script.acquire("c");
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask(40))),
        [Decision::Unload(id("old"))]
    );
    assert_eq!(script.event(Event::Prepared(id("b"), ask(40))), []);
    assert_eq!(
        script.event(Event::Unloaded(id("old"))),
        [Decision::Load(id("c"), 40), Decision::Load(id("b"), 40)]
    );
}

#[test]
fn a_load_goes_on_without_its_waiters_but_a_queued_one_does_not() {
    let mut script = Script::new(100);
    script.acquire("a");
    assert_eq!(script.event(Event::Cancelled(WaiterId(1))), []);
    assert_eq!(
        script.event(Event::Prepared(id("a"), ask(60))),
        [Decision::Load(id("a"), 60)]
    );
    assert_eq!(script.event(Event::Loaded(id("a"), 60)), []);
    assert_eq!(script.state("a"), Some(ModelState::Ready { n_leases: 0 }));

    script.acquire("a");
    script.acquire("b");
    assert_eq!(script.event(Event::Prepared(id("b"), ask(60))), []);
    assert_eq!(
        script.event(Event::Cancelled(WaiterId(3))),
        [Decision::Discard(id("b"))]
    );
    assert_eq!(script.state("b"), None);
}

#[test]
fn failures_keep_their_reason_and_back_off() {
    let mut script = Script::new(100);
    script.acquire("a");
    script.acquire("a");
    let refusal = |secs| Refusal::Failed {
        reason: "bad magic".to_owned(),
        retry_in: Duration::from_secs(secs),
    };
    assert_eq!(
        script.event(Event::LoadFailed(id("a"), "bad magic".to_owned())),
        [
            Decision::Refuse(WaiterId(1), id("a"), refusal(1)),
            Decision::Refuse(WaiterId(2), id("a"), refusal(1)),
        ]
    );
    assert_eq!(
        script.acquire("a"),
        [Decision::Refuse(WaiterId(3), id("a"), refusal(1))]
    );
    assert_eq!(
        script.acquire("b"),
        [Decision::Prepare(id("b"))],
        "others are not held back"
    );
    for secs in [2, 4, 8, 16, 32, 60, 60] {
        script.after(60);
        assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
        let waiter = WaiterId(script.n_waiters);
        let decisions = script.event(Event::LoadFailed(id("a"), "bad magic".to_owned()));
        assert_eq!(
            decisions,
            [Decision::Refuse(waiter, id("a"), refusal(secs))]
        );
    }
}

#[test]
fn a_failed_engine_drains_then_backs_off() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    script.acquire("a");
    assert_eq!(
        script.event(Event::EngineFailed(id("a"), "a task panicked".to_owned())),
        []
    );
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Released(id("a"))),
        [Decision::Unload(id("a"))]
    );
    let decisions = script.event(Event::Unloaded(id("a")));
    let retry_in = Duration::from_secs(1);
    let refusal = Refusal::Failed {
        reason: "a task panicked".to_owned(),
        retry_in,
    };
    assert_eq!(decisions, [Decision::Refuse(WaiterId(3), id("a"), refusal)]);
    script.after(1);
    assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
}

#[test]
fn unload_waits_for_leases_and_a_later_acquire_loads_again() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    script.acquire("a");
    assert_eq!(script.event(Event::Unload(id("a"))), []);
    assert_eq!(
        script.state("a"),
        Some(ModelState::Draining { n_leases: 1 })
    );
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Released(id("a"))),
        [Decision::Unload(id("a"))]
    );
    assert_eq!(
        script.event(Event::Unloaded(id("a"))),
        [Decision::Prepare(id("a"))]
    );
}

#[test]
fn shutdown_refuses_who_waits_and_lets_leases_run_out() {
    let mut script = Script::new(100);
    script.load_idle("idle", 20);
    script.load_idle("busy", 20);
    script.acquire("busy");
    script.acquire("cold"); // waiter 4
    assert_eq!(
        script.event(Event::Shutdown),
        [
            Decision::Refuse(WaiterId(4), id("cold"), Refusal::ShuttingDown),
            Decision::Unload(id("idle")),
        ]
    );
    let refused = Decision::Refuse(WaiterId(5), id("busy"), Refusal::ShuttingDown);
    assert_eq!(script.acquire("busy"), [refused]);
    assert_eq!(
        script.event(Event::Prepared(id("cold"), ask(5))),
        [Decision::Discard(id("cold"))]
    );
    assert_eq!(
        script.event(Event::Released(id("busy"))),
        [Decision::Unload(id("busy"))]
    );
}

/// The actor's side of the plan as a random walk plays it: what is open, loading, in memory, held.
#[derive(Default)]
struct World {
    preparing: BTreeSet<ModelId>,
    prepared: BTreeSet<ModelId>,
    loading: BTreeMap<ModelId, u64>,
    resident: BTreeMap<ModelId, u64>,
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

    fn held_bytes(&self) -> u64 {
        self.loading.values().sum::<u64>() + self.resident.values().sum::<u64>()
    }
}

/// A walk through random histories; SplitMix64 draws them.
struct Walk {
    script: Script,
    world: World,
    random: u64,
}

const MODELS: [(&str, u64); 5] = [("a", 30), ("b", 45), ("c", 60), ("d", 100), ("e", 101)];

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
        assert!(self.world.held_bytes() <= 100, "over the budget");
        assert_eq!(self.world.held_bytes(), self.script.plan.held_bytes());
    }

    fn acquire(&mut self) {
        let model = id(MODELS[self.draw(MODELS.len())].0);
        self.script.n_waiters += 1;
        let waiter = WaiterId(self.script.n_waiters);
        self.world.waiting.push((waiter, model.clone()));
        self.tell(Event::Acquire { waiter, model });
    }

    fn end_prepare(&mut self, may_fail: bool) {
        let Some(model) = self.pick(self.world.preparing.clone().into_iter()) else {
            return;
        };
        self.world.preparing.remove(&model);
        if may_fail && self.draw(5) == 0 {
            return self.tell(Event::LoadFailed(model, "no such file".to_owned()));
        }
        let bytes = MODELS.iter().find(|(name, _)| id(name) == model).unwrap().1;
        self.world.prepared.insert(model.clone());
        let wanted_bytes = bytes + self.draw(30) as u64;
        self.tell(Event::Prepared(
            model,
            Ask {
                least_bytes: bytes,
                wanted_bytes,
            },
        ));
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
                let Some(model) = self.pick(MODELS.iter().map(|(name, _)| id(name))) else {
                    return;
                };
                let unload = self.draw(3) > 0;
                self.tell(if unload {
                    Event::Unload(model)
                } else {
                    Event::EngineFailed(model, "a task panicked".to_owned())
                });
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
        assert!(
            walk.world.waiting.is_empty(),
            "seed {seed}: {:?}",
            walk.world.waiting
        );
        assert_eq!(walk.world.n_answers, walk.script.n_waiters);
        if seed % 2 == 0 {
            assert_eq!(walk.world.held_bytes(), 0, "everything left memory");
        }
    }
}
