//! Files that contradict themselves or ask for what is not built, and batches that cannot be.

use ingle::model::{Batch, KvType, Limits, Memory, ModelConfig};

use super::{Bench, LIMITS, load_file, open};
use crate::gguf_file::{GgufFile, Meta, TinyLlama};

fn tiny() -> GgufFile {
    TinyLlama::default().file()
}

/// The sentence a file is refused with.
fn refusal(file: &GgufFile) -> String {
    load_file(file)
        .expect_err("a file that should be refused")
        .to_string()
}

/// A key of the architecture, a value it cannot have, and what the sentence has to say.
fn impossible_keys() -> Vec<(&'static str, Meta, &'static str)> {
    let heads = "attention.head_count";
    let kv_heads = "attention.head_count_kv";
    let epsilon = "attention.layer_norm_rms_epsilon";
    vec![
        (heads, 0_u32.into(), "is 0: it must be at least 1"),
        (heads, 3_u32.into(), "a multiple of the 3 heads"),
        (kv_heads, 3_u32.into(), "a divisor of the 4 heads"),
        (kv_heads, 8_u32.into(), "a divisor of the 4 heads"),
        ("block_count", 0_u32.into(), "llama.block_count is 0"),
        ("block_count", (1_u32 << 31).into(), "no tensor blk.2."),
        ("embedding_length", u32::MAX.into(), "is 4294967295"),
        ("context_length", 0_u32.into(), "llama.context_length is 0"),
        ("context_length", u32::MAX.into(), "is 4294967295"),
        (
            "rope.dimension_count",
            15_u32.into(),
            "is 15: it must be even",
        ),
        ("rope.dimension_count", 18_u32.into(), "even and at most 16"),
        ("rope.freq_base", 0.0_f32.into(), "above 0 and finite"),
        (epsilon, f32::NAN.into(), "is NaN: it must be above 0"),
        ("vocab_size", 385_u32.into(), "384 as the rest of the file"),
        (
            "feed_forward_length",
            "many".into(),
            "llama.feed_forward_length",
        ),
    ]
}

#[test]
fn keys_that_cannot_be_are_named_with_their_values() {
    for (key, value, expected) in impossible_keys() {
        let sentence = refusal(&tiny().set(&format!("llama.{key}"), value.clone()));
        assert!(sentence.contains(expected), "{key} = {value:?}: {sentence}");
    }
    let sentence = refusal(&tiny().set("general.architecture", "falcon"));
    assert!(sentence.starts_with("architecture \"falcon\" is not supported"));
}

