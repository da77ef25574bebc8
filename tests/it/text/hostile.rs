//! Vocabularies, texts and templates that mean harm.

use std::time::{Duration, Instant};

use ingle::chat::{Message, Role};
use ingle::text::{Framing, SpecialTokens, Text, TextOptions};

use super::{fixture, from_file, open, sentence_piece_model};
use crate::fixtures;
use crate::gguf_file::{GgufFile, Meta};

/// A byte-level vocabulary of six tokens.
fn bpe() -> GgufFile {
    let tokens = ["a", "b", "ab", "abab", "Ġ", "<|end|>"]
        .map(String::from)
        .to_vec();
    GgufFile::new()
        .with("general.architecture", "llama")
        .with("tokenizer.ggml.model", "gpt2")
        .with("tokenizer.ggml.pre", "gpt-2")
        .with("tokenizer.ggml.tokens", tokens)
        .with("tokenizer.ggml.token_type", vec![1i32, 1, 1, 1, 1, 3])
        .with(
            "tokenizer.ggml.merges",
            vec!["a b".to_owned(), "ab ab".into()],
        )
        .with("tokenizer.ggml.eos_token_id", 5u32)
}

/// A SentencePiece vocabulary of four tokens.
fn spm() -> GgufFile {
    let tokens = ["<unk>", "</s>", "▁", "<0x41>"].map(String::from).to_vec();
    GgufFile::new()
        .with("general.architecture", "llama")
        .with("tokenizer.ggml.model", "llama")
        .with("tokenizer.ggml.tokens", tokens)
        .with("tokenizer.ggml.scores", vec![0f32, 0.0, -1.0, 0.0])
        .with("tokenizer.ggml.token_type", vec![2i32, 3, 1, 6])
        .with("tokenizer.ggml.eos_token_id", 1u32)
        .with("tokenizer.ggml.unknown_token_id", 0u32)
}

fn strings(texts: &[&[u8]]) -> Meta {
    Meta::Array(
        8,
        texts.iter().map(|text| Meta::Str(text.to_vec())).collect(),
    )
}

#[test]
fn the_small_vocabularies_work() {
    let encode = |file: &GgufFile, text| {
        let tokenizer = from_file(file, &TextOptions::default()).unwrap();
        tokenizer
            .encode(text, SpecialTokens::Parse, Framing::Bare)
            .unwrap()
    };
    assert_eq!(
        encode(&bpe(), "abab abz<|end|>"),
        [3, 4, 2, 5],
        "z has no token"
    );
    assert_eq!(
        encode(&spm(), "A é</s>"),
        [2, 3, 2, 0, 0, 1],
        "é has no bytes"
    );
}

/// Each file is refused with one sentence that contains the one beside it.
fn assert_refused<const N: usize>(cases: [(GgufFile, &str); N]) {
    for (file, sentence) in cases {
        let error = from_file(&file, &TextOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(sentence),
            "{error:?} should say {sentence:?}"
        );
        assert!(
            error.len() < 600 && !error.contains('\n'),
            "one sentence: {error}"
        );
    }
}

#[test]
fn contradictions_are_named() {
    let tokens = "tokenizer.ggml.tokens";
    let cases = [
        (
            bpe().set("tokenizer.ggml.model", "bert"),
            "tokenizer.ggml.model is \"bert\": supported are",
        ),
        (
            bpe().without("tokenizer.ggml.model"),
            "tokenizer.ggml.model",
        ),
        (
            bpe().set("tokenizer.ggml.pre", "qwen99"),
            "tokenizer.ggml.pre is \"qwen99\": supported are",
        ),
        (
            bpe().set(tokens, strings(&[])),
            "tokenizer.ggml.tokens has 0 tokens",
        ),
        (bpe().without(tokens), "tokenizer.ggml.tokens"),
        (
            bpe().set(tokens, strings(&[b"a", b"\xFF\xFE"])),
            "token 1 of tokenizer.ggml.tokens is not UTF-8",
        ),
        (
            bpe().set("tokenizer.ggml.token_type", vec![1i32]),
            "token_type has 1 entries for 6 tokens",
        ),
        (
            bpe().set("tokenizer.ggml.token_type", vec![1i32, 9, 1, 1, 1, 1]),
            "token 1 is of type 9",
        ),
        (
            bpe().set("tokenizer.ggml.eos_token_id", 6u32),
            "eos_token_id is 6 but the vocabulary has 6 tokens",
        ),
        (
            bpe().with("tokenizer.ggml.bos_token_id", u32::MAX),
            "bos_token_id is 4294967295 but",
        ),
        (
            bpe().without("tokenizer.ggml.merges"),
            "tokenizer.ggml.merges",
        ),
    ];
    assert_refused(cases);
}

