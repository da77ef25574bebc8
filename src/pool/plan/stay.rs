//! The plan, driven through histories of models that stay, and of loads that are called off.
#![cfg(test)]

use super::tests::{Script, ask, host, id};
use super::*;

/// What whoever says how long says.
fn keep(keep_alive: KeepAlive) -> Wish {
    Wish {
        keep_alive: Some(keep_alive),
        ..Wish::default()
    }
}

#[test]
fn an_idle_model_leaves_when_its_time_is_up_and_not_before() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    assert_eq!(script.plan.next_expiry(), None, "it stays until needed");
    let minute = KeepAlive::For(Duration::from_mins(1));
    script.acquire_with("a", keep(minute));
    assert_eq!(script.plan.next_expiry(), None, "it is held");
    script.after(100);
    script.event(Event::Released(id("a")));
    let due = script.now + Duration::from_mins(1);
    assert_eq!(script.plan.next_expiry(), Some(due));
    script.after(59);
    assert_eq!(script.event(Event::Tick), []);
    // Who says nothing leaves its time as it is, and begins it anew.
    script.acquire("a");
    script.event(Event::Released(id("a")));
    script.after(59);
    assert_eq!(script.event(Event::Tick), []);
    script.after(1);
    assert_eq!(script.event(Event::Tick), [Decision::Unload(id("a"))]);
}

#[test]
fn no_time_at_all_unloads_after_the_last_lease() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    script.acquire("a");
    script.acquire_with("a", keep(KeepAlive::For(Duration::ZERO)));
    assert_eq!(script.event(Event::Released(id("a"))), []);
    assert_eq!(
        script.event(Event::Released(id("a"))),
        [Decision::Unload(id("a"))]
    );
    script.event(Event::Unloaded(id("a")));
    assert_eq!(script.state("a"), None);
    // What it was told is forgotten with it.
    script.load_idle("a", 60);
    assert_eq!(script.plan.next_expiry(), None);
}

#[test]
fn a_pinned_model_stays_and_who_does_not_fit_beside_it_is_told_so() {
    let mut script = Script::new(100);
    script.load_idle("a", 60);
    script.event(Event::Keep(id("a"), KeepAlive::Pinned));
    script.load_idle("b", 30);
    script.acquire("c");
    let refusal = Refusal::PinnedInTheWay {
        least: host(50),
        free: Bytes {
            host: 40,
            device: 100,
        },
        pinned: vec![id("a")],
    };
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask(50))),
        [
            Decision::Refuse(WaiterId(3), id("c"), refusal),
            Decision::Discard(id("c"))
        ]
    );
    assert_eq!(script.state("b"), Some(ModelState::Ready { n_leases: 0 }));
    // One that fits takes the place of the other, though that was used later.
    script.acquire("c");
    assert_eq!(
        script.event(Event::Prepared(id("c"), ask(40))),
        [Decision::Unload(id("b"))]
    );
    script.event(Event::Unloaded(id("b")));
    assert_eq!(
        script.event(Event::Unload(id("a"))),
        [Decision::Unload(id("a"))],
        "told to leave, it leaves"
    );
}

#[test]
fn without_autoload_only_what_is_in_memory_or_on_its_way_is_had() {
    let mut script = Script::new(100);
    let wish = Wish {
        may_load: false,
        ..Wish::default()
    };
    assert_eq!(
        script.acquire_with("a", wish),
        [Decision::Refuse(WaiterId(1), id("a"), Refusal::NotLoaded)]
    );
    assert_eq!(script.state("a"), None);
    assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
    assert_eq!(script.acquire_with("a", wish), [], "it joins");
    script.event(Event::Prepared(id("a"), ask(60)));
    assert_eq!(
        script.event(Event::Loaded(id("a"), host(60))),
        [2, 3].map(|n| Decision::Serve(WaiterId(n), id("a")))
    );
}

#[test]
fn a_load_is_called_off_wherever_it_stands() {
    let mut script = Script::new(100);
    let called_off = |n| Decision::Refuse(WaiterId(n), id("a"), Refusal::Cancelled);
    script.acquire("a");
    assert_eq!(
        script.event(Event::Unload(id("a"))),
        [called_off(1), Decision::Cancel(id("a"))]
    );
    // Who comes before it has ended gets a load of its own.
    assert_eq!(script.acquire("a"), []);
    assert_eq!(
        script.event(Event::LoadFailed(id("a"), "called off".to_owned())),
        [Decision::Prepare(id("a"))]
    );
    script.event(Event::Prepared(id("a"), ask(60)));
    assert_eq!(
        script.event(Event::Unload(id("a"))),
        [called_off(2), Decision::Cancel(id("a"))]
    );
    assert_eq!(script.plan.held_bytes(), host(60), "until it has ended");
    // It was quicker than the word to end it.
    assert_eq!(
        script.event(Event::Loaded(id("a"), host(60))),
        [Decision::Unload(id("a"))]
    );
    assert_eq!(script.event(Event::Unloaded(id("a"))), []);
    assert_eq!(script.state("a"), None);

    script.load_idle("b", 60);
    script.acquire("b");
    script.acquire("a");
    let waiter = script.n_waiters;
    assert_eq!(script.event(Event::Prepared(id("a"), ask(60))), []);
    assert_eq!(
        script.event(Event::Unload(id("a"))),
        [called_off(waiter), Decision::Discard(id("a"))]
    );
}

#[test]
fn an_unload_forgets_a_failure() {
    let mut script = Script::new(100);
    script.acquire("a");
    script.event(Event::LoadFailed(id("a"), "bad magic".to_owned()));
    assert_eq!(script.event(Event::Unload(id("a"))), []);
    assert_eq!(script.state("a"), None);
    assert_eq!(script.acquire("a"), [Decision::Prepare(id("a"))]);
}
