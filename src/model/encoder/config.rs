//! The shape of an encoder and how its states become a vector, read from a folder as
//! sentence-transformers writes it.

use std::path::Path;

use candle_transformers::models::bert::{self, HiddenAct, PositionEmbeddingType};
use serde_json::Value;

use super::document::{Document, Keys, size};
use crate::model::error::Error;
use crate::model::pooling::{Pooling, Readout};

/// What no size of an honest model exceeds.
const SIZE_MOST: usize = 1 << 24;
const LAYERS_MOST: usize = 1 << 10;
/// What the network adds to a variance unless its file says otherwise.
const LAYER_NORM_EPS: f64 = 1e-12;

/// The shape of a network of the BERT family, and what becomes of its states.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Transformer layers.
    pub n_layers: usize,
    /// Values in a token's state, and in a vector.
    pub n_embd: usize,
    /// Heads of attention; divides `n_embd`.
    pub n_heads: usize,
    /// Values inside the feed-forward layer.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions it was trained for: the longest input.
    pub n_positions: usize,
    /// Kinds of segments; inputs are all of the first.
    pub n_token_types: usize,
    /// From states to a vector.
    pub readout: Readout,
    /// The file that says so, or that it is the default.
    pub readout_source: &'static str,
    /// Whether it was trained so that a vector's beginning is a vector too.
    pub shorter: Shorter,
    pub(super) activation: HiddenAct,
    pub(super) layer_norm_eps: f64,
}

/// Lengths a vector may be cut to: Matryoshka training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shorter {
    /// None.
    Never,
    /// Any.
    ToAny,
    /// These.
    To(Vec<usize>),
}

impl EncoderConfig {
    /// Reads and checks `config.json`, `modules.json` and the pooling's own file in `folder`.
    ///
    /// # Errors
    /// A file is missing, or no JSON; a key cannot be; the model is of a kind that is not built.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let document = Document::read(folder, "config.json")?.ok_or_else(|| Error::Folder {
            path: folder.to_owned(),
            problem: "it has no config.json, which says what its model is".to_owned(),
        })?;
        let keys = document.keys()?;
        refuse_what_is_not_built(&keys)?;
        let (readout, readout_source) = readout(folder)?;
        let n_embd = keys.size("hidden_size", SIZE_MOST)?;
        let n_heads = keys.size("num_attention_heads", SIZE_MOST)?;
        if !n_embd.is_multiple_of(n_heads) {
            let must_be = format!("a divisor of hidden_size, {n_embd}");
            return Err(keys.wrong("num_attention_heads", n_heads, &must_be));
        }
        Ok(Self {
            n_layers: keys.size("num_hidden_layers", LAYERS_MOST)?,
            n_embd,
            n_heads,
            n_ff: keys.size("intermediate_size", SIZE_MOST)?,
            n_vocab: keys.size("vocab_size", SIZE_MOST)?,
            n_positions: keys.size("max_position_embeddings", SIZE_MOST)?,
            n_token_types: keys.size("type_vocab_size", SIZE_MOST)?,
            readout,
            readout_source,
            shorter: shorter(&keys, n_embd)?,
            activation: activation(&keys)?,
            layer_norm_eps: keys.positive("layer_norm_eps")?.unwrap_or(LAYER_NORM_EPS),
        })
    }

    /// The same, as the library wants it.
    pub(super) fn for_library(&self) -> bert::Config {
        bert::Config {
            vocab_size: self.n_vocab,
            hidden_size: self.n_embd,
            num_hidden_layers: self.n_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: self.n_ff,
            hidden_act: self.activation,
            max_position_embeddings: self.n_positions,
            type_vocab_size: self.n_token_types,
            layer_norm_eps: self.layer_norm_eps,
            position_embedding_type: PositionEmbeddingType::Absolute,
            ..bert::Config::default()
        }
    }
}

fn refuse_what_is_not_built(keys: &Keys<'_>) -> Result<(), Error> {
    let kind = keys.str("model_type")?;
    if kind != Some("bert") {
        let name = kind.unwrap_or_default().to_owned();
        return Err(Error::Encoder { name });
    }
    let unsupported = |what: String| Err(Error::Unsupported { what });
    match keys.str("position_embedding_type")? {
        None | Some("absolute") => {}
        Some(other) => return unsupported(format!("positions of type {other:?}")),
    }
    if keys.bool("is_decoder")? {
        return unsupported("attention to earlier tokens only (is_decoder)".to_owned());
    }
    Ok(())
}

