//! What a server does beside answering: prices, and bills that did not come before it was killed.

use std::path::Path;
use std::time::{Duration, Instant};

use ingle::router::money::{By, Moment, Per, UsageQuestion, UsageRow, usage};
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Ground, PATIENCE, Serving};
use crate::http::wire::{read_to, request};
use crate::provider_server::{ProviderServer, Shape};

/// What was used, read beside whoever writes it.
fn used(home: &Path) -> UsageRow {
    let now = Moment::now();
    let question = UsageQuestion {
        team: None,
        key: None,
        from: Per::Month.start(now),
        to: now.after(Duration::from_mins(1)),
        by: By::Provider,
    };
    let mut all = UsageRow::default();
    for row in usage(home, &question).unwrap() {
        all.add(&row);
    }
    all
}

/// Waits until `is` says so.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < give_up, "not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// With OpenRouter, which `server` plays, and a budget.
async fn serve(ground: &Ground, server: &ProviderServer) -> Serving {
    let mut command = ground.command(&["serve"]);
    command
        .env("INGLE_OFFLINE", "false")
        .env("OPENROUTER_API_KEY", "sk-canary-openrouter")
        .env("OPENROUTER_BASE_URL", server.base_url(Shape::OpenRouter));
    super::serving(command).await
}

fn n_asked(server: &ProviderServer, path: &str) -> usize {
    let requests = server.requests();
    let asked = requests.iter().filter(|one| one.path.starts_with(path));
    asked.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_asks_for_its_bills_once_it_is_back() {
    let server = ProviderServer::start();
    let ground = Ground::new();
    let prices = "[openrouter]\n\"fault:stall-after-20\" = { prompt = 10, completion = 100 }\n";
    std::fs::create_dir_all(ground.path("store")).unwrap();
    ground.write("store/prices.toml", prices);
    ground.write("ingle.toml", "[[budget]]\nper = \"month\"\nusd = 5\n");
    let home = ground.path("store");
    let serving = serve(&ground, &server).await;
    let body = json!({
        "model": "openrouter:fault:stall-after-20",
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 100,
        "stream": true,
    });
    let mut client = TcpStream::connect(serving.address).await.unwrap();
    let bytes = request(&body.to_string());
    client.write_all(bytes.as_bytes()).await.unwrap();
    read_to(&mut client, "\"content\":\"").await;
    // It is written down by which name the provider knows the answer, and what it may cost.
    let ledger = home.join("ledger.sqlite");
    until("written", || {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(&ledger, read_only).unwrap();
        let select = "SELECT count(*) FROM entries WHERE upstream IS NOT NULL";
        let count = connection.query_row(select, [], |row| row.get::<_, i64>(0));
        count == Ok(1)
    })
    .await;
    until("billed", || {
        let bills = server.bills();
        bills.values().any(|bill| bill.completion_tokens == 20)
    })
    .await;
    serving.signal(Signal::KILL);
    serving.ended().await;
    let held = used(&home);
    assert_eq!((held.n_held, held.cost.0), (1, 0), "{held:?}");
    let bill = server.bills().into_values().next().unwrap();
    assert!(held.held.0 > bill.micro_usd, "{held:?} {bill:?}");

    let serving = serve(&ground, &server).await;
    until("trued up", || {
        let used = used(&home);
        used.n_held + used.n_unconfirmed == 0 && used.cost.0 == bill.micro_usd
    })
    .await;
    let row = used(&home);
    assert_eq!((row.n_requests, row.completion_tokens), (1, 20), "{row:?}");
    let asked_once = n_asked(&server, "/api/v1/generation");
    assert_eq!(asked_once, 1);
    let proof = serving.get("/v1/egress/proof").await.json();
    assert_eq!(proof["holds"], true, "{proof}");
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_openrouter_says_its_models_cost_holds_from_then_on() {
    let server = ProviderServer::start();
    let ground = Ground::new();
    let serving = serve(&ground, &server).await;
    let body = json!({
        "model": "openrouter:free/model:free",
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 10,
    });
    let plan = request(&body.to_string()).replacen("/v1/chat/completions", "/v1/route/plan", 1);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let plan = crate::http::wire::exchange(serving.address, &plan)
            .await
            .json();
        let worst = &plan["candidates"][0]["worst_cost_usd"];
        if *worst == json!(0.0) {
            break;
        }
        assert_eq!(*worst, Value::Null, "{plan}");
        assert!(Instant::now() < give_up, "no prices came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(n_asked(&server, "/api/v1/models"), 1);
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
    // Offline nobody is asked for anything.
    let mut command = ground.command(&["serve"]);
    command
        .env("OPENROUTER_API_KEY", "sk-canary-openrouter")
        .env("OPENROUTER_BASE_URL", server.base_url(Shape::OpenRouter));
    let serving = super::serving(command).await;
    serving.until_ready().await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
    assert_eq!(server.n_requests(), 1);
}
