//! Budgets through the whole server: many at once, with bills that nobody knows before, with clients that leave and
//! providers that break.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use ingle::caller::TeamId;
use ingle::limit::{Limit, Measure, Per, Scope, Whom};
use ingle::router::money::{By, Moment, Money, UsageQuestion, UsageRow, usage};
use ingle::router::prices::{Price, Prices};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Hearth, Routing};
use crate::http::wire;
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};
use crate::random::Random;

/// Requests, all at once.
const N_REQUESTS: usize = 1000;
/// What all may spend, in micro-dollars: less than all would.
const ALL_MOST: u64 = 80_000;
/// What a team may spend.
const TEAM_MOST: u64 = 30_000;
const TEAMS: [&str; 4] = ["red", "green", "blue", "grey"];

/// What can be asked for: answers of every length, and what goes wrong at every moment.
const MODELS: [&str; 16] = [
    "say:1",
    "say:8",
    "say:8:90",
    "say:40",
    "say:40:7",
    "say:150",
    "fault:status-500",
    "fault:status-429",
    "fault:cut-after-40",
    "fault:cut-after-60",
    "fault:reset-after-5",
    "fault:ends-after-5",
    "fault:error-after-3",
    "fault:usage-missing",
    "fault:drip-tokens-100",
    "fault:stall-after-20",
];

/// What the server bills: 1 micro-dollar for a token of the prompt, 2 for one of the answer, and a bill that is asked for
/// by name never more than that.
fn prices() -> Prices {
    let home = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for provider in ["openai", "openrouter", "anthropic", "backup"] {
        let _ = writeln!(table, "[{provider}]");
        for model in MODELS {
            // 8 tokens for 90 micro-dollars.
            let completion = if model == "say:8:90" { 12 } else { 2 };
            let _ = writeln!(
                table,
                "\"{model}\" = {{ prompt = \"1\", completion = \"{completion}\" }}"
            );
        }
    }
    std::fs::write(home.path().join("prices.toml"), table).unwrap();
    Prices::load(home.path(), Price::FREE).unwrap()
}

fn toml(server: &ProviderServer) -> String {
    let mut text = format!(
        r#"
        [router]
        teams = {TEAMS:?}
        hedge_budget = 0.2
        fallback_chain = [["backup", "say:8"]]
        [router.preferences]
        acceptable_models = ["openai:*", "openrouter:*", "anthropic:*", "backup:*"]
        "#
    );
    for (name, dialect, shape) in [
        ("openai", "openai", Shape::OpenAi),
        ("openrouter", "openrouter", Shape::OpenRouter),
        ("anthropic", "anthropic", Shape::Anthropic),
        ("backup", "compatible", Shape::OpenAi),
    ] {
        let _ = write!(
            text,
            r#"
            [providers.{name}]
            dialect = "{dialect}"
            base_url = "{}"
            api_key = "sk-{name}"
            first_content_timeout_ms = 5000
            idle_timeout_ms = 1000
            total_timeout_ms = 20000
            "#,
            server.base_url(shape)
        );
    }
    text
}

fn limits() -> Vec<Limit> {
    let money = |whom, most| Limit {
        whom,
        per: Per::Month,
        measure: Measure::Money,
        most,
    };
    vec![
        money(Whom::One(Scope::Everybody), ALL_MOST),
        money(Whom::EachTeam, TEAM_MOST),
    ]
}

/// One request, and after how many bytes of its answer the client leaves.
fn one(random: &mut Random) -> (Value, Option<usize>) {
    let provider = random.pick(&["openai", "openrouter", "anthropic"]);
    let model = random.pick(&MODELS);
    let leaves = random.once_in(4).then(|| random.below(3000));
    let body = json!({
        "model": format!("{provider}:{model}"),
        "messages": [{"role": "user", "content": "count ".repeat(1 + random.below(20))}],
        "max_tokens": 150 + random.below(100),
        "stream": !random.once_in(3),
        "ingle": {
            "team": random.pick(&TEAMS),
            "enable_fallback": random.once_in(2),
        },
    });
    (body, leaves)
}