#[test]
fn what_is_not_built_is_refused_and_not_ignored() {
    let cases: [(GgufFile, &str); 5] = [
        (tiny().set("llama.expert_count", 8_u32), "8 experts"),
        (
            tiny().set("llama.rope.scaling.type", "yarn"),
            "type \"yarn\"",
        ),
        (
            tiny().set("llama.attention.causal", false),
            "llama.attention.causal",
        ),
        (
            tiny().tensor_f32("blk.0.attn_q.bias", &[64], &[0.0; 64]),
            "tensor blk.0.attn_q.bias, which is no part of a llama network",
        ),
        (
            tiny().tensor_f32("blk.2.attn_norm.weight", &[64], &[0.0; 64]),
            "tensor blk.2.attn_norm.weight",
        ),
    ];
    for (file, expected) in cases {
        let sentence = refusal(&file);
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[test]
fn tensors_that_are_missing_or_of_another_shape_or_type_are_named() {
    let shapes = [
        ("n_ff", tiny().set("llama.feed_forward_length", 129_u32)),
        (
            "key_length",
            tiny()
                .set("llama.attention.key_length", 8_u32)
                .set("llama.rope.dimension_count", 8_u32),
        ),
    ];
    for (key, file) in shapes {
        let sentence = refusal(&file);
        assert!(sentence.contains("tensor blk.0."), "{key}: {sentence}");
        assert!(
            sentence.contains("where the keys ask for"),
            "{key}: {sentence}"
        );
    }
    let mut file = tiny();
    file.tensors
        .retain(|tensor| tensor.name != b"blk.1.ffn_up.weight");
    let sentence = refusal(&file);
    assert!(
        sentence.contains("no tensor blk.1.ffn_up.weight"),
        "{sentence}"
    );
    let mut file = tiny();
    file.tensors
        .retain(|tensor| tensor.name != b"token_embd.weight");
    assert!(refusal(&file).contains("no tensor token_embd.weight"));

    // IQ4_NL: 18 bytes for 32 weights.
    let mut file = tiny();
    for tensor in &mut file.tensors {
        if tensor.name == b"blk.1.ffn_up.weight" {
            tensor.type_id = 20;
            tensor.bytes = vec![0; 64 * 128 / 32 * 18];
        }
    }
    let sentence = refusal(&file);
    assert!(
        sentence.contains("blk.1.ffn_up.weight is of type IQ4_NL"),
        "{sentence}"
    );
}

#[test]
fn a_vocabulary_of_another_size_is_named() {
    let mut tokens: Vec<String> = (0..383).map(|id| format!("<{id}>")).collect();
    let sentence = refusal(&tiny().set("tokenizer.ggml.tokens", tokens.clone()));
    assert!(sentence.contains("a list of 383 tokens"), "{sentence}");
    tokens.push("x".to_owned());
    assert!(load_file(&tiny().set("tokenizer.ggml.tokens", tokens)).is_ok());
}

#[test]
fn memory_is_estimated_before_loading() {
    let bytes = TinyLlama::default().to_bytes();
    let gguf = open(bytes);
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let memory = Memory::estimate(&gguf, &config, &LIMITS);
    let weights: u64 = gguf
        .tensors()
        .iter()
        .map(ingle::gguf::TensorInfo::n_bytes)
        .sum();
    assert_eq!(memory.weights_bytes, weights);
    // Layers, keys and values, blocks, KV heads, tokens, values, bytes.
    assert_eq!(memory.kv_bytes, 2 * 2 * 40 * 2 * 32 * 16 * 2);
    let bytes = Limits {
        kv_type: KvType::Int8,
        ..LIMITS
    };
    let memory = Memory::estimate(&gguf, &config, &bytes);
    assert_eq!(memory.kv_bytes, 2 * 2 * 40 * 2 * 32 * (16 + 4));
    // The largest of the step's buffers: 256 rows of logits, here and on the host.
    assert!(memory.workspace_bytes > 2 * 256 * 384 * 4);
    assert!(memory.workspace_bytes < 4 << 20);
}

#[test]
fn batches_that_cannot_be_are_errors_and_the_model_lives_on() {
    let mut bench = Bench::tiny(&TinyLlama::default(), 1);
    let good = Batch {
        token_ids: vec![1, 2],
        positions: vec![0, 1],
        cu_seqlens: vec![0, 2],
        slot_mapping: vec![0, 1],
        block_tables: vec![vec![0]],
        logit_rows: vec![1],
        state_rows: vec![0],
    };
    let expected = bench.model.forward(&good).unwrap().row(0).to_vec();
    let spoilers: [fn(&mut Batch); 15] = [
        |batch| batch.token_ids = vec![1, 384],
        |batch| batch.positions = vec![0, 512],
        |batch| batch.positions = vec![0],
        |batch| batch.positions = vec![0, 32],
        |batch| batch.slot_mapping = vec![0, 40 * 32],
        |batch| batch.slot_mapping = vec![],
        |batch| batch.cu_seqlens = vec![0, 1],
        |batch| batch.cu_seqlens = vec![],
        |batch| batch.cu_seqlens = vec![0, 3],
        |batch| batch.block_tables = vec![vec![40]],
        |batch| batch.block_tables = vec![],
        |batch| batch.logit_rows = vec![2],
        |batch| batch.logit_rows = vec![0; 257],
        |batch| batch.state_rows = vec![2],
        |batch| batch.token_ids = vec![0; 257],
    ];
    for spoil in spoilers {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert!(bench.model.forward(&bad).is_err(), "{bad:?}");
    }
    assert_eq!(bench.model.forward(&good).unwrap().row(0), expected);
    let none = Batch {
        logit_rows: vec![],
        ..good
    };
    assert_eq!(bench.model.forward(&none).unwrap().n_rows(), 0);
}
