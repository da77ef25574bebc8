//! `ingle bench`: how fast this machine can be, how fast the engine is, and models to measure it with.

mod cost;
mod driver;
mod engine;
mod points;
mod random;
mod report;
mod shape;
mod vocabulary;
mod write_model;

use std::io::Write;

use clap::Subcommand;

use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum BenchVerb {
    /// Write a model of random weights in the shape of a real one.
    WriteModel(write_model::WriteModelArgs),
    /// Time prompts and answers, without server, scheduler and sampler.
    Engine(engine::EngineArgs),
}

/// Runs a verb.
///
/// Errors: those of the verb.
pub(super) fn run(verb: &BenchVerb, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    match verb {
        BenchVerb::WriteModel(args) => write_model::run(args, out),
        BenchVerb::Engine(args) => engine::run(args, config, out),
    }
}
