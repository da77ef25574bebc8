//! The program as a person runs it.

#[cfg(target_os = "linux")]
mod alone;
mod bench;
mod bills;
mod carry;
mod doctor;
mod egress;
mod embed;
mod hand_over;
mod mcp;
mod node;
mod perplexity;
mod quantize;
mod reload;
mod run;
mod serve;
mod verbs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::gguf_file::TinyLlama;
use crate::http::wire::{self, Reply, request};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A folder of its own to run in, with a tiny model in it; nothing leaves the machine.
struct Ground {
    folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    /// The one sentence on stderr after `error: `.
    fn sentence(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        let line = self.err.lines().last().unwrap_or_default();
        line.strip_prefix("error: ")
            .unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Ground {
    fn new() -> Self {
        let ground = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let tiny = TinyLlama {
            context_length: 8192,
            ..TinyLlama::default()
        };
        tiny.write(&ground.path("tiny.gguf"));
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The program, with no setting from outside.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingle"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("INGLE_HOME", self.path("store"))
            .env("INGLE_OFFLINE", "true")
            .env("INGLE_THREADS", "2")
            // Nobody is looked for at port 0.
            .env("INGLE_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments)).await
    }

    async fn serve(&self, arguments: &[&str]) -> Serving {
        serving(self.command(&[&["serve"], arguments].concat())).await
    }
}

/// Starts a server and waits until it says where it listens.
async fn serving(mut command: Command) -> Serving {
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, out.read_line(&mut line));
    read.await.unwrap().unwrap();
    let address = line.strip_prefix("http://").map(str::trim_end);
    // Read as it comes: a full pipe would hold the server up.
    let err = tokio::spawn(read_all(child.stderr.take().unwrap()));
    let Some(address) = address.and_then(|address| address.parse().ok()) else {
        panic!("it says {line:?} and {}", err.await.unwrap());
    };
    Serving {
        child,
        out,
        err,
        address,
    }
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(PATIENCE, command.output());
    let output = output.await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Runs with `input` on stdin.
async fn with_input(mut command: Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("it ends").unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn read_all(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).await.unwrap();
    text
}

/// A running `ingle serve`.
struct Serving {
    child: Child,
    out: BufReader<tokio::process::ChildStdout>,
    err: JoinHandle<String>,
    address: SocketAddr,
}

impl Serving {
    fn process_id(&self) -> u32 {
        self.child.id().unwrap()
    }

    async fn get(&self, path: &str) -> Reply {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        wire::exchange(self.address, &head).await
    }

    async fn post(&self, body: &Value) -> Reply {
        wire::exchange(self.address, &request(&body.to_string())).await
    }

    async fn until_ready(&self) {
        let give_up = Instant::now() + PATIENCE;
        while self.get("/health").await.status != 200 {
            assert!(Instant::now() < give_up, "it does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        signal_to(&self.child, signal);
    }

    /// What else it wrote, once it has ended.
    async fn ended(mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait());
        let code = status.await.expect("it ends").unwrap().code();
        let (out, err) = (read_all(self.out).await, self.err.await.unwrap());
        Ended { code, out, err }
    }
}

fn signal_to(child: &Child, signal: rustix::process::Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}
