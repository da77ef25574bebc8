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
    let reason = if cfg!(any(feature = "cuda", feature = "metal")) {
        match Gpu::find(config.gpu) {
            Ok(gpu) => return Ok(Some(Choice::Used(gpu))),
            Err(error) => error.to_string(),
        }
    } else {
        match hand_over() {
            Some(reason) => reason,
            None if config.gpu_layers.is_some() => match Gpu::find(config.gpu) {
                Ok(gpu) => return Ok(Some(Choice::Used(gpu))),
                Err(error) => error.to_string(),
            },
            None => return Ok(None),
        }
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
