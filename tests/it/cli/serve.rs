//! `ingle serve`.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::Ground;
use crate::http::wire::{read_to, request, rest};
use crate::http::{ask, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_loads_answers_logs_no_prompt_and_ends_on_a_signal() {
    let ground = Ground::new();
    let serving = ground.serve(&["tiny.gguf", "--log-format", "json"]).await;
    serving.until_ready().await;
    let secret = json!({"messages": [{"role": "user", "content": "canary-7041"}]});
    let answer = serving.post(&with(ask(5), &secret)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        serving.get("/v1/models").await.json()["data"][0]["id"],
        "tiny"
    );
    serving
        .post(&with(
            with(ask(5), &secret),
            &json!({"temperature": "canary-7042"}),
        ))
        .await;
    serving.signal(Signal::TERM);
    let ended = serving.ended().await;
    assert_eq!((ended.code, &*ended.out), (Some(0), ""), "{ended:?}");
    assert!(!ended.err.contains("canary"), "{}", ended.err);
    let lines: Vec<Value> = ended
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let is_loaded = |line: &Value| line["message"] == "loaded" && line["model"] == "tiny";
    assert!(lines.iter().any(is_loaded), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn even_a_debug_log_holds_no_prompt_and_no_key() {
    let ground = Ground::new();
    ground.write("keys", "sk-canary-1\n");
    let mut command = ground.command(&["serve", "tiny.gguf", "--api-key-file", "keys"]);
    command.env("INGLE_LOG", "trace");
    let serving = super::serving(command).await;
    let body = with(
        ask(5),
        &json!({"messages": [{"role": "user", "content": "canary-7041"}], "stop": "canary-7043"}),
    );
    let keyed = request(&body.to_string());
    let keyed = keyed.replace("host:", "authorization: Bearer sk-canary-1\r\nhost:");
    let answer = crate::http::wire::exchange(serving.address, &keyed).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let wrong = keyed.replace("sk-canary-1", "sk-canary-2");
    let refused = crate::http::wire::exchange(serving.address, &wrong).await;
    assert_eq!(refused.status, 401);
    serving.signal(Signal::TERM);
    let ended = serving.ended().await;
    assert!(ended.err.contains("answered"), "it logs: {}", ended.err);
    let told = ended.err.lines().find(|line| line.contains("canary"));
    assert_eq!(told, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_lets_a_stream_finish() {
    let ground = Ground::new();
    let serving = ground.serve(&["tiny.gguf"]).await;
    serving.until_ready().await;
    let body = with(ask(600), &json!({"stream": true}));
    let mut client = TcpStream::connect(serving.address).await.unwrap();
    let bytes = request(&body.to_string());
    client.write_all(bytes.as_bytes()).await.unwrap();
    read_to(&mut client, "\"content\":\"").await;
    serving.signal(Signal::TERM);
    let text = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(text.contains("data: [DONE]"), "cut off: {text}");
    assert_eq!(serving.ended().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let ground = Ground::new();
    let serving = ground.serve(&["tiny.gguf"]).await;
    serving.until_ready().await;
    let body = with(ask(8000), &json!({"stream": true}));
    let mut client = TcpStream::connect(serving.address).await.unwrap();
    let bytes = request(&body.to_string());
    client.write_all(bytes.as_bytes()).await.unwrap();
    read_to(&mut client, "\"content\":\"").await;
    serving.signal(Signal::INT);
    // The first one is heard when nobody is accepted any more.
    while TcpStream::connect(serving.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    serving.signal(Signal::INT);
    let text = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(!text.contains("[DONE]"), "it waited for the end");
    let ended = serving.ended().await;
    assert!(ended.err.contains("ended at once"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_told_before_it_listens() {
    let ground = Ground::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    ground.write("empty", "# nothing\n");
    let cases: [(&[&str], &str); 6] = [
        (&["serve", "smolm2"], "smollm2"),
        (&["serve", "missing.gguf"], "missing.gguf"),
        (&["serve", "--listen", "0.0.0.0:0"], "--api-key-file"),
        (&["serve", "--api-key-file", "nowhere"], "nowhere"),
        (&["serve", "--api-key-file", "empty"], "holds none"),
        (
            &["serve", "--listen", "192.0.2.1:1", "--insecure"],
            "192.0.2.1:1 cannot be listened on",
        ),
    ];
    for (arguments, part) in cases {
        let ended = ground.run(arguments).await;
        assert!(
            ended.sentence().contains(part),
            "{part:?} is not in {ended:?}"
        );
    }
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_ends_it() {
    let ground = Ground::new();
    ground.write("broken.gguf", "GGUF and nothing more");
    let serving = ground.serve(&["broken.gguf"]).await;
    let ended = serving.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.err.lines().last().unwrap();
    assert!(
        last.starts_with("error: broken could not be loaded: "),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_let_in_by_a_word_or_a_key() {
    let ground = Ground::new();
    ground.write("keys", "sk-a\n");
    for more in [["--insecure", "--offline"], ["--api-key-file", "keys"]] {
        let arguments = [["--listen", "0.0.0.0:0"], more].concat();
        let mut serving = ground.serve(&arguments).await;
        serving.address.set_ip("127.0.0.1".parse().unwrap());
        let status = serving.get("/v1/models").await.status;
        assert_eq!(status, if more[0] == "--insecure" { 200 } else { 401 });
        serving.signal(Signal::TERM);
        assert_eq!(serving.ended().await.code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_spans_stay_near_or_nothing_starts() {
    let ground = Ground::new();
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let mut far = ground.command(&["serve", "--offline"]);
    far.env(endpoint, "http://collector.example:4318");
    let refused = super::ended(far).await;
    let says = "in offline mode spans go to this machine or to a private address";
    assert!(refused.sentence().contains(says), "{refused:?}");
    let mut wrong = ground.command(&["serve"]);
    wrong.env(endpoint, "collector:4318");
    let refused = super::ended(wrong).await;
    assert!(refused.sentence().contains(endpoint), "{refused:?}");
    let mut near = ground.command(&["serve", "--offline"]);
    near.env(endpoint, "http://127.0.0.1:9");
    let serving = super::serving(near).await;
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
}

/// What computes is the team's, what waits is tokio's: no library starts threads of its own, which
/// would fight the team for the cores.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_is_anybody_elses_after_a_generation() {
    let ground = Ground::new();
    let serving = ground
        .serve(&["tiny.gguf", "--threads", "3", "--log-format", "json"])
        .await;
    serving.until_ready().await;
    let answer = serving.post(&ask(5)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let process = std::path::PathBuf::from(format!("/proc/{}", serving.process_id()));
    let mut names = Vec::new();
    for task in std::fs::read_dir(process.join("task")).unwrap() {
        let task = task.unwrap();
        if task.file_name() == *serving.process_id().to_string() {
            continue; // the main thread
        }
        // One that has just ended has no name any more.
        if let Ok(name) = std::fs::read_to_string(task.path().join("comm")) {
            names.push(name.trim().to_owned());
        }
    }
    let is_ours = |name: &String| {
        ["ingle-team-", "engine ", "tokio-", "ledger"]
            .iter()
            .any(|ours| name.starts_with(ours))
    };
    assert!(names.iter().all(is_ours), "{names:?}");
    let n_team = names.iter().filter(|name| name.starts_with("ingle-team-"));
    assert_eq!(n_team.count(), 2, "{names:?}");
}
