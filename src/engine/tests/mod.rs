//! The laws of the engine, on a network that shows every mistake as a wrong token.

mod answers;
pub(super) mod network;
mod preemption;
mod readers;
mod recorded;
mod scheduler;
mod troubles;
mod vectors;
mod walk;

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use self::network::{HashNetwork, N_VOCAB, mix};
use super::{Engine, EngineError, EngineOptions, EngineSnapshot, Event, GenerateRequest};
use crate::chat::{FinishReason, Sampling, TokenId, Usage};

/// Longer than any test waits on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(network: HashNetwork, options: &EngineOptions) -> Engine {
    Engine::start_on(network, "test", options).unwrap()
}

fn greedy() -> Sampling {
    Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    }
}

fn request(prompt: Vec<TokenId>, max_new_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt,
        sampling: greedy(),
        max_new_tokens,
        stop_tokens: Vec::new(),
    }
}

/// A prompt of `n_tokens` that begins unlike any other.
fn prompt(number: usize, n_tokens: usize) -> Vec<TokenId> {
    let token = |position| mix(mix(0, number), position) % N_VOCAB as u64;
    (0..n_tokens)
        .map(|position| u32::try_from(token(position)).unwrap())
        .collect()
}

/// Everything an engine said to one request.
#[derive(Debug)]
struct Answer {
    tokens: Vec<TokenId>,
    end: Result<(FinishReason, Usage), EngineError>,
}

impl Answer {
    fn reason(&self) -> FinishReason {
        self.end.as_ref().unwrap().0
    }

    fn usage(&self) -> Usage {
        self.end.as_ref().unwrap().1
    }
}

fn next_event(receiver: &mut Receiver<Event>) -> Option<Event> {
    let begun = Instant::now();
    loop {
        match receiver.try_recv() {
            Ok(event) => return Some(event),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => thread::sleep(Duration::from_micros(200)),
        }
        assert!(begun.elapsed() < PATIENCE, "the engine says nothing");
    }
}

/// Reads to the end, after which nothing may follow.
fn read(mut receiver: Receiver<Event>) -> Answer {
    let mut tokens = Vec::new();
    let end = loop {
        match next_event(&mut receiver).expect("an answer ends with its end") {
            Event::Token(token) => tokens.push(token),
            Event::Finished { reason, usage, .. } => break Ok((reason, usage)),
            Event::Failed(error) => break Err(error),
        }
    };
    assert!(
        next_event(&mut receiver).is_none(),
        "nothing follows an end"
    );
    Answer { tokens, end }
}

/// Waits until the engine's figures are as wanted.
fn wait_for(engine: &Engine, what: &str, wanted: impl Fn(&EngineSnapshot) -> bool) {
    let begun = Instant::now();
    while !wanted(&engine.snapshot()) {
        let figures = engine.snapshot();
        assert!(begun.elapsed() < PATIENCE, "never {what}: {figures:?}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Nobody is there and nothing is held.
fn assert_idle(engine: &Engine) {
    let figures = engine.snapshot();
    assert_eq!(figures.n_waiting + figures.n_running, 0, "{figures:?}");
    assert_eq!(figures.n_free_blocks, figures.n_blocks, "{figures:?}");
    assert_eq!(figures.last_step_age, None);
}
