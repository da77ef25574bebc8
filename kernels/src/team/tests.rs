use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Team;
use crate::Isa;

fn team(n_threads: usize) -> Arc<Team> {
    Team::new(NonZeroUsize::new(n_threads).unwrap(), Isa::Scalar)
}

#[test]
fn every_task_runs_once_whatever_the_team() {
    for n_threads in [1, 2, 3, 8] {
        let team = team(n_threads);
        assert_eq!(team.n_threads(), n_threads);
        let turn = team.take_turn();
        for n_tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
            turn.run(n_tasks, &|task_idx| {
                counts[task_idx].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }
}

#[test]
fn thousands_of_runs_with_and_without_sleep_lose_nothing() {
    let n_runs = if cfg!(miri) { 50 } else { 20_000 };
    let team = team(4);
    let turn = team.take_turn();
    let sum = AtomicUsize::new(0);
    for run_idx in 0..n_runs {
        turn.run(1 + run_idx % 9, &|task_idx| {
            sum.fetch_add(task_idx + 1, Ordering::Relaxed);
        });
        if run_idx % 1000 == 0 {
            // Long enough for the workers to fall asleep.
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    let expected: usize = (0..n_runs)
        .map(|run_idx| (1 + run_idx % 9) * (2 + run_idx % 9) / 2)
        .sum();
    assert_eq!(sum.load(Ordering::Relaxed), expected);
}

#[test]
fn a_panicking_task_reaches_the_caller_after_all_others_and_the_team_lives_on() {
    for n_threads in [1, 3] {
        let team = team(n_threads);
        let turn = team.take_turn();
        for _ in 0..20 {
            let ran = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                turn.run(16, &|task_idx| {
                    assert!(task_idx != 15, "task 15 is wrong");
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            }));
            let message = *outcome.unwrap_err().downcast::<&str>().unwrap();
            assert_eq!(message, "task 15 is wrong");
            assert_eq!(ran.load(Ordering::Relaxed), 15);
        }
        let ran = AtomicUsize::new(0);
        turn.run(100, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn turns_are_taken_in_the_order_of_asking_and_never_two_at_once() {
    let team = team(2);
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = team.take_turn();
    let mut others = Vec::new();
    for asker in 0..4_u64 {
        let (asking, order) = (Arc::clone(&team), Arc::clone(&order));
        others.push(std::thread::spawn(move || {
            let turn = asking.take_turn();
            turn.run(4, &|_| {});
            order.lock().unwrap().push(asker);
        }));
        while super::lock(&team.queue).next_ticket != asker + 2 {
            std::thread::yield_now();
        }
    }
    assert!(order.lock().unwrap().is_empty());
    drop(first);
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
}

#[test]
fn a_turn_dropped_by_a_panic_lets_the_next_one_through() {
    let team = team(2);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let turn = team.take_turn();
        turn.run(2, &|_| panic!("on purpose"));
    }));
    assert!(failed.is_err());
    team.take_turn().run(2, &|_| {});
}

#[test]
fn scratch_has_the_asked_length_and_is_nobody_elses() {
    let team = team(3);
    let turn = team.take_turn();
    for len in [5, 64, 7] {
        turn.run_with_scratch(50, len, &|task_idx, scratch| {
            assert_eq!(scratch.len(), len);
            let mark = f32::from(u8::try_from(task_idx).unwrap());
            scratch.fill(mark);
            std::thread::yield_now();
            assert!(
                scratch
                    .iter()
                    .all(|value| value.to_bits() == mark.to_bits())
            );
        });
    }
}
