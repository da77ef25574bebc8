//! Holds and their ends over a real ledger.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::caller::{KeyId, TeamId};

fn order(request: &str, worst: u64) -> Order {
    Order {
        request: request.to_owned(),
        attempt: 0,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        worst: MicroUsd(worst),
        tokens: 100,
    }
}

fn limit(scope: Scope, per: Per, most: u64) -> Limit {
    Limit {
        whom: Whom::One(scope),
        per,
        measure: Measure::Money,
        most,
    }
}

fn account() -> Account {
    Account {
        key: Some(KeyId::new("alice")),
        team: Some(TeamId::new("engineering")),
    }
}

fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage {
        prompt_tokens,
        completion_tokens,
        ..Usage::default()
    }
}

fn spent(money: &Money, now: Moment) -> u64 {
    let team = Scope::Team(TeamId::new("engineering"));
    money.used(&team, Per::Day, now).money.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spent_is_known_after_a_restart_and_what_was_held_stands_at_its_worst() {
    let (home, now) = (tempfile::tempdir().unwrap(), Moment::now());
    let limits = [limit(Scope::Everybody, Per::Month, 10_000)];
    let money = Money::open(home.path(), limits.clone(), now).unwrap();
    let hold = async |request: &str| money.hold(&account(), order(request, 1000), now).await;
    let settled = hold("settled").await.unwrap();
    assert_eq!(settled.settle(MicroUsd(300), &usage(10, 5)).over, None);
    let cancelled = hold("cancelled").await.unwrap();
    cancelled.set_upstream("gen-1");
    cancelled.settle_unconfirmed(MicroUsd(20), &usage(10, 1));
    drop(hold("dropped").await.unwrap());
    hold("never left").await.unwrap().release();
    assert_eq!(spent(&money, now), 2300);
    let open = hold("open").await.unwrap();
    assert_eq!(spent(&money, now), 3300);
    money.close().await;
    std::mem::forget(open);
    drop(money);

    let money = Money::open(home.path(), limits, now).unwrap();
    assert_eq!(spent(&money, now), 3300);
    let everything = money.used(&Scope::Everybody, Per::Minute, now);
    assert_eq!((everything.requests, everything.tokens), (4, 315));
    let since = now.before(Duration::from_secs(1));
    let unconfirmed = money.unconfirmed("openai", since).await.unwrap();
    let names: Vec<&str> = unconfirmed.iter().map(|one| &*one.request).collect();
    assert_eq!(names, ["cancelled", "dropped", "open"]);
    assert_eq!(unconfirmed[0].upstream.as_deref(), Some("gen-1"));
    // What was billed takes the place of the worst case, once.
    let billed = MicroUsd(70);
    assert!(
        money
            .true_up("cancelled", 0, billed, Some(usage(10, 2)))
            .await
            .unwrap()
    );
    assert!(!money.true_up("cancelled", 0, billed, None).await.unwrap());
    assert!(!money.true_up("settled", 0, billed, None).await.unwrap());
    assert!(!money.true_up("unheard of", 0, billed, None).await.unwrap());
    assert_eq!(spent(&money, now), 2370);
    money.close().await;
    drop(money);
    let money = Money::open(home.path(), [], now).unwrap();
    assert_eq!(spent(&money, now), 2370);
    assert_eq!(money.unconfirmed("openai", since).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_was_held_is_booked_in_full_and_told() {
    let (home, now) = (tempfile::tempdir().unwrap(), Moment::now());
    let limits = [limit(Scope::Everybody, Per::Day, 1000)];
    let money = Money::open(home.path(), limits, now).unwrap();
    let hold = money
        .hold(&account(), order("dear", 900), now)
        .await
        .unwrap();
    let settled = hold.settle(MicroUsd(1200), &usage(1, 1));
    let told = settled.over.unwrap().to_string();
    assert!(
        told.starts_with("$0.0012 were billed where $0.0009 were held"),
        "{told}"
    );
    assert!(settled.written().await.is_ok());
    assert_eq!(spent(&money, now), 1200);
    let refused = money
        .hold(&account(), order("next", 1), now)
        .await
        .unwrap_err();
    assert!(matches!(refused, NotHeld::OverLimit(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_held_once_and_a_retry_is_no_other_request() {
    let (home, now) = (tempfile::tempdir().unwrap(), Moment::now());
    let money = Money::open(home.path(), [limit(Scope::Everybody, Per::Day, 9999)], now).unwrap();
    let first = money.hold(&account(), order("r", 10), now).await.unwrap();
    let again = money
        .hold(&account(), order("r", 10), now)
        .await
        .unwrap_err();
    assert!(
        again.to_string().contains("attempt 0 of request r"),
        "{again}"
    );
    assert_eq!(spent(&money, now), 10, "what is not held is not counted");
    let retry = Order {
        attempt: 1,
        ..order("r", 20)
    };
    let second = money.hold(&account(), retry, now).await.unwrap();
    first.settle(MicroUsd(1), &usage(1, 1));
    second
        .settle(MicroUsd(2), &usage(1, 1))
        .written()
        .await
        .unwrap();
    let used = money.used(&Scope::Everybody, Per::Day, now);
    assert_eq!(
        (used.requests, used.tokens, used.money),
        (1, 4, MicroUsd(3))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_ledger_only_where_nothing_is_limited() {
    let (home, now) = (tempfile::tempdir().unwrap(), Moment::now());
    let limits = [limit(Scope::Everybody, Per::Day, 1000)];
    let first = Money::open(home.path(), limits.clone(), now).unwrap();
    let open = first
        .hold(&account(), order("first", 100), now)
        .await
        .unwrap();
    let refused = Money::open(home.path(), limits, now)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("a home folder of its own"), "{refused}");
    let second = Money::open(home.path(), [], now).unwrap();
    let hold = second
        .hold(&account(), order("second", 100), now)
        .await
        .unwrap();
    hold.settle(MicroUsd(5), &usage(1, 1))
        .written()
        .await
        .unwrap();
    // The second one has not taken the first one's hold for one of a dead process.
    open.settle(MicroUsd(7), &usage(1, 1))
        .written()
        .await
        .unwrap();
    first.close().await;
    second.close().await;
    drop((first, second));
    let all = Money::open(home.path(), [], now).unwrap();
    assert_eq!(spent(&all, now), 12);
}

/// A small generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

/// Holds something, and ends it in one of the ways there are; what is booked for it, nothing where it was refused.
async fn one_of_many(n: u64, money: Money, now: Moment) -> Option<u64> {
    let (mut dice, who) = (Dice(n), account());
    let worst = dice.below(1500);
    let holding = money.hold(&who, order(&format!("r{n}"), worst), now);
    // Some go away while it is written.
    let hold = if n.is_multiple_of(7) {
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => return Some(0),
            hold = holding => hold,
        }
    } else {
        holding.await
    };
    let hold = hold.ok()?;
    tokio::time::sleep(Duration::from_micros(dice.below(3000))).await;
    let cost = dice.below(worst + 1);
    Some(match dice.below(5) {
        0 => {
            hold.release();
            0
        }
        1 => {
            drop(hold);
            worst
        }
        2 => {
            hold.settle_unconfirmed(MicroUsd(cost), &usage(1, 1));
            worst
        }
        _ => {
            hold.settle(MicroUsd(cost), &usage(1, 1));
            cost
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_at_once_never_spend_and_hold_more_than_there_is() {
    const MOST: u64 = 200_000;
    let (home, now) = (tempfile::tempdir().unwrap(), Moment::now());
    let team = Scope::Team(TeamId::new("engineering"));
    let limits = [
        limit(Scope::Everybody, Per::Day, MOST),
        limit(team.clone(), Per::Month, MOST - 1000),
    ];
    let money = Money::open(home.path(), limits.clone(), now).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (money, is_over) = (money.clone(), Arc::clone(&is_over));
        move || {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(money.used(&Scope::Everybody, Per::Day, now).money.0);
                most = most.max(1000 + money.used(&team, Per::Month, now).money.0);
            }
            most
        }
    });
    let tasks: Vec<_> = (0..1000)
        .map(|n| tokio::spawn(one_of_many(n, money.clone(), now)))
        .collect();
    let (mut booked, mut n_refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Some(cost) => booked += cost,
            None => n_refused += 1,
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let most_seen = watcher.join().unwrap();
    assert!(most_seen <= MOST, "{most_seen}");
    assert!(n_refused > 50, "the limit was never felt: {n_refused}");
    assert_eq!(spent(&money, now), booked, "no phantom is left");
    money.close().await;
    drop(money);
    let money = Money::open(home.path(), limits, now).unwrap();
    assert_eq!(spent(&money, now), booked, "nor is one in the ledger");
}

#[tokio::test]
async fn what_is_old_and_settled_goes_and_its_sums_stay() {
    let home = tempfile::tempdir().unwrap();
    let now = Moment::now();
    let old = now.before(Duration::from_hours(24 * 500));
    let money = Money::open(home.path(), [], now).unwrap();
    // More than one piece, with one that nobody has confirmed among them.
    for n in 0..2500 {
        let at = if n < 2200 { old } else { now };
        let hold = money.hold(&account(), order(&n.to_string(), 10), at).await;
        let hold = hold.unwrap();
        if n == 7 {
            hold.set_upstream("gen-7");
            drop(hold);
        } else {
            drop(hold.settle(MicroUsd(3), &usage(5, 1)));
        }
    }
    let question = UsageQuestion {
        team: None,
        key: None,
        from: old.before(Duration::from_hours(24)),
        to: now.after(Duration::from_hours(1)),
        by: By::Day,
    };
    let before = money.usage(question.clone()).await.unwrap();
    assert_eq!(before.iter().map(|row| row.n_requests).sum::<u64>(), 2500);
    let keep = now.before(Duration::from_hours(24 * 400));
    assert_eq!(money.prune(keep).await.unwrap(), 2199);
    assert_eq!(money.prune(keep).await.unwrap(), 0);
    assert_eq!(money.usage(question.clone()).await.unwrap(), before);
    // It can still be asked what that one has cost.
    let unconfirmed = money.unconfirmed("openai", Moment::default()).await;
    let one = unconfirmed.unwrap().swap_remove(0);
    assert_eq!(
        (&*one.request, one.upstream.as_deref()),
        ("7", Some("gen-7"))
    );
    assert!(money.true_up("7", 0, MicroUsd(3), None).await.unwrap());
    assert_eq!(money.prune(keep).await.unwrap(), 1);
    money.close().await;
    // And after a restart all is as it was.
    let again = Money::open(
        home.path(),
        [limit(Scope::Everybody, Per::Day, 1_000_000)],
        now,
    )
    .unwrap();
    assert_eq!(spent(&again, now), 300 * 3);
    let sums = again.usage(question).await.unwrap();
    assert_eq!(sums.iter().map(|row| row.cost.0).sum::<u64>(), 2500 * 3);
}
