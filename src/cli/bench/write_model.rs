//! `ingle bench write-model`: a file as large and as much work as a real model's, with random
//! weights. Speed and memory do not depend on the weights' values; what such a model says is noise.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ingle_kernels::WeightType;

use super::random::{Pool, Random};
use super::shape::{Recipe, Shape, ShapeName};
use super::vocabulary;
use crate::gguf::{Gguf, NewTensor, TensorType, Value, Writer};

/// Bytes written at once.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct WriteModelArgs {
    /// The model whose shape it has.
    #[arg(value_enum)]
    shape: ShapeName,
    /// The file to write.
    out: PathBuf,
    /// The mix of weight types, as llama.cpp makes it.
    #[arg(long, value_enum, default_value = "q4_k_m")]
    quant: Recipe,
    /// Layers, in place of the shape's.
    #[arg(long, value_name = "N")]
    layers: Option<NonZeroU32>,
    /// Take the vocabulary of this file; without, a token is a byte or a made-up word.
    #[arg(long, value_name = "GGUF")]
    vocab: Option<PathBuf>,
    /// What the weights are drawn from: the same seed gives the same file.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Writes the file, and says on `out` what it is.
///
/// Errors: the vocabulary cannot be read; the file cannot be written.
pub(super) fn run(args: &WriteModelArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut shape = args.shape.shape();
    if let Some(n_layers) = args.layers {
        shape.n_layers = n_layers.get();
    }
    let vocab = args.vocab.as_deref().map(Gguf::open).transpose()?;
    let writer = plan(&shape, args.quant, vocab.as_ref())?;
    let n_bytes = write_file(&args.out, &mut |out| fill(&writer, args.seed, out))
        .with_context(|| format!("{} cannot be written", args.out.display()))?;
    writeln!(
        out,
        "{}: {n_bytes} bytes of random weights in the shape of {}",
        args.out.display(),
        shape.name
    )?;
    Ok(())
}

/// The keys and tensors of the file.
fn plan(shape: &Shape, recipe: Recipe, vocab: Option<&Gguf>) -> anyhow::Result<Writer> {
    let mut n_vocab = shape.n_vocab;
    let mut writer = Writer::default();
    if let Some(vocab) = vocab {
        let n_tokens = u32::try_from(vocabulary::len(vocab.metadata())?)?;
        n_vocab = n_vocab.max(n_tokens);
    }
    write_keys(shape, recipe, n_vocab, &mut writer);
    match vocab {
        Some(vocab) => vocabulary::copy(vocab.metadata(), n_vocab as usize, &mut writer)?,
        None => vocabulary::bytes(n_vocab as usize, &mut writer),
    }
    for (name, weight, dims) in tensors(shape, recipe, n_vocab) {
        writer.tensor(&name, TensorType::from(weight), &dims)?;
    }
    Ok(writer)
}

fn write_keys(shape: &Shape, recipe: Recipe, n_vocab: u32, writer: &mut Writer) {
    let name = format!("random {}", shape.name);
    let head_dim = shape.n_embd / shape.n_heads;
    let numbers = [
        ("general.file_type", recipe.file_type()),
        ("general.quantization_version", 2),
        ("llama.context_length", shape.context_length),
        ("llama.embedding_length", shape.n_embd),
        ("llama.block_count", shape.n_layers),
        ("llama.feed_forward_length", shape.n_ff),
        ("llama.attention.head_count", shape.n_heads),
        ("llama.attention.head_count_kv", shape.n_kv_heads),
        ("llama.rope.dimension_count", head_dim),
        ("llama.vocab_size", n_vocab),
    ];
    writer.key("general.architecture", Value::Str(b"llama"));
    writer.key("general.name", Value::Str(name.as_bytes()));
    for (key, number) in numbers {
        writer.key(key, Value::U32(number));
    }
    writer.key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    writer.key("llama.rope.freq_base", Value::F32(shape.rope_base));
}

/// Every tensor in the order of the file: name, type, lengths.
fn tensors(shape: &Shape, recipe: Recipe, n_vocab: u32) -> Vec<(String, WeightType, Vec<u64>)> {
    let [embd, ff, vocab] = [shape.n_embd, shape.n_ff, n_vocab].map(u64::from);
    let head_dim = u64::from(shape.n_embd / shape.n_heads);
    let kv = u64::from(shape.n_kv_heads) * head_dim;
    let (plain, norm) = (recipe.plain(), WeightType::F32);
    let embedding = if shape.is_tied {
        recipe.output()
    } else {
        plain
    };
    let mut tensors = vec![("token_embd.weight".to_owned(), embedding, vec![embd, vocab])];
    for layer in 0..shape.n_layers {
        let rich = recipe.rich(layer, shape.n_layers);
        let parts = [
            ("attn_norm", norm, vec![embd]),
            ("attn_q", plain, vec![embd, embd]),
            ("attn_k", plain, vec![embd, kv]),
            ("attn_v", rich, vec![embd, kv]),
            ("attn_output", plain, vec![embd, embd]),
            ("ffn_norm", norm, vec![embd]),
            ("ffn_gate", plain, vec![embd, ff]),
            ("ffn_up", plain, vec![embd, ff]),
            ("ffn_down", rich, vec![ff, embd]),
        ];
        let named = |(part, ty, dims)| (format!("blk.{layer}.{part}.weight"), ty, dims);
        tensors.extend(parts.map(named));
    }
    tensors.push(("output_norm.weight".to_owned(), norm, vec![embd]));
    if !shape.is_tied {
        tensors.push((
            "output.weight".to_owned(),
            recipe.output(),
            vec![embd, vocab],
        ));
    }
    if shape.has_rope_factors {
        tensors.push(("rope_freqs.weight".to_owned(), norm, vec![head_dim / 2]));
    }
    tensors
}

/// Writes keys and weights: matrices are random, vectors are ones. A tensor of rotary factors is ones
/// as well: it costs what the real one costs.
fn fill(writer: &Writer, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut pools: HashMap<u32, Pool> = HashMap::new();
    writer.write(out, &mut |tensor: &NewTensor, out| {
        let weight = match tensor.ty.weight_type() {
            Some(weight) if tensor.dims.len() > 1 => weight,
            _ => {
                let n_values = tensor.n_bytes / 4;
                return (0..n_values).try_for_each(|_| out.write_all(&1_f32.to_le_bytes()));
            }
        };
        let id = tensor.ty.id();
        let pool = pools
            .entry(id)
            .or_insert_with(|| Pool::new(weight, &mut random));
        pool.write(tensor.n_bytes, &mut random, out)
    })
}

/// Writes a file under a temporary name and gives it its own when it is whole. Gives its length.
pub(super) fn write_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let mut partial = OsString::from(path);
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut written = || {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&partial)?);
        write(&mut file)?;
        let n_bytes = file.into_inner()?.metadata()?.len();
        fs::rename(&partial, path)?;
        Ok(n_bytes)
    };
    written().inspect_err(|_| {
        // What cannot be removed was perhaps never made.
        let _ = fs::remove_file(&partial);
    })
}
