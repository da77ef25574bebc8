//! The fault wall: whatever a provider does, a client gets the right answer or a typed error, never less than was
//! said and never twice. `docs/faults.md` says what becomes of each case; this holds the program to it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use ingle::router::money::{Moment, Per, Scope};
use ingle::router::prices::{Price, Prices};
use serde_json::{Value, json};

use super::{Hearth, Routing};
use crate::http::wire::Reply;
use crate::pool::Wish;
use crate::provider_server::script::FAULTS;
use crate::provider_server::{ProviderServer, Shape, tokens};

/// Servers at once.
const AT_ONCE: usize = 32;

/// What a client sees in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The provider's own answer, whole.
    Answer,
    /// Another provider's answer, whole.
    Backup,
    /// What the provider said, and another's words after it, so labelled.
    Continued,
    /// An error, and whether text was shown before it.
    Error { code: String, after_text: bool },
}

impl Seen {
    fn shown(&self) -> String {
        match self {
            Self::Answer => "answers".to_owned(),
            Self::Backup => "backup answers".to_owned(),
            Self::Continued => "backup goes on, labelled".to_owned(),
            Self::Error {
                code,
                after_text: true,
            } => format!("text, then `{code}`"),
            Self::Error { code, .. } => format!("`{code}`"),
        }
    }
}

/// One case.
#[derive(Clone, Debug)]
struct Case {
    fault: &'static str,
    shape: Shape,
    is_stream: bool,
    has_backup: bool,
}

/// What one answer said, after checking that it has one well-formed end.
#[derive(Debug, Default)]
struct Told {
    text: String,
    is_continued: bool,
    has_tool_call: bool,
    error: Option<String>,
}

