//! `ingle bench cut-model`: the first layers of a real model, as a file of its own. What it says is
//! noise, but its weights, its vocabulary and its activations are real ones, in fewer bytes.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;

use super::write_model::write_file;
use crate::gguf::{Gguf, NewTensor, Value, Writer};
use crate::model::ModelConfig;

const BLOCK_COUNT: &str = "llama.block_count";

#[derive(Args, Debug)]
pub(in crate::cli) struct CutModelArgs {
    /// The model's file.
    model: PathBuf,
    /// The file to write.
    out: PathBuf,
    /// How many of its layers, from the first.
    #[arg(long, value_name = "N")]
    layers: NonZeroU32,
}

/// Writes the file, and says on `out` what it is.
///
/// Errors: the model cannot be read, or has not so many layers; the file cannot be written.
pub(super) fn run(args: &CutModelArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let gguf = Gguf::open(&args.model)?;
    let n_layers = ModelConfig::from_gguf(&gguf)?.n_layers;
    let n_kept = args.layers.get();
    ensure!(
        n_kept as usize <= n_layers,
        "{} has {n_layers} layers: name at most so many, not {n_kept}",
        args.model.display()
    );
    let writer = plan(&gguf, n_kept)?;
    let fill = |tensor: &NewTensor, out: &mut dyn Write| {
        let source = gguf.tensor(&tensor.name);
        let source = source.ok_or_else(|| io::Error::other("the file changes under us"))?;
        out.write_all(&gguf.bytes(source))
    };
    let n_bytes = write_file(&args.out, &mut |out| writer.write(out, &mut { fill }))
        .with_context(|| format!("{} cannot be written", args.out.display()))?;
    writeln!(
        out,
        "{}: {n_bytes} bytes, {n_kept} of the {n_layers} layers of {}",
        args.out.display(),
        args.model.display()
    )?;
    Ok(())
}

/// Every key but the number of layers as it was, and the tensors that stay.
fn plan(gguf: &Gguf, n_kept: u32) -> anyhow::Result<Writer> {
    let mut writer = Writer::default();
    let metadata = gguf.metadata();
    for key in metadata.keys() {
        match metadata.value(key)? {
            Some(_) if key == BLOCK_COUNT => writer.key(key, Value::U32(n_kept)),
            Some(Value::Array(array)) => writer.array(key, array.element_type(), array.iter()),
            Some(value) => writer.key(key, value),
            None => {}
        }
    }
    for tensor in gguf.tensors() {
        if tensor.layer().is_none_or(|layer| layer < n_kept as usize) {
            writer.tensor(&tensor.name, tensor.ty, &tensor.dims)?;
        }
    }
    Ok(writer)
}
