//! The ledger of a process that is killed: nothing that was known is lost, nothing that may have been billed is forgotten.
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ingle::chat::Usage;
use ingle::money::MicroUsd;
use ingle::router::money::{Account, Limit, Measure, Moment, Money, Order, Per, Scope, Whom};

/// What a request may cost.
const WORST: u64 = 1000;
/// What the provider of the script bills for request `n`.
fn bill(n: u64) -> u64 {
    n.wrapping_mul(7919) % (WORST + 1)
}

fn limits() -> [Limit; 1] {
    [Limit {
        whom: Whom::One(Scope::Everybody),
        per: Per::Month,
        measure: Measure::Money,
        most: 1_000_000_000,
    }]
}

fn order(n: u64) -> Order {
    Order {
        request: format!("r{n}"),
        attempt: 0,
        provider: "openrouter".to_owned(),
        model: "openai/gpt-4".to_owned(),
        worst: MicroUsd(WORST),
        tokens: 10,
    }
}

/// Tells the test what has happened, before anything else does.
fn tell(what: &str, n: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{what} {n}").unwrap();
    out.flush().unwrap();
}

/// One request of the process that is killed: its money is held, it leaves, it is billed, and told to be over or not.
async fn one(money: &Money, n: u64) {
    let Ok(hold) = money
        .hold(&Account::default(), order(n), Moment::now())
        .await
    else {
        return;
    };
    if n.is_multiple_of(10) {
        return hold.release();
    }
    // From here on the provider bills it, whatever becomes of us.
    tell("left", n);
    hold.set_upstream(&format!("gen-{n}"));
    tokio::time::sleep(Duration::from_micros(n % 7 * 150)).await;
    match n % 10 {
        1 => drop(hold),
        2 => {
            hold.settle(MicroUsd(bill(n)), &Usage::default());
        }
        _ => {
            let settled = hold.settle(MicroUsd(bill(n)), &Usage::default());
            settled.written().await.unwrap();
            tell("settled", n);
        }
    }
}

