use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const PASSES: Failure = Failure {
    may_escalate: true,
    may_retry: true,
    retry_after: None,
};

const STAYS: Failure = Failure {
    may_retry: false,
    ..PASSES
};

const FINAL: Failure = Failure {
    may_escalate: false,
    may_retry: false,
    retry_after: None,
};

fn lane(patience: Option<u64>, hedge_after: Option<u64>) -> Lane {
    Lane {
        patience: patience.map(Duration::from_secs),
        hedge_after: hedge_after.map(Duration::from_secs),
        n_retries: 2,
    }
}

fn open(lane: usize, why: Why) -> Step {
    Step::Open { lane, why }
}

fn wait(until: Instant) -> Step {
    Step::Wait { until: Some(until) }
}

/// What is to be done, with or without a hedge budget.
fn step(race: &mut Race, now: Instant) -> Step {
    race.step(now, || true)
}

#[test]
fn who_fails_is_followed_by_the_next_at_once() {
    let now = Instant::now();
    let mut race = Race::new(vec![lane(None, None); 3], None);
    assert_eq!(step(&mut race, now), open(0, Why::First));
    assert_eq!(step(&mut race, now), Step::Wait { until: None });
    race.failed(0, PASSES, 0.0, now);
    assert_eq!(step(&mut race, now), open(1, Why::Failed));
    race.failed(1, STAYS, 0.0, now);
    assert_eq!(step(&mut race, now), open(2, Why::Failed));
}

#[test]
fn a_failure_that_nobody_else_can_mend_ends_the_race() {
    let now = Instant::now();
    let mut race = Race::new(vec![lane(None, None); 2], None);
    assert_eq!(step(&mut race, now), open(0, Why::First));
    race.failed(0, FINAL, 0.0, now);
    assert_eq!(step(&mut race, now), Step::Lost);
}

#[test]
fn who_is_silent_for_too_long_is_replaced_but_the_last_is_left_alone() {
    let now = Instant::now();
    let mut race = Race::new(vec![lane(Some(30), None); 2], None);
    assert_eq!(step(&mut race, now), open(0, Why::First));
    assert_eq!(step(&mut race, now), wait(now + 30 * SECOND));
    let late = now + 30 * SECOND;
    assert_eq!(step(&mut race, late), Step::Drop { lane: 0 });
    assert_eq!(step(&mut race, late), open(1, Why::Late));
    let very_late = late + 3000 * SECOND;
    assert_eq!(step(&mut race, very_late), Step::Wait { until: None });
    assert!(race.is_running(1));
}

#[test]
fn the_whole_deadline_ends_everything() {
    let now = Instant::now();
    let mut race = Race::new(vec![lane(Some(30), None); 2], Some(now + 10 * SECOND));
    assert_eq!(step(&mut race, now), open(0, Why::First));
    assert_eq!(step(&mut race, now), wait(now + 10 * SECOND));
    assert_eq!(step(&mut race, now + 10 * SECOND), Step::TooLate);
}

#[test]
fn a_second_opinion_is_asked_once_and_only_within_the_budget() {
    let now = Instant::now();
    for may_hedge in [true, false] {
        let mut race = Race::new(vec![lane(None, Some(2)); 3], None);
        assert_eq!(step(&mut race, now), open(0, Why::First));
        assert_eq!(step(&mut race, now), wait(now + 2 * SECOND));
        let later = now + 2 * SECOND;
        let hedged = race.step(later, || may_hedge);
        if may_hedge {
            assert_eq!(hedged, open(1, Why::Hedge));
            // Two are enough, until one of them fails.
            assert!(matches!(
                step(&mut race, later + 5 * SECOND),
                Step::Wait { .. }
            ));
            race.failed(0, PASSES, 0.0, later);
            assert_eq!(step(&mut race, later + 5 * SECOND), open(2, Why::Hedge));
        } else {
            assert_eq!(hedged, Step::Wait { until: None });
        }
    }
}

#[test]
fn who_is_foreseen_to_be_late_is_escalated_without_a_budget() {
    let now = Instant::now();
    let mut race = Race::new(vec![lane(Some(30), None), lane(None, None)], None);
    assert_eq!(step(&mut race, now), open(0, Why::First));
    race.foreseen(0);
    assert_eq!(race.step(now + SECOND, || false), open(1, Why::Foreseen));
    assert!(race.is_running(0), "it may be in time nevertheless");
    race.foreseen(0);
    assert_eq!(
        race.step(now + SECOND, || false),
        Step::Wait { until: None }
    );
}

