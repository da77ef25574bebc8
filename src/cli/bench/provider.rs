//! `ingle bench provider`: answers chats as OpenAI's API does, after a fixed time and with fixed words, so that what
//! stands before it can be measured.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct ProviderArgs {
    /// Where to listen; port 0 takes a free one. The address is the first line that is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Milliseconds until the first word
    #[arg(long, default_value_t = 20)]
    first_ms: u64,
    /// Milliseconds from one word to the next
    #[arg(long, default_value_t = 0)]
    gap_ms: u64,
    /// Words of an answer
    #[arg(long, default_value_t = 16)]
    tokens: u32,
    /// Stop after so many seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

pub(super) fn run(args: ProviderArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await;
        let listener =
            listener.with_context(|| format!("{} cannot be listened on", args.listen))?;
        writeln!(out, "http://{}", listener.local_addr()?)?;
        out.flush()?;
        let routes = Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(args);
        // A word leaves when it is said, not when the one before it has been acknowledged.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let serving = axum::serve(listener, routes).into_future();
        let bound = Duration::from_secs(args.seconds);
        // Whoever measures ends it; nobody has to.
        let _ = tokio::time::timeout(bound, serving).await;
        Ok(())
    })
}

async fn answer(State(args): State<ProviderArgs>, Json(body): Json<Value>) -> Response {
    let first = Instant::now() + Duration::from_millis(args.first_ms);
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let usage = json!({
        "prompt_tokens": 16,
        "completion_tokens": args.tokens,
        "total_tokens": 16 + args.tokens,
    });
    if body["stream"] != json!(true) {
        // In one piece or word by word: it is said in the same time.
        let n_gaps = args.tokens.saturating_sub(1);
        tokio::time::sleep_until(first + Duration::from_millis(args.gap_ms) * n_gaps).await;
        let text = "word ".repeat(args.tokens as usize);
        return Json(json!({
            "id": "chatcmpl-bench", "object": "chat.completion", "created": 0, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text}}],
            "usage": usage,
        }))
        .into_response();
    }
    let chunk = move |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 0,
            "model": model, "choices": choices, "usage": usage,
        });
        Event::default().data(chunk.to_string())
    };
    let words = chunk.clone();
    let words = stream::iter(0..args.tokens).then(move |n| {
        let gap = Duration::from_millis(args.gap_ms) * n;
        let event = words(
            json!([{"index": 0, "delta": {"content": "word "}}]),
            Value::Null,
        );
        async move {
            tokio::time::sleep_until(first + gap).await;
            event
        }
    });
    let end = [
        chunk(
            json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
            Value::Null,
        ),
        chunk(json!([]), usage),
        Event::default().data("[DONE]"),
    ];
    let events = words.chain(stream::iter(end)).map(Ok::<Event, Infallible>);
    Sse::new(events).into_response()
}
