//! Clients that leave, or stay and read nothing: what they held is free again.

use std::time::{Duration, Instant};

use ingle::engine::EngineOptions;
use ingle::http::Limits;
use ingle::pool::ModelState;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::wire::{self, read_to, request};
use super::{Options, Served, ask, with};
use crate::gguf_file::TinyLlama;
use crate::pool::Wish;

/// A model that can talk for long.
fn talkative() -> Options {
    Options {
        tiny: TinyLlama {
            context_length: 8192,
            ..TinyLlama::default()
        },
        ..Options::default()
    }
}

/// Asks for a stream and waits until it is in the engine's hands.
pub(super) async fn begin(served: &Served, body: &Value) -> TcpStream {
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let bytes = request(&body.to_string());
    client.write_all(bytes.as_bytes()).await.unwrap();
    read_to(&mut client, "\"role\":\"assistant\"").await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_stream_frees_its_blocks() {
    let served = Served::start(talkative()).await;
    let long = with(ask(8000), &json!({"stream": true}));
    let mut client = begin(&served, &long).await;
    read_to(&mut client, "\"content\":\"").await;
    served
        .until("running", |engine| engine.n_running == 1)
        .await;
    drop(client);
    let left = Instant::now();
    served.until_idle().await;
    assert!(
        left.elapsed() < Duration::from_secs(2),
        "{:?}",
        left.elapsed()
    );
    let engine = served.engine().await;
    assert_eq!(engine.n_cancelled_total, 1);
    assert!(engine.n_generated_total < 8000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_a_whole_answer_frees_its_blocks() {
    let served = Served::start(talkative()).await;
    served.post(&ask(1)).await;
    let bytes = request(&ask(8000).to_string());
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(bytes.as_bytes()).await.unwrap();
    served
        .until("running", |engine| engine.n_running == 1)
        .await;
    drop(client);
    served.until_idle().await;
    assert_eq!(served.engine().await.n_cancelled_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_the_queue_is_not_answered() {
    let served = Served::start(Options {
        wish: Wish {
            engine: EngineOptions {
                max_running: 1,
                ..EngineOptions::default()
            },
            ..Wish::default()
        },
        ..talkative()
    })
    .await;
    let long = with(ask(8000), &json!({"stream": true}));
    let first = begin(&served, &long).await;
    let second = begin(&served, &long).await;
    served.until("queued", |engine| engine.n_waiting == 1).await;
    drop(second);
    served.until("left", |engine| engine.n_waiting == 0).await;
    assert_eq!(served.engine().await.n_running, 1, "the first one goes on");
    drop(first);
    served.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_let_go() {
    let served = Served::start(Options {
        limits: Limits {
            write_stall: Duration::from_millis(300),
            ..Limits::default()
        },
        wish: Wish {
            engine: EngineOptions {
                event_queue_len: 4,
                reader_timeout: Duration::from_mins(1),
                ..EngineOptions::default()
            },
            ..Wish::default()
        },
        ..talkative()
    })
    .await;
    // The smallest buffer there is, so that a stream of a tiny model fills it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let mut client = socket.connect(served.address).await.unwrap();
    let bytes = request(&with(ask(8000), &json!({"stream": true})).to_string());
    client.write_all(bytes.as_bytes()).await.unwrap();
    let give_up = Instant::now() + Duration::from_secs(50);
    loop {
        let status = served.house.pool.status().await;
        let ended = status.first().is_some_and(|model| {
            let engine = model.ready.as_ref().map(|ready| &ready.engine);
            engine.is_some_and(|engine| engine.n_cancelled_total == 1)
                && model.state == (ModelState::Ready { n_leases: 0 })
        });
        if ended {
            break;
        }
        assert!(Instant::now() < give_up, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served.until_idle().await;
    let cut = wire::rest(&mut client).await.unwrap();
    assert!(!String::from_utf8_lossy(&cut).contains("[DONE]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_waits_says_that_it_is_alive() {
    let served = Served::start(Options {
        limits: Limits {
            keep_alive: Duration::from_millis(20),
            ..Limits::default()
        },
        wish: Wish {
            engine: EngineOptions {
                max_running: 1,
                ..EngineOptions::default()
            },
            ..Wish::default()
        },
        ..talkative()
    })
    .await;
    let long = with(ask(8000), &json!({"stream": true}));
    let first = begin(&served, &long).await;
    // Behind the first one it waits; what comes meanwhile are comments.
    let mut second = begin(&served, &long).await;
    read_to(&mut second, "\n: still here\n").await;
    drop((first, second));
    served.until_idle().await;
}