#[test]
#[ignore = "it is the process that the other tests kill: its folder comes on stdin"]
fn spends_until_it_is_killed() {
    let mut folder = String::new();
    std::io::stdin().read_line(&mut folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let money = Money::open(Path::new(folder.trim()), limits(), Moment::now()).unwrap();
        let tasks = (0..8_u64).map(|lane| {
            let money = money.clone();
            tokio::spawn(async move {
                for round in 0_u64.. {
                    one(&money, round * 8 + lane).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

/// What the process told before it was killed.
#[derive(Default)]
struct Told {
    left: BTreeSet<u64>,
    settled: BTreeSet<u64>,
}

fn killed_after(folder: &Path, time: Duration) -> Told {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "money::spends_until_it_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", folder.display()).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut told, mut begun) = (Told::default(), None);
    for line in lines.map_while(Result::ok) {
        // The first line shares its own with the harness.
        let Some((what, n)) = line
            .split_once('@')
            .and_then(|(_, said)| said.split_once(' '))
        else {
            continue;
        };
        let Ok(n) = n.parse() else { continue };
        match what {
            "left" => told.left.insert(n),
            _ => told.settled.insert(n),
        };
        if begun.get_or_insert_with(Instant::now).elapsed() >= time {
            // Once: what it had written until then is still read.
            let _ = child.kill();
        }
    }
    child.wait().unwrap();
    told
}

/// What the ledger says: the state and the cost of each request.
fn entries(folder: &Path) -> BTreeMap<u64, (i64, u64)> {
    let connection = rusqlite::Connection::open(folder.join("ledger.sqlite")).unwrap();
    let mut select = connection
        .prepare("SELECT request, state, cost FROM entries")
        .unwrap();
    let rows = select.query_map([], |row| {
        let (request, state, cost): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((
            request[1..].parse().unwrap(),
            (state, u64::try_from(cost).unwrap()),
        ))
    });
    let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    let n = rows.len();
    let all: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(all.len(), n, "nothing is booked twice");
    all
}

async fn kill_and_reckon(n_runs: u64) {
    const SETTLED: i64 = 1;
    const UNCONFIRMED: i64 = 2;
    let (mut n_settled, mut n_unconfirmed) = (0, 0);
    for run in 0..n_runs {
        let folder = tempfile::tempdir().unwrap();
        let told = killed_after(folder.path(), Duration::from_millis(run * 37 % 120));
        let now = Moment::now();
        let begun = Instant::now();
        let money = Money::open(folder.path(), limits(), now).unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "it took {:?}",
            begun.elapsed()
        );
        let booked = entries(folder.path());
        for n in &told.left {
            let (state, cost) = booked[n];
            assert!(
                cost >= bill(*n),
                "run {run}: {n} was billed {} and booked {cost}",
                bill(*n)
            );
            assert!(
                !told.settled.contains(n) || state == SETTLED,
                "run {run}: {n} was known"
            );
        }
        for (n, (state, cost)) in &booked {
            match *state {
                SETTLED => assert_eq!(*cost, bill(*n), "run {run}: {n}"),
                UNCONFIRMED => assert_eq!(*cost, WORST, "run {run}: {n}"),
                _ => panic!("run {run}: {n} is still held"),
            }
        }
        let used = |money: &Money| money.used(&Scope::Everybody, Per::Month, now).money.0;
        let sum = |costs: &mut dyn Iterator<Item = u64>| costs.sum::<u64>();
        assert_eq!(
            used(&money),
            sum(&mut booked.values().map(|(_, cost)| *cost))
        );
        // Who knows what a provider calls them can ask for the bill.
        let since = now.before(Duration::from_mins(10));
        let unconfirmed = money.unconfirmed("openrouter", since).await.unwrap();
        for one in &unconfirmed {
            let n: u64 = one.request[1..].parse().unwrap();
            assert!(
                money
                    .true_up(&one.request, 0, MicroUsd(bill(n)), None)
                    .await
                    .unwrap()
            );
        }
        assert_eq!(used(&money), sum(&mut booked.keys().map(|n| bill(*n))));
        n_unconfirmed += unconfirmed.len();
        n_settled += told.settled.len();
        money.close().await;
    }
    assert!(
        n_settled > 20 && n_unconfirmed > 20,
        "{n_settled} settled, {n_unconfirmed} not"
    );
    println!("{n_runs} runs: {n_settled} were settled, {n_unconfirmed} unconfirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_ledger_says_what_was_billed_or_the_worst() {
    kill_and_reckon(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: 200 runs of what 20 show in every suite"]
async fn killed_two_hundred_times_the_ledger_says_what_was_billed_or_the_worst() {
    kill_and_reckon(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run it alone, with --nocapture"]
async fn what_a_hold_costs() {
    async fn lane(money: Money, lane: u64, n: u64, pause: Option<Duration>) -> Vec<Duration> {
        let mut times = Vec::new();
        for round in 0..n {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let begun = Instant::now();
            let (who, now) = (Account::default(), Moment::now());
            let hold = money
                .hold(&who, order(round * 1000 + lane), now)
                .await
                .unwrap();
            times.push(begun.elapsed());
            hold.settle(MicroUsd(1), &Usage::default());
        }
        times
    }
    let pause = Some(Duration::from_millis(20));
    for (what, limited, n_lanes, n, pause) in [
        ("budget, one after the other", true, 1, 3000, None),
        ("budget, 1000 a second", true, 20, 250, pause),
        ("budget, 64 at once", true, 64, 600, None),
        ("no budget, 1000 a second", false, 20, 250, pause),
        ("no budget, 64 at once", false, 64, 600, None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let limits = limits().into_iter().filter(|_| limited);
        let money = Money::open(folder.path(), limits, Moment::now()).unwrap();
        let begun = Instant::now();
        let lanes: Vec<_> = (0..n_lanes)
            .map(|number| tokio::spawn(lane(money.clone(), number, n, pause)))
            .collect();
        let mut times = Vec::new();
        for lane in lanes {
            times.extend(lane.await.unwrap());
        }
        money.close().await;
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{what}: p50 {:?} p99 {:?}, {rate:.0}/s written",
            at(50),
            at(99)
        );
    }
}
