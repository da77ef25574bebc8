//! Chat completions: the exact fields, streams equal to whole answers, what cannot be answered.

use std::time::Duration;

use futures_util::future::join_all;
use ingle::engine::EngineOptions;
use ingle::http::Limits;
use serde_json::{Value, json};

use super::{Options, Served, ask, with};
use crate::gguf_file::TinyLlama;
use crate::pool::Wish;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_has_exactly_the_fields_of_the_specification() {
    let served = Served::usual().await;
    let reply = served.post(&ask(12)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
    let answer = reply.json();
    let expected = [
        "id",
        "object",
        "created",
        "model",
        "system_fingerprint",
        "choices",
        "usage",
    ];
    assert_eq!(keys(&answer), expected);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "tiny");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let [choice] = answer["choices"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(
        keys(choice),
        ["index", "message", "logprobs", "finish_reason"]
    );
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(keys(&choice["message"]), ["role", "content", "refusal"]);
    assert_eq!(choice["message"]["role"], "assistant");
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], prompt + 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_what_the_whole_answer_says() {
    let served = Served::usual().await;
    let whole = served.post(&ask(20)).await.json();
    let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = served.post(&with(ask(20), &streamed)).await;
    assert_eq!(reply.status, 200);
    let mut events = reply.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (last, chunks) = chunks.split_last().unwrap();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["created"]),
            (&last["id"], &last["created"])
        );
        assert!(chunk["usage"].is_null() && keys(chunk).contains(&"usage"));
        let choice = &chunk["choices"][0];
        assert_eq!(
            keys(choice),
            ["index", "delta", "logprobs", "finish_reason"]
        );
    }
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    let delta = |chunk: &Value| chunk["choices"][0]["delta"].clone();
    assert_eq!(
        delta(&chunks[0]),
        json!({"role": "assistant", "content": ""})
    );
    let (finish, texts) = chunks[1..].split_last().unwrap();
    assert_eq!(delta(finish), json!({}));
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    let text: String = texts
        .iter()
        .map(|chunk| delta(chunk)["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        text,
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert!(texts.len() > 1, "it came in one piece");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_streamed_only_where_it_is_asked_for() {
    let served = Served::usual().await;
    let reply = served.post(&with(ask(3), &json!({"stream": true}))).await;
    let events = reply.events();
    assert!(
        events.iter().all(|event| !event.contains("usage")),
        "{events:?}"
    );
    assert_eq!(events.last().unwrap(), "[DONE]");
    // Where nothing is streamed, the option is harmless.
    let options = json!({"stream": false, "stream_options": {"include_usage": true}});
    assert_eq!(served.post(&with(ask(3), &options)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let served = Served::usual().await;
    let content = |answer: &Value| {
        let content = answer["choices"][0]["message"]["content"].as_str();
        content.unwrap().to_owned()
    };
    let whole = content(&served.post(&ask(40)).await.json());
    let stop: String = whole.chars().skip(4).take(2).collect();
    for given in [json!(stop), json!(["never said", stop])] {
        let answer = served
            .post(&with(ask(40), &json!({"stop": given})))
            .await
            .json();
        let (before, _) = whole.split_once(&stop).unwrap();
        assert_eq!(content(&answer), before);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_gives_the_same_text_and_a_crowd_changes_nothing() {
    let served = Served::usual().await;
    let drawn = |seed: u64| with(ask(24), &json!({"temperature": 1.2, "seed": seed}));
    let alone = served.post(&drawn(7)).await.json();
    let crowd: Vec<Value> = (0..16).map(|n| drawn(n % 8)).collect();
    let replies = join_all(crowd.iter().map(|body| served.post(body))).await;
    let text = |answer: &Value| answer["choices"][0]["message"]["content"].clone();
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(text(&replies[7].json()), text(&alone));
    assert_eq!(text(&replies[15].json()), text(&alone));
    assert_ne!(text(&replies[0].json()), text(&alone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_an_error_object_with_the_right_status() {
    let served = Served::usual().await;
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(600)}]});
    let cases = [
        (
            json!({"model": "no-such-model"}),
            404,
            "model",
            "model_not_found",
            "no-such-model",
        ),
        (
            json!({"model": "/etc/passwd"}),
            404,
            "model",
            "model_not_found",
            "/etc/passwd",
        ),
        (
            long,
            400,
            "messages",
            "context_length_exceeded",
            "context size of 512",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "now"}}]}),
            400,
            "tools",
            "unsupported_parameter",
            "tools",
        ),
        (
            json!({"temperature": "hot"}),
            400,
            "temperature",
            "invalid_value",
            "\"hot\"",
        ),
        (json!({"stop": [""]}), 400, "stop", "invalid_value", "stop"),
        (
            json!({"messages": null}),
            400,
            "messages",
            "missing_required_parameter",
            "missing",
        ),
    ];
    for (more, status, param, code, part) in cases {
        for stream in [false, true] {
            let body = with(with(ask(5), &more), &json!({"stream": stream}));
            let reply = served.post(&body).await;
            assert_eq!(reply.status, status, "{more} {reply:?}");
            let error = reply.error();
            assert_eq!(
                (&error["param"], &error["code"]),
                (&json!(param), &json!(code)),
                "{more}"
            );
            assert!(error["message"].as_str().unwrap().contains(part), "{error}");
        }
    }
    assert_eq!(served.post(&ask(1)).await.status, 200, "it lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_refused_with_a_time_to_come_back() {
    let served = Served::start(Options {
        tiny: TinyLlama {
            context_length: 8192,
            ..TinyLlama::default()
        },
        wish: Wish {
            engine: EngineOptions {
                max_running: 1,
                max_waiting: 1,
                ..EngineOptions::default()
            },
            ..Wish::default()
        },
        limits: Limits {
            first_content: Duration::from_millis(200),
            ..Limits::default()
        },
        ..Options::default()
    })
    .await;
    assert_eq!(served.post(&ask(1)).await.status, 200, "loads it");
    let long = with(ask(4000), &json!({"stream": true}));
    let running = super::leaving::begin(&served, &long).await;
    let waiting = super::leaving::begin(&served, &long).await;
    let refused = served.post(&ask(1)).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.error()["code"], "engine_overloaded");
    let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    drop((running, waiting));
    served.until_idle().await;
    assert_eq!(served.post(&ask(1)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_listed_and_found_by_name() {
    let served = Served::usual().await;
    let list = served.get("/v1/models").await.json();
    assert_eq!(keys(&list), ["object", "data"]);
    let model = &list["data"][0];
    assert_eq!(keys(model), ["id", "object", "created", "owned_by"]);
    assert_eq!(
        (&model["id"], &model["owned_by"]),
        (&json!("tiny"), &json!("ingle"))
    );
    assert_eq!(&served.get("/v1/models/tiny").await.json(), model);
    let missing = served.get("/v1/models/other").await;
    assert_eq!(
        (missing.status, &missing.error()["code"]),
        (404, &json!("model_not_found"))
    );
    let broken = served.get("/v1/models/%ff").await;
    assert_eq!(broken.status, 400);
    broken.error();
}
