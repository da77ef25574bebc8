//! The plan, driven synchronously through scripted histories.

use super::*;

pub(super) fn id(name: &str) -> ModelId {
    ModelId::new(name)
}

/// Bytes of the host.
pub(super) const fn host(bytes: u64) -> Bytes {
    Bytes::on_host(bytes)
}

pub(super) fn ask(bytes: u64) -> Ask {
    Ask {
        least: host(bytes),
        wanted: host(bytes),
    }
}

/// A plan with a clock that a test moves by hand.
pub(super) struct Script {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) n_waiters: u64,
}

impl Script {
    /// As much of the GPU's memory as of the host's.
    pub(super) fn new(bytes: u64) -> Self {
        let budget = Bytes {
            host: bytes,
            device: bytes,
        };
        Self {
            plan: Plan::new(budget, KeepAlive::UntilNeeded),
            now: Instant::now(),
            n_waiters: 0,
        }
    }

    pub(super) fn after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Decision> {
        self.plan.decide(event, self.now)
    }

    /// Acquires for the next waiter: 1, 2, 3 ...
    pub(super) fn acquire(&mut self, model: &str) -> Vec<Decision> {
        self.acquire_with(model, Wish::default())
    }

    pub(super) fn acquire_with(&mut self, model: &str, wish: Wish) -> Vec<Decision> {
        self.n_waiters += 1;
        self.event(Event::Acquire {
            waiter: WaiterId(self.n_waiters),
            model: id(model),
            wish,
        })
    }

    /// Brings `model` into memory with one lease on it and gives that back.
    pub(super) fn load_idle(&mut self, model: &str, bytes: u64) {
        self.load_idle_with(model, host(bytes));
    }

    fn load_idle_with(&mut self, model: &str, bytes: Bytes) {
        let ask = Ask {
            least: bytes,
            wanted: bytes,
        };
        self.after(1);
        assert_eq!(self.acquire(model), [Decision::Prepare(id(model))]);
        let waiter = WaiterId(self.n_waiters);
        assert_eq!(
            self.event(Event::Prepared(id(model), ask)),
            [Decision::Load(id(model), bytes)]
        );
        assert_eq!(
            self.event(Event::Loaded(id(model), bytes)),
            [Decision::Serve(waiter, id(model))]
        );
        assert_eq!(self.event(Event::Released(id(model))), []);
    }

    pub(super) fn state(&self, model: &str) -> Option<ModelState> {
        self.plan.state(&id(model), self.now)
    }
}

#[test]
fn cold_acquires_share_one_load_and_are_served_in_order() {
    let mut script = Script::new(100);
    assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Prepared(id("a"), ask(60))),
        [Decision::Load(id("a"), host(60))]
    );
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::Loaded(id("a"), host(60))),
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
        least: host(50),
        wanted: host(90),
    };
    assert_eq!(
        script.event(Event::Prepared(id("b"), ask)),
        [Decision::Load(id("b"), host(70))]
    );
    assert_eq!(script.plan.held_bytes(), host(100));
}

#[test]
fn what_never_fits_is_refused_with_the_numbers() {
    let mut script = Script::new(100);
    script.load_idle("a", 30);
    script.acquire("b");
    let refusal = Refusal::NotEnoughMemory {
        least: host(101),
        budget: script.plan.budget(),
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
        [Decision::Load(id("c"), host(40))]
    );
}

#[test]
fn a_small_model_stays_where_a_large_one_that_leaves_makes_all_the_room() {
    let mut script = Script::new(100);
    script.load_idle("small", 5);
    script.load_idle("large", 80);
    script.acquire("c");
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask(60))),
        [Decision::Unload(id("large"))]
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
        [
            Decision::Prepare(id("a")),
            Decision::Load(id("b"), host(60))
        ]
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
        [Decision::Unload(id("busy"))],
        "the other would not be enough, and this one is"
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
        [
            Decision::Load(id("c"), host(40)),
            Decision::Load(id("b"), host(40))
        ]
    );
}

#[test]
fn a_load_goes_on_without_its_waiters_but_a_queued_one_does_not() {
    let mut script = Script::new(100);
    script.acquire("a");
    assert_eq!(script.event(Event::Cancelled(WaiterId(1))), []);
    assert_eq!(
        script.event(Event::Prepared(id("a"), ask(60))),
        [Decision::Load(id("a"), host(60))]
    );
    assert_eq!(script.event(Event::Loaded(id("a"), host(60))), []);
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

#[test]
fn the_memories_count_for_themselves() {
    let on_device = |device| Bytes { host: 5, device };
    let mut script = Script::new(100);
    script.load_idle("a", 80);
    script.load_idle_with("b", on_device(60));
    script.acquire("c");
    let bytes = on_device(50);
    let ask = Ask {
        least: bytes,
        wanted: bytes,
    };
    // The older one would free nothing of what is short.
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask)),
        [Decision::Unload(id("b"))]
    );
    assert_eq!(
        script.event(Event::Unloaded(id("b"))),
        [Decision::Load(id("c"), bytes)]
    );
}
