//! The models of a node over HTTP: the laws of the pool, seen from outside.

use std::time::{Duration, Instant};

use ingle::pool::{LoadStage, ModelState};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{self, Reply};
use super::{Options, Served, ask, with};
use crate::gguf_file::TinyLlama;
use crate::pool::{Wish, bytes_of};

/// A model several times as large as `tiny`, most of it cache.
fn large() -> TinyLlama {
    TinyLlama {
        context_length: 4096,
        ..TinyLlama::default()
    }
}

/// A server of `tiny`, `second` and `third` whose budget holds so many hundredths of one of them.
async fn node(n_hundredths: u64) -> Served {
    within(bytes_of(&TinyLlama::default()).await * n_hundredths / 100).await
}

async fn within(budget: u64) -> Served {
    let served = Served::start(Options {
        wish: Wish {
            budget_bytes: Some(budget),
            ..Wish::default()
        },
        ..Options::default()
    })
    .await;
    served.house.serve("second", &TinyLlama::default());
    served.house.serve("third", &TinyLlama::default());
    served
}

impl Served {
    async fn call(&self, method: &str, path: &str, body: &Value) -> Reply {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        wire::exchange(self.address, &head).await
    }

    /// Loads a model and waits for it; the lines it was told.
    async fn load(&self, name: &str, body: &Value) -> Vec<Value> {
        let path = format!("/api/models/{name}/load");
        let reply = self.call("POST", &path, body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let lines = reply.body.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The states of the models that are in memory or on their way.
    async fn states(&self) -> Vec<(String, String)> {
        let list = self.get("/api/models").await.json();
        let models = list["models"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        models
            .map(|model| (text(&model["id"]), text(&model["state"])))
            .filter(|(_, state)| state != "absent")
            .collect()
    }

    async fn until_state(&self, name: &str, state: &str) {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            let states = self.states().await;
            let found = states.iter().find(|(id, _)| id == name);
            if found.map_or("absent", |(_, state)| state) == state {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "{name} is not {state}: {states:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for a load and does not wait for it.
    async fn ask_for(&self, name: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /api/models/{name}/load HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client
    }
}

fn ready(names: &[&str]) -> Vec<(String, String)> {
    let ready = |name: &&str| ((*name).to_owned(), "ready".to_owned());
    names.iter().map(ready).collect()
}

fn chat(model: &str) -> Value {
    with(ask(2), &json!({"model": model}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_leaves_whoever_was_loaded_first() {
    let served = node(230).await;
    served.load("tiny", &json!({})).await;
    served.load("second", &json!({})).await;
    assert_eq!(served.post(&chat("tiny")).await.status, 200);
    served.load("third", &json!({})).await;
    assert_eq!(served.states().await, ready(&["third", "tiny"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_use_is_left_alone_and_who_queues_is_served_in_order() {
    let served = node(130).await;
    let lease = served.house.pool.acquire("tiny", None).await.unwrap();
    let mut events = served.house.pool.load_events();
    let third = served.ask_for("third").await;
    served.until_state("third", "queued").await;
    let second = served.ask_for("second").await;
    served.until_state("second", "queued").await;
    // Queueing for the other two changes nothing for whoever uses it.
    assert_eq!(served.post(&chat("tiny")).await.status, 200);
    served.until_state("tiny", "ready").await;
    drop(lease);
    let mut loaded = Vec::new();
    while loaded.len() < 2 {
        let event = events.recv().await.unwrap();
        if event.stage == LoadStage::Ready {
            loaded.push(event.model.to_string());
        }
    }
    assert_eq!(loaded, ["third", "second"]);
    for mut client in [third, second] {
        let reply = Reply::parse(&wire::rest(&mut client).await.unwrap()).unwrap();
        assert!(
            reply.body.contains("\"stage\":\"waiting_for_memory\""),
            "{reply:?}"
        );
        assert!(reply.body.ends_with("}\n") && reply.body.contains("\"ready\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_requests_share_one_load() {
    let served = node(230).await;
    let mut events = served.house.pool.load_events();
    let question = chat("second");
    let replies = (0..8).map(|_| served.post(&question));
    for reply in futures_util::future::join_all(replies).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let mut n_opened = 0;
    while let Ok(event) = events.try_recv() {
        n_opened += usize::from(event.stage == LoadStage::Opening);
    }
    assert_eq!(n_opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_loads_leaves_it_loading() {
    let served = node(230).await;
    let mut client = served.ask_for("second").await;
    wire::read_to(&mut client, "\"stage\"").await;
    drop(client);
    served.until_state("second", "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_meets_an_unload_gets_the_model_anew() {
    let served = node(230).await;
    let lease = served.house.pool.acquire("tiny", None).await.unwrap();
    let nothing = json!({});
    let unload = served.call("POST", "/api/models/tiny/unload", &nothing);
    let others = async {
        served.until_state("tiny", "draining").await;
        let mut late = served.ask_for("tiny").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(lease);
        wire::rest(&mut late).await.unwrap()
    };
    let (unloaded, late) = tokio::join!(unload, others);
    assert_eq!(unloaded.json(), json!({"model": "tiny", "unloaded": true}));
    let late = Reply::parse(&late).unwrap();
    assert!(late.body.contains("\"stage\":\"ready\""), "{late:?}");
    served.until_state("tiny", "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_need_room_share_one_eviction() {
    let served = within(bytes_of(&large()).await).await;
    served.house.serve("large", &large());
    served.load("large", &json!({})).await;
    let lease = served.house.pool.acquire("large", None).await.unwrap();
    let (second, third) = (
        served.ask_for("second").await,
        served.ask_for("third").await,
    );
    served.until_state("second", "queued").await;
    served.until_state("third", "queued").await;
    drop(lease);
    served.until_state("second", "ready").await;
    served.until_state("third", "ready").await;
    assert_eq!(served.states().await, ready(&["second", "third"]));
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_nothing_by_itself_says_so_and_loads_when_told() {
    let served = Served::start(Options {
        wish: Wish {
            loads_nothing: true,
            ..Wish::default()
        },
        ..Options::default()
    })
    .await;
    let refused = served.post(&chat("tiny")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let error = refused.error();
    assert_eq!(error["code"], "model_not_loaded");
    let message = "tiny is not loaded, and this server loads no model by itself: load it first";
    assert_eq!(error["message"], message);
    served.load("tiny", &json!({})).await;
    assert_eq!(served.post(&chat("tiny")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_needs_a_key_where_there_are_keys() {
    let served = Served::start(Options {
        keys: Some("alpha"),
        ..Options::default()
    })
    .await;
    for (method, path) in [
        ("GET", "/api/models"),
        ("GET", "/api/models/tiny"),
        ("DELETE", "/api/models/tiny"),
        ("POST", "/api/models/tiny/load"),
        ("POST", "/api/models/tiny/unload"),
        ("POST", "/api/models/tiny/pull"),
    ] {
        let reply = served.call(method, path, &json!({})).await;
        assert_eq!(reply.status, 401, "{method} {path}");
    }
    assert!(
        served.house.pool.status().await.is_empty(),
        "nothing happened"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_it_stays_is_said_by_load_and_chat_and_kept() {
    let served = node(230).await;
    let path = "/api/models/tiny";
    let lines = served.load("tiny", &json!({"keep_alive": "10m"})).await;
    assert_eq!(lines.last().unwrap()["stage"], "ready");
    let model = served.get(path).await.json();
    assert_eq!(model["keep_alive"], json!(600.0));
    assert!(model["expires_in_seconds"].as_f64().unwrap() > 590.0);
    served.post(&chat("tiny")).await;
    assert_eq!(served.get(path).await.json()["keep_alive"], json!(600.0));
    served
        .post(&with(chat("tiny"), &json!({"keep_alive": -1})))
        .await;
    assert_eq!(served.get(path).await.json()["keep_alive"], json!(-1));
    served
        .post(&with(chat("tiny"), &json!({"keep_alive": 0})))
        .await;
    served.until_state("tiny", "absent").await;
    served
        .post(&with(chat("tiny"), &json!({"keep_alive": 0.05})))
        .await;
    served.until_state("tiny", "absent").await;
    let wrong = served
        .post(&with(chat("tiny"), &json!({"keep_alive": "soon"})))
        .await;
    assert_eq!(
        (wrong.status, &wrong.error()["param"]),
        (400, &json!("keep_alive"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_model_is_in_the_way_and_named() {
    let served = node(130).await;
    served.load("tiny", &json!({"keep_alive": -1})).await;
    let refused = served.post(&chat("second")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let error = refused.error();
    assert_eq!(error["code"], "insufficient_memory");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("tiny (pinned) leave"), "{message}");
    assert_eq!(served.states().await, ready(&["tiny"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_asks_for_is_told_before_it_is_loaded() {
    let served = node(230).await;
    let model = served.get("/api/models/tiny").await.json();
    assert_eq!(model["state"], "absent");
    let told = &model["requirements"][0];
    assert_eq!(
        (&told["context"], &told["kv_type"]),
        (&json!(512), &json!("f16"))
    );
    assert_eq!(told["fits"], true);
    let ready = &served.load("tiny", &json!({})).await;
    let held = ready.last().unwrap()["memory"]["host_bytes"]
        .as_u64()
        .unwrap();
    let least = told["memory"]["host_bytes"].as_u64().unwrap();
    let cache = told["kv_cache"]["host_bytes"].as_u64().unwrap();
    // Two contexts, where memory allows, are what it was loaded with.
    assert_eq!(held, least + cache);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_to_a_model_is_an_error_object() {
    let served = node(230).await;
    let cases = [
        (
            "POST",
            "/api/models/smolm2/load",
            json!({}),
            404,
            "did you mean",
        ),
        (
            "POST",
            "/api/models/tiny/load",
            json!({"keep": 1}),
            400,
            "no field \"keep\"",
        ),
        (
            "POST",
            "/api/models/tiny/load",
            json!([]),
            400,
            "must be a JSON object",
        ),
        (
            "POST",
            "/api/models/tiny/load",
            json!({"stream": 1}),
            400,
            "stream",
        ),
        (
            "POST",
            "/api/models/smollm2/pull",
            json!({}),
            503,
            "offline",
        ),
        (
            "POST",
            "/api/models/smollm2/load",
            json!({}),
            503,
            "offline",
        ),
        (
            "DELETE",
            "/api/models/tiny",
            json!({}),
            400,
            "was named by its path",
        ),
        ("DELETE", "/api/models/smollm2", json!({}), 400, "is not in"),
        (
            "PUT",
            "/api/models/tiny",
            json!({}),
            405,
            "does not take PUT",
        ),
    ];
    for (method, path, body, status, part) in cases {
        let reply = served.call(method, path, &body).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        let error = reply.error();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{method} {path}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_no_lines_gets_the_end_alone() {
    let served = node(230).await;
    let unloaded = served
        .call("POST", "/api/models/tiny/unload", &json!({}))
        .await;
    assert_eq!(unloaded.json(), json!({"model": "tiny", "unloaded": false}));
    let whole = served
        .call("POST", "/api/models/tiny/load", &json!({"stream": false}))
        .await;
    assert_eq!(whole.json()["stage"], "ready");
    assert!(matches!(
        served.house.pool.status().await[0].state,
        ModelState::Ready { n_leases: 0 }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_model_will_ask_for_is_told_before_its_file_is_here() {
    let served = node(230).await;
    // Layers, heads of keys and values, values in a head, trained context, bytes of weights.
    let known: [(&str, [u64; 5]); 5] = [
        ("llama3", [32, 8, 128, 8192, 4_912_898_048]),
        ("mistral", [32, 8, 128, 32_768, 4_372_054_016]),
        ("codellama-7b", [32, 32, 128, 16_384, 4_080_353_792]),
        ("codellama-13b", [40, 40, 128, 16_384, 7_865_324_160]),
        ("smollm2", [30, 3, 64, 8192, 96_576_768]),
    ];
    for (name, [n_layers, n_kv_heads, head_dim, trained, weights]) in known {
        let model = served.get(&format!("/api/models/{name}")).await.json();
        assert_eq!(model["file"], Value::Null, "{name}");
        for n_ctx in [2048, 8192, 32_768, trained] {
            // Half precision, or a byte a value and a scale a token and head.
            for (kv_type, token_bytes) in [("f16", 2 * head_dim), ("int8", head_dim + 4)] {
                let mut told = model["requirements"].as_array().unwrap().iter();
                let told = told.find(|one| one["context"] == n_ctx && one["kv_type"] == kv_type);
                let Some(told) = told else {
                    assert!(n_ctx > trained, "{name} {n_ctx} {kv_type}");
                    continue;
                };
                let bytes = |part: &str| told[part]["host_bytes"].as_u64().unwrap();
                let cache = 2 * n_layers * n_kv_heads * token_bytes * n_ctx;
                assert_eq!(bytes("kv_cache"), cache, "{name} {n_ctx} {kv_type}");
                assert_eq!(bytes("weights"), weights, "{name}");
                let sum = weights + cache + bytes("workspace");
                assert_eq!(bytes("memory"), sum, "{name}");
                // A node for tiny models says that these do not fit.
                assert_eq!(told["fits"], false, "{name}");
            }
        }
    }
}