/// What a client got: a status, or nothing because it left.
async fn ask(routing: &Routing, body: &Value, leaves: Option<usize>) -> Option<u16> {
    let Some(n_bytes) = leaves else {
        return Some(routing.post(body).await.status);
    };
    let mut stream = TcpStream::connect(routing.address).await.unwrap();
    let request = wire::request(&body.to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; n_bytes + 1];
    let read = stream.read_exact(&mut buffer);
    let _ = tokio::time::timeout(Duration::from_millis(n_bytes as u64), read).await;
    None
}

/// Looks at what is spent and held without a pause until it is told to stop; how often it looked.
fn watch(money: &Money, is_over: &AtomicBool) -> usize {
    let teams = TEAMS.map(|team| (Scope::Team(TeamId::new(team)), TEAM_MOST));
    let mut scopes = vec![(Scope::Everybody, ALL_MOST)];
    scopes.extend(teams);
    let mut n_looks = 0;
    while !is_over.load(Ordering::Relaxed) {
        for (scope, most) in &scopes {
            let used = money.used(scope, Per::Month, Moment::now()).money.0;
            assert!(used <= *most, "{scope:?}: {used} of {most}");
        }
        n_looks += 1;
        thread::yield_now();
    }
    n_looks
}

fn by_team(home: &Path) -> BTreeMap<String, UsageRow> {
    let day = Duration::from_hours(24);
    let question = UsageQuestion {
        team: None,
        key: None,
        from: Moment::now().before(day),
        to: Moment::now().after(day),
        by: By::Team,
    };
    let rows = usage(home, &question).unwrap();
    rows.into_iter()
        .map(|row| (row.name.clone(), row))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_at_once_never_spend_more_than_they_may_nor_less_than_they_are_billed() {
    let (hearth, server) = (Hearth::new(Wish::default()), ProviderServer::start());
    let home = tempfile::tempdir().unwrap();
    let money = Money::open(home.path(), limits(), Moment::now()).unwrap();
    let routing = Routing::start(&hearth, &toml(&server), |options| {
        options.prices = prices();
        options.money = money.clone();
    })
    .await;

    let is_over = Arc::new(AtomicBool::new(false));
    let watched = {
        let (money, is_over) = (money.clone(), is_over.clone());
        thread::spawn(move || watch(&money, &is_over))
    };
    let mut random = Random::new(0x1a61e);
    let requests: Vec<_> = (0..N_REQUESTS).map(|_| one(&mut random)).collect();
    let asked = requests.iter().map(|(body, leaves)| {
        let begin = Duration::from_millis(random.below(3000) as u64);
        let routing = &routing;
        async move {
            tokio::time::sleep(begin).await;
            ask(routing, body, *leaves).await
        }
    });
    let statuses = join_all(asked).await;
    routing.end().await;
    is_over.store(true, Ordering::Relaxed);
    let n_looks = watched.join().expect("the limits held");

    let count = |status| statuses.iter().filter(|one| **one == Some(status)).count();
    let (n_answered, n_refused) = (count(200), count(429));
    assert!(n_answered > 50, "{n_answered} answers");
    assert!(n_refused > 50, "{n_refused} refusals");
    assert!(n_looks > 100, "{n_looks} looks");
    settled(&money, &server, home.path()).await;
}

/// Nothing is held any more; memory, ledger and a new process say the same, and it is no less than the bills.
async fn settled(money: &Money, server: &ProviderServer, home: &Path) {
    let used = money.used(&Scope::Everybody, Per::Month, Moment::now());
    let rows = by_team(home);
    let spent: u64 = rows.values().map(|row| row.cost.0).sum();
    assert_eq!(used.money.0, spent);
    for (team, row) in &rows {
        assert_eq!(row.n_held, 0, "{team}: {row:?}");
        let scope = Scope::Team(TeamId::new(team));
        let of_team = money.used(&scope, Per::Month, Moment::now());
        assert_eq!(of_team.money, row.cost, "{team}");
    }
    let billed: u64 = server.bills().values().map(|bill| bill.micro_usd).sum();
    assert!(billed > 0 && spent >= billed, "{spent} for {billed}");

    let again = Money::open(home, limits(), Moment::now()).unwrap();
    let recalled = again.used(&Scope::Everybody, Per::Month, Moment::now());
    assert_eq!(recalled.money.0, spent);
    again.close().await;
}