fn activation(keys: &Keys<'_>) -> Result<HiddenAct, Error> {
    Ok(match keys.str("hidden_act")?.unwrap_or("gelu") {
        "gelu" => HiddenAct::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_approximate" => HiddenAct::GeluApproximate,
        "relu" => HiddenAct::Relu,
        other => {
            let must_be = "gelu, gelu_new, gelu_pytorch_tanh or relu";
            return Err(keys.wrong("hidden_act", format!("{other:?}"), must_be));
        }
    })
}

fn shorter(keys: &Keys<'_>, n_embd: usize) -> Result<Shorter, Error> {
    const LISTED: &str = "matryoshka_dimensions";
    if let Some(listed) = keys.list(LISTED)? {
        let sizes: Option<Vec<usize>> = listed.iter().map(|value| size(value, n_embd)).collect();
        return match sizes {
            Some(sizes) => Ok(Shorter::To(sizes)),
            None => Err(keys.wrong(LISTED, "a list", &format!("of sizes from 1 to {n_embd}"))),
        };
    }
    Ok(if keys.bool("is_matryoshka")? {
        Shorter::ToAny
    } else {
        Shorter::Never
    })
}

/// From states to a vector, as `modules.json` says; where there is none, the mean, made one of length 1.
fn readout(folder: &Path) -> Result<(Readout, &'static str), Error> {
    const FILE: &str = "modules.json";
    let Some(modules) = Document::read(folder, FILE)? else {
        let readout = Readout {
            pooling: Pooling::Mean,
            is_normalised: true,
        };
        return Ok((readout, "the default"));
    };
    let modules = modules.value().as_array().map_or(&[][..], Vec::as_slice);
    let mut pooling = None;
    let mut is_normalised = false;
    for module in modules {
        let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("type");
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => pooling = Some(read_pooling(folder, text("path"))?),
            "Normalize" => is_normalised = true,
            _ => {
                let what = format!("a module {kind:?} behind the network ({FILE})");
                return Err(Error::Unsupported { what });
            }
        }
    }
    match pooling {
        Some(pooling) => Ok((
            Readout {
                pooling,
                is_normalised,
            },
            FILE,
        )),
        None => Err(Error::Folder {
            path: folder.join(FILE),
            problem: "it names no pooling, so that no text has a vector".to_owned(),
        }),
    }
}

/// The names a pooling has in its file, older spelling first.
const POOLINGS: [(&str, &str, Option<Pooling>); 7] = [
    ("pooling_mode_cls_token", "cls", Some(Pooling::First)),
    ("pooling_mode_mean_tokens", "mean", Some(Pooling::Mean)),
    ("pooling_mode_max_tokens", "max", Some(Pooling::Max)),
    (
        "pooling_mode_mean_sqrt_len_tokens",
        "mean_sqrt_len_tokens",
        Some(Pooling::MeanSqrtLen),
    ),
    ("pooling_mode_lasttoken", "lasttoken", Some(Pooling::Last)),
    ("pooling_mode_weightedmean_tokens", "weightedmean", None),
    ("pooling_mode_sum_tokens", "sum", None),
];

/// Reads the pooling's own file.
fn read_pooling(folder: &Path, path: &str) -> Result<Pooling, Error> {
    // The path is the folder's own word: it must not lead out of it.
    let is_plain = |part: &str| part != ".." && !part.is_empty() && !part.contains(['\\', ':']);
    if !path.split('/').all(is_plain) {
        return Err(Error::Folder {
            path: folder.join("modules.json"),
            problem: format!("the pooling's path {path:?} must be a folder beside it"),
        });
    }
    let name = format!("{path}/config.json");
    let document = Document::read(folder, &name)?.ok_or_else(|| Error::Folder {
        path: folder.join(&name),
        problem: "it is missing: modules.json names it".to_owned(),
    })?;
    let keys = document.keys()?;
    let named = keys.str("pooling_mode")?;
    let mut wanted = Vec::new();
    for (key, name, pooling) in POOLINGS {
        if named == Some(name) || keys.bool(key)? {
            wanted.push((name, pooling));
        }
    }
    match wanted.as_slice() {
        [(_, Some(pooling))] => Ok(*pooling),
        [(name, None)] => Err(Error::Unsupported {
            what: format!("pooling {name:?} ({})", folder.join(path).display()),
        }),
        [] => Err(keys.wrong(
            "pooling_mode",
            named.map_or_else(|| "missing".to_owned(), |name| format!("{name:?}")),
            "cls, mean, max, mean_sqrt_len_tokens or lasttoken",
        )),
        several => Err(Error::Unsupported {
            what: format!("{} poolings side by side", several.len()),
        }),
    }
}
