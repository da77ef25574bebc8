//! `ingle mcp`: stdout is the protocol's, whoever answers.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Ground, PATIENCE, signal_to, with_input};

/// A client on the other end of stdin and stdout.
struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin,
            stdout,
        }
    }

    async fn opened(command: Command) -> Self {
        let mut client = Self::start(command);
        let answer = client.ask(&opening()).await;
        assert_eq!(
            answer["result"]["serverInfo"]["name"], "local-models",
            "{answer}"
        );
        let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        client.write(&told.to_string()).await;
        client
    }

    async fn write(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    async fn read(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line.expect("a line").unwrap().expect("not the end");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    async fn ask(&mut self, message: &Value) -> Value {
        self.write(&message.to_string()).await;
        loop {
            let answer = self.read().await;
            if answer["id"] == message["id"] {
                return answer;
            }
        }
    }

    async fn tool(&mut self, name: &str, arguments: &Value) -> Value {
        let answer = self.ask(&call(name, arguments)).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    async fn ended(mut self) -> Option<i32> {
        drop(self.stdin);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert_eq!(self.stdout.next_line().await.unwrap(), None);
        status.expect("it ends").unwrap().code()
    }
}

fn opening() -> Value {
    json!({
        "jsonrpc": "2.0", "id": "open", "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    })
}

fn call(name: &str, arguments: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": name, "arguments": arguments},
    })
}

fn at(ground: &Ground, address: &impl ToString) -> Command {
    let mut command = ground.command(&["mcp"]);
    command.env("INGLE_LISTEN", address.to_string());
    command
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_running_server_its_models_are_the_clients() {
    let ground = Ground::new();
    ground.write("keys", "alpha\n");
    let serving = ground.serve(&["tiny.gguf", "--api-key-file", "keys"]).await;
    let mut refused = Client::start(at(&ground, &serving.address));
    let answer = refused.ask(&opening()).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("API key"), "{answer}");
    assert_eq!(refused.ended().await, Some(0));

    let mut command = at(&ground, &serving.address);
    command.env("INGLE_API_KEY", "alpha");
    let mut client = Client::opened(command).await;
    let loaded = client.tool("load_model", &json!({"model": "tiny"})).await;
    assert_eq!(
        (&loaded["model"], &loaded["context"]),
        (&json!("tiny"), &json!(8192))
    );
    let listed = client.tool("list_models", &json!({})).await;
    let models = listed["models"].as_array().unwrap();
    let tiny = models.iter().find(|model| model["id"] == "tiny").unwrap();
    assert_eq!(tiny["state"], "ready");
    let mut unload = call("unload_model", &json!({"model": "tiny"}));
    unload["params"]["_meta"] = json!({"progressToken": 1});
    let unloaded = client.ask(&unload).await;
    assert_eq!(unloaded["result"]["structuredContent"]["unloaded"], true);
    assert_eq!(client.ended().await, Some(0));
    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_one_is_started_that_others_can_ask() {
    let ground = Ground::new();
    let address = free_address();
    let mut client = Client::opened(at(&ground, &address)).await;
    let mut ps = ground.command(&["ps"]);
    ps.env("INGLE_LISTEN", &address);
    let ps = super::ended(ps).await;
    assert_eq!(ps.code, Some(0), "{ps:?}");
    let failed = client
        .ask(&call("load_model", &json!({"model": "smollm2"})))
        .await;
    let text = failed["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("offline"), "{failed}");

    // A second client asks the first one's, and starts its own when that has gone.
    let mut second = Client::opened(at(&ground, &address)).await;
    second.tool("list_models", &json!({})).await;
    assert_eq!(client.ended().await, Some(0));
    let listed = second.tool("list_models", &json!({})).await;
    assert!(listed["models"].is_array(), "{listed}");
    signal_to(&second.child, rustix::process::Signal::TERM);
    assert_eq!(second.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_closes_the_started_server_to_others_but_not_to_the_client() {
    let ground = Ground::new();
    ground.write("keys", "alpha\n");
    let address = free_address();
    let mut command = at(&ground, &address);
    command.env("INGLE_API_KEY_FILE", ground.path("keys"));
    let mut client = Client::opened(command).await;
    client.tool("list_models", &json!({})).await;
    let mut ps = ground.command(&["ps"]);
    ps.env("INGLE_LISTEN", &address);
    let ps = super::ended(ps).await;
    assert!(ps.sentence().contains("no API key"), "{ps:?}");
    assert_eq!(client.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered_line_by_line_and_what_follows_is_heard() {
    let ground = Ground::new();
    let mut client = Client::opened(ground.command(&["mcp"])).await;
    for (line, code) in [
        ("{", -32700),
        ("nonsense", -32700),
        (
            "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            -32600,
        ),
        ("3", -32600),
        ("\"text\"", -32600),
    ] {
        client.write(line).await;
        let answer = client.read().await;
        assert_eq!(
            (&answer["error"]["code"], answer.get("id")),
            (&json!(code), None),
            "{line}"
        );
    }
    let answer = client
        .ask(&json!({"jsonrpc": "2.0", "id": 4, "method": 3}))
        .await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("method must be"), "{answer}");
    assert_eq!(answer["error"]["code"], -32600);
    client.write(&"x".repeat(5 << 20)).await;
    assert_eq!(client.read().await["error"]["code"], -32600);
    client.stdin.write_all(b"\xff\xfe\n\n  \r\n").await.unwrap();
    assert_eq!(client.read().await["error"]["code"], -32700);
    let pong = client
        .ask(&json!({"jsonrpc": "2.0", "id": 5, "method": "ping"}))
        .await;
    assert_eq!(pong["result"], json!({}));
    assert_eq!(client.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_gets_every_answer_before_the_end() {
    let ground = Ground::new();
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let input = format!("{}\n{list}", opening());
    let ended = with_input(ground.command(&["mcp"]), &input).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    assert_eq!(lines[1]["result"]["tools"].as_array().unwrap().len(), 5);
    let empty = with_input(ground.command(&["mcp"]), "").await;
    assert_eq!((empty.code, &*empty.out), (Some(0), ""), "{empty:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_the_revision_without_sessions_is_passed_on_too() {
    let ground = Ground::new();
    let mut client = Client::start(ground.command(&["mcp"]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    let discover = json!({
        "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta},
    });
    let found = client.ask(&discover).await;
    assert!(found["result"]["supportedVersions"].is_array(), "{found}");
    let mut list = call("list_models", &json!({}));
    list["params"]["_meta"] = meta;
    let listed = client.ask(&list).await;
    assert!(
        listed["result"]["structuredContent"]["models"].is_array(),
        "{listed}"
    );
    let ended = tokio::time::timeout(Duration::from_secs(30), client.ended()).await;
    assert_eq!(ended.unwrap(), Some(0));
}