#[test]
fn pieces_that_do_not_fit_together_are_named() {
    let tokens = "tokenizer.ggml.tokens";
    let merges = |merge: &str| bpe().set("tokenizer.ggml.merges", vec![merge.to_owned()]);
    let long = "a".repeat(5_000) + " b";
    let cases = [
        (
            merges("b a"),
            "merge 0 of tokenizer.ggml.merges, \"b a\": what it makes is not in the vocabulary",
        ),
        (
            merges("a x"),
            "it names a token that is not in the vocabulary",
        ),
        (merges("ab"), "it is not two tokens with a space between"),
        (
            merges(&long),
            "it names a token that is not in the vocabulary",
        ),
        (
            merges("a <|end|>"),
            "it names a token that is not in the vocabulary",
        ),
        (
            spm().set(tokens, strings(&[b"<unk>", b"</s>", b"x", b"<0x-1>"])),
            "reads \"<0x-1>\" instead of",
        ),
        (
            spm().set("tokenizer.ggml.scores", vec![0f32]),
            "tokenizer.ggml.scores has 1 entries for 4 tokens",
        ),
        (
            spm().set("tokenizer.ggml.scores", vec![0f32, 0.0, f32::NAN, 0.0]),
            "token 2 has score NaN",
        ),
        (
            spm().without("tokenizer.ggml.unknown_token_id"),
            "no token for byte 0x00 and no unknown token",
        ),
        (
            bpe().with("tokenizer.chat_template", "{% if %}"),
            "the chat template of the model file does not parse",
        ),
        (
            bpe().with("tokenizer.chat_template", &*"x".repeat(300_000)),
            "the chat template of the model file has 300000 bytes: at most 262144 are supported",
        ),
    ];
    assert_refused(cases);
}

#[test]
fn more_special_text_than_anyone_needs_is_refused() {
    let n_tokens = 40_000;
    let texts: Vec<String> = (0..n_tokens)
        .map(|n| format!("<|a_rather_long_special_token_{n}|>"))
        .collect();
    let kinds = vec![3i32; n_tokens];
    let file = bpe()
        .set("tokenizer.ggml.tokens", texts)
        .set("tokenizer.ggml.token_type", kinds);
    let error = from_file(
        &file.set("tokenizer.ggml.merges", strings(&[])),
        &TextOptions::default(),
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("the special tokens have ")
    );
}

/// What is measured for is quadratic time and recursion: either takes far more than the limit, on
/// a machine that is busy with other things too.
#[test]
fn a_long_run_of_equal_characters_takes_no_time() {
    let mistral = sentence_piece_model("mistral-tokenizer.model.v3");
    let mistral = from_file(&mistral, &TextOptions::default()).unwrap();
    let texts = [
        "a", " ", "\n", "1", "漢", "!", "\u{301}", "a ", "ab\n", "<", "\0", "'s",
    ];
    let n_bytes = if cfg!(debug_assertions) {
        200_000
    } else {
        1_000_000
    };
    let limit = Duration::from_secs(10);
    let tokenizers = [
        ("smollm2", fixture("SmolLM2-135M-Instruct.Q4_1.gguf")),
        ("llama3", fixture("ggml-vocab-llama-bpe.gguf")),
        ("mistral", mistral),
    ];
    for (name, tokenizer) in tokenizers {
        for text in texts {
            let long = text.repeat(n_bytes / text.len());
            let start = Instant::now();
            let ids = tokenizer
                .encode(&long, SpecialTokens::Parse, Framing::Bare)
                .unwrap();
            let took = start.elapsed();
            assert!(
                took < limit,
                "{name} took {took:?} for {n_bytes} bytes of {text:?}"
            );
            assert_eq!(tokenizer.decode(&ids), long, "{name}: {text:?}");
            if took > limit / 4 {
                println!("{name}: {took:?} for {text:?}");
            }
        }
    }
}

