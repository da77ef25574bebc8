//! `ingle bench gpu`: holds what a GPU computes to what the processor computes, and forces it out of
//! memory, on the machine that has it.

mod checks;
mod prompts;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{bail, ensure};
use clap::Args;
use ingle_kernels::Team;

use crate::cli::app;
use crate::cli::gpu::Choice;
use crate::config::Config;
use crate::gguf::Gguf;
use crate::model::{Form, Gpu, KvType, Limits, Model, ModelConfig, Placement, unwatched};

#[derive(Args, Debug)]
pub(in crate::cli) struct GpuArgs {
    /// The GGUF file to check with.
    #[arg(long, short, value_name = "FILE")]
    model: PathBuf,
    /// Threads of the processor's side.
    #[arg(long, short = 't', value_name = "N")]
    n_threads: Option<NonZeroUsize>,
}

/// A file, a GPU, and how networks are made of them.
struct Ground {
    gguf: Gguf,
    config: ModelConfig,
    team: Arc<Team>,
    gpu: Gpu,
}

/// The largest step and the cache of the checks.
const LIMITS: Limits = Limits {
    max_batch_tokens: 256,
    max_logit_rows: 64,
    n_blocks: 64,
    kv_type: KvType::F16,
};

impl Ground {
    fn load(&self, limits: Limits, placement: &Placement) -> Result<Model, crate::model::Error> {
        let team = Arc::clone(&self.team);
        let (gguf, config) = (&self.gguf, &self.config);
        Model::load(gguf, config, limits, placement, team, &mut unwatched)
    }

    /// The last `n_device_layers` on the GPU.
    fn placement(
        &self,
        n_device_layers: usize,
        is_deterministic: bool,
    ) -> anyhow::Result<Placement> {
        Ok(Placement {
            form: Form::AsInFile,
            device: self.gpu.open()?,
            n_device_layers,
            is_deterministic,
            ..Placement::default()
        })
    }
}

/// Runs every check, says how each came out, and fails if one did.
///
/// Errors: there is no GPU; the file is no model; a check fails.
pub(super) fn run(
    args: &GpuArgs,
    config: &Config,
    gpu: Option<&Choice>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let gpu = match gpu {
        Some(Choice::Used(gpu)) => gpu.clone(),
        Some(Choice::NotUsed(reason)) => bail!("{reason}"),
        None => bail!("no GPU is used: leave out --gpu-layers 0, or start ingle-cuda"),
    };
    let gguf = Gguf::open(&args.model)?;
    let (team, isa) = app::team(&Config {
        threads: args.n_threads.or(config.threads),
        ..config.clone()
    })?;
    let ground = Ground {
        config: ModelConfig::from_gguf(&gguf)?,
        gguf,
        team,
        gpu,
    };
    let name = &ground.gpu.name;
    writeln!(out, "{name} against {} on this processor", isa.name())?;
    let mut n_failed = 0;
    for (name, check) in checks::ALL {
        match check(&ground) {
            Ok(figures) => writeln!(out, "ok      {name}: {figures}")?,
            Err(error) => {
                n_failed += 1;
                writeln!(out, "FAILED  {name}: {error:#}")?;
            }
        }
        out.flush()?;
    }
    ensure!(
        n_failed == 0,
        "{n_failed} of {} checks failed",
        checks::ALL.len()
    );
    Ok(())
}
