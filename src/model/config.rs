//! The shape of a network, read from a file's keys and checked.

use std::fmt::Display;

use super::error::Error;
use crate::gguf::{Gguf, Metadata};

/// The longest context a file may claim. Units: tokens.
const CONTEXT_MOST: u32 = 1 << 24;

/// The shape of a network of architecture `llama`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Transformer layers.
    pub n_layers: usize,
    /// Values in a token's state.
    pub n_embd: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Values inside the feed-forward layer.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Tokens of context it was trained for.
    pub context_length: u32,
    /// Added to the mean square in the norms.
    pub rms_norm_eps: f32,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Tokens see only so many last positions, their own included.
    pub sliding_window: Option<u32>,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub base: f32,
    /// Dimensions of a head that turn, from the first.
    pub dim: usize,
    /// Positions are divided by it: linear scaling, 1 without.
    pub scale: f32,
}

impl ModelConfig {
    /// Reads and checks the shape of `gguf`'s network.
    ///
    /// # Errors
    /// Another architecture, a missing or impossible key, a key that asks for what is not built.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let metadata = gguf.metadata();
        let keys = Keys(metadata);
        let architecture = metadata.architecture()?;
        if architecture != "llama" {
            let name = architecture.to_owned();
            return Err(Error::Architecture { name });
        }
        keys.refuse_what_is_not_built()?;
        let n_embd = keys.size("embedding_length")?;
        let n_heads = keys.size("attention.head_count")?;
        let head_dim = match keys.opt_size("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if n_embd.is_multiple_of(n_heads) => n_embd / n_heads,
            None => {
                let must_be = format!("a multiple of the {n_heads} heads");
                return Err(wrong("embedding_length", n_embd, must_be));
            }
        };
        keys.equals("attention.value_length", head_dim)?;
        let n_kv_heads = keys.opt_size("attention.head_count_kv")?.unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            let must_be = format!("a divisor of the {n_heads} heads");
            return Err(wrong("attention.head_count_kv", n_kv_heads, must_be));
        }
        Ok(Self {
            n_layers: keys.size("block_count")?,
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ff: keys.size("feed_forward_length")?,
            n_vocab: n_vocab(gguf, &keys)?,
            context_length: keys.context_length()?,
            rms_norm_eps: keys.positive("attention.layer_norm_rms_epsilon", None)?,
            rope: keys.rope(head_dim)?,
            sliding_window: metadata
                .opt_u32("llama.attention.sliding_window")?
                .filter(|window| *window > 0),
        })
    }
}

/// The rows of the embedding, which every other count of the vocabulary must agree with.
fn n_vocab(gguf: &Gguf, keys: &Keys<'_>) -> Result<usize, Error> {
    const EMBEDDING: &str = "token_embd.weight";
    let missing = || Error::MissingTensor {
        name: EMBEDDING.to_owned(),
    };
    let tensor = gguf.tensor(EMBEDDING).ok_or_else(missing)?;
    let rows = tensor.dims.get(1).copied().unwrap_or(1);
    // A token is a u32 everywhere.
    let n_vocab = u32::try_from(rows).map_err(|_| Error::TensorShape {
        name: EMBEDDING.to_owned(),
        got: tensor.dims.clone(),
        expected: vec![tensor.dims[0], u64::from(u32::MAX)],
    })? as usize;
    keys.equals("vocab_size", n_vocab)?;
    match keys.0.opt_len("tokenizer.ggml.tokens")? {
        Some(n_tokens) if n_tokens != n_vocab => Err(Error::Key {
            key: "tokenizer.ggml.tokens".to_owned(),
            value: format!("a list of {n_tokens} tokens"),
            must_be: format!("one of {n_vocab}, the rows of {EMBEDDING}"),
        }),
        _ => Ok(n_vocab),
    }
}

/// A key of the architecture whose value cannot be.
fn wrong(key: &str, value: impl Display, must_be: impl Into<String>) -> Error {
    Error::Key {
        key: format!("llama.{key}"),
        value: format!("{value}"),
        must_be: must_be.into(),
    }
}

fn above_zero(key: &str, value: u32) -> Result<usize, Error> {
    if value == 0 {
        return Err(wrong(key, value, "at least 1"));
    }
    Ok(value as usize)
}

/// The keys of the architecture, without its name before them.
struct Keys<'a>(&'a Metadata);

impl Keys<'_> {
    fn size(&self, key: &str) -> Result<usize, Error> {
        above_zero(key, self.0.u32(&format!("llama.{key}"))?)
    }

    fn opt_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let value = self.0.opt_u32(&format!("llama.{key}"))?;
        value.map(|value| above_zero(key, value)).transpose()
    }

    /// Checks a key that repeats what is known already.
    fn equals(&self, key: &str, known: usize) -> Result<(), Error> {
        match self.opt_size(key)? {
            Some(value) if value != known => Err(wrong(
                key,
                value,
                format!("{known} as the rest of the file says"),
            )),
            _ => Ok(()),
        }
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32, Error> {
        let full = format!("llama.{key}");
        let value = match (self.0.opt_f32(&full)?, default) {
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => self.0.f32(&full)?,
        };
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(wrong(key, value, "above 0 and finite"))
    }

    fn context_length(&self) -> Result<u32, Error> {
        const KEY: &str = "context_length";
        let value = self.0.u32("llama.context_length")?;
        if (1..=CONTEXT_MOST).contains(&value) {
            return Ok(value);
        }
        Err(wrong(KEY, value, format!("between 1 and {CONTEXT_MOST}")))
    }

    fn rope(&self, head_dim: usize) -> Result<Rope, Error> {
        const DIM: &str = "rope.dimension_count";
        let dim = self.opt_size(DIM)?.unwrap_or(head_dim);
        if dim > head_dim || !dim.is_multiple_of(2) {
            let must_be = format!("even and at most {head_dim}, the size of a head");
            return Err(wrong(DIM, dim, must_be));
        }
        let scale = match self.0.opt_str("llama.rope.scaling.type")? {
            // The old key is a linear factor too.
            None => self.positive("rope.scale_linear", Some(1.0))?,
            Some("none") => 1.0,
            Some("linear") => self.positive("rope.scaling.factor", None)?,
            Some(other) => {
                let what = format!("rotary scaling of type {other:?} (llama.rope.scaling.type)");
                return Err(Error::Unsupported { what });
            }
        };
        Ok(Rope {
            base: self.positive("rope.freq_base", Some(10_000.0))?,
            dim,
            scale,
        })
    }

    /// Keys that would change the answer and whose meaning is not built.
    fn refuse_what_is_not_built(&self) -> Result<(), Error> {
        let n_experts = self.0.opt_u32("llama.expert_count")?.unwrap_or(0);
        if n_experts > 0 {
            let what = format!("a mixture of {n_experts} experts (llama.expert_count)");
            return Err(Error::Unsupported { what });
        }
        if self.0.opt_bool("llama.attention.causal")? == Some(false) {
            let what = "attention to later tokens (llama.attention.causal is false)".to_owned();
            return Err(Error::Unsupported { what });
        }
        Ok(())
    }
}
