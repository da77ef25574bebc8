//! Budgets against a plain map of everything that ever happened.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::caller::{KeyId, TeamId};
use crate::limit::Whom;
use crate::money::MicroUsd;

fn amounts(requests: u64, tokens: u64, money: u64) -> Amounts {
    Amounts {
        requests,
        tokens,
        money: MicroUsd(money),
    }
}

fn account(key: Option<&str>, team: Option<&str>) -> Account {
    Account {
        key: key.map(KeyId::new),
        team: team.map(TeamId::new),
    }
}

fn limit(whom: Whom, per: Per, measure: Measure, most: u64) -> Limit {
    Limit {
        whom,
        per,
        measure,
        most,
    }
}

fn of_key(name: &str) -> Whom {
    Whom::One(Scope::Key(KeyId::new(name)))
}

fn of_team(name: &str) -> Whom {
    Whom::One(Scope::Team(TeamId::new(name)))
}

const EVERYBODY: Whom = Whom::One(Scope::Everybody);

fn at(text: &str) -> Moment {
    Moment::read(text).unwrap()
}

#[test]
fn what_does_not_fit_one_limit_is_taken_from_none() {
    let mut budgets = Budgets::new([
        limit(EVERYBODY, Per::Day, Measure::Money, 1000),
        limit(of_team("a"), Per::Month, Measure::Tokens, 50),
        limit(of_key("k"), Per::Minute, Measure::Requests, 2),
    ]);
    let (now, who) = (
        at("2026-11-26T10:00:10Z"),
        account(Some("k"), Some("a-team")),
    );
    assert_eq!(budgets.hold(&who, &amounts(1, 30, 400), now), Ok(()));
    let over = budgets.hold(&who, &amounts(1, 30, 400), now).unwrap_err();
    assert_eq!(
        over.to_string(),
        "team a has used 30 tokens of 50 tokens a month, and this request may take 30 tokens: \
         the next month begins at 2026-12-01T00:00:00Z"
    );
    assert_eq!(budgets.hold(&who, &amounts(1, 20, 400), now), Ok(()));
    let over = budgets.hold(&who, &amounts(1, 0, 0), now).unwrap_err();
    assert_eq!(over.left.scope, Scope::Key(KeyId::new("k")));
    assert_eq!(over.retry_after().unwrap().as_secs(), 50);
    // Another key and team have what is left of the whole.
    let other = account(Some("l"), None);
    let over = budgets.hold(&other, &amounts(1, 99, 201), now).unwrap_err();
    assert_eq!(
        over.to_string(),
        "this server has used $0.0008 of $0.001 a day, and this request may take $0.000201: \
         the next day begins at 2026-11-27T00:00:00Z"
    );
    assert_eq!(budgets.hold(&other, &amounts(1, 99, 200), now), Ok(()));
}

#[test]
fn a_request_that_never_fits_is_told_so() {
    let mut budgets = Budgets::new([limit(of_team("a"), Per::Day, Measure::Money, 1_000_000)]);
    let who = account(None, Some("a"));
    let over = budgets.hold(&who, &amounts(1, 1, 1_500_000), Moment::default());
    let over = over.unwrap_err();
    assert!(over.never_fits() && over.retry_after().is_none());
    assert_eq!(
        over.to_string(),
        "this request may take $1.50, and team a may use $1.00 a day: ask for a lower max_tokens, or raise the budget"
    );
}

#[test]
fn of_several_limits_the_one_that_holds_longest_is_told() {
    let mut budgets = Budgets::new([
        limit(EVERYBODY, Per::Minute, Measure::Requests, 1),
        limit(EVERYBODY, Per::Month, Measure::Requests, 1),
        limit(EVERYBODY, Per::Day, Measure::Requests, 1),
    ]);
    let (who, one) = (Account::default(), amounts(1, 0, 0));
    let now = at("2026-11-26T10:00:10Z");
    budgets.hold(&who, &one, now).unwrap();
    assert_eq!(
        budgets.hold(&who, &one, now).unwrap_err().left.per,
        Per::Month
    );
    // What asks for nothing of an exhausted measure may go.
    assert_eq!(budgets.hold(&who, &amounts(0, 9, 9), now), Ok(()));
}

