//! `ingle bench load`: the same chats to several servers in turn, at a fixed rate or as fast as some clients can, and what
//! each took. All servers meet the same moments of the machine, so that differences between them are theirs.

mod report;
mod request;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use report::Report;
use request::{Client, Taken};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// Servers: up to /v1, as in http://127.0.0.1:11434/v1. The first is what the others are compared with
    #[arg(required = true)]
    urls: Vec<String>,
    /// The model to ask for, one for all servers or one for each
    #[arg(long, required = true)]
    model: Vec<String>,
    /// The key to send, one for all servers or one for each
    #[arg(long)]
    key: Vec<String>,
    /// Requests a second, all servers together; 0: each client asks as soon as it was answered
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Clients that ask at once where there is no rate
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Seconds to measure; one more before it is not counted
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Ask for streams
    #[arg(long)]
    stream: bool,
    /// Bytes of the prompt
    #[arg(long, default_value_t = 200)]
    prompt_bytes: usize,
    /// Tokens to ask for
    #[arg(long, default_value_t = 16)]
    max_tokens: u32,
    /// Write one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Outcomes that wait to be counted.
const QUEUE: usize = 65_536;
/// Time at the beginning that is not counted: connections are made.
const WARM_UP: Duration = Duration::from_secs(1);
/// Requests under way at a fixed rate; more are not begun, and counted as missed.
const MOST_UNDER_WAY: u64 = 4096;

pub(super) fn run(args: &LoadArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let n = args.urls.len();
    for (name, values) in [("--model", &args.model), ("--key", &args.key)] {
        if values.len() > 1 && values.len() != n {
            bail!(
                "{} values of {name} for {n} servers: give one, or one each",
                values.len()
            );
        }
    }
    let clients = (0..n).map(|i| Client::new(args, i));
    let clients: Vec<Arc<Client>> = clients.map(|c| c.map(Arc::new)).collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(args, clients));
    if args.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(())
}

async fn measure(args: &LoadArgs, clients: Vec<Arc<Client>>) -> Report {
    let (done, mut outcomes) = mpsc::channel(QUEUE);
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(args.seconds);
    let asking = if args.rate > 0 {
        let period = Duration::from_secs(1) / args.rate;
        tokio::spawn(at_a_rate(clients.clone(), period, end, done))
    } else {
        let n_clients = args.clients;
        as_fast_as_can_be(&clients, n_clients, end, &done);
        drop(done);
        tokio::spawn(async { 0 })
    };
    let mut report = Report::new(args.urls.clone(), Duration::from_secs(args.seconds));
    while let Some((server, began, outcome)) = outcomes.recv().await {
        if began >= begin {
            report.add(server, outcome);
        }
    }
    report.n_not_begun = asking.await.unwrap_or(0);
    report
}

type Outcome = (usize, Instant, Result<Taken, String>);

/// Asks the servers in turn, whether or not the ones before have been answered.
async fn at_a_rate(
    clients: Vec<Arc<Client>>,
    period: Duration,
    end: Instant,
    done: mpsc::Sender<Outcome>,
) -> u64 {
    let under_way = Arc::new(AtomicU64::new(0));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut n_not_begun = 0;
    for (server, client) in clients.iter().enumerate().cycle() {
        let tick = ticks.tick().await;
        if tick >= end {
            break;
        }
        if under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
            n_not_begun += 1;
            continue;
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let (client, done, under_way) = (client.clone(), done.clone(), under_way.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let outcome = client.ask().await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            let _ = done.send((server, began, outcome)).await;
        });
    }
    n_not_begun
}

/// Every client asks the servers in turn, each as soon as the one before has answered.
fn as_fast_as_can_be(
    clients: &[Arc<Client>],
    n_clients: u32,
    end: Instant,
    done: &mpsc::Sender<Outcome>,
) {
    for first in 0..n_clients as usize {
        let (clients, done) = (clients.to_vec(), done.clone());
        tokio::spawn(async move {
            let servers = clients.iter().enumerate().cycle();
            for (server, client) in servers.skip(first % clients.len()) {
                let began = Instant::now();
                if began >= end {
                    break;
                }
                let outcome = client.ask().await;
                if done.send((server, began, outcome)).await.is_err() {
                    break;
                }
            }
        });
    }
}
