//! SmolLM2 against the reader and the network of candle-transformers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Content};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use ingle::gguf::Gguf;
use ingle::text::{Framing, SpecialTokens, Text, TextOptions};

use super::{Bench, best, cosine};
use crate::fixtures;

/// A little over 200 tokens of plain and of less plain text.
const TEXT: &str = "The lighthouse keeper climbed the stairs every evening, counting them under his \
    breath: one hundred and ninety-six, never more, never less. From the gallery he could see the \
    fishing boats return, each with its lantern, and he knew them all by the way they moved. In \
    1887 a storm took the Marigold with eleven men; he wrote their names in the log, and the price \
    of the lamp oil (4 shillings and 6 pence) on the line below, because both were true. \
    def mean(values): return sum(values) / len(values)\nWhen his daughter asked why the sea is \
    salt, he told her that rivers carry a little of every stone they pass, and that the sea never \
    gives anything back except water. She thought about this for a week. Then she asked whether \
    the rain remembers. \u{6d77}\u{306f}\u{5e83}\u{3044}. He had no answer, so he lit the lamp, and \
    the light went round and round above the rocks until the morning came grey and quiet.";
/// Below it two logits are a tie: both networks round activations to eight bits, each in its own way.
const MARGIN: f32 = 0.5;
const N_POSITIONS: usize = 200;

fn text_tokens(gguf: &Gguf) -> Vec<u32> {
    let text = Text::from_gguf(gguf.metadata(), &TextOptions::default()).unwrap();
    let mut tokens = text
        .encode(TEXT, SpecialTokens::AsText, Framing::Bare)
        .unwrap();
    assert!(tokens.len() >= N_POSITIONS, "{} tokens", tokens.len());
    tokens.truncate(N_POSITIONS);
    tokens
}

/// The logits of every position by candle-transformers.
fn by_candle(path: &Path, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut file = File::open(path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut network = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let mut forward = |position: usize, token: u32| {
        let input = Tensor::new(&[[token]], &Device::Cpu).unwrap();
        let logits = network.forward(&input, position).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    };
    tokens
        .iter()
        .enumerate()
        .map(|(position, token)| forward(position, *token))
        .collect()
}

/// Writes the same model with every weight decoded: nothing rounds activations then.
fn decode(from: &Path, to: &Path) {
    let mut file = File::open(from).unwrap();
    let content = Content::read(&mut file).unwrap();
    let decoded: Vec<(String, QTensor)> = content
        .tensor_infos
        .keys()
        .map(|name| {
            let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap();
            let floats = tensor.dequantize(&Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&floats, GgmlDType::F32).unwrap();
            (name.clone(), tensor)
        })
        .collect();
    let metadata: Vec<_> = content
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let tensors: Vec<_> = decoded
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut out = BufWriter::new(File::create(to).unwrap());
    gguf_file::write(&mut out, &metadata, &tensors).unwrap();
    out.flush().unwrap();
}

/// The cosines of every position.
fn cosines(a: &[Vec<f32>], b: &[Vec<f32>]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| cosine(a, b)).collect()
}

/// The lowest cosine and the mean distance from 1.
fn summary(cosines: &[f64]) -> (f64, f64) {
    let lowest = cosines.iter().copied().fold(1.0, f64::min);
    let distance: f64 = cosines.iter().map(|cosine| 1.0 - cosine).sum();
    (lowest, distance / cosines.len() as f64)
}

/// Asserts the same best token wherever theirs is the best by more than `margin`.
fn assert_same_best(ours: &[Vec<f32>], theirs: &[Vec<f32>], margin: f32) -> usize {
    let mut n_decided = 0;
    for (position, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let (token, distance) = best(theirs);
        if distance > margin {
            assert_eq!(
                best(ours).0,
                token,
                "position {position}, margin {distance}"
            );
            n_decided += 1;
        }
    }
    n_decided
}

/// The file as it is carries eight-bit activations in both programs, and their rounding differs. So
/// the network is held to candle's with all weights decoded, tightly, and the arithmetic to being no
/// further from that than candle's own.
#[test]
fn smollm2_agrees_with_candle_at_every_position() {
    let folder = tempfile::tempdir().unwrap();
    let decoded = folder.path().join("decoded.gguf");
    decode(&fixtures::smollm2(), &decoded);
    let gguf = Gguf::open(&fixtures::smollm2()).unwrap();
    let tokens = text_tokens(&gguf);

    let exact = by_candle(&decoded, &tokens);
    let in_floats = Bench::new(&Gguf::open(&decoded).unwrap(), 2).logits(&tokens, &[N_POSITIONS]);
    let (lowest, _) = summary(&cosines(&in_floats, &exact));
    println!("all weights decoded: lowest cosine {lowest:.7}");
    assert!(lowest > 0.999_99, "{lowest}");
    assert_same_best(&in_floats, &exact, 0.02);

    let candle = by_candle(&fixtures::smollm2(), &tokens);
    let ours = Bench::new(&gguf, 2).logits(&tokens, &[N_POSITIONS]);
    let (lowest, distance) = summary(&cosines(&ours, &exact));
    let (candle_lowest, candle_distance) = summary(&cosines(&candle, &exact));
    let (between, between_distance) = summary(&cosines(&ours, &candle));
    println!("eight-bit activations, lowest cosine and mean distance to the decoded weights:");
    println!("  ours {lowest:.5} {distance:.2e}, candle {candle_lowest:.5} {candle_distance:.2e}");
    println!("  ours to candle {between:.5} {between_distance:.2e}");
    assert!(lowest > 0.99, "{lowest}");
    assert!(
        distance < 1.05 * candle_distance,
        "{distance} {candle_distance}"
    );
    let n_decided = assert_same_best(&ours, &candle, MARGIN);
    assert!(n_decided > N_POSITIONS / 2, "{n_decided} positions decided");

    // With candle's products, which serve processors for which there are no kernels of ours, the network
    // is as far from the decoded weights as candle's: a rounding that falls otherwise moves all later ones,
    // so it is no nearer to candle's own than that.
    let products = Bench::for_candle(&gguf).logits(&tokens, &[N_POSITIONS]);
    let (lowest, distance) = summary(&cosines(&products, &exact));
    println!("  ours with candle's products {lowest:.5} {distance:.2e}");
    assert!(lowest > 0.99, "{lowest}");
    assert!(
        distance < 1.1 * candle_distance,
        "{distance} {candle_distance}"
    );
    assert_same_best(&products, &candle, MARGIN);
}
