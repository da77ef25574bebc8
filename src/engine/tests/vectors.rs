//! Vectors of prompts, beside answers.

use super::network::{HashNetwork, plain_reply};
use super::*;
use crate::model::{Pooling, Readout};

const POOLINGS: [Pooling; 4] = [Pooling::Mean, Pooling::Max, Pooling::First, Pooling::Last];

fn vector(mut receiver: Receiver<Event>) -> Vec<f32> {
    match next_event(&mut receiver).expect("an end") {
        Event::Finished {
            reason: FinishReason::Length,
            vector: Some(vector),
            usage,
            ..
        } => {
            assert_eq!(usage.completion_tokens, 0);
            vector
        }
        other => panic!("{other:?}"),
    }
}

/// What a network makes of `tokens` whose states are position and token.
fn expected(tokens: &[TokenId], pooling: Pooling) -> Vec<f32> {
    let float = |n: usize| f32::from(u16::try_from(n).unwrap());
    let states = tokens.iter().enumerate();
    let states: Vec<[f32; 2]> = states
        .map(|(position, token)| [float(position), float(*token as usize)])
        .collect();
    let of = |fold: &dyn Fn(f32, f32) -> f32| {
        let states = states.iter().copied();
        let one = states.reduce(|a, b| [fold(a[0], b[0]), fold(a[1], b[1])]);
        one.unwrap().to_vec()
    };
    match pooling {
        Pooling::Mean => {
            let sum = of(&|a, b| a + b);
            sum.iter().map(|sum| sum / float(tokens.len())).collect()
        }
        Pooling::Max => of(&f32::max),
        Pooling::First => of(&|a, _| a),
        _ => of(&|_, b| b),
    }
}

#[test]
fn a_vector_is_of_all_its_tokens_however_they_were_cut_and_who_ran_beside() {
    let options = EngineOptions {
        prefill_chunk_tokens: 7,
        ..EngineOptions::default()
    };
    let engine = start(HashNetwork::new(64), &options);
    let written = engine.submit(request(prompt(0, 20), 60)).unwrap();
    let asked: Vec<_> = (1..13)
        .map(|number| (prompt(number, 1 + number * 11), POOLINGS[number % 4]))
        .collect();
    let receivers: Vec<_> = asked
        .iter()
        .map(|(tokens, pooling)| {
            let readout = Readout {
                pooling: *pooling,
                is_normalised: false,
            };
            engine.embed(tokens.clone(), readout).unwrap()
        })
        .collect();
    for ((tokens, pooling), receiver) in asked.iter().zip(receivers) {
        let (made, expected) = (vector(receiver), expected(tokens, *pooling));
        for (made, expected) in made.iter().zip(&expected) {
            assert!(
                (made - expected).abs() < 1e-3,
                "{pooling}: {made} {expected}"
            );
        }
    }
    assert_eq!(read(written).tokens, plain_reply(&prompt(0, 20), 60));
    assert_idle(&engine);
}

#[test]
fn a_vector_is_the_same_after_giving_way() {
    let (network, permits) = HashNetwork::new(9).gated();
    let options = EngineOptions {
        prefill_chunk_tokens: 2,
        ..EngineOptions::default()
    };
    let engine = start(network, &options);
    let older: Vec<_> = (0..2)
        .map(|number| engine.submit(request(prompt(number, 20), 110)).unwrap())
        .collect();
    let tokens = prompt(9, 110);
    let readout = Readout {
        pooling: Pooling::Mean,
        is_normalised: false,
    };
    let receiver = engine.embed(tokens.clone(), readout).unwrap();
    drop(permits);
    let (made, expected) = (vector(receiver), expected(&tokens, Pooling::Mean));
    assert!(
        (made[0] - expected[0]).abs() < 1e-3,
        "{made:?} {expected:?}"
    );
    assert!(
        (made[1] - expected[1]).abs() < 1e-3,
        "{made:?} {expected:?}"
    );
    for older in older {
        read(older);
    }
    let figures = engine.snapshot();
    assert!(figures.n_preempted_total > 0, "{figures:?}");
    assert_idle(&engine);
}
