//! `/v1/embeddings`: every form of input and of vectors, by a model made for it and by one that writes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::{self, Reply};
use super::{Served, ask};
use crate::embedding::{cosine, floats, minilm, references};

const MINILM: &str = "all-MiniLM-L6-v2";

/// A server of `tiny`, which writes, and of the embedding model.
async fn served() -> Served {
    let served = Served::usual().await;
    served.house.pool.register(&minilm()).unwrap();
    served
}

async fn post(served: &Served, body: &Value) -> Reply {
    let request = wire::request(&body.to_string());
    let request = request.replacen("/v1/chat/completions", "/v1/embeddings", 1);
    wire::exchange(served.address, &request).await
}

/// The vectors of an answer, after checking that it has exactly the fields of the specification.
fn vectors(reply: &Reply) -> Vec<Vec<f32>> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&answer), ["object", "data", "model", "usage"]);
    assert_eq!(answer["object"], "list");
    assert_eq!(keys(&answer["usage"]), ["prompt_tokens", "total_tokens"]);
    let vector = |(index, item): (usize, &Value)| {
        assert_eq!(keys(item), ["object", "index", "embedding"]);
        assert_eq!(
            (&item["object"], &item["index"]),
            (&json!("embedding"), &json!(index))
        );
        match &item["embedding"] {
            Value::String(bytes) => floats(bytes),
            numbers => serde_json::from_value(numbers.clone()).unwrap(),
        }
    };
    answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(vector)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_tokens_floats_and_bytes_all_give_the_reference_vectors() {
    let served = served().await;
    let references: Vec<_> = references().into_iter().filter(|one| !one.is_cut).collect();
    let texts: Vec<&str> = references.iter().map(|one| &*one.text).collect();
    let ids: Vec<&[u32]> = references.iter().map(|one| &*one.ids).collect();
    let n_tokens: usize = ids.iter().map(|ids| ids.len()).sum();
    let mut made = Vec::new();
    for (input, format) in [(json!(texts), "float"), (json!(ids), "base64")] {
        let body = json!({"model": MINILM, "input": input, "encoding_format": format, "user": "u"});
        let reply = post(&served, &body).await;
        let vectors = vectors(&reply);
        let usage = json!({"prompt_tokens": n_tokens, "total_tokens": n_tokens});
        assert_eq!(
            (&reply.json()["usage"], &reply.json()["model"]),
            (&usage, &json!(MINILM))
        );
        for (vector, reference) in vectors.iter().zip(&references) {
            let near = cosine(vector, &reference.vector);
            assert!(near >= 0.9999, "{:?}: {near}", reference.text);
        }
        made.push(vectors);
    }
    // One text, and one list of tokens, are one input.
    for input in [json!(texts[7]), json!(ids[7])] {
        let reply = post(&served, &json!({"model": MINILM, "input": input})).await;
        let [vector] = &*vectors(&reply) else {
            panic!("one input has one vector");
        };
        let apart = vector.iter().zip(&made[0][7]).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_is_refused_with_numbers_or_cut_off_where_that_is_asked_for() {
    let served = served().await;
    let long: Vec<_> = references().into_iter().filter(|one| one.is_cut).collect();
    let body = json!({"model": MINILM, "input": ["short", long[0].text]});
    let reply = post(&served, &body).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    let error = reply.error();
    assert_eq!(
        (&error["param"], &error["code"]),
        (&json!("input"), &json!("context_length_exceeded"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("input 1 has 602 tokens") && message.contains("256"),
        "{message}"
    );
    for one in &long {
        let body = json!({"model": MINILM, "input": one.text, "truncate": true});
        let reply = post(&served, &body).await;
        let vector = vectors(&reply).remove(0);
        assert!(cosine(&vector, &one.vector) >= 0.9999);
        assert_eq!(reply.json()["usage"]["prompt_tokens"], 256);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_an_error_that_names_the_value() {
    let served = served().await;
    let cases = [
        (
            json!({"input": [[101, 30522]]}),
            "input",
            "token 1 of input 0 is 30522",
        ),
        (
            json!({"input": "a", "dimensions": 100}),
            "dimensions",
            "dimensions is 100",
        ),
        (json!({"input": ""}), "input", "input is an empty string"),
        (json!({"input": []}), "input", "input holds 0 inputs"),
        (
            json!({"input": vec!["a"; 2049]}),
            "input",
            "input holds 2049 inputs",
        ),
        (
            json!({"input": "a", "encoding_format": "hex"}),
            "encoding_format",
            "\"hex\"",
        ),
    ];
    for (body, param, expected) in cases {
        let body = super::with(json!({"model": MINILM}), &body);
        let reply = post(&served, &body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        let error = reply.error();
        assert_eq!(error["param"], param, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    let unknown = post(&served, &json!({"model": "no-such-model", "input": "a"})).await;
    assert_eq!(unknown.status, 404);
    let whole = json!({"model": MINILM, "input": "a", "dimensions": 384});
    assert_eq!(vectors(&post(&served, &whole).await)[0].len(), 384);
    // It makes vectors, and nothing else.
    let chat = served
        .post(&super::with(ask(1), &json!({"model": MINILM})))
        .await;
    assert_eq!(chat.status, 400, "{chat:?}");
    let error = chat.error();
    assert_eq!(error["param"], "model");
    assert!(
        error["message"].as_str().unwrap().contains("cannot chat"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_writes_makes_vectors_too_while_it_writes() {
    let served = served().await;
    let texts = [
        "Hello, hearth!",
        "Hello, hearths!",
        &"long and longer ".repeat(20),
    ];
    let alone = post(&served, &json!({"model": "tiny", "input": texts[0]})).await;
    let alone = vectors(&alone).remove(0);
    let squares: f32 = alone.iter().map(|value| value * value).sum();
    assert!((squares - 1.0).abs() < 1e-4, "{squares}");
    let body = json!({"model": "tiny", "input": texts});
    let question = ask(60);
    let (chat, together) = tokio::join!(served.post(&question), post(&served, &body));
    assert_eq!(chat.json()["choices"][0]["finish_reason"], "length");
    let together = vectors(&together);
    assert_eq!(together[0], alone, "the same bits beside others");
    assert_ne!(together[1], alone);
    served.until_idle().await;
    let long = post(
        &served,
        &json!({"model": "tiny", "input": "word ".repeat(2000)}),
    )
    .await;
    assert_eq!(long.error()["code"], "context_length_exceeded");
    let cut = json!({"model": "tiny", "input": "word ".repeat(2000), "truncate": true});
    assert_eq!(
        post(&served, &cut).await.json()["usage"]["prompt_tokens"],
        512
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_computed_for_no_longer_and_figures_are_told() {
    let served = served().await;
    let pool = &served.house.pool;
    pool.preload(MINILM).await.unwrap();
    let figures = async || {
        let status = pool.status().await;
        let found = status.into_iter().find(|model| model.id.as_str() == MINILM);
        found.unwrap().ready.unwrap().engine
    };
    let text = references()[34].text.clone();
    let body = json!({"model": MINILM, "input": vec![text; 600]});
    let before = figures().await.n_prompt_total;
    let at_work = async {
        while figures().await.n_prompt_total == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        reply = post(&served, &body) => panic!("it was over too soon to leave it: {}", reply.status),
        () = at_work => {}
    }
    let give_up = Instant::now() + Duration::from_secs(20);
    while figures().await.n_cancelled_total == 0 {
        assert!(Instant::now() < give_up, "{:?}", figures().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = figures().await;
    assert_eq!(left.n_running, 0);
    assert!(left.n_prompt_total < 600 * 60, "{left:?}");
    let ok = post(&served, &json!({"model": MINILM, "input": "a"})).await;
    assert_eq!(vectors(&ok).len(), 1);
    let metrics = served.get("/metrics").await.body;
    for series in ["ingle_prompt_tokens_total", "ingle_requests_finished_total"] {
        assert!(
            metrics.contains(&format!("{series}{{model=\"{MINILM}\"}}")),
            "{metrics}"
        );
    }
    assert!(
        metrics.contains("ingle_request_duration_seconds"),
        "{metrics}"
    );
}
