//! Whether a GPU is used: found here, or by the program beside this one that knows GPUs.

use std::io::Write;

use serde_json::json;

use super::hand_over::hand_over;
use crate::config::Config;
use crate::model::{Gpu, Placement};

/// What came of looking for a GPU.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    /// Models are put on it.
    Used(Gpu),
    /// Why none is used although one was looked for.
    NotUsed(String),
}

/// Looks for the GPU of `config`. Where a program beside this one knows GPUs and can use it, that takes
/// this one's place and this does not return. None where none is wanted, or nothing here knows GPUs.
///
/// Errors: a GPU was asked for by name and cannot be used.
pub(super) fn find(config: &Config) -> anyhow::Result<Option<Choice>> {
    if config.gpu_layers == Some(0) {
        return Ok(None);
    }
    // The program beside this one, if there is one that knows GPUs where this does not.
    let knows_gpus = cfg!(any(feature = "cuda", feature = "metal"));
    let beside = if knows_gpus { None } else { hand_over() };
    let reason = match beside {
        Some(reason) => reason,
        None if !knows_gpus && config.gpu_layers.is_none() => return Ok(None),
        None => match Gpu::find(config.gpu) {
            Ok(gpu) => {
                anyhow::ensure!(
                    !config.deterministic || gpu.can_be_deterministic(),
                    "--deterministic: on {} an answer's bits depend on what is computed beside it: \
                     leave it out, or compute on the processor with --gpu-layers 0",
                    gpu.name
                );
                return Ok(Some(Choice::Used(gpu)));
            }
            Err(error) => error.to_string(),
        },
    };
    if let Some(n_layers) = config.gpu_layers {
        anyhow::bail!("{reason}: without --gpu-layers {n_layers} the processor computes");
    }
    tracing::warn!(reason, "no GPU is used: the processor computes");
    Ok(Some(Choice::NotUsed(reason)))
}

/// Where `n_layers` of a model go that one verb loads for itself: to the GPU, or as many as were asked
/// for.
pub(super) fn placement(
    choice: Option<&Choice>,
    config: &Config,
    n_layers: usize,
) -> anyhow::Result<Placement> {
    let Some(Choice::Used(gpu)) = choice else {
        return Ok(Placement::default());
    };
    Ok(Placement {
        device: gpu.open()?,
        n_device_layers: self::n_layers(choice, config, n_layers),
        is_deterministic: config.deterministic,
        ..Placement::default()
    })
}

/// How many of `n_layers` go to the GPU.
pub(super) fn n_layers(choice: Option<&Choice>, config: &Config, n_layers: usize) -> usize {
    match choice {
        Some(Choice::Used(_)) => config.gpu_layers.unwrap_or(n_layers).min(n_layers),
        Some(Choice::NotUsed(_)) | None => 0,
    }
}

/// Writes what was found as one JSON object.
pub(super) fn show(choice: Option<&Choice>, out: &mut dyn Write) -> anyhow::Result<()> {
    let object = match choice {
        Some(Choice::Used(gpu)) => json!({
            "used": true,
            "gpu": gpu.ordinal,
            "name": gpu.name,
            "total_bytes": gpu.total_bytes,
            "free_bytes": gpu.free_bytes()?,
        }),
        Some(Choice::NotUsed(reason)) => json!({"used": false, "reason": reason}),
        None => json!({"used": false, "reason": "nothing here knows GPUs, or none is wanted"}),
    };
    writeln!(out, "{object}")?;
    Ok(())
}
