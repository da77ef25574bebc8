//! `ingle bench`: how fast this machine can be, how fast the engine is, and models to measure it with.

mod cost;
mod cut_model;
mod driver;
mod engine;
mod gpu;
mod load;
mod points;
mod provider;
mod random;
mod report;
mod shape;
mod vocabulary;
mod write_model;

use std::io::Write;

use clap::Subcommand;

use super::gpu::Choice;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum BenchVerb {
    /// Write a model of random weights in the shape of a real one.
    WriteModel(write_model::WriteModelArgs),
    /// Write the first layers of a model as a file of its own.
    CutModel(cut_model::CutModelArgs),
    /// Time prompts and answers, without server, scheduler and sampler.
    Engine(engine::EngineArgs),
    /// Hold what a GPU computes to what the processor computes, and force it out of memory.
    Gpu(gpu::GpuArgs),
    /// Ask servers for chats, and compare what they take.
    Load(load::LoadArgs),
    /// Answer chats after a fixed time, to measure what stands before a provider.
    Provider(provider::ProviderArgs),
}

impl BenchVerb {
    /// Whether it computes, so that a GPU is looked for.
    pub(super) fn computes(&self) -> bool {
        match self {
            Self::Engine(_) | Self::Gpu(_) => true,
            Self::WriteModel(_) | Self::CutModel(_) | Self::Load(_) | Self::Provider(_) => false,
        }
    }
}

/// Runs a verb.
///
/// Errors: those of the verb.
pub(super) fn run(
    verb: &BenchVerb,
    config: &Config,
    gpu: Option<&Choice>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match verb {
        BenchVerb::WriteModel(args) => write_model::run(args, out),
        BenchVerb::CutModel(args) => cut_model::run(args, out),
        BenchVerb::Engine(args) => engine::run(args, config, gpu, out),
        BenchVerb::Gpu(args) => gpu::run(args, config, gpu, out),
        BenchVerb::Load(args) => load::run(args, out),
        BenchVerb::Provider(args) => provider::run(*args, out),
    }
}
