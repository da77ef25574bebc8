//! `ingle.toml`, changed while a server runs.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{Ground, Serving};
use crate::http::{ask, with};

/// The files are looked at every two seconds, twice.
const PATIENCE: Duration = Duration::from_mins(1);

fn settings(n_requests: u32, deadline_ms: u32) -> String {
    format!(
        "[router]\ndeadline_ms = {deadline_ms}\n[[budget]]\nper = 'day'\nrequests = {n_requests}\n"
    )
}

/// Requests that the budget has, and what is left of them.
async fn requests(serving: &Serving) -> (String, String) {
    let reply = serving.get("/v1/models").await;
    let header = |name: &str| reply.header(name).unwrap_or("none").to_owned();
    (
        header("x-ratelimit-limit-requests"),
        header("x-ratelimit-remaining-requests"),
    )
}

async fn until_metrics_say(serving: &Serving, line: &str) {
    let give_up = Instant::now() + PATIENCE;
    while !serving.get("/metrics").await.body.contains(line) {
        assert!(Instant::now() < give_up, "{line} never comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_holds_for_new_requests_and_a_broken_one_changes_nothing() {
    let ground = Ground::new();
    ground.write("ingle.toml", &settings(5, 50_000));
    let serving = ground.serve(&["tiny.gguf"]).await;
    serving.until_ready().await;
    let answer = serving.post(&ask(2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(requests(&serving).await, ("5".into(), "4".into()));

    ground.write(
        "ingle.toml",
        &(settings(9, 40_000) + "[local_price]\nper_hour = 1\n"),
    );
    until_metrics_say(
        &serving,
        "ingle_config_reloads_total{outcome=\"changed\"} 1",
    )
    .await;
    // What was spent is spent.
    assert_eq!(requests(&serving).await, ("9".into(), "8".into()));

    ground.write("ingle.toml", "[router]\ndeadline_ms = 'soon'\n");
    until_metrics_say(&serving, "ingle_config_reloads_total{outcome=\"kept\"} 1").await;
    assert_eq!(requests(&serving).await, ("9".into(), "8".into()));

    // None at all: nobody may ask any more, and is told so.
    ground.write("ingle.toml", &settings(1, 40_000));
    until_metrics_say(
        &serving,
        "ingle_config_reloads_total{outcome=\"changed\"} 2",
    )
    .await;
    let refused = serving.post(&with(ask(2), &json!({"seed": 1}))).await;
    assert_eq!(refused.status, 429, "{refused:?}");

    serving.signal(Signal::TERM);
    let ended = serving.ended().await;
    assert_eq!(ended.code, Some(0));
    let n_told = |text: &str| ended.err.matches(text).count();
    assert_eq!(n_told("ingle.toml, line 2"), 1, "{}", ended.err);
    assert_eq!(n_told("the configuration stays as it was"), 1);
    assert_eq!(n_told("the configuration was read again"), 2);
    assert!(ended.err.contains("local_price"), "{}", ended.err);
}
