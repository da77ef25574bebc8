//! `/mcp` as a stranger sees it on the wire.

mod bounds;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{self, Reply};
use super::{Options, Served};
use crate::gguf_file::TinyLlama;
use crate::pool::{Wish, bytes_of};

const ACCEPT: &str = "accept: application/json, text/event-stream\r\n";
const VERSION: &str = "2025-11-25";

fn initialize(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    })
}

fn call(id: u32, tool: &str, arguments: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    })
}

fn post(body: &str, headers: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The messages of an answer, whichever form it has.
fn messages(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    if reply.header("content-type") == Some("application/json") {
        return vec![reply.json()];
    }
    let lines = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data:"));
    let data = lines.map(str::trim).filter(|data| !data.is_empty());
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// One session.
struct Client<'a> {
    served: &'a Served,
    headers: String,
}

impl<'a> Client<'a> {
    async fn open(served: &'a Served) -> Self {
        let request = post(&initialize(VERSION).to_string(), ACCEPT);
        let reply = wire::exchange(served.address, &request).await;
        let session = reply.header("mcp-session-id").expect("a session");
        assert!(session.bytes().all(|byte| byte.is_ascii_graphic()));
        let headers =
            format!("{ACCEPT}mcp-session-id: {session}\r\nmcp-protocol-version: {VERSION}\r\n");
        let client = Self { served, headers };
        let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let reply = client.send(&told).await;
        assert_eq!((reply.status, &*reply.body), (202, ""));
        client
    }

    async fn send(&self, message: &Value) -> Reply {
        let request = post(&message.to_string(), &self.headers);
        wire::exchange(self.served.address, &request).await
    }

    /// The answer to a request, after what was told before it.
    async fn ask(&self, message: &Value) -> Value {
        let mut messages = messages(&self.send(message).await);
        let answer = messages.pop().unwrap();
        assert_eq!(answer["id"], message["id"], "{answer}");
        answer
    }

    async fn method(&self, method: &str, params: &Value) -> Value {
        self.ask(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
            .await
    }

    /// What a tool gives, after checking that it says it twice.
    async fn tool(&self, tool: &str, arguments: &Value) -> Value {
        let answer = self.ask(&call(1, tool, arguments)).await;
        let result = &answer["result"];
        assert_eq!(result["isError"], false, "{answer}");
        let text = result["content"][0]["text"].as_str().unwrap();
        let said: Value = serde_json::from_str(text).unwrap();
        assert_eq!(said, result["structuredContent"]);
        said
    }

    /// The one sentence of a tool that could not do it.
    async fn failure(&self, tool: &str, arguments: &Value) -> String {
        let answer = self.ask(&call(1, tool, arguments)).await;
        let result = &answer["result"];
        assert_eq!(result["isError"], true, "{answer}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_is_the_clients_where_it_is_known_and_the_latest_otherwise() {
    let served = Served::usual().await;
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        (VERSION, VERSION),
        ("1999-01-01", VERSION),
    ] {
        let request = post(&initialize(asked).to_string(), ACCEPT);
        let reply = wire::exchange(served.address, &request).await;
        let answer = messages(&reply).pop().unwrap();
        let result = &answer["result"];
        assert_eq!(result["protocolVersion"], agreed, "{answer}");
        assert_eq!(result["serverInfo"]["name"], "local-models");
        assert!(result["capabilities"]["tools"].is_object(), "{answer}");
        assert!(result["capabilities"]["resources"].is_object(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_say_what_they_take_and_do_it() {
    let served = Served::usual().await;
    let client = Client::open(&served).await;
    let tools = client.method("tools/list", &json!({})).await;
    let tools = tools["result"]["tools"].as_array().unwrap().clone();
    let said: Vec<_> = tools
        .iter()
        .map(|tool| (tool["name"].as_str(), tool["description"].as_str()))
        .collect();
    let known = [
        ("list_models", "List available local models"),
        ("load_model", "Load a model into memory"),
        ("unload_model", "Unload model to free memory"),
        ("model_info", "Get model capabilities and requirements"),
        ("pull_model", "Download a model's file without loading it"),
    ];
    assert_eq!(said, known.map(|(name, text)| (Some(name), Some(text))));
    for tool in &tools {
        assert_eq!(tool["inputSchema"]["type"], "object");
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
        assert_eq!(tool["outputSchema"]["type"], "object");
    }

    let tiny = json!({"model": "tiny"});
    let list = client.tool("list_models", &json!({})).await;
    assert_eq!(list, served.get("/api/models").await.json());
    let info = client.tool("model_info", &tiny).await;
    assert_eq!(
        (&info["id"], &info["state"]),
        (&json!("tiny"), &json!("absent"))
    );
    assert_eq!(info["requirements"][0]["fits"], true);
    let pulled = client.tool("pull_model", &tiny).await;
    assert!(
        pulled["path"].as_str().unwrap().ends_with("tiny.gguf"),
        "{pulled}"
    );
    let loaded = client
        .tool("load_model", &json!({"model": "tiny", "keep_alive": "10m"}))
        .await;
    assert_eq!(
        (&loaded["model"], &loaded["context"]),
        (&json!("tiny"), &json!(512))
    );
    let info = client.tool("model_info", &tiny).await;
    assert_eq!(
        (&info["state"], &info["keep_alive"]),
        (&json!("ready"), &json!(600.0))
    );
    let unloaded = client.tool("unload_model", &tiny).await;
    assert_eq!(unloaded, json!({"model": "tiny", "unloaded": true}));
    assert!(served.house.pool.status().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tool_cannot_do_is_told_its_caller_and_what_is_no_call_the_program() {
    let served = Served::start(Options {
        wish: Wish {
            budget_bytes: Some(bytes_of(&TinyLlama::default()).await / 2),
            ..Wish::default()
        },
        ..Options::default()
    })
    .await;
    let client = Client::open(&served).await;
    for (tool, arguments, part) in [
        ("load_model", json!({"model": "tine"}), "did you mean"),
        (
            "load_model",
            json!({"model": "tiny"}),
            "the budget for models is",
        ),
        (
            "load_model",
            json!({"model": "tiny", "keep_alive": "soon"}),
            "is no time",
        ),
        ("load_model", json!({"model": "smollm2"}), "offline"),
        ("pull_model", json!({"model": "smollm2"}), "offline"),
        ("unload_model", json!({"model": "../etc"}), "etc"),
        ("model_info", json!({"model": ""}), "model"),
    ] {
        let sentence = client.failure(tool, &arguments).await;
        assert!(sentence.contains(part), "{tool} {arguments}: {sentence}");
    }
    for (tool, arguments, part) in [
        (
            "delete_everything",
            json!({}),
            "Unknown tool: delete_everything",
        ),
        ("load_model", json!({}), "model is missing"),
        ("load_model", json!({"model": 3}), "model must be a string"),
        (
            "load_model",
            json!({"model": "tiny", "keep_alive": []}),
            "keep_alive must be",
        ),
        (
            "load_model",
            json!({"model": "tiny", "force": true}),
            "\"force\"",
        ),
        ("list_models", json!({"all": true}), "takes none"),
        ("list_models", json!([]), "tools/call"),
        ("list_models", json!("x"), "tools/call"),
    ] {
        let answer = client.ask(&call(1, tool, &arguments)).await;
        assert_eq!(answer["error"]["code"], -32602, "{tool}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{tool} {arguments}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_unknown_or_asked_in_another_shape_is_an_error_of_the_protocol() {
    let served = Served::usual().await;
    let client = Client::open(&served).await;
    for (method, params, code) in [
        ("tools/call", json!({}), -32602),
        ("tools/list", json!({"cursor": "x"}), -32602),
        ("resources/read", json!({"uri": 3}), -32602),
        (
            "resources/read",
            json!({"uri": "ingle://models/none"}),
            -32002,
        ),
        (
            "resources/read",
            json!({"uri": "file:///etc/passwd"}),
            -32002,
        ),
        ("prompts/list", json!({}), -32601),
        ("no/such", json!({}), -32601),
    ] {
        let answer = client.method(method, &params).await;
        assert_eq!(answer["error"]["code"], code, "{method}: {answer}");
    }
    assert_eq!(client.method("ping", &json!({})).await["result"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_the_list_and_the_models_that_are_here() {
    let served = Served::usual().await;
    served.house.serve("a b", &TinyLlama::default());
    let client = Client::open(&served).await;
    let list = client.method("resources/list", &json!({})).await;
    let list = list["result"]["resources"].as_array().unwrap().clone();
    let uris: Vec<_> = list
        .iter()
        .map(|one| one["uri"].as_str().unwrap())
        .collect();
    assert_eq!(
        uris,
        [
            "ingle://models",
            "ingle://models/a%20b",
            "ingle://models/tiny"
        ]
    );
    let templates = client.method("resources/templates/list", &json!({})).await;
    let template = &templates["result"]["resourceTemplates"][0]["uriTemplate"];
    assert_eq!(template, "ingle://models/{id}");
    for (uri, path) in [
        ("ingle://models", "/api/models"),
        ("ingle://models/tiny", "/api/models/tiny"),
        ("ingle://models/a%20b", "/api/models/a%20b"),
    ] {
        let read = client.method("resources/read", &json!({"uri": uri})).await;
        let contents = &read["result"]["contents"][0];
        assert_eq!(
            (&contents["uri"], &contents["mimeType"]),
            (&json!(uri), &json!("application/json"))
        );
        let said: Value = serde_json::from_str(contents["text"].as_str().unwrap()).unwrap();
        assert_eq!(said, served.get(path).await.json());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_rises_and_comes_before_the_answer_and_only_where_it_was_asked_for() {
    let served = Served::usual().await;
    let client = Client::open(&served).await;
    let mut load = call(5, "load_model", &json!({"model": "tiny"}));
    load["params"]["_meta"] = json!({"progressToken": "t-1"});
    let mut told = messages(&client.send(&load).await);
    let answer = told.pop().unwrap();
    assert_eq!(answer["result"]["structuredContent"]["model"], "tiny");
    assert!(told.len() >= 3, "{told:?}");
    let mut last = -1.0;
    for step in &told {
        assert_eq!(step["method"], "notifications/progress");
        let params = &step["params"];
        assert_eq!(
            (&params["progressToken"], &params["total"]),
            (&json!("t-1"), &json!(1.0))
        );
        let progress = params["progress"].as_f64().unwrap();
        assert!(last < progress && progress <= 1.0, "{told:?}");
        assert!(!params["message"].as_str().unwrap().is_empty());
        last = progress;
    }
    assert!((last - 1.0).abs() < 1e-9, "{told:?}");
    client.tool("unload_model", &json!({"model": "tiny"})).await;
    load["params"]
        .as_object_mut()
        .unwrap()
        .shift_remove("_meta");
    assert_eq!(messages(&client.send(&load).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_is_not_answered_and_its_load_goes_on() {
    let budget = bytes_of(&TinyLlama::default()).await * 13 / 10;
    let served = Served::start(Options {
        wish: Wish {
            budget_bytes: Some(budget),
            ..Wish::default()
        },
        ..Options::default()
    })
    .await;
    served.house.serve("second", &TinyLlama::default());
    let client = Client::open(&served).await;
    let lease = served.house.pool.acquire("tiny", None).await.unwrap();
    let load = call(9, "load_model", &json!({"model": "second"})).to_string();
    let mut waiting = TcpStream::connect(served.address).await.unwrap();
    let request = post(&load, &client.headers);
    waiting.write_all(request.as_bytes()).await.unwrap();
    wire::read_to(&mut waiting, "\r\n\r\n").await;
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while served.house.pool.status().await.len() < 2 {
        assert!(std::time::Instant::now() < give_up, "it does not queue");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9},
    });
    assert_eq!(client.send(&cancel).await.status, 202);
    let rest = wire::rest(&mut waiting);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), rest).await;
    if let Ok(rest) = ended {
        let rest = String::from_utf8(rest.unwrap()).unwrap();
        assert!(!rest.contains("\"result\""), "{rest}");
    }
    drop(lease);
    let loaded = served.house.pool.acquire("second", None).await.unwrap();
    assert_eq!(loaded.id.as_str(), "second");
}
