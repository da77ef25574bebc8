//! The same tokens however they are computed.

use super::network::{HashNetwork, plain_reply, reply};
use super::*;
use crate::engine::SubmitError;
use crate::model::BLOCK_LEN;

#[test]
fn an_answer_is_the_networks_own_whatever_the_length_of_the_prompt() {
    let engine = start(HashNetwork::new(16), &EngineOptions::default());
    for n_prompt in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300] {
        let prompt = prompt(n_prompt, n_prompt);
        let answer = read(engine.submit(request(prompt.clone(), 70)).unwrap());
        assert_eq!(answer.tokens, plain_reply(&prompt, 70), "{n_prompt}");
        assert_eq!(answer.reason(), FinishReason::Length);
        let prompt_tokens = u32::try_from(n_prompt).unwrap();
        let usage = Usage {
            prompt_tokens,
            completion_tokens: 70,
            ..Usage::default()
        };
        assert_eq!(answer.usage(), usage);
        assert_idle(&engine);
    }
    let figures = engine.snapshot();
    assert_eq!(
        (figures.n_finished_total, figures.n_generated_total),
        (12, 12 * 70)
    );
    assert_eq!(
        figures.n_prompt_total,
        1 + 2 + 31 + 32 + 33 + 63 + 64 + 65 + 127 + 128 + 129 + 300
    );
    assert!(figures.prefill_tokens_per_second.unwrap() > 0.0);
    assert!(figures.decode_tokens_per_second.unwrap() > 0.0);
}

#[test]
fn sixteen_at_once_get_what_each_gets_alone() {
    let (network, permits) = HashNetwork::new(200).gated();
    let shapes = network.shapes();
    let engine = start(network, &EngineOptions::default());
    let prompts: Vec<_> = (0..16)
        .map(|number| prompt(number, 1 + number * 23))
        .collect();
    let submit = |prompt: &Vec<TokenId>| engine.submit(request(prompt.clone(), 90)).unwrap();
    let receivers: Vec<_> = prompts.iter().map(submit).collect();
    drop(permits);
    for (prompt, receiver) in prompts.iter().zip(receivers) {
        assert_eq!(read(receiver).tokens, plain_reply(prompt, 90));
    }
    let shapes = shapes.lock().unwrap();
    assert!(
        shapes.iter().any(|shape| shape.n_seqs == 16),
        "never all at once"
    );
    assert!(
        shapes.iter().any(|shape| shape.n_tokens > shape.n_seqs),
        "never mixed"
    );
    assert_idle(&engine);
}

