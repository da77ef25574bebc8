//! The same ids as the reference tokenizers, text by text.

use std::fs;

use ingle::text::{Framing, SpecialTokens, Text, TextOptions};

use super::{data, fixture, from_file, ids, sentence_piece_model};
use crate::fixtures;

const BARE: Framing = Framing::Bare;

/// Compares with one list of ids of `corpus.json`, showing every text that differs.
fn compare(text: &Text, list: &str, name: &str, special_tokens: SpecialTokens) {
    let corpus = data("corpus.json");
    let texts = corpus["texts"].as_array().unwrap();
    let expected = corpus[list][name].as_array().unwrap();
    assert_eq!(texts.len(), expected.len());
    let mut differing = Vec::new();
    for (source, expected) in texts.iter().zip(expected) {
        let source = source.as_str().unwrap();
        let got = text.encode(source, special_tokens, BARE).unwrap();
        if got != ids(expected) {
            differing.push(format!("{source:?}\n  expected {expected}\n  got {got:?}"));
        }
        // Control tokens write nothing, so only text comes back whole.
        if special_tokens == SpecialTokens::AsText {
            // SentencePiece writes a space as U+2581 and cannot tell the two apart.
            let decoded = text.decode(&got).replace(' ', "▁");
            assert_eq!(decoded, source.replace(' ', "▁"), "{name}");
        }
    }
    assert!(
        differing.is_empty(),
        "{} of {}\n{}",
        differing.len(),
        texts.len(),
        differing.join("\n")
    );
}

#[test]
fn smollm2_tokenizes_as_llama_cpp() {
    let text = fixture("SmolLM2-135M-Instruct.Q4_1.gguf");
    compare(&text, "as_text", "smollm2", SpecialTokens::AsText);
    compare(&text, "parsed", "smollm2", SpecialTokens::Parse);
}

#[test]
fn llama3_tokenizes_as_llama_models() {
    let text = fixture("ggml-vocab-llama-bpe.gguf");
    compare(&text, "as_text", "llama3", SpecialTokens::AsText);
    compare(&text, "parsed", "llama3", SpecialTokens::Parse);
}

#[test]
fn llama2_tokenizes_as_sentencepiece() {
    compare(
        &fixture("ggml-vocab-llama-spm.gguf"),
        "as_text",
        "llama2",
        SpecialTokens::AsText,
    );
}

#[test]
fn mistral_tokenizes_as_mistral_common() {
    for (model, name) in [("v1", "mistral_v1"), ("v3", "mistral_v3")] {
        let file = sentence_piece_model(&format!("mistral-tokenizer.model.{model}"));
        let text = from_file(&file, &TextOptions::default()).unwrap();
        compare(&text, "as_text", name, SpecialTokens::AsText);
    }
}

/// llama.cpp's own test vocabularies come with texts and the ids it expects for them.
#[test]
fn llama_cpps_vocabularies_give_the_ids_beside_them() {
    for name in ["llama-bpe", "llama-spm", "phi-3", "gpt-2"] {
        let name = format!("ggml-vocab-{name}.gguf");
        let text = fixture(&name);
        let inputs = fs::read_to_string(fixtures::path(&format!("{name}.inp"))).unwrap();
        let outputs = fs::read_to_string(fixtures::path(&format!("{name}.out"))).unwrap();
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<&str> = outputs.lines().collect();
        assert!(
            outputs.len() > 40 && outputs.len() <= inputs.len(),
            "{name}"
        );
        for (input, output) in inputs.iter().zip(outputs) {
            let expected: Vec<u32> = output
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let got = text.encode(input, SpecialTokens::AsText, BARE).unwrap();
            assert_eq!(got, expected, "{name}: {input:?}");
        }
    }
}

#[test]
fn a_text_is_framed_as_the_file_asks() {
    let framed = |name: &str| {
        let text = fixture(name);
        let framed = text
            .encode("Hi", SpecialTokens::AsText, Framing::AsTheModelWants)
            .unwrap();
        let bare = text.encode("Hi", SpecialTokens::AsText, BARE).unwrap();
        framed[..framed.len() - bare.len()].to_vec()
    };
    assert!(framed("SmolLM2-135M-Instruct.Q4_1.gguf").is_empty());
    assert_eq!(
        framed("ggml-vocab-llama-bpe.gguf"),
        [128_000],
        "Llama 3 has no key and wants one"
    );
    assert_eq!(framed("ggml-vocab-llama-spm.gguf"), [1]);
    let v3 = sentence_piece_model("mistral-tokenizer.model.v3")
        .with("tokenizer.ggml.add_eos_token", true);
    let v3 = from_file(&v3, &TextOptions::default()).unwrap();
    let ids = v3
        .encode("Hi", SpecialTokens::AsText, Framing::AsTheModelWants)
        .unwrap();
    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&2)));
}

#[test]
fn the_space_prefix_can_be_turned_off() {
    let file = sentence_piece_model("mistral-tokenizer.model.v1");
    let with = from_file(&file, &TextOptions::default()).unwrap();
    let without = file.with("tokenizer.ggml.add_space_prefix", false);
    let without = from_file(&without, &TextOptions::default()).unwrap();
    let encode = |text: &Text, source| text.encode(source, SpecialTokens::AsText, BARE).unwrap();
    assert_eq!(encode(&with, "Hello"), encode(&without, " Hello"));
    assert_ne!(encode(&with, "Hello"), encode(&without, "Hello"));
    assert_eq!(without.decode(&encode(&without, " Hello")), " Hello");
    assert_eq!(with.decode(&encode(&with, " Hello")), " Hello");
}

#[test]
fn every_token_that_ends_an_answer_is_known() {
    let smollm2 = fixture("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert_eq!(
        smollm2.end_of_generation(),
        [0, 2],
        "<|endoftext|> and <|im_end|>"
    );
    let llama3 = fixture("ggml-vocab-llama-bpe.gguf");
    assert_eq!(
        llama3.end_of_generation(),
        [128_001, 128_009],
        "<|end_of_text|> and <|eot_id|>"
    );
    assert_eq!(
        fixture("ggml-vocab-llama-spm.gguf").end_of_generation(),
        [2]
    );
    let options = TextOptions {
        stop_tokens: vec!["[INST]".into()],
        ..TextOptions::default()
    };
    let file = sentence_piece_model("mistral-tokenizer.model.v3");
    assert_eq!(
        from_file(&file, &options).unwrap().end_of_generation(),
        [2, 3]
    );
    let options = TextOptions {
        stop_tokens: vec!["<|stop|>".into()],
        ..TextOptions::default()
    };
    let error = from_file(&file, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the stop token \"<|stop|>\" is not in the model's vocabulary"
    );
}

/// Streaming an answer gives the text of decoding it at once, whatever the ids.
#[test]
fn streamed_text_is_the_whole_text() {
    for name in [
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "ggml-vocab-llama-spm.gguf",
    ] {
        let text = fixture(name);
        let mut id = 12_345_u32;
        for round in 0..200 {
            let n_vocab = u32::try_from(text.n_vocab()).unwrap();
            let ids: Vec<u32> = (0..round)
                .map(|_| {
                    id = id.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Bytes come often, so that characters are cut and broken.
                    if id >> 31 == 0 {
                        (id >> 8) % 300
                    } else {
                        (id >> 8) % n_vocab
                    }
                })
                .collect();
            let mut detokenizer = text.detokenizer();
            let mut streamed: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
            streamed += &detokenizer.finish();
            assert_eq!(streamed, text.decode(&ids), "{name}");
        }
    }
}
