//! A token's logits depend on its sequence and on nothing else, to the last bit.

use ingle::gguf::Gguf;
use ingle::model::KvType;

use super::{Bench, Sequence, open, tokens};
use crate::fixtures;
use crate::gguf_file::TinyLlama;

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let row = |row: &Vec<f32>| row.iter().map(|value| value.to_bits()).collect();
    logits.iter().map(row).collect()
}

/// Every way of cutting `n` tokens into steps that a scheduler might choose.
fn cuts(n: usize) -> Vec<Vec<usize>> {
    let mut uneven = vec![1, 31, 2, 33, 7];
    uneven.push(n - uneven.iter().sum::<usize>());
    vec![vec![1; n], uneven, vec![n - 1, 1], vec![n / 2, n - n / 2]]
}

fn check(gguf: &Gguf, n_vocab: u32, n: usize) {
    for kv_type in KvType::ALL {
        check_kv(gguf, kv_type, n_vocab, n);
    }
}

fn check_kv(gguf: &Gguf, kv_type: KvType, n_vocab: u32, n: usize) {
    let tokens = tokens(7, n, n_vocab);
    let whole = bits(&Bench::with_kv(gguf, 1, kv_type).logits(&tokens, &[n]));
    for n_threads in [1, 2, 3] {
        let mut bench = Bench::with_kv(gguf, n_threads, kv_type);
        for cut in cuts(n) {
            // Other blocks each time, with what the last time left in them.
            assert_eq!(
                bits(&bench.logits(&tokens, &cut)),
                whole,
                "{cut:?}, {n_threads} threads"
            );
        }
    }
}

#[test]
fn prompts_in_chunks_at_once_and_token_by_token() {
    for name in ["F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "Q3_K"] {
        check(&open(TinyLlama::of_type(name).to_bytes()), 384, 100);
    }
    let windowed = TinyLlama {
        sliding_window: Some(40),
        ..TinyLlama::default()
    };
    check(&open(windowed.to_bytes()), 384, 100);
}

#[test]
fn smollm2_in_chunks_at_once_and_token_by_token() {
    check(&Gguf::open(&fixtures::smollm2()).unwrap(), 49_152, 80);
}

#[test]
fn a_sequence_alone_and_beside_others() {
    let gguf = open(TinyLlama::of_type("Q4_1").to_bytes());
    let lengths = [70, 1, 33, 64, 12, 90, 5];
    let prompts: Vec<Vec<u32>> = (0_u32..)
        .zip(lengths)
        .map(|(seed, n)| tokens(seed, n, 384))
        .collect();
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| bits(&Bench::new(&gguf, 1).logits(prompt, &[prompt.len()])))
        .collect();

    let mut bench = Bench::new(&gguf, 2);
    let mut sequences: Vec<Sequence> = prompts.iter().map(|p| bench.sequence(p)).collect();
    let mut together = vec![Vec::new(); prompts.len()];
    // Each step takes another number of tokens of every sequence that has some left.
    for step in 1.. {
        let mut rows = Vec::new();
        let mut owners = Vec::new();
        for (i, sequence) in sequences.iter_mut().enumerate() {
            let left = sequence.tokens.len() - sequence.n_cached;
            let n = left.min((step * (i + 3)) % 17 + 1);
            if n > 0 {
                owners.extend(std::iter::repeat_n(i, n));
                rows.push((sequence, n));
            }
        }
        if rows.is_empty() {
            break;
        }
        let logits = bits(&bench.step(&mut rows));
        for (owner, row) in owners.into_iter().zip(logits) {
            together[owner].push(row);
        }
    }
    assert_eq!(together, alone);
}
