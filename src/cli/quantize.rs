//! `ingle quantize`: a model in another weight type, from a folder as Hugging Face has it or a GGUF file.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::DecimalBytes;
use ingle_kernels::WeightType;
use tokio_util::sync::CancellationToken;

use super::app;
use super::fetch_bar::FetchBar;
use super::run::Interrupted;
use super::session::tell;
use crate::catalog::{FetchEvent, Progress};
use crate::config::Config;
use crate::convert::{self, Importance, Mix, Options, Requantize, Source, Summary, Watch};

/// The piece under way may take so long to end after an interrupt, for the sake of a half-written file.
const GRACE: Duration = Duration::from_secs(10);

/// Flags of `ingle quantize`.
#[derive(Args, Debug)]
pub(super) struct QuantizeArgs {
    /// A folder with config.json, a tokenizer and safetensors, or a GGUF file.
    model: PathBuf,
    /// The GGUF file to write.
    out: PathBuf,
    /// The mix of weight types, by llama.cpp's names: Q4_K_M, Q8_0, BF16 and so on.
    #[arg(long = "type", short = 't', value_name = "TYPE", value_parser = mix)]
    mix: Mix,
    /// How much an error in each weight matters, as llama.cpp's imatrix measures it.
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// The type of the output matrix, whatever the mix.
    #[arg(long, value_name = "TYPE", value_parser = weight_type)]
    output_type: Option<WeightType>,
    /// The type of the token embedding, whatever the mix.
    #[arg(long, value_name = "TYPE", value_parser = weight_type)]
    token_embedding_type: Option<WeightType>,
    /// Quantise even what is quantised already, which loses more than once.
    #[arg(long)]
    allow_requantize: bool,
}

fn mix(name: &str) -> Result<Mix, String> {
    let names = || Mix::ALL.map(|(_, name)| name).join(", ");
    Mix::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn weight_type(name: &str) -> Result<WeightType, String> {
    let upper = name.to_ascii_uppercase();
    let found = WeightType::ALL.into_iter().find(|ty| ty.name() == upper);
    found.ok_or_else(|| {
        format!(
            "there are {}",
            WeightType::ALL.map(WeightType::name).join(", ")
        )
    })
}

/// Runs the verb.
pub(super) async fn run(args: QuantizeArgs, config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let work = move || quantize(&args, &config, stopped);
    let mut work = tokio::task::spawn_blocking(work);
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            // Whether it ends in time or not, it was interrupted.
            let _ = tokio::time::timeout(GRACE, work).await;
            Err(Interrupted.into())
        }
        done = &mut work => done?,
    }
}

/// Converts, and says what was made. Blocks its thread.
fn quantize(args: &QuantizeArgs, config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    let began = Instant::now();
    let source = Source::open(&args.model)?;
    let importance = args.imatrix.as_deref().map(Importance::open).transpose()?;
    let importance_name = args.imatrix.as_ref().map(|path| path.display().to_string());
    let options = Options {
        mix: args.mix,
        output: args.output_type,
        embedding: args.token_embedding_type,
        importance: importance.as_ref().zip(importance_name.as_deref()),
        requantize: if args.allow_requantize {
            Requantize::Any
        } else {
            Requantize::Nearly
        },
    };
    let (team, _) = app::team(config)?;
    let mut watch = Shown {
        bar: Arc::new(FetchBar::stderr()),
        stop,
    };
    let made = convert::quantize(&source, &options, &team.take_turn(), &args.out, &mut watch);
    watch.bar.event(FetchEvent::Done);
    let made = made?;
    for warning in warnings(&made) {
        tell(&warning);
    }
    let report = report(args, &source, &made, began.elapsed());
    writeln!(io::stdout(), "{report}").context("the result cannot be shown")
}

/// Shows how far it is, and knows whether it was interrupted.
struct Shown {
    bar: Arc<FetchBar>,
    stop: CancellationToken,
}

impl Watch for Shown {
    fn progress(&mut self, done: u64, total: u64) {
        let total = Some(total);
        self.bar.event(FetchEvent::Bytes { done, total });
    }

    fn is_interrupted(&self) -> bool {
        self.stop.is_cancelled()
    }
}

fn warnings(made: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    if made.n_fallbacks > 0 {
        warnings.push(format!(
            "{} tensors are in a type of smaller blocks: their rows are no whole number of the mix's own",
            made.n_fallbacks
        ));
    }
    if let Some(first) = made.without_importance.first() {
        warnings.push(format!(
            "the importance matrix says nothing of {} tensors, {first} among them: \
             they are quantised without",
            made.without_importance.len()
        ));
    }
    warnings
}

fn report(args: &QuantizeArgs, source: &Source, made: &Summary, took: Duration) -> String {
    let bits = |bytes: u64| bytes as f64 * 8.0 / made.n_weights.max(1) as f64;
    format!(
        "{}: {}, {} tensors, {} ({:.2} bits a weight) from {} ({:.2}), {:.1} s",
        args.out.display(),
        args.mix.name(),
        made.n_tensors,
        DecimalBytes(made.file_bytes),
        bits(made.bytes_after),
        DecimalBytes(source.n_bytes()),
        bits(made.bytes_before),
        took.as_secs_f64()
    )
}
