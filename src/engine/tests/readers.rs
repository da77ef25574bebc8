//! Those who ask: they leave, they dawdle, they are too many.

use super::network::{HashNetwork, plain_reply};
use super::*;
use crate::engine::SubmitError;

/// More tokens than any of these tests waits for.
const ENDLESS: u32 = 60_000;

fn one_at_a_time() -> EngineOptions {
    EngineOptions {
        max_running: 1,
        max_waiting: 2,
        ..EngineOptions::default()
    }
}

#[test]
fn whoever_stops_listening_frees_blocks_and_place() {
    let engine = start(HashNetwork::new(2048), &one_at_a_time());
    let running = engine.submit(request(prompt(0, 40), ENDLESS)).unwrap();
    wait_for(&engine, "running", |figures| figures.n_running == 1);
    let waiting = engine.submit(request(prompt(1, 40), ENDLESS)).unwrap();
    let last = prompt(2, 40);
    let receiver = engine.submit(request(last.clone(), 10)).unwrap();

    drop(waiting);
    wait_for(&engine, "cancelled", |figures| {
        figures.n_cancelled_total == 1
    });
    assert_eq!(engine.snapshot().n_waiting, 1);
    drop(running);
    assert_eq!(read(receiver).tokens, plain_reply(&last, 10));
    let figures = engine.snapshot();
    assert_eq!(
        (figures.n_cancelled_total, figures.n_finished_total),
        (2, 1)
    );
    assert_idle(&engine);
}

#[test]
fn a_reader_that_leaves_in_the_middle_of_a_prompt_or_a_batch_disturbs_nobody() {
    let (network, permits) = HashNetwork::new(64).gated();
    let engine = start(network, &EngineOptions::default());
    let prompts: Vec<_> = (0..8).map(|number| prompt(number, 150)).collect();
    let submit = |prompt: &Vec<TokenId>| engine.submit(request(prompt.clone(), 60)).unwrap();
    let mut receivers: Vec<_> = prompts.iter().map(submit).map(Some).collect();
    for (n_steps, leaver) in [(1, 0), (3, 1), (12, 5), (9, 7)] {
        (0..n_steps).for_each(|_| permits.send(()).unwrap());
        receivers[leaver] = None;
    }
    drop(permits);
    for (prompt, receiver) in prompts.iter().zip(receivers) {
        let Some(receiver) = receiver else { continue };
        assert_eq!(read(receiver).tokens, plain_reply(prompt, 60));
    }
    wait_for(&engine, "rid of those who left", |figures| {
        figures.n_cancelled_total == 4
    });
    assert_idle(&engine);
}

#[test]
fn a_slow_reader_is_given_up_and_keeps_what_it_was_sent() {
    let options = EngineOptions {
        event_queue_len: 4,
        reader_timeout: Duration::from_millis(300),
        ..EngineOptions::default()
    };
    let engine = start(HashNetwork::new(64), &options);
    let [slow, quick] = [prompt(0, 40), prompt(1, 40)];
    let unread = engine.submit(request(slow.clone(), 200)).unwrap();
    let answer = read(engine.submit(request(quick.clone(), 60)).unwrap());
    assert_eq!(answer.tokens, plain_reply(&quick, 60));
    wait_for(&engine, "given up", |figures| figures.n_failed_total == 1);
    assert_idle(&engine);
    let answer = read(unread);
    assert_eq!(answer.tokens, plain_reply(&slow, 4));
    let error = answer.end.unwrap_err();
    let EngineError::SlowReader {
        waited,
        n_unread: 4,
    } = error
    else {
        panic!("{error:?}")
    };
    assert!(waited > options.reader_timeout);
}

#[test]
fn a_slow_reader_that_reads_on_gets_the_whole_answer() {
    for event_queue_len in [1, 2, 3, 16] {
        let options = EngineOptions {
            event_queue_len,
            ..EngineOptions::default()
        };
        let engine = start(HashNetwork::new(64), &options);
        let prompt = prompt(event_queue_len, 40);
        let receiver = engine.submit(request(prompt.clone(), 50)).unwrap();
        wait_for(&engine, "paused", |figures| figures.n_paused == 1);
        let n_sent = engine.snapshot().n_generated_total;
        assert_eq!(
            n_sent, event_queue_len as u64,
            "a full channel stops the sequence"
        );
        assert_eq!(read(receiver).tokens, plain_reply(&prompt, 50));
        assert_idle(&engine);
    }
}

#[test]
fn beyond_its_queue_an_engine_refuses_and_takes_again_when_there_is_room() {
    let (network, permits) = HashNetwork::new(64).gated();
    let engine = start(network, &one_at_a_time());
    let ask = |number| engine.submit(request(prompt(number, 40), 3));
    let receivers: Vec<_> = (0..3).map(|number| ask(number).unwrap()).collect();
    let SubmitError::QueueFull { n_waiting } = ask(3).unwrap_err() else {
        panic!("let in")
    };
    assert!((2..=3).contains(&n_waiting), "{n_waiting}");
    assert!(engine.snapshot().last_step_age.is_some(), "it has work");
    drop(permits);
    for receiver in receivers {
        assert_eq!(read(receiver).tokens.len(), 3);
    }
    assert_idle(&engine);
    assert_eq!(read(ask(4).unwrap()).tokens, plain_reply(&prompt(4, 40), 3));
}

#[test]
fn what_can_never_be_answered_takes_no_place() {
    let (network, permits) = HashNetwork::new(2).gated();
    let engine = start(network, &one_at_a_time());
    for _ in 0..10 {
        assert_eq!(
            engine.submit(request(Vec::new(), 3)).unwrap_err(),
            SubmitError::EmptyPrompt
        );
        let outside = engine.submit(request(vec![61], 3)).unwrap_err();
        assert_eq!(
            outside,
            SubmitError::TokenOutOfRange {
                token: 61,
                n_vocab: N_VOCAB
            }
        );
        let too_long = engine.submit(request(prompt(0, 64), 3)).unwrap_err();
        let error = SubmitError::PromptTooLong {
            n_prompt_tokens: 64,
            n_ctx: 64,
        };
        assert_eq!(too_long, error);
    }
    assert_idle(&engine);
    let receivers: Vec<_> = (0..3)
        .map(|number| engine.submit(request(prompt(number, 9), 3)).unwrap())
        .collect();
    drop(permits);
    assert!(
        receivers
            .into_iter()
            .all(|receiver| read(receiver).end.is_ok())
    );
}
