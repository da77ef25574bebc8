//! What goes wrong, and whom it reaches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::network::{Act, HashNetwork, plain_reply};
use super::*;
use crate::engine::SubmitError;

fn two_at_a_time() -> EngineOptions {
    EngineOptions {
        max_running: 2,
        ..EngineOptions::default()
    }
}

#[test]
fn a_failed_step_fails_only_who_was_in_it() {
    let (permits, gate) = channel::<()>();
    let mut n_joint = 0;
    let network = HashNetwork::new(32).scripted(move |batch| {
        let _ = gate.recv();
        let is_joint = batch.block_tables.len() == 2;
        n_joint += usize::from(is_joint);
        if is_joint && n_joint == 5 {
            Act::Fail
        } else {
            Act::Compute
        }
    });
    let engine = start(network, &two_at_a_time());
    let prompts: Vec<_> = (0..4).map(|number| prompt(number, 40)).collect();
    let submit = |prompt: &Vec<TokenId>| engine.submit(request(prompt.clone(), 50)).unwrap();
    let receivers: Vec<_> = prompts.iter().map(submit).collect();
    drop(permits);
    let answers: Vec<_> = receivers.into_iter().map(read).collect();
    for (answer, prompt) in answers[..2].iter().zip(&prompts) {
        let error = answer.end.as_ref().unwrap_err();
        assert!(matches!(error, EngineError::Forward(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the model could not compute a step: no memory for the step"
        );
        assert!(
            plain_reply(prompt, 50).starts_with(&answer.tokens),
            "what was sent was right"
        );
    }
    assert!(answers[2].end.is_ok() && answers[3].end.is_ok());
    for (answer, prompt) in answers.iter().zip(&prompts).skip(2) {
        assert_eq!(answer.tokens, plain_reply(prompt, 50));
    }
    let figures = engine.snapshot();
    assert_eq!((figures.n_failed_total, figures.n_finished_total), (2, 2));
    assert_eq!(figures.failed, None);
    assert_idle(&engine);
}

#[test]
fn a_lost_device_ends_the_engine_and_everyone_is_told() {
    // The device is lost only when all four are in: later ones are refused.
    let (permits, gate) = channel::<()>();
    let network = HashNetwork::new(32).scripted(move |_| {
        let _ = gate.recv();
        Act::Lose
    });
    let engine = start(network, &two_at_a_time());
    let submit = |number| engine.submit(request(prompt(number, 40), 50)).unwrap();
    let receivers: Vec<_> = (0..4).map(submit).collect();
    drop(permits);
    for receiver in receivers {
        let error = read(receiver).end.unwrap_err();
        let of_step = matches!(error, EngineError::Forward(_));
        assert!(of_step || matches!(error, EngineError::Failed { .. }));
        assert!(error.to_string().ends_with("no memory for the step"));
    }
    let figures = engine.snapshot();
    assert_eq!(figures.failed.as_deref(), Some("no memory for the step"));
    assert_eq!(figures.n_failed_total, 4);
    let refused = engine.submit(request(prompt(9, 4), 4));
    assert!(matches!(refused, Err(SubmitError::Stopped { .. })));
}

#[test]
fn a_panic_is_said_to_everyone_and_to_whoever_comes_later() {
    let armed = Arc::new(AtomicBool::new(false));
    let fuse = Arc::clone(&armed);
    let network = HashNetwork::new(32).scripted(move |_| {
        if fuse.load(Ordering::Relaxed) {
            Act::Panic
        } else {
            Act::Compute
        }
    });
    let options = EngineOptions {
        event_queue_len: 8,
        ..two_at_a_time()
    };
    let engine = start(network, &options);
    let submit = |number| engine.submit(request(prompt(number, 40), 900)).unwrap();
    let mut receivers: Vec<_> = (0..4).map(submit).collect();
    let first = next_event(&mut receivers[0]);
    assert!(matches!(first, Some(Event::Token(_))), "{first:?}");
    wait_for(&engine, "paused", |figures| figures.n_paused == 2);
    armed.store(true, Ordering::Relaxed);
    for receiver in receivers {
        let error = read(receiver).end.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine failed: the network fell over"
        );
    }
    let figures = engine.snapshot();
    assert_eq!(figures.failed.as_deref(), Some("the network fell over"));
    assert_eq!(
        (figures.n_waiting, figures.n_running, figures.n_failed_total),
        (0, 0, 4)
    );
    let refused = engine.submit(request(prompt(9, 4), 4)).unwrap_err();
    let reason = "the engine failed: the network fell over".to_owned();
    assert_eq!(refused, SubmitError::Stopped { reason });
}

#[test]
fn logits_that_are_no_numbers_fail_their_own_request() {
    let (permits, gate) = channel::<()>();
    let mut n_joint = 0;
    let network = HashNetwork::new(32).scripted(move |batch| {
        let _ = gate.recv();
        let is_joint = batch.logit_rows.len() == 2;
        n_joint += usize::from(is_joint);
        if is_joint && n_joint == 10 {
            Act::Nan(0)
        } else {
            Act::Compute
        }
    });
    let engine = start(network, &two_at_a_time());
    let [damaged, whole] = [prompt(0, 10), prompt(1, 10)];
    let receivers =
        [&damaged, &whole].map(|prompt| engine.submit(request(prompt.clone(), 80)).unwrap());
    drop(permits);
    let [damaged_answer, whole_answer] = receivers.map(read);
    let Err(EngineError::Logits {
        position,
        token: 3,
        value,
    }) = damaged_answer.end
    else {
        panic!("{damaged_answer:?}");
    };
    assert!(value.is_nan());
    assert_eq!(
        position as usize,
        damaged.len() + damaged_answer.tokens.len()
    );
    assert_eq!(whole_answer.tokens, plain_reply(&whole, 80));
    assert_idle(&engine);
}

#[test]
fn a_network_that_keeps_its_logits_fails_instead_of_hanging() {
    let network = HashNetwork::new(8).scripted(|_| Act::Withhold);
    let engine = start(network, &EngineOptions::default());
    let error = read(engine.submit(request(prompt(0, 10), 5)).unwrap())
        .end
        .unwrap_err();
    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    let failed = engine.snapshot().failed.unwrap();
    assert!(failed.contains("0 rows of logits for 1"), "{failed}");
}

#[test]
fn dropping_the_engine_stops_who_runs_who_waits_and_who_is_paused() {
    for event_queue_len in [4, 100_000] {
        let options = EngineOptions {
            event_queue_len,
            ..two_at_a_time()
        };
        let engine = start(HashNetwork::new(4096), &options);
        let submit = |number| {
            engine
                .submit(request(prompt(number, 40), u32::MAX))
                .unwrap()
        };
        let receivers: Vec<_> = (0..5).map(submit).collect();
        wait_for(&engine, "running", |figures| figures.n_generated_total >= 8);
        drop(engine);
        for receiver in receivers {
            let error = read(receiver).end.unwrap_err();
            assert!(matches!(error, EngineError::Stopped), "{error:?}");
        }
    }
}

#[test]
fn an_option_no_engine_can_run_with_is_refused() {
    let options = EngineOptions {
        prefill_chunk_tokens: 0,
        ..EngineOptions::default()
    };
    let Err(error) = Engine::start_on(HashNetwork::new(4), "test", &options) else {
        panic!("it started");
    };
    let sentence = "engine option prefill_chunk_tokens is 0: it must be at least 1";
    assert_eq!(error.to_string(), sentence);
}
