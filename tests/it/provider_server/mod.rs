//! A provider that does what a test says, byte by byte: the model's name in a request picks the case, so that a whole
//! router, or another program, can be driven against it.
//!
//! `say:8` answers eight tokens, `say:8:125` bills 125 micro-dollars for them, `fault:NAME` plays a case of
//! [`script::FAULTS`], and any other name answers like `say:8`. Under `/v1` it speaks as OpenAI and, at
//! `/v1/messages`, as Anthropic; under `/api/v1` as OpenRouter.

mod alone;
mod answers;
mod connection;
mod faults;
pub(crate) mod script;
mod whole;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) use words::{Shape, tokens};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Null where there is none.
    pub(crate) body: Value,
    /// What its answer is billed as, if it is billed.
    pub(crate) generation: Option<String>,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }
}

/// What an answer was billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Billed {
    pub(crate) prompt_tokens: u64,
    /// Those that were sent.
    pub(crate) completion_tokens: u64,
    pub(crate) micro_usd: u64,
    /// Whether the answer was sent to its end, with what it took.
    pub(crate) was_reported: bool,
}

/// What the server saw.
#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<Recorded>>,
    /// By generation.
    bills: Mutex<BTreeMap<String, Billed>>,
    n_generations: AtomicUsize,
    n_connections: AtomicUsize,
    n_gone: AtomicUsize,
}

/// A running server. Dropping it ends it.
pub(crate) struct ProviderServer {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProviderServer {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        shared.n_connections.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(connection::serve(stream, shared.clone()));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks so.
    pub(crate) fn base_url(&self, shape: Shape) -> String {
        let path = match shape {
            Shape::OpenAi => "/v1",
            Shape::OpenRouter => "/api/v1",
            Shape::Anthropic => "",
        };
        format!("http://{}{path}", self.address)
    }

    /// All that was asked so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(crate) fn n_requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.seen.n_connections.load(Ordering::SeqCst)
    }

    /// Clients that left before their answer had ended.
    pub(crate) fn n_gone(&self) -> usize {
        self.seen.n_gone.load(Ordering::SeqCst)
    }

    /// What was billed, by generation.
    pub(crate) fn bills(&self) -> BTreeMap<String, Billed> {
        self.seen.bills.lock().unwrap().clone()
    }
}

impl Drop for ProviderServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
