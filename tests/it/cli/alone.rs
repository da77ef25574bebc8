//! Nothing leaves this machine offline: shown by a kernel that ends whoever tries, and by a network
//! with nobody in it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use super::carry::settle;
use super::{Ground, PATIENCE, ended, serving};
use crate::http::wire::exchange;
use crate::http::{ask, with};

/// What a process dies of that does what the kernel was told to forbid.
const SIGSYS: i32 = 31;
/// How the wrapper ends where the kernel does not let it.
const CANNOT: i32 = 77;

/// The wrapper of `tests/data/alone.c`, compiled once.
fn alone() -> &'static Path {
    static ALONE: OnceLock<PathBuf> = OnceLock::new();
    ALONE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (path, part) = (
            folder.join("alone"),
            format!("alone.{}", std::process::id()),
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/alone.c");
        let compiler = std::process::Command::new("cc")
            .args(["-O1", "-o"])
            .arg(folder.join(&part))
            .arg(source)
            .status();
        assert!(
            compiler
                .expect("there is a C compiler: rustc links with it")
                .success()
        );
        fs::rename(folder.join(&part), &path).unwrap();
        path
    })
}

impl Ground {
    /// The program as a process that reaches nobody; how: `silent` or `netns`.
    fn wrapped(&self, how: &str, program: &Path, arguments: &[&str]) -> Command {
        let plain = self.command(arguments);
        let plain = plain.as_std();
        let mut command = Command::new(alone());
        command
            .arg(how)
            .arg(program)
            .args(plain.get_args())
            .env_clear();
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap());
        }
        command
            .current_dir(self.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn silent(&self, arguments: &[&str]) -> Command {
        self.wrapped("silent", Path::new(env!("CARGO_BIN_EXE_ingle")), arguments)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_no_verb_tries_to_reach_anybody() {
    let ground = Ground::new();
    ground.write("text", &"Some words of a text. ".repeat(20));
    let folder = ground.path("store/gguf");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(ground.path("tiny.gguf"), folder.join("put.gguf")).unwrap();
    settle(&folder.join("put.gguf"));
    let here: [&[&str]; 11] = [
        &["list"],
        &["inspect", "tiny.gguf"],
        &["info", "put"],
        &["gpu"],
        &["run", "tiny.gguf", "hi", "--max-tokens", "4"],
        &["perplexity", "text", "-m", "put", "--ctx-chunk", "64"],
        &["import", "store"],
        &["bundle", "create", "-m", "put", "put.tar"],
        &["bundle", "verify", "put.tar"],
        &["bundle", "install", "put.tar"],
        &["pull", "put"],
    ];
    for arguments in here {
        let ended = ended(ground.silent(arguments)).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    }
    let not_here: [&[&str]; 5] = [
        &["pull", "smollm2"],
        &["run", "smollm2", "hi"],
        &["serve", "smollm2"],
        &["perplexity", "text", "-m", "smollm2"],
        &["bundle", "create", "-m", "smollm2", "out.tar"],
    ];
    for arguments in not_here {
        let ended = ended(ground.silent(arguments)).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        let last = ended.err.lines().last().unwrap();
        let is_said = last.contains("offline") || last.contains("ingle pull");
        assert!(is_said, "{arguments:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_a_server_tries_to_reach_nobody() {
    let ground = Ground::new();
    let mut command = ground.silent(&["serve", "tiny.gguf"]);
    command.env("INGLE_OFFLINE", "1");
    let serving = serving(command).await;
    serving.until_ready().await;
    for more in [json!({}), json!({"stream": true})] {
        let answer = serving.post(&with(ask(5), &more)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let fetching = with(ask(5), &json!({"model": "smollm2"}));
    let refused = serving.post(&fetching).await;
    assert!(
        refused.status >= 400 && refused.body.contains("offline"),
        "{refused:?}"
    );
    let pull = "POST /api/models/smollm2/pull HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-length: 0\r\n\r\n";
    let refused = exchange(serving.address, pull).await;
    assert!(refused.body.contains("offline"), "{refused:?}");
    for path in ["/health", "/metrics", "/v1/models", "/api/models"] {
        assert_eq!(serving.get(path).await.status, 200, "{path}");
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.code, Some(0));
}

/// What the two tests above would see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_the_first_try_ends_the_process() {
    let ground = Ground::new();
    for endpoint in ["http://127.0.0.1:9", "http://somewhere.invalid"] {
        let mut command = ground.silent(&["pull", "smollm2"]);
        command
            .env("INGLE_OFFLINE", "0")
            .env("HF_ENDPOINT", endpoint);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(SIGSYS),
            "{endpoint}: {output:?}"
        );
    }
}

/// Everything a machine without a network needs, out of one archive.
const SCRIPT: &str = r"
set -eu
tar -xf models.tar bin/ingle
bin/ingle bundle verify models.tar
bin/ingle bundle install models.tar --bin-dir installed
installed/ingle serve smollm2 --listen 127.0.0.1:11434 > address 2> log &
n=0
until [ -s address ]; do n=$((n + 1)); [ $n -lt 600 ]; sleep 0.1; done
export INGLE_LISTEN=127.0.0.1:11434
installed/ingle run smollm2 'What is the capital of France?' --temperature 0 --max-tokens 12 -v
installed/ingle ps
installed/ingle pull smollm2
kill -TERM $!
wait $!
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_archive_serves_where_there_is_no_network() {
    let ground = Ground::with_smollm2();
    let asked = ["run", "smollm2", "What is the capital of France?"];
    let greedy = ["--temperature", "0", "--max-tokens", "12"];
    let answer = ground.run(&[&asked[..], &greedy[..]].concat()).await;
    let create = [
        "bundle",
        "create",
        "-m",
        "smollm2",
        "--with-binary",
        "models.tar",
    ];
    ground.run(&create).await.succeeded();
    fs::remove_dir_all(ground.path("store")).unwrap();
    let mut command = ground.wrapped("netns", Path::new("sh"), &["-c", SCRIPT]);
    command
        .env("PATH", "/usr/bin:/bin")
        .env("INGLE_OFFLINE", "1");
    let ended = ended(command).await;
    if ended.code == Some(CANNOT) {
        eprintln!(
            "SKIPPED, because this kernel lends no network namespace: {}",
            ended.err
        );
        return;
    }
    let out = ended.succeeded();
    assert!(out.contains("models.tar is whole"), "{out}");
    assert!(out.contains("installed/ingle is installed"), "{out}");
    assert!(
        out.contains(answer.succeeded()),
        "{answer:?} is not in {out}"
    );
    assert!(ended.err.contains("answer: "), "{}", ended.err);
    assert!(
        !ended.err.contains("loaded"),
        "the server answers it: {}",
        ended.err
    );
}
