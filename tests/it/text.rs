//! Text to tokens and back, against the tokenizers and templates others use.

mod chat;
mod hostile;
mod reference;

use std::path::Path;

use ingle::gguf::Gguf;
use ingle::text::{Error, Text, TextOptions};
use serde_json::Value;

use crate::fixtures;
use crate::gguf_file::GgufFile;

/// The tokenizer of a model file, as the file describes it.
fn open(path: &Path, options: &TextOptions) -> Result<Text, Error> {
    let gguf = Gguf::open(path).unwrap();
    Text::from_gguf(gguf.metadata(), options)
}

/// The tokenizer of a file that exists only for the test.
fn from_file(file: &GgufFile, options: &TextOptions) -> Result<Text, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    file.write(&path);
    open(&path, options)
}

/// A fixture's tokenizer.
fn fixture(name: &str) -> Text {
    open(&fixtures::path(name), &TextOptions::default()).unwrap()
}

/// The vocabulary of a SentencePiece `.model` file, as a GGUF file has it.
///
/// Source: sentencepiece_model.proto: field 1 of a model is a piece; of a piece, field 1 is its
/// text, 2 its score and 3 its type, whose numbers GGUF took over.
fn sentence_piece_model(name: &str) -> GgufFile {
    let bytes = std::fs::read(fixtures::path(name)).unwrap();
    let (mut texts, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (_, piece) in fields(&bytes).filter(|(number, _)| *number == 1) {
        let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
        for (number, value) in fields(piece) {
            match number {
                1 => text = String::from_utf8(value.to_vec()).unwrap(),
                2 => score = f32::from_le_bytes(value.try_into().unwrap()),
                _ => kind = i32::from(value[0]),
            }
        }
        texts.push(text);
        scores.push(score);
        kinds.push(kind);
    }
    GgufFile::new()
        .with("general.architecture", "llama")
        .with("tokenizer.ggml.model", "llama")
        .with("tokenizer.ggml.tokens", texts)
        .with("tokenizer.ggml.scores", scores)
        .with("tokenizer.ggml.token_type", kinds)
        .with("tokenizer.ggml.bos_token_id", 1u32)
        .with("tokenizer.ggml.eos_token_id", 2u32)
        .with("tokenizer.ggml.unknown_token_id", 0u32)
}

/// The fields of a protobuf message: their numbers and bytes (of a varint the varint's).
fn fields(message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (tag, after) = (!rest.is_empty()).then(|| varint(rest))?;
        let (value, after) = match tag & 7 {
            0 => after.split_at(after.len() - varint(after).1.len()),
            1 => after.split_at(8),
            5 => after.split_at(4),
            _ => {
                let (n_bytes, after) = varint(after);
                after.split_at(usize::try_from(n_bytes).unwrap())
            }
        };
        rest = after;
        Some((tag >> 3, value))
    })
}

fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value = bytes[..end]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F));
    (value, &bytes[end..])
}

/// A file `tests/data/text/make_reference.py` made.
fn data(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/text")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}