#[test]
fn a_text_longer_than_any_context_is_refused() {
    let text = fixture("ggml-vocab-llama-spm.gguf");
    let error = text
        .encode(&"a".repeat(17 << 20), SpecialTokens::Parse, Framing::Bare)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the text has 17825792 bytes: at most 16777216 can be tokenized at once"
    );
}

fn with_template(source: &str) -> Text {
    let options = TextOptions {
        chat_template: Some(source.into()),
        ..TextOptions::default()
    };
    open(&fixtures::path("ggml-vocab-llama-spm.gguf"), &options).unwrap()
}

#[test]
fn a_template_cannot_take_all_time_or_memory() {
    let doubling = "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}\
        {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}";
    let bombs = [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}",
        doubling,
        "{{ ('x' * 100000000) | length }}",
        "{% for i in range(100000) %}{{ 'x' * 500 }}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('x', 'xx') %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}\
         {% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{{ '{:>999999999}'.format('x') }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'x\n' | indent(999999999) }}",
        "{{ range(100000) | list | tojson(indent=100000) }}",
    ];
    for bomb in bombs {
        let start = Instant::now();
        let error = with_template(bomb).encode_chat(&[Message::text(Role::User, "Hi")]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}: {bomb}");
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("the chat template of "), "{error}");
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn an_honest_template_has_budget_enough() {
    let text = fixture("SmolLM2-135M-Instruct.Q4_1.gguf");
    let turn = |n| {
        Message::text(
            if n % 2 == 0 {
                Role::User
            } else {
                Role::Assistant
            },
            "word ".repeat(200),
        )
    };
    let long: Vec<Message> = (0..2_000).map(turn).collect();
    assert!(text.encode_chat(&long).unwrap().len() > 400_000);
}

#[test]
fn a_template_sees_nothing_of_the_machine() {
    let hello = [Message::text(Role::User, "Hi")];
    for source in [
        "{% include '/etc/hostname' %}",
        "{% import '/etc/hostname' as x %}",
        "{% extends 'other' %}",
        "{{ open('/etc/hostname') }}",
        "{{ debug() }}",
        "{{ env('HOME') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ] {
        let prompt = with_template(source).render_chat(&hello);
        assert!(
            prompt.as_ref().map_or(true, String::is_empty),
            "{source}: {prompt:?}"
        );
    }
}

#[test]
fn templates_speak_the_dialect_models_are_published_in() {
    let hello = [
        Message::text(Role::System, " Be <brief> "),
        Message::text(Role::User, "Hi"),
    ];
    let cases = [
        ("{{ messages[0]['content'].strip().upper() }}", "BE <BRIEF>"),
        (
            "{{ messages[0].content | trim | tojson }}",
            "\"Be <brief>\"",
        ),
        (
            "{{ {'a': [1, 2.0, true, none], 'é': 'x\"y'} | tojson }}",
            "{\"a\": [1, 2.0, true, null], \"é\": \"x\\\"y\"}",
        ),
        (
            "{{ {'a': [1], 'b': []} | tojson(indent=4) }}",
            "{\n    \"a\": [\n        1\n    ],\n    \"b\": []\n}",
        ),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        ),
        (
            "{% if tools is not none %}tools{% else %}none{% endif %}",
            "none",
        ),
        (
            "{% if custom is defined %}x{% endif %}{{ bos_token }}{{ eos_token }}",
            "<s></s>",
        ),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        (
            "{{ messages[::-1][0].content }}{{ messages[1:] | length }}",
            "Hi1",
        ),
        ("{{ strftime_now('%Y') | length }}", "4"),
        (
            "{{ messages[0].get('missing', 'no') }}{{ 'a,b'.split(',')[-1] }}",
            "nob",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(
            with_template(source).render_chat(&hello).unwrap(),
            expected,
            "{source}"
        );
    }
}
