//! The local backend: chats as streams of text.

mod predict;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ingle::backend::local::LocalBackend;
use ingle::backend::{BackendErrorKind, ChatStream};
use ingle::chat::{ChatDelta, ChatRequest, FinishReason, Message, Role, Sampling, Usage};
use ingle::engine::{EngineOptions, Event, GenerateRequest};
use ingle::pool::ModelState;
use ingle::text::{Framing, SpecialTokens};

use crate::fixtures;
use crate::gguf_file::TinyLlama;
use crate::pool::{House, Wish};

fn ask(model: &str, text: &str, max_new_tokens: Option<u32>) -> ChatRequest {
    ChatRequest {
        sampling: Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        max_new_tokens,
        ..ChatRequest::new(model, vec![Message::text(Role::User, text)])
    }
}

/// A house with a tiny model that never ends its turn by itself.
fn tiny(engine: EngineOptions) -> (House, LocalBackend) {
    let house = House::new(Wish {
        engine,
        ..Wish::default()
    });
    house.serve("tiny", &TinyLlama::default());
    let backend = LocalBackend::new(house.pool.clone());
    (house, backend)
}

fn smollm2() -> (House, LocalBackend, String) {
    let house = House::new(Wish {
        n_ctx: Some(1024),
        ..Wish::default()
    });
    let id = house.pool.register(&fixtures::smollm2()).unwrap();
    let backend = LocalBackend::new(house.pool.clone());
    (house, backend, id.to_string())
}

struct Answer {
    text: String,
    reason: FinishReason,
    usage: Usage,
}

/// Takes a stream to its end, which is exactly one `Finished`.
async fn read(mut stream: ChatStream) -> Answer {
    let mut text = String::new();
    loop {
        match stream
            .next()
            .await
            .expect("a stream ends with Finished")
            .unwrap()
        {
            ChatDelta::Text(piece) => {
                assert!(!piece.is_empty());
                text.push_str(&piece);
            }
            other @ (ChatDelta::Reasoning(_)
            | ChatDelta::ToolCall(_)
            | ChatDelta::Continued { .. }) => panic!("{other:?}"),
            ChatDelta::Finished { reason, usage } => {
                assert!(stream.next().await.is_none(), "nothing follows");
                return Answer {
                    text,
                    reason,
                    usage,
                };
            }
        }
    }
}

async fn answer(backend: &LocalBackend, request: &ChatRequest) -> Answer {
    read(backend.chat(request, None).await.unwrap()).await
}

