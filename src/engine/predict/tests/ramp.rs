//! Requests come ever faster: who leaves, who should have, who need not have.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::super::{Deadlines, Shown};
use super::Random;
use super::world::{Arrival, Fate, Steps, Will, World};

/// What is known of an answer's length when its request comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// It asks for so many tokens and gets them.
    Exact,
    /// It asks for 512 at most and ends when it ends.
    Loose,
}

#[derive(Clone, Copy, Debug)]
enum Goal {
    FirstToken,
    /// Of an answer that is shown as it comes, or whole.
    End(Shown),
}

impl Goal {
    fn shown(self) -> Shown {
        match self {
            Self::FirstToken => Shown::AsItComes,
            Self::End(shown) => shown,
        }
    }
}

fn arrivals(n: u32, per_second: f64, bound: Bound, seed: u64) -> Vec<Arrival> {
    let mut random = Random(seed);
    let mut at = 0.0;
    let mut arrival = |_| {
        at -= random.share().max(1e-9).ln() / per_second;
        let n_new = 16 + random.below(497);
        Arrival {
            at,
            n_prompt: 50 + random.below(1951),
            n_new,
            max_new: if bound == Bound::Exact { n_new } else { 512 },
        }
    };
    (0..n).map(&mut arrival).collect()
}

/// Requests a second that are answered when there are always more.
fn capacity(steps: &Arc<Steps>) -> f64 {
    let arrivals = arrivals(150, 1e6, Bound::Exact, 5);
    let mut world = World::new(Arc::clone(steps), Arc::new(arrivals), Shown::Whole, 6);
    while world.tick(&Will::AsBefore(Arc::default()), &mut |_, _| {}) {}
    150.0 / world.now
}

/// What became of the requests at one load.
#[derive(Clone, Debug, Default)]
struct Tally {
    n: u32,
    n_left: u32,
    /// Would have missed: left or not.
    n_would_miss: u32,
    n_missed: u32,
    n_needless: u32,
    /// Of them, those that left before the last moment.
    n_needless_early: u32,
    waited: f64,
    fates: Vec<Fate>,
}

impl Tally {
    fn caught(&self) -> f64 {
        1.0 - f64::from(self.n_missed) / f64::from(self.n_would_miss.max(1))
    }

    fn needless(&self) -> f64 {
        f64::from(self.n_needless) / f64::from(self.n_left.max(1))
    }
}

fn is_kept(fate: &Fate, goal: Goal, by: f64) -> bool {
    let time = match goal {
        Goal::FirstToken => fate.first_token,
        Goal::End(_) => fate.end,
    };
    time.is_some_and(|time| time <= by)
}

/// Runs a load twice: once to see who leaves, once more with the same leaving, and for each of them a world in
/// which it stays.
fn run(
    steps: &Arc<Steps>,
    arrivals: &Arc<Vec<Arrival>>,
    goal: Goal,
    by: f64,
    elsewhere: f64,
) -> Tally {
    let deadlines = match goal {
        Goal::FirstToken => Deadlines {
            ttft: Some(by),
            total: None,
            elsewhere: (elsewhere, 0.0),
            shown: goal.shown(),
        },
        Goal::End(_) => Deadlines {
            ttft: None,
            total: Some(by),
            elsewhere: (0.0, elsewhere),
            shown: goal.shown(),
        },
    };
    let world = || World::new(Arc::clone(steps), Arc::clone(arrivals), goal.shown(), 11);
    let will = Will::Judge(deadlines);
    let mut lived = world();
    while lived.tick(&will, &mut |_, _| {}) {}
    let left = |(ticket, fate): (u64, &Fate)| {
        let at = &arrivals[usize::try_from(ticket).unwrap()].at;
        fate.left.map(|waited| (ticket, at + waited))
    };
    let left: BTreeMap<u64, f64> = (0..).zip(&lived.fates).filter_map(left).collect();
    let will = Will::AsBefore(Arc::new(left));
    let mut would_keep = BTreeMap::new();
    let mut again = world();
    let mut watch = |world: &World, ticket: u64| {
        let index = usize::try_from(ticket).unwrap();
        let mut other = world.clone();
        other.stays = Some(ticket);
        let until = arrivals[index].at + by;
        // The moment of leaving is still to come in the copy: it is passed over.
        while other.now <= until && !is_kept(&other.fates[index], goal, by) {
            if !other.tick(&will, &mut |_, _| {}) {
                break;
            }
        }
        would_keep.insert(ticket, is_kept(&other.fates[index], goal, by));
    };
    while again.tick(&will, &mut watch) {}
    let mut tally = Tally {
        n: u32::try_from(arrivals.len()).unwrap(),
        ..Tally::default()
    };
    for (ticket, fate) in (0..).zip(&lived.fates) {
        if let Some(waited) = fate.left {
            tally.n_left += 1;
            tally.waited += waited;
            if would_keep[&ticket] {
                tally.n_needless += 1;
                tally.n_needless_early += u32::from(waited < by - elsewhere - 0.05);
            } else {
                tally.n_would_miss += 1;
            }
        } else if !is_kept(fate, goal, by) {
            tally.n_would_miss += 1;
            tally.n_missed += 1;
        }
    }
    tally.fates = lived.fates;
    tally
}