fn told(reply: &Reply, is_stream: bool) -> Told {
    let mut told = Told::default();
    if reply.status != 200 {
        told.error = Some(reply.error()["code"].as_str().unwrap().to_owned());
        return told;
    }
    if !is_stream {
        let message = &reply.json()["choices"][0]["message"];
        told.text = message["content"].as_str().unwrap_or_default().to_owned();
        told.has_tool_call = message["tool_calls"].is_array();
        told.is_continued = reply.json()["ingle"]["continued_by"].is_string();
        return told;
    }
    let events = reply.events();
    let (mut is_finished, mut is_over) = (false, false);
    for event in &events {
        assert!(!is_over, "something follows the end: {events:?}");
        if event == "[DONE]" {
            assert!(is_finished, "[DONE] without a reason: {events:?}");
            is_over = true;
            continue;
        }
        let event: Value = serde_json::from_str(event).unwrap();
        if let Some(error) = event.get("error") {
            assert!(!is_finished, "an error after the end: {events:?}");
            told.error = Some(error["code"].as_str().unwrap().to_owned());
            is_over = true;
            continue;
        }
        told.is_continued |= event["ingle"]["continued_by"].is_string();
        let choice = &event["choices"][0];
        if !choice["finish_reason"].is_null() {
            assert!(!is_finished, "two ends: {events:?}");
            is_finished = true;
        }
        told.has_tool_call |= choice["delta"]["tool_calls"].is_array();
        told.text += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert!(is_over, "no end: {events:?}");
    told
}

fn toml(case: &Case, primary: &ProviderServer, backup: &ProviderServer) -> String {
    let dialect = match case.shape {
        Shape::OpenAi => "openai",
        Shape::OpenRouter => "openrouter",
        Shape::Anthropic => "anthropic",
    };
    // Megabytes, three times, and single bytes take their time where all cases are played at once.
    let is_slow = matches!(case.fault, "long-line" | "drip-bytes" | "drip-tokens-100");
    let (patience_ms, total_ms) = if is_slow {
        (30_000, 90_000)
    } else {
        (1_000, 4_000)
    };
    format!(
        r#"
        [router]
        fallback = {}
        hedge_budget = 0.0
        fallback_chain = [["backup", "say:8"]]
        [router.preferences]
        acceptable_models = ["primary:*", "backup:*"]
        [providers.primary]
        dialect = "{dialect}"
        base_url = "{}"
        api_key = "sk-canary-primary"
        connect_timeout_ms = 1000
        first_content_timeout_ms = {patience_ms}
        idle_timeout_ms = {patience_ms}
        total_timeout_ms = {total_ms}
        [providers.backup]
        dialect = "compatible"
        base_url = "{}"
        total_timeout_ms = 6000
        "#,
        case.has_backup,
        primary.base_url(case.shape),
        backup.base_url(Shape::OpenAi),
    )
}

/// Dearer than what the server bills, of every case.
fn prices() -> Prices {
    let home = tempfile::tempdir().unwrap();
    let mut table =
        "[backup]\n\"say:8\" = { prompt = \"10\", completion = \"100\" }\n[primary]\n".to_owned();
    for fault in FAULTS {
        let _ = writeln!(
            table,
            "\"fault:{fault}\" = {{ prompt = \"10\", completion = \"100\" }}"
        );
    }
    std::fs::write(home.path().join("prices.toml"), table).unwrap();
    Prices::load(home.path(), Price::FREE).unwrap()
}

/// Times a server was asked for an answer; bills do not count.
fn n_asked(server: &ProviderServer) -> usize {
    let requests = server.requests();
    requests.iter().filter(|one| one.method == "POST").count()
}

/// Plays a case, on a router of its own: what one case breaks no other sees.
async fn play((hearth, prices): &(Hearth, Prices), case: &Case) -> Seen {
    let (primary, backup) = (ProviderServer::start(), ProviderServer::start());
    let routing = Routing::start(hearth, &toml(case, &primary, &backup), |options| {
        options.prices = prices.clone();
    })
    .await;
    let body = json!({
        "model": format!("primary:fault:{}", case.fault),
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 500,
        "stream": case.is_stream,
    });
    let reply = routing.post(&body).await;
    let told = told(&reply, case.is_stream);
    assert!(!reply.body.contains("sk-canary"), "{case:?}: {reply:?}");
    let (ours, theirs) = (told.text.clone(), tokens(8).concat());
    let seen = match &told.error {
        Some(code) => Seen::Error {
            code: code.clone(),
            after_text: !ours.is_empty() || told.has_tool_call,
        },
        None if told.is_continued => {
            let said = ours.strip_suffix(&theirs);
            let said = said.unwrap_or_else(|| panic!("{case:?}: {ours:?}"));
            // A backup that begins as the provider did is not heard twice.
            assert!(tokens(200).concat().starts_with(said), "{case:?}: {said:?}");
            Seen::Continued
        }
        None if n_asked(&backup) > 0 => {
            assert_eq!(ours, theirs, "{case:?}");
            Seen::Backup
        }
        None => {
            let whole = tokens(200).concat();
            let is_whole = whole.starts_with(&ours) && !ours.is_empty();
            assert!(is_whole || told.has_tool_call, "{case:?}: {ours:?}");
            Seen::Answer
        }
    };
    assert!(n_asked(&primary) <= 3, "{case:?}: {}", n_asked(&primary));
    let bills: u64 = [&primary, &backup]
        .iter()
        .flat_map(|server| server.bills().into_values())
        .filter(|bill| case.shape == Shape::OpenRouter && bill.was_reported)
        .map(|bill| bill.micro_usd)
        .sum();
    let spent = routing
        .router
        .money()
        .used(&Scope::Everybody, Per::Month, Moment::now());
    // The server bills a call's tokens as it counts them elsewhere.
    let is_call = case.fault.starts_with("tool-call");
    if n_asked(&primary) == 1 && n_asked(&backup) == 0 && !is_call {
        assert!(spent.money.0 >= bills, "{case:?}: {spent:?} for {bills}");
    }
    assert_eq!(spent.requests, 1, "{case:?}");
    routing.end().await;
    seen
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for fault in FAULTS {
        for shape in [Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic] {
            for is_stream in [true, false] {
                for has_backup in [true, false] {
                    cases.push(Case {
                        fault,
                        shape,
                        is_stream,
                        has_backup,
                    });
                }
            }
        }
    }
    cases
}

/// What became of the cases, by fault, by whether they were streamed, and by whether there was a backup.
type Outcomes = BTreeMap<(usize, bool, bool), Vec<(Shape, Seen)>>;

/// The table of all cases, as `docs/faults.md` has it.
fn table(seen: &Outcomes) -> String {
    let mut text = String::from(
        "| the provider's fault | stream, with a backup | whole, with a backup | stream, alone | whole, alone |\n\
         |---|---|---|---|---|\n",
    );
    for (i, fault) in FAULTS.iter().enumerate() {
        let _ = write!(text, "| {fault} |");
        for (is_stream, has_backup) in [(true, true), (false, true), (true, false), (false, false)]
        {
            let shapes = &seen[&(i, is_stream, has_backup)];
            let first = &shapes[0].1;
            let mut cell = first.shown();
            for (shape, other) in &shapes[1..] {
                if other != first {
                    let _ = write!(cell, "; {shape:?}: {}", other.shown());
                }
            }
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_ends_as_the_table_says() {
    let hearth = Arc::new((Hearth::new(Wish::default()), prices()));
    let outcomes = stream::iter(cases()).map(|case| {
        let hearth = hearth.clone();
        async move { (play(&hearth, &case).await, case) }
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
    let mut seen = Outcomes::new();
    for (outcome, case) in outcomes {
        let i = FAULTS
            .iter()
            .position(|fault| *fault == case.fault)
            .unwrap();
        let cell = seen
            .entry((i, case.is_stream, case.has_backup))
            .or_default();
        cell.push((case.shape, outcome));
    }
    for shapes in seen.values_mut() {
        shapes.sort_by_key(|(shape, _)| *shape as usize);
    }
    let table = table(&seen);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let documented = std::fs::read_to_string(&path).unwrap_or_default();
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.md");
    std::fs::write(&found, &table).unwrap();
    for row in table.lines() {
        assert!(documented.contains(row), "not in docs/faults.md: {row}");
    }
}