#[test]
fn a_prompt_in_chunks_of_any_size_gives_the_same_answer() {
    let prompts = [prompt(1, 200), prompt(2, 77), prompt(3, 1)];
    for prefill_chunk_tokens in [1, 7, 31, 32, 33, 64, 256, 1000] {
        let options = EngineOptions {
            prefill_chunk_tokens,
            ..EngineOptions::default()
        };
        let network = HashNetwork::new(32);
        let shapes = network.shapes();
        let engine = start(network, &options);
        let submit = |prompt: &Vec<TokenId>| engine.submit(request(prompt.clone(), 20)).unwrap();
        let receivers: Vec<_> = prompts.iter().map(submit).collect();
        for (prompt, receiver) in prompts.iter().zip(receivers) {
            let chunk = prefill_chunk_tokens;
            assert_eq!(
                read(receiver).tokens,
                plain_reply(prompt, 20),
                "chunks of {chunk}"
            );
        }
        // Decodes come on top of the chunk.
        let most = shapes
            .lock()
            .unwrap()
            .iter()
            .map(|shape| shape.n_tokens)
            .max();
        assert!(
            most.unwrap() <= prefill_chunk_tokens.min(256) + 2,
            "{most:?}"
        );
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_not_on_company() {
    let sampling = Sampling {
        temperature: Some(1.3),
        top_p: 0.9,
        repetition_penalty: 1.2,
        presence_penalty: 0.4,
        seed: Some(41),
        ..Sampling::default()
    };
    let asked = |number, sampling: &Sampling| GenerateRequest {
        sampling: sampling.clone(),
        ..request(prompt(number, 50), 100)
    };
    let engine = start(HashNetwork::new(200), &EngineOptions::default());
    let alone = read(engine.submit(asked(0, &sampling)).unwrap()).tokens;
    assert_eq!(alone.len(), 100);

    let receivers: Vec<_> = (0..12)
        .map(|number| engine.submit(asked(number, &sampling)).unwrap())
        .collect();
    let together: Vec<_> = receivers
        .into_iter()
        .map(|receiver| read(receiver).tokens)
        .collect();
    assert_eq!(together[0], alone);
    assert_ne!(together[1], alone, "another prompt");

    let chunked = EngineOptions {
        prefill_chunk_tokens: 3,
        ..EngineOptions::default()
    };
    let engine = start(HashNetwork::new(8), &chunked);
    assert_eq!(
        read(engine.submit(asked(0, &sampling)).unwrap()).tokens,
        alone
    );
    let other = Sampling {
        seed: Some(42),
        ..sampling.clone()
    };
    assert_ne!(read(engine.submit(asked(0, &other)).unwrap()).tokens, alone);
    let unseeded = Sampling {
        seed: None,
        ..sampling
    };
    let [one, two] = [(); 2].map(|()| read(engine.submit(asked(0, &unseeded)).unwrap()).tokens);
    assert_ne!(one, two, "without a seed each request has its own");
}

#[test]
fn a_stop_token_ends_the_answer_and_is_counted_but_not_sent() {
    let prompt = prompt(5, 40);
    let whole = plain_reply(&prompt, 60);
    let stop = whole[25];
    let first = whole.iter().position(|token| *token == stop).unwrap();
    let engine = start(HashNetwork::new(8), &EngineOptions::default());
    let ask = |sampling| {
        let stop_tokens = vec![999, stop];
        let request = GenerateRequest {
            sampling,
            stop_tokens,
            ..request(prompt.clone(), 60)
        };
        read(engine.submit(request).unwrap())
    };
    let stopped = ask(greedy());
    assert_eq!(stopped.tokens, whole[..first]);
    assert_eq!(stopped.reason(), FinishReason::Stop);
    assert_eq!(stopped.usage().completion_tokens as usize, first + 1);

    let ignoring = ask(Sampling {
        ignore_eos: true,
        ..greedy()
    });
    assert_eq!(ignoring.tokens, reply(&prompt, 60, stop, usize::MAX));
    assert_eq!(ignoring.reason(), FinishReason::Length);

    let n_masked = first + 1;
    let min_tokens = u32::try_from(n_masked).unwrap();
    let at_least = ask(Sampling {
        min_tokens,
        ..greedy()
    });
    let mut expected = reply(&prompt, 60, stop, n_masked);
    assert!(!expected[..n_masked].contains(&stop));
    expected.truncate(
        expected
            .iter()
            .position(|token| *token == stop)
            .unwrap_or(60),
    );
    assert!(expected.len() >= n_masked);
    assert_eq!(at_least.tokens, expected);
    assert_idle(&engine);
}

#[test]
fn no_tokens_wanted_means_the_prompt_is_evaluated_and_nothing_drawn() {
    let options = EngineOptions {
        prefill_chunk_tokens: 32,
        ..EngineOptions::default()
    };
    let engine = start(HashNetwork::new(4), &options);
    for n_prompt in [1, 32, 65, 128] {
        let answer = read(engine.submit(request(prompt(1, n_prompt), 0)).unwrap());
        assert!(answer.tokens.is_empty());
        assert_eq!(answer.reason(), FinishReason::Length);
        let prompt_tokens = u32::try_from(n_prompt).unwrap();
        assert_eq!(
            answer.usage(),
            Usage {
                prompt_tokens,
                completion_tokens: 0,
                ..Usage::default()
            }
        );
        assert_idle(&engine);
    }
    assert_eq!(engine.snapshot().n_prompt_total, 1 + 32 + 65 + 128);
}

#[test]
fn the_contexts_end_ends_an_answer_to_the_token() {
    let n_slots = 4 * BLOCK_LEN;
    for n_ctx in [40, 64, 65, n_slots] {
        let wanted = u32::try_from(n_ctx).unwrap();
        let options = EngineOptions {
            n_ctx: Some(wanted),
            ..EngineOptions::default()
        };
        let engine = start(HashNetwork::new(4), &options);
        assert_eq!(engine.n_ctx(), wanted);
        for n_prompt in [1, 30, n_ctx - 1] {
            let prompt = prompt(n_prompt, n_prompt);
            let answer = read(engine.submit(request(prompt.clone(), u32::MAX)).unwrap());
            assert_eq!(
                answer.tokens,
                plain_reply(&prompt, n_ctx - n_prompt),
                "{n_ctx}"
            );
            assert_eq!(answer.reason(), FinishReason::Length);
        }
        let refused = engine.submit(request(prompt(1, n_ctx), 1)).unwrap_err();
        let error = SubmitError::PromptTooLong {
            n_prompt_tokens: wanted,
            n_ctx: wanted,
        };
        assert_eq!(refused, error);
        assert_idle(&engine);
    }
}

#[test]
fn the_greatest_logits_give_the_answers_that_whole_rows_give() {
    let answers = |n_top| {
        let engine = start(
            HashNetwork::new(64).showing(n_top),
            &EngineOptions::default(),
        );
        let settings = [
            greedy(),
            Sampling::default(),
            Sampling {
                top_k: Some(5),
                seed: Some(3),
                ..Sampling::default()
            },
            Sampling {
                top_p: 0.8,
                repetition_penalty: 1.3,
                seed: Some(4),
                ..Sampling::default()
            },
            Sampling {
                top_p: 0.5,
                seed: Some(5),
                ..Sampling::default()
            },
        ];
        let receivers: Vec<_> = (0..)
            .zip(settings)
            .map(|(number, sampling)| {
                let request = GenerateRequest {
                    sampling: Sampling {
                        seed: Some(number as u64),
                        ..sampling
                    },
                    ..request(prompt(number, 20), 30)
                };
                engine.submit(request).unwrap()
            })
            .collect();
        let read_tokens = |receiver| read(receiver).tokens;
        receivers.into_iter().map(read_tokens).collect::<Vec<_>>()
    };
    let whole = answers(0);
    assert_eq!(whole[0], plain_reply(&prompt(0, 20), 30));
    // Enough for all, for some, for the greedy one only.
    for n_top in [61, 20, 1] {
        assert_eq!(answers(n_top), whole, "{n_top}");
    }
}