/// All loads; writes what was predicted and what came as CSV.
#[test]
#[ignore = "takes minutes without optimisation: for the numbers and the plot"]
fn a_ramp_in_full() {
    let steps = Arc::new(Steps::read());
    let capacity = capacity(&steps);
    println!("capacity {capacity:.3} requests/s");
    let mut csv = "goal,bound,load,deadline,p05,p50,p90,actual\n".to_owned();
    for (goal, by, elsewhere) in [
        (Goal::FirstToken, 2.0, 0.6),
        (Goal::FirstToken, 10.0, 0.6),
        (Goal::End(Shown::AsItComes), 60.0, 6.0),
        (Goal::End(Shown::Whole), 60.0, 6.0),
    ] {
        for bound in [Bound::Exact, Bound::Loose] {
            for load in [10_u32, 25, 50, 75, 90, 100, 110, 125, 150, 200] {
                let rate = capacity * f64::from(load) / 100.0;
                let arrivals = Arc::new(arrivals(600, rate, bound, u64::from(load)));
                let tally = run(&steps, &arrivals, goal, by, elsewhere);
                println!(
                    "{goal:?} {by} s {bound:?} load {load:3} %: left {:5.1} %, would miss {:5.1} %, caught {:5.1} %, needless {:5.1} % ({} of {} early), left after {:.2} s",
                    100.0 * f64::from(tally.n_left) / f64::from(tally.n),
                    100.0 * f64::from(tally.n_would_miss) / f64::from(tally.n),
                    100.0 * tally.caught(),
                    100.0 * tally.needless(),
                    tally.n_needless_early,
                    tally.n_needless,
                    tally.waited / f64::from(tally.n_left.max(1)),
                );
                for fate in &tally.fates {
                    let Some(foretold) = fate.foretold else {
                        continue;
                    };
                    let (foretold, actual) = match goal {
                        Goal::FirstToken => (foretold.ttft, fate.first_token),
                        Goal::End(_) => (foretold.total, fate.end),
                    };
                    let Some(actual) = actual else { continue };
                    writeln!(
                        csv,
                        "{goal:?},{bound:?},{load},{by},{:.4},{:.4},{:.4},{actual:.4}",
                        foretold.p05, foretold.p50, foretold.p90
                    )
                    .unwrap();
                }
            }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("predict.csv"), csv).unwrap();
}

/// What the first token's deadline is about, at the loads where some keep it and some do not.
#[test]
fn those_who_would_miss_their_first_token_leave_in_time_and_few_others() {
    let steps = Arc::new(Steps::read());
    let capacity = capacity(&steps);
    let (mut n_would_miss, mut n_missed, mut n_left, mut n_needless) = (0, 0, 0, 0);
    for by in [2.0, 10.0] {
        for load in [60_u32, 100, 200] {
            let rate = capacity * f64::from(load) / 100.0;
            let arrivals = Arc::new(arrivals(240, rate, Bound::Loose, u64::from(load) + 1));
            let tally = run(&steps, &arrivals, Goal::FirstToken, by, 0.6);
            println!(
                "{by} s at {load} %: caught {:.3}, needless {:.3} of {}",
                tally.caught(),
                tally.needless(),
                tally.n_left
            );
            assert!(
                tally.n_would_miss > 10 && tally.n_left < tally.n,
                "both kinds"
            );
            n_would_miss += tally.n_would_miss;
            n_missed += tally.n_missed;
            n_left += tally.n_left;
            n_needless += tally.n_needless;
        }
    }
    let caught = 1.0 - f64::from(n_missed) / f64::from(n_would_miss);
    let needless = f64::from(n_needless) / f64::from(n_left);
    assert!(
        caught >= 0.95,
        "{n_missed} of {n_would_miss} missed their deadline"
    );
    assert!(needless <= 0.05, "{n_needless} of {n_left} left needlessly");
}