#[test]
fn each_key_has_the_same_limit_unless_it_has_its_own() {
    let mut budgets = Budgets::new([
        limit(Whom::EachKey, Per::Day, Measure::Requests, 1),
        limit(of_key("rich"), Per::Day, Measure::Requests, 2),
        limit(of_key("rich"), Per::Day, Measure::Tokens, 10),
        limit(Whom::EachTeam, Per::Day, Measure::Tokens, 100),
    ]);
    let one = amounts(1, 1, 0);
    let mut n_held = |who: &Account| {
        let held = (0..9).take_while(|_| budgets.hold(who, &one, Moment::default()).is_ok());
        held.count()
    };
    assert_eq!(n_held(&account(Some("a"), None)), 1);
    assert_eq!(n_held(&account(Some("b"), None)), 1);
    assert_eq!(n_held(&account(Some("rich"), None)), 2);
    assert_eq!(n_held(&account(None, Some("t"))), 9);
    let left = budgets.remaining(&account(Some("rich"), Some("t")), Moment::default());
    assert_eq!(left.tokens.unwrap().remaining(), 8);
    assert_eq!(left.requests.unwrap().remaining(), 0);
    assert_eq!(left.money, None);
}

#[test]
fn a_hold_counts_in_the_window_in_which_it_was_taken() {
    let mut budgets = Budgets::new([limit(EVERYBODY, Per::Day, Measure::Money, 10)]);
    let (who, held) = (Account::default(), amounts(1, 0, 10));
    let (evening, morning) = (at("2026-11-30T23:59:59Z"), at("2026-12-01T00:00:01Z"));
    budgets.hold(&who, &held, evening).unwrap();
    assert_eq!(budgets.hold(&who, &held, morning), Ok(()));
    budgets.settle(&who, evening, &held, &amounts(1, 0, 4));
    let used = |budgets: &Budgets, when| budgets.used(&Scope::Everybody, Per::Day, when).money.0;
    assert_eq!((used(&budgets, evening), used(&budgets, morning)), (4, 10));
    budgets.correct(&who, evening, &amounts(1, 0, 4), &amounts(1, 0, 6));
    assert_eq!((used(&budgets, evening), used(&budgets, morning)), (6, 10));
    // A clock set back finds what was used there.
    assert!(budgets.hold(&who, &amounts(1, 0, 5), evening).is_err());
    assert_eq!(budgets.hold(&who, &amounts(1, 0, 4), evening), Ok(()));
}

#[test]
fn what_is_remembered_has_a_bound_and_what_is_held_stays() {
    let limits = Per::ALL.map(|per| limit(EVERYBODY, per, Measure::Requests, 5));
    let mut budgets = Budgets::new(limits);
    let (who, one) = (account(Some("k"), None), amounts(1, 0, 0));
    let begin = at("2026-01-01");
    budgets.hold(&who, &one, begin).unwrap();
    for minute in 1..200_000 {
        let now = begin.after(std::time::Duration::from_mins(minute * 10));
        // Only the first one of each month has room; what is settled at once is held no more.
        if budgets.hold(&who, &one, now).is_ok() {
            budgets.settle(&who, now, &one, &one);
        }
    }
    for tally in budgets.tallies.values() {
        let lengths = tally.windows.each_ref().map(BTreeMap::len);
        assert!(
            lengths[0] <= MINUTES_KEPT + 1 && lengths[1] <= DAYS_KEPT + 1,
            "{lengths:?}"
        );
        assert!(lengths[2] <= MONTHS_KEPT + 1, "{lengths:?}");
        assert!(
            tally
                .windows
                .iter()
                .all(|windows| windows.contains_key(&begin))
        );
    }
}

/// What happens in a walk.
#[derive(Clone, Debug)]
enum Step {
    Hold { who: usize, ask: Amounts },
    End { which: usize, share: u64 },
    Correct { which: usize, share: u64 },
    Clock { millis: i64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hold = (0..4_usize, 0..2_u64, 0..40_u64, 0..400_u64).prop_map(|(who, n, tokens, money)| {
        let ask = amounts(n, tokens, money);
        Step::Hold { who, ask }
    });
    let clock = prop_oneof![
        6 => 0..40_000_i64,
        // A minute's, a day's and a month's end are never far.
        2 => Just(3_600_000_i64),
        2 => Just(-3_600_000_i64),
        1 => Just(86_400_000_i64),
        1 => Just(-40_000_i64),
    ];
    let share = 0..=100_u64;
    let step = prop_oneof![
        5 => hold,
        3 => (any::<usize>(), share.clone()).prop_map(|(which, share)| Step::End { which, share }),
        1 => (any::<usize>(), share).prop_map(|(which, share)| Step::Correct { which, share }),
        2 => clock.prop_map(|millis| Step::Clock { millis }),
    ];
    prop::collection::vec(step, 1..80)
}

/// Everything that was ever used, and no thought of forgetting.
#[derive(Default)]
struct Plain {
    used: HashMap<(Scope, Per, Moment), (Amounts, Amounts)>,
}

impl Plain {
    fn used(&self, scope: &Scope, per: Per, now: Moment) -> Amounts {
        let key = (scope.clone(), per, per.start(now));
        let (spent, held) = self.used.get(&key).copied().unwrap_or_default();
        spent.plus(&held)
    }