/// Waits until nobody uses the model and all its blocks are free.
async fn until_idle(house: &House) {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let status = house.pool.status().await.swap_remove(0);
        let engine = status.ready.unwrap().engine;
        let is_free = engine.n_running == 0 && engine.n_free_blocks == engine.n_blocks;
        if is_free && status.state == (ModelState::Ready { n_leases: 0 }) {
            return;
        }
        assert!(Instant::now() < give_up, "{:?} {engine:?}", status.state);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_what_the_tokens_decode_to() {
    let (house, backend) = tiny(EngineOptions::default());
    let mut request = ask("tiny", "Hello, hearth!", Some(40));
    request.sampling.ignore_eos = true;
    let lease = house.pool.acquire("tiny", None).await.unwrap();
    let prompt = lease
        .chat()
        .unwrap()
        .text
        .encode_chat(&request.messages)
        .unwrap();
    let n_prompt = u32::try_from(prompt.len()).unwrap();
    let mut events = lease
        .chat()
        .unwrap()
        .engine
        .submit(GenerateRequest {
            prompt,
            sampling: request.sampling.clone(),
            max_new_tokens: 40,
            stop_tokens: lease.chat().unwrap().text.end_of_generation().to_vec(),
        })
        .unwrap();
    let mut tokens = Vec::new();
    while let Some(Event::Token(token)) = events.recv().await {
        tokens.push(token);
    }
    let streamed = answer(&backend, &request).await;
    assert_eq!(streamed.text, lease.chat().unwrap().text.decode(&tokens));
    assert_eq!(streamed.reason, FinishReason::Length);
    assert_eq!(
        streamed.usage,
        Usage {
            prompt_tokens: n_prompt,
            completion_tokens: 40,
            ..Usage::default()
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_an_answer_ends_with_the_context() {
    let (house, backend) = tiny(EngineOptions::default());
    let mut request = ask("tiny", "on and on", None);
    request.sampling.ignore_eos = true;
    let ended = answer(&backend, &request).await;
    assert_eq!(ended.reason, FinishReason::Length);
    assert_eq!(
        ended.usage.prompt_tokens + ended.usage.completion_tokens,
        512
    );

    request.max_new_tokens = Some(0);
    let evaluated = answer(&backend, &request).await;
    assert_eq!(
        (evaluated.text.as_str(), evaluated.usage.completion_tokens),
        ("", 0)
    );
    assert_eq!(evaluated.usage.prompt_tokens, ended.usage.prompt_tokens);
    until_idle(&house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_frees_its_blocks_and_its_lease() {
    let (house, backend) = tiny(EngineOptions::default());
    let mut request = ask("tiny", "and so on", None);
    request.sampling.ignore_eos = true;
    house.pool.preload("tiny").await.unwrap();
    until_idle(&house).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(backend.chat(&request, None).await.unwrap());
    }
    streams[0].next().await.unwrap().unwrap();
    drop(streams);
    until_idle(&house).await;
    let generated = house
        .pool
        .status()
        .await
        .swap_remove(0)
        .ready
        .unwrap()
        .engine
        .n_generated_total;
    assert!(generated < 3 * 400, "{generated} tokens for nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_their_kinds() {
    // Room for an answer that outlasts this test, read or not: nothing here hangs on how quick it is.
    let n_ctx = 32_768;
    let engine = EngineOptions {
        max_waiting: 1,
        max_running: 1,
        event_queue_len: n_ctx as usize,
        ..EngineOptions::default()
    };
    let house = House::new(Wish {
        engine,
        n_ctx: Some(n_ctx),
        ..Wish::default()
    });
    let tiny = TinyLlama {
        context_length: n_ctx,
        ..TinyLlama::default()
    };
    house.serve("tiny", &tiny);
    let backend = LocalBackend::new(house.pool.clone());
    let kind = async |request: &ChatRequest| backend.chat(request, None).await.err().unwrap().kind;

    let unknown = kind(&ask("no-such-model", "hi", None)).await;
    assert_eq!(unknown, BackendErrorKind::UnknownModel);
    assert!(!unknown.may_escalate());

    let long = ask("tiny", &"a long story ".repeat(10_000), None);
    let BackendErrorKind::PromptTooLong {
        n_prompt_tokens,
        n_ctx: most,
    } = kind(&long).await
    else {
        panic!("a prompt beyond the context is refused")
    };
    assert!(
        n_prompt_tokens > n_ctx && most == n_ctx,
        "{n_prompt_tokens} of {most}"
    );

    let mut endless = ask("tiny", "hi", None);
    endless.sampling.ignore_eos = true;
    let mut first = backend.chat(&endless, None).await.unwrap();
    first.next().await.unwrap().unwrap();
    // The only place is taken: the next one waits, longer than it may.
    let by = Instant::now() + Duration::from_millis(2);
    // On a busy machine its time is over before it is in the queue.
    let error = match backend.chat(&endless, Some(by)).await {
        Err(error) => error,
        Ok(mut late) => {
            let error = late.next().await.unwrap().unwrap_err();
            assert!(late.next().await.is_none());
            error
        }
    };
    assert_eq!(error.kind, BackendErrorKind::Timeout);
    assert!(error.may_escalate());
    drop(first);

    let mut running = Vec::new();
    let busy = loop {
        match backend.chat(&endless, None).await {
            Ok(stream) => running.push(stream),
            Err(error) => break error,
        }
        assert!(
            running.len() < 10,
            "one runs, one waits, the next are refused"
        );
    };
    assert!(
        matches!(busy.kind, BackendErrorKind::Busy { .. }),
        "{busy:?}"
    );
    assert!(busy.may_escalate());
    drop(running);

    house.pool.shutdown(Duration::from_secs(5)).await;
    assert_eq!(kind(&endless).await, BackendErrorKind::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smollm2_answers_sensibly_and_stops_where_it_is_told() {
    let (house, backend, id) = smollm2();
    let mut request = ask(
        &id,
        "What is the capital of France? Answer in one word.",
        Some(48),
    );
    let whole = answer(&backend, &request).await;
    assert!(whole.text.contains("Paris"), "{:?}", whole.text);
    assert_eq!(
        whole.reason,
        FinishReason::Stop,
        "it ends its turn by itself"
    );
    assert!(!whole.text.contains("<|im_end|>"), "{:?}", whole.text);

    // A stop text that begins in one token and ends in another.
    let lease = house.pool.acquire(&id, None).await.unwrap();
    let begin = whole.text.find("Paris").unwrap() - 3;
    let stop = &whole.text[begin..begin + 5];
    let first = whole.text.find(stop).unwrap();
    request.stop = vec!["no such text".to_owned(), stop.to_owned()];
    let cut = answer(&backend, &request).await;
    assert_eq!(cut.text, whole.text[..first]);
    assert_eq!(cut.reason, FinishReason::Stop);
    assert_eq!(cut.usage.prompt_tokens, whole.usage.prompt_tokens);
    // The tokens up to and with the one that completed the stop text, and no more.
    let n_tokens = |text: &str| {
        let tokens = lease
            .chat()
            .unwrap()
            .text
            .encode(text, SpecialTokens::AsText, Framing::Bare)
            .unwrap();
        u32::try_from(tokens.len()).unwrap()
    };
    let (least, most) = (
        n_tokens(&cut.text),
        n_tokens(&whole.text[..first + stop.len()]) + 1,
    );
    let n = cut.usage.completion_tokens;
    assert!(n > least && n <= most, "{n} of {least}..={most} tokens");
    drop(lease);
    until_idle(&house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_at_once_say_what_one_alone_says() {
    let (house, backend, id) = smollm2();
    let request = ask(&id, "Name three colours.", Some(16));
    let alone = answer(&backend, &request).await;
    let many = (0..16).map(|_| {
        let (backend, request) = (backend.clone(), request.clone());
        tokio::spawn(async move { answer(&backend, &request).await })
    });
    for one in many.collect::<Vec<_>>() {
        let one = one.await.unwrap();
        assert_eq!((one.text, one.usage), (alone.text.clone(), alone.usage));
    }
    until_idle(&house).await;
}
