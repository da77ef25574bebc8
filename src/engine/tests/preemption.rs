//! Fewer blocks than everybody wants at once.

use super::network::{HashNetwork, plain_reply};
use super::*;

fn tight() -> EngineOptions {
    EngineOptions {
        prefill_chunk_tokens: 48,
        ..EngineOptions::default()
    }
}

#[test]
fn whoever_gave_way_goes_on_with_the_same_tokens() {
    // Nine blocks for six sequences that grow to four each.
    let (network, permits) = HashNetwork::new(9).gated();
    let engine = start(network, &tight());
    let prompts: Vec<_> = (0..6).map(|number| prompt(number, 20 + number)).collect();
    let submit = |prompt: &Vec<TokenId>| engine.submit(request(prompt.clone(), 100)).unwrap();
    let receivers: Vec<_> = prompts.iter().map(submit).collect();
    drop(permits);
    for (prompt, receiver) in prompts.iter().zip(receivers) {
        assert_eq!(read(receiver).tokens, plain_reply(prompt, 100));
    }
    let figures = engine.snapshot();
    assert!(figures.n_preempted_total > 0, "{figures:?}");
    assert_eq!(
        figures.n_prompt_total,
        (20..26).sum::<u64>(),
        "counted once each"
    );
    assert_eq!(figures.n_generated_total, 600);
    assert_idle(&engine);
}

#[test]
fn a_draw_is_the_same_after_giving_way() {
    let sampling = Sampling {
        temperature: Some(0.9),
        top_k: Some(20),
        min_p: 0.02,
        frequency_penalty: 0.3,
        min_tokens: 10,
        seed: Some(7),
        ..Sampling::default()
    };
    let asked = |number| GenerateRequest {
        sampling: sampling.clone(),
        stop_tokens: vec![60],
        ..request(prompt(number, 30), 90)
    };
    let roomy = start(HashNetwork::new(64), &EngineOptions::default());
    let expected: Vec<_> = (0..5)
        .map(|number| read(roomy.submit(asked(number)).unwrap()).tokens)
        .collect();
    assert_eq!(roomy.snapshot().n_preempted_total, 0);

    let (network, permits) = HashNetwork::new(6).gated();
    let engine = start(network, &tight());
    let receivers: Vec<_> = (0..5)
        .map(|number| engine.submit(asked(number)).unwrap())
        .collect();
    drop(permits);
    let got: Vec<_> = receivers
        .into_iter()
        .map(|receiver| read(receiver).tokens)
        .collect();
    assert!(engine.snapshot().n_preempted_total > 0);
    assert_eq!(got, expected);
}

#[test]
fn a_paused_reader_gives_its_blocks_to_whoever_can_run() {
    let options = EngineOptions {
        event_queue_len: 40,
        ..tight()
    };
    let engine = start(HashNetwork::new(4), &options);
    let slow = prompt(1, 30);
    let unread = engine.submit(request(slow.clone(), 90)).unwrap();
    wait_for(&engine, "paused", |figures| figures.n_paused == 1);
    assert!(engine.snapshot().n_free_blocks < 4);
    // Needs every block there is.
    let whole = prompt(2, 100);
    let answer = read(engine.submit(request(whole.clone(), 28)).unwrap());
    assert_eq!(answer.tokens, plain_reply(&whole, 28));
    assert_eq!(engine.snapshot().n_preempted_total, 1);
    assert_eq!(read(unread).tokens, plain_reply(&slow, 90));
    assert_idle(&engine);
}