    fn change(&mut self, who: &Account, at: Moment, change: impl Fn(&mut (Amounts, Amounts))) {
        for scope in who.scopes() {
            for per in Per::ALL {
                let key = (scope.clone(), per, per.start(at));
                change(self.used.entry(key).or_default());
            }
        }
    }
}

fn share_of(amounts_: &Amounts, share: u64) -> Amounts {
    let part = |amount: u64| amount * share / 100;
    amounts(
        amounts_.requests,
        part(amounts_.tokens),
        part(amounts_.money.0),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn budgets_are_a_map_of_all_that_happened_and_no_limit_is_ever_exceeded(
        begin in prop_oneof![Just("2026-11-30T23:30:00Z"), Just("2024-02-28T23:59:30Z"), Just("2026-06-15T12:00:00Z")],
        steps in steps(),
    ) {
        let limits = vec![
            limit(EVERYBODY, Per::Month, Measure::Money, 3000),
            limit(EVERYBODY, Per::Minute, Measure::Requests, 6),
            limit(of_team("a"), Per::Day, Measure::Money, 1200),
            limit(Whom::EachTeam, Per::Day, Measure::Tokens, 200),
            limit(of_key("k"), Per::Day, Measure::Requests, 9),
            limit(of_key("k"), Per::Minute, Measure::Money, 700),
        ];
        let one_by_one: Vec<(Scope, Per, Measure, u64)> = limits.iter().flat_map(|limit| {
            let scopes = match &limit.whom {
                Whom::One(scope) => vec![scope.clone()],
                _ => ["a", "b"].map(|team| Scope::Team(TeamId::new(team))).to_vec(),
            };
            scopes.into_iter().map(|scope| (scope, limit.per, limit.measure, limit.most))
        }).collect();
        let callers = [
            account(None, None),
            account(Some("k"), Some("a")),
            account(Some("l"), Some("a")),
            account(Some("k"), Some("b")),
        ];
        let (mut budgets, mut plain) = (Budgets::new(limits), Plain::default());
        let (mut now, mut open, mut ended) = (at(begin), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Clock { millis } => now = Moment::from_millis(now.as_millis() + millis),
                Step::Hold { who, ask } => {
                    let who = &callers[who];
                    let scopes: Vec<Scope> = who.scopes().collect();
                    let fits = one_by_one.iter().all(|(scope, per, measure, most)| {
                        let asked = ask.of(*measure);
                        let used = plain.used(scope, *per, now).of(*measure);
                        !scopes.contains(scope) || asked == 0 || used + asked <= *most
                    });
                    prop_assert_eq!(budgets.hold(who, &ask, now).is_ok(), fits);
                    if fits {
                        plain.change(who, now, |(_, held)| *held = held.plus(&ask));
                        open.push((who, now, ask));
                    }
                }
                Step::End { which, share } if !open.is_empty() => {
                    let (who, at, held) = open.swap_remove(which % open.len());
                    let spent = share_of(&held, share);
                    budgets.settle(who, at, &held, &spent);
                    plain.change(who, at, |used| {
                        *used = (used.0.plus(&spent), used.1.minus(&held));
                    });
                    ended.push((who, at, spent));
                }
                Step::Correct { which, share } if !ended.is_empty() => {
                    let index = which % ended.len();
                    let (who, at, was) = ended[index];
                    let is = share_of(&was, share);
                    budgets.correct(who, at, &was, &is);
                    plain.change(who, at, |used| used.0 = used.0.minus(&was).plus(&is));
                    ended[index].2 = is;
                }
                Step::End { .. } | Step::Correct { .. } => {}
            }
            for (scope, per, measure, most) in &one_by_one {
                let used = budgets.used(scope, *per, now);
                prop_assert_eq!(used, plain.used(scope, *per, now));
                prop_assert!(used.of(*measure) <= *most);
            }
        }
    }
}