#[test]
fn when_all_have_failed_those_that_may_recover_are_asked_again_after_pauses() {
    let start = Instant::now();
    let mut now = start;
    let mut race = Race::new(vec![lane(None, None); 2], None);
    let mut asked = Vec::new();
    loop {
        match step(&mut race, now) {
            Step::Open { lane, why } => {
                asked.push((lane, why, (now - start).as_millis()));
                let failure = if lane == 0 { PASSES } else { STAYS };
                race.failed(lane, failure, 0.0, now);
            }
            Step::Wait { until } => now = until.unwrap(),
            Step::Lost => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (0, Why::First, 0),
        (1, Why::Failed, 0),
        (0, Why::Again, 500),
        (0, Why::Again, 1500),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_pause_that_was_asked_for_is_kept_if_it_is_not_too_long() {
    let now = Instant::now();
    for (asked, until, expected) in [
        (1, None, Some(1)),
        (60, None, Some(60)),
        (120, None, None),
        (20, Some(10), None),
    ] {
        let mut race = Race::new(vec![lane(None, None)], until.map(|s| now + SECOND * s));
        assert_eq!(step(&mut race, now), open(0, Why::First));
        let failure = Failure {
            retry_after: Some(SECOND * asked),
            ..PASSES
        };
        race.failed(0, failure, 1.0, now);
        let then = match expected {
            Some(seconds) => wait(now + SECOND * seconds),
            None => Step::Lost,
        };
        assert_eq!(step(&mut race, now), then, "{asked}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Fails(usize, bool, bool),
    Foreseen(usize),
    Passes(u64),
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..4_usize, any::<bool>(), any::<bool>()).prop_map(|(l, e, r)| Happening::Fails(l, e, r)),
        (0..4_usize).prop_map(Happening::Foreseen),
        (0..20_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    /// Whatever happens: at most two are asked at once, nobody is asked while it is being asked, a race that waits for
    /// nothing has somebody running, and it ends.
    #[test]
    fn every_race_keeps_its_laws(
        lanes in prop::collection::vec((prop::option::of(1..30_u64), prop::option::of(1..10_u64)), 1..4),
        until in prop::option::of(1..100_u64),
        happenings in prop::collection::vec(happenings(), 0..60),
        may_hedge in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut now = start;
        let lanes = lanes.into_iter().map(|(p, h)| lane(p, h)).collect();
        let mut race = Race::new(lanes, until.map(|s| start + SECOND * u32::try_from(s).unwrap()));
        let mut happenings = happenings.into_iter();
        let mut running: Vec<usize> = Vec::new();
        let mut n_steps = 0;
        loop {
            n_steps += 1;
            prop_assert!(n_steps < 1000, "it never ends");
            match race.step(now, || may_hedge) {
                Step::Open { lane, .. } => {
                    prop_assert!(!running.contains(&lane));
                    running.push(lane);
                    prop_assert!(running.len() <= 3);
                }
                Step::Drop { lane } => {
                    prop_assert!(running.contains(&lane));
                    running.retain(|one| *one != lane);
                }
                Step::Wait { until } => {
                    prop_assert!(until.is_some() || !running.is_empty());
                    match happenings.next() {
                        Some(Happening::Fails(lane, may_escalate, may_retry)) if running.contains(&lane) => {
                            running.retain(|one| *one != lane);
                            let failure = Failure { may_escalate, may_retry, retry_after: None };
                            race.failed(lane, failure, 0.5, now);
                        }
                        Some(Happening::Foreseen(lane)) => race.foreseen(lane),
                        Some(Happening::Passes(seconds)) => now += Duration::from_secs(seconds),
                        Some(Happening::Fails(..)) => {}
                        None => match running.pop() {
                            Some(lane) => race.failed(lane, FINAL, 0.5, now),
                            None => now = until.unwrap(),
                        },
                    }
                }
                Step::Lost | Step::TooLate => break,
            }
        }
        prop_assert!(running.is_empty() || until.is_some());
    }
}
