//! `ingle perplexity`.

use std::path::Path;
use std::time::Instant;

use ingle::gguf::Gguf;
use ingle::text::{Framing, SpecialTokens, Text, TextOptions};
use serde_json::Value;

use super::{Ended, Ground, PATIENCE, ended, signal_to};
use crate::fixtures;
use crate::gguf_file::{TinyLlama, Vocabulary};
use crate::model::Bench;

const TEXT: &str = "The mill at the end of the valley had not turned for two winters, and the miller's \
    cat had taken to fishing. Nobody minded: flour came from the town now, 25 kilograms a sack, and \
    the cat was good at it. fn mill(grain: u32) -> u32 { grain * 3 / 4 }\nOnly the schoolboys were \
    sorry, because the wheel had been the best place from which to be pushed into the water.";

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// The chunks of a text as the documentation has them.
fn chunks(path: &Path, chunk_len: usize) -> Vec<Vec<u32>> {
    let gguf = Gguf::open(path).unwrap();
    let options = TextOptions {
        chat_template: Some(String::new()),
        ..TextOptions::default()
    };
    let text = Text::from_gguf(gguf.metadata(), &options).unwrap();
    let framing = Framing::AsTheModelWants;
    let tokens = text.encode(TEXT, SpecialTokens::AsText, framing).unwrap();
    let mut chunks: Vec<Vec<u32>> = tokens.chunks_exact(chunk_len).map(<[_]>::to_vec).collect();
    if let Some(beginning) = text.beginning() {
        for chunk in &mut chunks {
            chunk[0] = beginning;
        }
    }
    chunks
}

/// The negative log-likelihood of a token.
fn loss(logits: &[f32], token: u32) -> f64 {
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    sum.ln() - f64::from(logits[token as usize])
}

/// The numbers of a file, four bytes each, after its first eight.
fn words(path: &Path) -> Vec<u32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"INGLELOG");
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    bytes[8..].chunks_exact(4).map(word).collect()
}

/// Compares figures and file with the model's logits, computed token by token.
async fn check_by_hand(ground: &Ground, model: &Path, chunk_len: usize) {
    ground.write("text", TEXT);
    let name = model.to_str().unwrap();
    let size = chunk_len.to_string();
    let mut arguments = vec!["perplexity", "text", "-m", name, "--json"];
    arguments.extend(["--ctx-chunk", &size, "--logits", "logits"]);
    let told = json(&ground.run(&arguments).await);

    let chunks = chunks(model, chunk_len);
    assert!(chunks.len() > 1, "{}", chunks.len());
    let mut bench = Bench::new(&Gguf::open(model).unwrap(), 1);
    let (mut losses, mut rows) = (Vec::new(), Vec::new());
    for chunk in &chunks {
        let logits = bench.logits(chunk, &vec![1; chunk_len]);
        for position in chunk_len / 2..chunk_len - 1 {
            losses.push(loss(&logits[position], chunk[position + 1]));
            rows.extend(logits[position].iter().map(|logit| logit.to_bits()));
        }
    }
    let n = losses.len();
    let mean = losses.iter().sum::<f64>() / n as f64;
    let perplexity = number(&told["perplexity"]);
    assert!((perplexity / mean.exp() - 1.0).abs() < 1e-4, "{told}");
    assert_eq!(told["tokens_scored"], n);
    assert_eq!(told["chunks"], chunks.len());
    let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
    let error = perplexity * (squares / (n as f64 * (n as f64 - 1.0))).sqrt();
    assert!((number(&told["perplexity_error"]) / error - 1.0).abs() < 1e-4);

    let words = words(&ground.path("logits"));
    let n_vocab = rows.len() / n;
    let header = [1, n_vocab, chunks.len(), chunk_len, chunk_len / 2];
    assert_eq!(
        words[..5],
        header.map(|number| u32::try_from(number).unwrap())
    );
    let (tokens, logits) = words[5..].split_at(chunks.len() * chunk_len);
    assert_eq!(tokens, chunks.concat());
    assert!(logits == rows, "the rows are not the model's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smollm2_is_as_perplexed_as_its_logits_say() {
    let ground = Ground::new();
    check_by_hand(&ground, &fixtures::smollm2(), 32).await;
}

/// Such a model's chunks begin with a token of their own, and are longer than a step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_wants_a_beginning_gets_it_in_every_chunk() {
    let ground = Ground::new();
    let tiny = TinyLlama {
        vocabulary: Vocabulary::Spm,
        // Nobody needs it here.
        chat_template: Some("{% if %}"),
        ..TinyLlama::of_type("Q8_0")
    };
    let path = ground.path("spm.gguf");
    tiny.write(&path);
    assert_eq!(chunks(&path, 150)[1][0], 1);
    check_by_hand(&ground, &path, 150).await;
}

