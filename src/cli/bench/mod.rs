//! `ingle bench`: how fast this machine can be, how fast the engine is, and models to measure it with.

mod random;
mod shape;
mod vocabulary;
mod write_model;

use std::io::Write;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum BenchVerb {
    /// Write a model of random weights in the shape of a real one.
    WriteModel(write_model::WriteModelArgs),
}

/// Runs a verb that needs no settings; false when it needs some.
///
/// Errors: those of the verb.
pub(super) fn run_without_settings(verb: &BenchVerb, out: &mut dyn Write) -> anyhow::Result<bool> {
    match verb {
        BenchVerb::WriteModel(args) => write_model::run(args, out).map(|()| true),
    }
}
