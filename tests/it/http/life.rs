//! A server's life: loading, ready, draining; what it tells of itself.

use std::time::{Duration, Instant};

use ingle::http::Limits;
use serde_json::json;
use tokio::net::TcpStream;

use super::leaving::begin;
use super::wire::{Reply, read_to, rest};
use super::{Options, Served, ask, with};
use crate::gguf_file::TinyLlama;

fn series(metrics: &str, name: &str, labels: &str) -> Option<f64> {
    let found = metrics.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
    });
    found?.rsplit_once(' ')?.1.parse().ok()
}

/// Takes the format apart: every line is a comment or a series with a number.
fn assert_prometheus(text: &str) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(
                comment.starts_with("HELP ") || comment.starts_with("TYPE "),
                "{line}"
            );
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("ingle_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let mut types: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let n_types = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), n_types, "a series is declared once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_happened_and_tell_no_prompt() {
    let served = Served::usual().await;
    let asked = with(
        ask(9),
        &json!({"messages": [{"role": "user", "content": "canary-7041 in a coal mine"}]}),
    );
    let usage = served.post(&asked).await.json()["usage"].clone();
    served.post(&with(asked, &json!({"stream": true}))).await;
    served.until_idle().await;
    let reply = served.get("/metrics").await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = reply.body;
    assert_prometheus(&text);
    assert!(!text.contains("canary"));
    let tiny = |name: &str| series(&text, name, "model=\"tiny\"");
    // The load's own short generation counts too.
    let prompt = usage["prompt_tokens"].as_f64().unwrap();
    assert_eq!(tiny("ingle_prompt_tokens_total"), Some(2.0 * prompt + 32.0));
    assert_eq!(tiny("ingle_generated_tokens_total"), Some(2.0 * 9.0 + 4.0));
    assert_eq!(tiny("ingle_requests_running"), Some(0.0));
    assert_eq!(tiny("ingle_requests_waiting"), Some(0.0));
    assert_eq!(tiny("ingle_kv_blocks_used"), Some(0.0));
    assert!(tiny("ingle_kv_blocks").unwrap() >= 1.0);
    // Other tests of this process record histograms and requests as well.
    for name in [
        "ingle_time_to_first_token_seconds",
        "ingle_inter_token_seconds",
    ] {
        assert!(tiny(&format!("{name}_count")).unwrap() >= 1.0, "{name}");
        assert!(
            series(&text, &format!("{name}_bucket"), "le=\"+Inf\"").is_some(),
            "{name}"
        );
    }
    let ok = series(&text, "ingle_http_requests_total", "status=\"200\"");
    assert!(ok.unwrap() >= 1.0, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_there_while_it_works() {
    let served = Served::start(Options {
        tiny: TinyLlama {
            context_length: 8192,
            ..TinyLlama::default()
        },
        ..Options::default()
    })
    .await;
    let long = with(ask(8000), &json!({"stream": true}));
    let mut client = begin(&served, &long).await;
    read_to(&mut client, "\"content\":\"").await;
    let began = Instant::now();
    let text = served.get("/metrics").await.body;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(series(&text, "ingle_requests_running", "tiny"), Some(1.0));
    assert!(series(&text, "ingle_kv_blocks_used", "tiny").unwrap() > 0.0);
    assert_eq!(served.get("/health").await.status, 200);
    drop(client);
    served.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_finishes_streams_and_takes_nobody_new() {
    let served = Served::usual().await;
    served.post(&ask(1)).await;
    let body = with(ask(400), &json!({"stream": true}));
    let mut client = begin(&served, &body).await;
    let idle = TcpStream::connect(served.address).await.unwrap();
    // A connection that is there already hears that it should come back elsewhere.
    served.stop.cancel();
    let answer = rest(&mut client).await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
    // The last event is whole, and the body's end with it.
    assert!(
        text.contains("data: [DONE]\n\n") && text.ends_with("0\r\n\r\n"),
        "{text}"
    );
    let n_cut_off = served.running.await.unwrap();
    assert_eq!(n_cut_off, 0);
    drop(idle);
    let refused = TcpStream::connect(served.address).await;
    assert!(refused.is_err(), "it still listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_does_not_hold_the_end() {
    let served = Served::start(Options {
        tiny: TinyLlama {
            context_length: 8192,
            ..TinyLlama::default()
        },
        drain: Duration::from_millis(100),
        limits: Limits::default(),
        ..Options::default()
    })
    .await;
    let long = with(ask(8000), &json!({"stream": true}));
    let mut client = begin(&served, &long).await;
    let began = Instant::now();
    served.stop.cancel();
    let text = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(!text.contains("[DONE]"), "a cut answer is no whole one");
    assert_eq!(served.running.await.unwrap(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(served.house.pool.shutdown(Duration::from_secs(5)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_asks_many_times() {
    use tokio::io::AsyncWriteExt;
    let served = Served::usual().await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..3 {
        let head = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = read_to(&mut client, "{\"status\":\"ok\"}").await;
        assert_eq!(Reply::parse(&answer).unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_when_requests_may_come() {
    let served = Served::start(Options {
        ready: false,
        ..Options::default()
    })
    .await;
    let loading = served.get("/health").await;
    assert_eq!(
        (loading.status, &*loading.body),
        (503, "{\"status\":\"loading\"}")
    );
    assert_eq!(
        served.get("/health/live").await.status,
        200,
        "it does its work"
    );
    served.readiness.set();
    assert_eq!(served.get("/health").await.status, 200);
}
