//! The engine on a real model: company, chunks and preemption change no token.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle::chat::{FinishReason, Message, Role, Sampling, TokenId, Usage};
use ingle::engine::{Engine, EngineOptions, EngineSnapshot, Event, GenerateRequest};
use ingle::gguf::Gguf;
use ingle::model::{KvType, Limits, Model, ModelConfig, Placement, unwatched};
use ingle::text::{Framing, SpecialTokens, Text, TextOptions};
use ingle_kernels::{Isa, Team};
use tokio::sync::mpsc::Receiver;

use crate::fixtures;

const QUESTIONS: [&str; 4] = [
    "What is the capital of France?",
    "Write a haiku about rain.",
    "List three prime numbers greater than ten and say why each of them is prime.",
    "Explain in two sentences how a bicycle stays upright while it is moving.",
];

/// SmolLM2 on two threads, with a cache of so many blocks.
fn start(n_blocks: usize, options: EngineOptions) -> Engine {
    let gguf = Gguf::open(&fixtures::smollm2()).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let limits = Limits {
        max_batch_tokens: options.prefill_chunk_tokens + options.max_running,
        max_logit_rows: options.max_running,
        n_blocks,
        kv_type: KvType::F16,
    };
    let team = Team::new(NonZeroUsize::new(2).unwrap(), Isa::detect());
    let model = Model::load(
        &gguf,
        &config,
        limits,
        &Placement::default(),
        team,
        &mut unwatched,
    );
    let model = model.unwrap();
    Engine::start(model, "smollm2", options).unwrap()
}

fn text() -> Arc<Text> {
    let gguf = Gguf::open(&fixtures::smollm2()).unwrap();
    Arc::new(Text::from_gguf(gguf.metadata(), &TextOptions::default()).unwrap())
}

/// A question, every second one drawn instead of greedy.
fn request(text: &Text, number: usize, max_new_tokens: u32) -> GenerateRequest {
    let question = QUESTIONS[number % QUESTIONS.len()];
    let sampled = Sampling {
        temperature: Some(0.8),
        top_p: 0.95,
        repetition_penalty: 1.1,
        seed: Some(number as u64),
        ..Sampling::default()
    };
    let greedy = Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    };
    let message = Message::text(Role::User, format!("{question} ({number})"));
    GenerateRequest {
        prompt: text.encode_chat(&[message]).unwrap(),
        sampling: if number % 2 == 1 { sampled } else { greedy },
        max_new_tokens,
        stop_tokens: text.end_of_generation().to_vec(),
    }
}

fn read(mut receiver: Receiver<Event>) -> (Vec<TokenId>, FinishReason, Usage) {
    let mut tokens = Vec::new();
    loop {
        match receiver.blocking_recv().expect("an end") {
            Event::Token(token) => tokens.push(token),
            Event::Finished { reason, usage, .. } => return (tokens, reason, usage),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn wait_for(engine: &Engine, what: &str, wanted: impl Fn(&EngineSnapshot) -> bool) {
    let begun = Instant::now();
    while !wanted(&engine.snapshot()) {
        let figures = engine.snapshot();
        assert!(
            begun.elapsed() < Duration::from_mins(2),
            "never {what}: {figures:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_all(
    engine: &Engine,
    requests: &[GenerateRequest],
) -> Vec<(Vec<TokenId>, FinishReason, Usage)> {
    let submit = |request: &GenerateRequest| engine.submit(request.clone()).unwrap();
    let receivers: Vec<_> = requests.iter().map(submit).collect();
    receivers.into_iter().map(read).collect()
}

#[test]
fn sixteen_at_once_alone_and_in_chunks_get_the_same_tokens() {
    let text = text();
    let requests: Vec<_> = (0..16).map(|number| request(&text, number, 12)).collect();
    let engine = start(200, EngineOptions::default());
    let alone: Vec<_> = requests
        .iter()
        .map(|request| read(engine.submit(request.clone()).unwrap()))
        .collect();
    assert_eq!(read_all(&engine, &requests), alone, "together");
    let options = EngineOptions {
        prefill_chunk_tokens: 7,
        ..EngineOptions::default()
    };
    assert_eq!(
        read_all(&start(200, options), &requests),
        alone,
        "in chunks of seven"
    );
}

#[test]
fn whoever_gave_way_goes_on_with_the_same_tokens() {
    let text = text();
    let requests: Vec<_> = (0..3)
        .map(|number| {
            let mut request = request(&text, number, 60);
            request.sampling.ignore_eos = true;
            request
        })
        .collect();
    let roomy = start(32, EngineOptions::default());
    let expected = read_all(&roomy, &requests);
    assert_eq!(roomy.snapshot().n_preempted_total, 0);
    // Each grows from two blocks to four.
    let tight = start(6, EngineOptions::default());
    assert_eq!(read_all(&tight, &requests), expected);
    let figures = tight.snapshot();
    assert!(figures.n_preempted_total > 0, "{figures:?}");
    assert_eq!(figures.n_free_blocks, 6);
}

#[test]
fn the_answer_makes_sense() {
    let text = text();
    let engine = start(32, EngineOptions::default());
    let question = "What is the capital of France? Answer in one word.";
    let message = Message::text(Role::User, question);
    let asked = GenerateRequest {
        prompt: text.encode_chat(&[message]).unwrap(),
        ..request(&text, 0, 60)
    };
    let (tokens, reason, _) = read(engine.submit(asked).unwrap());
    let answer = text.decode(&tokens);
    assert!(answer.contains("Paris"), "{answer}");
    assert_eq!(reason, FinishReason::Stop);
}

#[test]
fn a_long_prompt_beside_answers_and_a_reader_that_leaves() {
    let text = text();
    let engine = start(64, EngineOptions::default());
    let expected = read(engine.submit(request(&text, 2, 40)).unwrap());

    let running = engine.submit(request(&text, 2, 40)).unwrap();
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(100);
    let long = text
        .encode(&long, SpecialTokens::AsText, Framing::AsTheModelWants)
        .unwrap();
    let endless = GenerateRequest {
        prompt: long,
        sampling: Sampling {
            ignore_eos: true,
            ..Sampling::default()
        },
        max_new_tokens: u32::MAX,
        stop_tokens: text.end_of_generation().to_vec(),
    };
    let mut leaver = engine.submit(endless).unwrap();
    assert!(matches!(leaver.blocking_recv(), Some(Event::Token(_))));
    assert_eq!(read(running), expected);
    drop(leaver);
    wait_for(&engine, "free", |figures| {
        figures.n_free_blocks == figures.n_blocks
    });
    let figures = engine.snapshot();
    assert_eq!((figures.n_cancelled_total, figures.n_running), (1, 0));
    assert_eq!(
        read(engine.submit(request(&text, 2, 40)).unwrap()),
        expected
    );
}
