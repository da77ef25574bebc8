//! The vocabulary of a model that has none of its own.

use crate::gguf::{self, Metadata, Value, ValueType, Writer};

const TOKENS: &str = "tokenizer.ggml.tokens";
/// What GGUF calls a token that is in the table only.
const UNUSED: i32 = 5;

/// How many tokens the vocabulary of a file has.
///
/// Errors: it has none.
pub(super) fn len(metadata: &Metadata) -> Result<usize, gguf::Error> {
    Ok(metadata.strings(TOKENS)?.len())
}

/// Copies every key about tokens, the lists filled up to `n_vocab` with unused ones.
///
/// Errors: a key cannot be read.
pub(super) fn copy(
    metadata: &Metadata,
    n_vocab: usize,
    writer: &mut Writer,
) -> Result<(), gguf::Error> {
    let n_tokens = len(metadata)?;
    let unused: Vec<String> = (n_tokens..n_vocab)
        .map(|id| format!("<unused{id}>"))
        .collect();
    for key in metadata.keys().filter(|key| key.starts_with("tokenizer.")) {
        let Some(value) = metadata.value(key)? else {
            continue;
        };
        let filler = |id: usize| match (key, value) {
            (TOKENS, _) => unused.get(id).map(|text| Value::Str(text.as_bytes())),
            ("tokenizer.ggml.scores", _) => Some(Value::F32(-1e9)),
            ("tokenizer.ggml.token_type", Value::Array(array)) => match array.element_type() {
                ValueType::U32 => Some(Value::U32(UNUSED.unsigned_abs())),
                _ => Some(Value::I32(UNUSED)),
            },
            _ => None,
        };
        match value {
            Value::Array(array) => {
                let more = (0..unused.len()).map_while(filler);
                writer.array(key, array.element_type(), array.iter().chain(more));
            }
            value => writer.key(key, value),
        }
    }
    Ok(())
}

/// Writes a SentencePiece vocabulary of `n_vocab` tokens: three control tokens, the 256 bytes, and
/// words that stand for nothing.
pub(super) fn bytes(n_vocab: usize, writer: &mut Writer) {
    const CONTROL: [&str; 3] = ["<unk>", "<s>", "</s>"];
    let mut tokens: Vec<String> = CONTROL.map(str::to_owned).into();
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    let n_bytes_end = tokens.len();
    tokens.extend((n_bytes_end..n_vocab).map(|id| format!("\u{2581}w{id}")));
    let kind = |id: usize| match id {
        0 => 2,
        1 | 2 => 3,
        _ if id < n_bytes_end => 6,
        _ => 1,
    };
    let ids = || 0..tokens.len();
    let texts = tokens.iter().map(|text| Value::Str(text.as_bytes()));
    writer.key("tokenizer.ggml.model", Value::Str(b"llama"));
    writer.array(TOKENS, ValueType::Str, texts);
    let score = |id: usize| Value::F32(-(id.saturating_sub(n_bytes_end) as f32));
    writer.array("tokenizer.ggml.scores", ValueType::F32, ids().map(score));
    let kinds = ids().map(|id| Value::I32(kind(id)));
    writer.array("tokenizer.ggml.token_type", ValueType::I32, kinds);
    writer.key("tokenizer.ggml.unknown_token_id", Value::U32(0));
    writer.key("tokenizer.ggml.bos_token_id", Value::U32(1));
    writer.key("tokenizer.ggml.eos_token_id", Value::U32(2));
    writer.key("tokenizer.ggml.add_bos_token", Value::Bool(true));
}
