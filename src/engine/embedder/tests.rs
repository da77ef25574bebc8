//! The laws of the embedder, on a network whose vectors tell which tokens made them.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

const N_VOCAB: usize = 100;
const PATIENCE: Duration = Duration::from_mins(1);

/// A vector of an input's length, first token and last, once the gate lets the step through.
struct Telling {
    gate: Option<Receiver<()>>,
    fails_on: Option<TokenId>,
    panics_on: Option<TokenId>,
}

fn told(tokens: &[TokenId]) -> Vec<f32> {
    let float = |n: u32| f32::from(u16::try_from(n).unwrap());
    let (first, last) = (tokens[0], tokens[tokens.len() - 1]);
    vec![float(count(tokens.len())), float(first), float(last)]
}

impl Encode for Telling {
    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn encode(
        &mut self,
        inputs: &[&[TokenId]],
    ) -> Result<Vectors, Arc<dyn StdError + Send + Sync>> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let has = |token: Option<TokenId>| {
            token.is_some_and(|token| inputs.iter().any(|input| input.contains(&token)))
        };
        assert!(!has(self.panics_on), "a token nobody should see");
        if has(self.fails_on) {
            return Err(Arc::new(io::Error::other("no such row")));
        }
        Ok(inputs.iter().map(|input| told(input)).collect())
    }
}

fn start(network: Telling, max_live: usize) -> Embedder {
    let options = EngineOptions {
        max_running: max_live,
        max_waiting: 0,
        ..EngineOptions::default()
    };
    Embedder::start_on(network, "test", 300, &options).unwrap()
}

fn open(fails_on: Option<TokenId>, panics_on: Option<TokenId>) -> Telling {
    Telling {
        gate: None,
        fails_on,
        panics_on,
    }
}

fn input(token: TokenId, n_tokens: usize) -> Vec<TokenId> {
    (0..n_tokens).map(|n| (token + count(n)) % 90).collect()
}

#[test]
fn every_input_has_its_own_vector_in_its_place() {
    let embedder = start(open(None, None), 64);
    let requests: Vec<Vec<Vec<TokenId>>> = (0..20_usize)
        .map(|request| {
            let length = |n: usize| 1 + (request * 31 + n * 53) % 290;
            (0..=request).map(|n| input(count(n), length(n))).collect()
        })
        .collect();
    let replies: Vec<_> = requests
        .iter()
        .map(|inputs| embedder.submit(inputs.clone()).unwrap())
        .collect();
    for (reply, inputs) in replies.into_iter().zip(&requests) {
        let vectors = reply.blocking_recv().unwrap().unwrap();
        let expected: Vec<_> = inputs.iter().map(|input| told(input)).collect();
        assert_eq!(vectors, expected);
    }
    let figures = embedder.snapshot();
    assert_eq!((figures.n_finished_total, figures.n_running), (20, 0));
    let n_tokens = requests.iter().flatten().map(Vec::len).sum::<usize>();
    assert_eq!(figures.n_prompt_total, n_tokens as u64);
    assert_eq!(figures.last_step_age, None);
}

#[test]
fn what_can_never_be_answered_is_refused_by_name() {
    let embedder = start(open(None, None), 4);
    let refused = |inputs| embedder.submit(inputs).err().unwrap();
    assert_eq!(refused(Vec::new()), SubmitError::EmptyPrompt);
    assert_eq!(refused(vec![vec![1], Vec::new()]), SubmitError::EmptyPrompt);
    let long = SubmitError::PromptTooLong {
        n_prompt_tokens: 301,
        n_ctx: 300,
    };
    assert_eq!(refused(vec![vec![1], vec![1; 301]]), long);
    let outside = SubmitError::TokenOutOfRange {
        token: 100,
        n_vocab: N_VOCAB,
    };
    assert_eq!(refused(vec![vec![99, 100]]), outside);
}

#[test]
fn a_full_queue_refuses_and_who_leaves_makes_room() {
    let (permits, gate) = channel();
    let network = Telling {
        gate: Some(gate),
        ..open(None, None)
    };
    let embedder = start(network, 2);
    let first = embedder.submit(vec![vec![1]]).unwrap();
    let second = embedder.submit(vec![vec![2], vec![2; 200]]).unwrap();
    let full = embedder.submit(vec![vec![3]]).err().unwrap();
    assert!(matches!(full, SubmitError::QueueFull { .. }), "{full:?}");
    drop(second);
    permits.send(()).unwrap();
    assert_eq!(first.blocking_recv().unwrap().unwrap(), [told(&[1])]);
    drop(permits);
    let begun = Instant::now();
    let third = loop {
        match embedder.submit(vec![vec![3]]) {
            Ok(reply) => break reply,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(third.blocking_recv().unwrap().unwrap(), [told(&[3])]);
    let figures = embedder.snapshot();
    assert_eq!(figures.n_cancelled_total + figures.n_finished_total, 3);
}

#[test]
fn a_failed_step_ends_its_requests_and_no_others() {
    let embedder = start(open(Some(66), None), 8);
    let bad = embedder.submit(vec![vec![66], vec![1; 100]]).unwrap();
    let error = bad.blocking_recv().unwrap().unwrap_err().to_string();
    assert_eq!(error, "the model could not compute a step: no such row");
    let good = embedder.submit(vec![vec![65]]).unwrap();
    assert_eq!(good.blocking_recv().unwrap().unwrap(), [told(&[65])]);
}

#[test]
fn after_a_panic_everybody_is_told_and_dropping_tells_who_waits() {
    let embedder = start(open(None, Some(66)), 8);
    let bad = embedder.submit(vec![vec![66]]).unwrap();
    let error = bad.blocking_recv().unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Failed { .. }), "{error}");
    let begun = Instant::now();
    while embedder.snapshot().failed.is_none() {
        assert!(begun.elapsed() < PATIENCE);
    }
    let late = embedder.submit(vec![vec![1]]).err().unwrap();
    assert!(matches!(late, SubmitError::Stopped { .. }), "{late}");

    let (permits, gate) = channel();
    let network = Telling {
        gate: Some(gate),
        ..open(None, None)
    };
    let embedder = start(network, 8);
    let waiting = embedder.submit(vec![vec![1], vec![1; 250]]).unwrap();
    permits.send(()).unwrap();
    let dropping = thread::spawn(move || drop(embedder));
    permits.send(()).unwrap();
    drop(permits);
    let answer = waiting.blocking_recv().unwrap();
    assert!(
        matches!(answer, Ok(_) | Err(EngineError::Stopped)),
        "{answer:?}"
    );
    dropping.join().unwrap();
}