async fn against_f32(ground: &Ground, model: &str, chunk_len: &str) -> Value {
    ground.write("text", TEXT);
    let mut arguments = vec!["perplexity", "text", "-m", model, "--ctx-chunk", chunk_len];
    arguments.extend(["--against", "f32", "--json"]);
    json(&ground.run(&arguments).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_are_floats_diverge_from_f32_nowhere() {
    let ground = Ground::new();
    for weight in ["F32", "F16", "BF16"] {
        TinyLlama::of_type(weight).write(&ground.path("floats.gguf"));
        let told = against_f32(&ground, "floats.gguf", "64").await;
        let against = &told["against"];
        for key in ["kl_mean", "kl_median", "kl_percentile_99", "kl_max"] {
            assert!(number(&against[key]).abs() < 1e-9, "{weight}: {told}");
        }
        assert_eq!(number(&against["same_top_share"]), 1.0, "{weight}");
        assert_eq!(against["perplexity"], told["perplexity"], "{weight}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounded_activations_diverge_from_f32_a_little() {
    let ground = Ground::new();
    let path = fixtures::smollm2();
    let told = against_f32(&ground, path.to_str().unwrap(), "64").await;
    let against = &told["against"];
    let figure = |key: &str| number(&against[key]);
    assert!(figure("kl_mean") > 1e-6, "{told}");
    assert!(figure("kl_mean") < 0.02, "{told}");
    assert!(figure("kl_median") <= figure("kl_percentile_99"));
    assert!(figure("kl_percentile_99") <= figure("kl_max"));
    assert!(figure("same_top_share") > 0.9, "{told}");
    let ratio = figure("perplexity") / number(&told["perplexity"]);
    assert!((ratio - 1.0).abs() < 0.05, "{told}");
}

/// Keys and values in eight bits move the figures a little: on this short a text by some per cent, on
/// one of a few thousand tokens by a third of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_of_bytes_costs_little() {
    let ground = Ground::new();
    ground.write("text", TEXT);
    let path = fixtures::smollm2();
    let model = path.to_str().unwrap();
    let mut told = Vec::new();
    for kv_type in ["f16", "int8"] {
        let mut arguments = vec!["perplexity", "text", "-m", model, "--ctx-chunk", "64"];
        arguments.extend(["--kv-type", kv_type, "--json"]);
        told.push(number(&json(&ground.run(&arguments).await)["perplexity"]));
    }
    assert_ne!(told[0], told[1]);
    assert!((told[1] / told[0] - 1.0).abs() < 0.1, "{told:?}");
    let unknown = ["perplexity", "text", "-m", model, "--kv-type", "int4"];
    let ended = ground.run(&unknown).await;
    assert!(
        ended.err.contains("\"int4\" is neither f16 nor int8"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_are_shown_to_people() {
    let ground = Ground::new();
    ground.write("text", TEXT);
    let mut arguments = vec!["perplexity", "text", "-m", "tiny.gguf", "--ctx-chunk", "40"];
    arguments.extend(["--chunks", "2", "--against", "f32"]);
    let shown = ground.run(&arguments).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let parts = [
        "perplexity ",
        " ± ",
        "tokens/s",
        "38 tokens scored, the second halves of 2 chunks of 40",
        "decoded to f32: ",
        "KL(f32 || this), nats: mean 0.000000",
        "likeliest token at 100.00 %",
    ];
    for part in parts {
        assert!(shown.out.contains(part), "{part:?} is not in {}", shown.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_is_named() {
    let ground = Ground::new();
    ground.write("empty", "");
    ground.write("short", "Three words only");
    std::fs::write(ground.path("latin"), b"caf\xe9 au lait").unwrap();
    ground.write("text", TEXT);
    let cases: [(&str, &[&str], &str); 5] = [
        ("missing", &[], "missing cannot be read"),
        ("empty", &[], "empty is empty: name a file"),
        ("latin", &[], "latin is not UTF-8 at byte 3"),
        (
            "short",
            &[],
            "tokens and a chunk takes 512: take a longer text",
        ),
        (
            "text",
            &["--ctx-chunk", "8193"],
            "--ctx-chunk is 8193 and the model was trained for 8192 tokens",
        ),
    ];
    for (file, more, expected) in cases {
        let arguments = [&["perplexity", file, "-m", "tiny.gguf"], more].concat();
        let ended = ground.run(&arguments).await;
        let sentence = ended.sentence();
        assert!(sentence.contains(expected), "{file}: {sentence}");
    }
    let unknown = ground.run(&["perplexity", "text", "-m", "smolm"]).await;
    assert!(unknown.sentence().contains("there is no model \"smolm\""));

    let arguments = ["perplexity", "text", "-m", "tiny.gguf", "--ctx-chunk", "64"];
    let small = |more: &[&str]| {
        let mut command = ground.command(&[&arguments, more].concat());
        command.env("INGLE_MEMORY_BYTES", "1000");
        ended(command)
    };
    let alone = small(&[]).await;
    assert!(
        alone
            .sentence()
            .contains("MB of memory and 1 MB may be used")
    );
    let both = small(&["--against", "f32"]).await;
    assert!(both.sentence().contains("decoded to f32 ("), "{both:?}");
    let tiny = ground.run(&[&arguments[..5], &["4"]].concat()).await;
    assert_eq!(tiny.code, Some(2), "{tiny:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_it_and_leaves_no_half_of_a_file() {
    let ground = Ground::new();
    // Minutes of work.
    ground.write("text", &TEXT.repeat(2000));
    let mut arguments = vec!["perplexity", "text", "-m", "tiny.gguf"];
    arguments.extend(["--logits", "logits"]);
    let child = ground.command(&arguments).spawn().unwrap();
    let partial = ground.path("logits.partial");
    let give_up = Instant::now() + PATIENCE;
    while !partial.exists() {
        assert!(Instant::now() < give_up, "it does not begin");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    signal_to(&child, rustix::process::Signal::INT);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(!partial.exists() && !ground.path("logits").exists());
}
