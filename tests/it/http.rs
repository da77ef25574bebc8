//! The server over real sockets, with a tiny model behind it.

mod chat;
mod embeddings;
mod guard;
mod hostile;
mod leaving;
mod life;
mod mcp;
mod models;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ingle::backend::local::LocalBackend;
use ingle::engine::EngineSnapshot;
use ingle::http::{ApiKeys, Limits, Readiness, Server, ServerOptions};
use ingle::telemetry;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gguf_file::TinyLlama;
use crate::pool::{House, Wish};
use wire::{Reply, request};

/// What a test wants otherwise than usual.
pub(crate) struct Options {
    keys: Option<&'static str>,
    limits: Limits,
    drain: Duration,
    tiny: TinyLlama,
    wish: Wish,
    /// Why no GPU is used.
    gpu_not_used: Option<&'static str>,
    /// Whether what it was started with is loaded.
    ready: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: None,
            limits: Limits::default(),
            drain: Duration::from_secs(20),
            tiny: TinyLlama::default(),
            wish: Wish::default(),
            gpu_not_used: None,
            ready: true,
        }
    }
}

/// A running server of one model called `tiny`.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    house: House,
    readiness: Readiness,
    stop: CancellationToken,
    running: JoinHandle<usize>,
}

impl Served {
    /// Starts it; its model loads on first request.
    pub(crate) async fn start(options: Options) -> Self {
        let house = House::new(options.wish);
        house.serve("tiny", &options.tiny);
        let server = Server::bind(ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            keys: options.keys.map(|keys| ApiKeys::parse(keys).unwrap()),
            limits: options.limits,
            router: crate::router::local_only(LocalBackend::new(house.pool.clone())),
            recorded: telemetry::record_metrics().unwrap(),
            fingerprint: "b-test".to_owned(),
            gpu_not_used: options.gpu_not_used.map(ToOwned::to_owned),
        })
        .await
        .unwrap();
        let address = server.local_addr().unwrap();
        let readiness = server.readiness();
        if options.ready {
            readiness.set();
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone(), options.drain));
        Self {
            address,
            house,
            readiness,
            stop,
            running,
        }
    }

    pub(crate) async fn usual() -> Self {
        Self::start(Options::default()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        wire::exchange(self.address, &(head + "connection: close\r\n\r\n")).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Reply {
        wire::exchange(self.address, &request(&body.to_string())).await
    }

    /// The engine's figures; the model is in memory.
    async fn engine(&self) -> EngineSnapshot {
        let mut status = self.house.pool.status().await;
        status.swap_remove(0).ready.unwrap().engine
    }

    /// Waits until the engine's figures are as `is` says.
    async fn until(&self, what: &str, is: impl Fn(&EngineSnapshot) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            let engine = self.engine().await;
            if is(&engine) {
                return;
            }
            assert!(Instant::now() < give_up, "not {what}: {engine:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until nothing runs and every block is free.
    async fn until_idle(&self) {
        self.until("idle", |engine| {
            let all_free = engine.n_free_blocks == engine.n_blocks;
            engine.n_running == 0 && engine.n_waiting == 0 && all_free
        })
        .await;
    }
}

/// A greedy question that is answered with exactly `n` tokens.
pub(crate) fn ask(n: u32) -> Value {
    json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hello, hearth!"}],
        "temperature": 0,
        "max_tokens": n,
        "ignore_eos": true,
    })
}

/// `value` with the fields of `more` set.
pub(crate) fn with(mut value: Value, more: &Value) -> Value {
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    value
}
