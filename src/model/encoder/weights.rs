//! The tensors of an encoder, checked against its shape before anything is made of them.

use candle_core::DType;
use candle_core::safetensors::SliceSafetensors;

use super::config::EncoderConfig;
use crate::model::error::Error;

/// What checkpoints call the network within a larger one.
const PREFIXES: [&str; 2] = ["", "bert."];
/// Newer and older names of a norm's two vectors.
const NORM_SCALES: [&str; 2] = ["weight", "gamma"];
const NORM_SHIFTS: [&str; 2] = ["bias", "beta"];

/// Checks that all tensors are there, of the shapes `config` asks for and of a type that can be read.
/// Says what stands before their names, and of which type the embedding is.
///
/// Errors: the first that is missing or otherwise.
pub(super) fn check(
    tensors: &SliceSafetensors<'_>,
    config: &EncoderConfig,
) -> Result<(&'static str, &'static str), Error> {
    const FIRST: &str = "embeddings.word_embeddings.weight";
    let has_first = |prefix: &&str| tensors.get(&format!("{prefix}{FIRST}")).is_ok();
    let prefix = PREFIXES
        .into_iter()
        .find(has_first)
        .ok_or_else(|| missing(FIRST))?;
    let check = Check { tensors, prefix };
    let (n_embd, n_ff) = (config.n_embd, config.n_ff);
    let ty = check.tensor(FIRST, &[config.n_vocab, n_embd])?;
    let positions = "embeddings.position_embeddings.weight";
    check.tensor(positions, &[config.n_positions, n_embd])?;
    let types = "embeddings.token_type_embeddings.weight";
    check.tensor(types, &[config.n_token_types, n_embd])?;
    check.norm("embeddings.LayerNorm", n_embd)?;
    for layer in 0..config.n_layers {
        let in_layer = |name: &str| format!("encoder.layer.{layer}.{name}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            let name = in_layer(&format!("attention.{name}"));
            check.linear(&name, n_embd, n_embd)?;
        }
        check.norm(&in_layer("attention.output.LayerNorm"), n_embd)?;
        check.linear(&in_layer("intermediate.dense"), n_embd, n_ff)?;
        check.linear(&in_layer("output.dense"), n_ff, n_embd)?;
        check.norm(&in_layer("output.LayerNorm"), n_embd)?;
    }
    Ok((prefix, ty))
}

/// Values of all tensors together.
pub(super) fn n_values(config: &EncoderConfig) -> usize {
    let (n_embd, n_ff) = (config.n_embd, config.n_ff);
    let product = |a: usize, b: usize| a.saturating_mul(b);
    let rows = [config.n_vocab, config.n_positions, config.n_token_types, 2];
    let embeddings = rows.into_iter().fold(0, usize::saturating_add);
    let attention = product(product(n_embd, n_embd), 4);
    let feed_forward = product(product(n_embd, n_ff), 2);
    let vectors = product(n_embd, 9).saturating_add(n_ff);
    let layer = attention
        .saturating_add(feed_forward)
        .saturating_add(vectors);
    product(embeddings, n_embd).saturating_add(product(layer, config.n_layers))
}

struct Check<'a> {
    tensors: &'a SliceSafetensors<'a>,
    prefix: &'static str,
}

impl Check<'_> {
    fn linear(&self, name: &str, n_in: usize, n_out: usize) -> Result<(), Error> {
        self.tensor(&format!("{name}.weight"), &[n_out, n_in])?;
        self.tensor(&format!("{name}.bias"), &[n_out]).map(drop)
    }

    fn norm(&self, name: &str, n: usize) -> Result<(), Error> {
        for names in [NORM_SCALES, NORM_SHIFTS] {
            let [newer, older] = names.map(|end| format!("{name}.{end}"));
            let is_older = self.tensors.get(&self.full(&older)).is_ok();
            self.tensor(if is_older { &older } else { &newer }, &[n])?;
        }
        Ok(())
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The tensor's type.
    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&'static str, Error> {
        let name = self.full(name);
        let tensor = self.tensors.get(&name).map_err(|_| missing(&name))?;
        if tensor.shape() != expected {
            let dims = |dims: &[usize]| dims.iter().map(|dim| *dim as u64).collect();
            return Err(Error::TensorShape {
                name,
                got: dims(tensor.shape()),
                expected: dims(expected),
            });
        }
        match DType::try_from(tensor.dtype()) {
            Ok(DType::F32) => Ok("F32"),
            Ok(DType::F16) => Ok("F16"),
            Ok(DType::BF16) => Ok("BF16"),
            _ => {
                let what = format!("tensor {name} of type {:?}", tensor.dtype());
                Err(Error::Unsupported { what })
            }
        }
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor {
        name: name.to_owned(),
    }
}
