//! `ingle bench engine`: rates of the engine's steps beside the limits of the machine.

use std::io::{self, BufRead, IsTerminal, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::DecimalBytes;
use ingle_kernels::Team;
use ingle_kernels::limits::Limits as MachineLimits;

use super::cost::Cost;
use super::driver::Driver;
use super::points::{Point, Wanted, blocks, points};
use super::report::{Report, Sample};
use crate::cli::app;
use crate::cli::gpu::{self, Choice};
use crate::config::Config;
use crate::engine::EngineOptions;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{Limits, Memory, Model, ModelConfig, Placement, unwatched};
use crate::pool::memory::{available_bytes, default_budget};

/// The most that a flag of tokens or sequences takes: more than any model or machine holds.
const COUNT_MOST: i64 = 1 << 24;

#[derive(Args, Debug)]
pub(in crate::cli) struct EngineArgs {
    /// The model: a name of the catalogue, or a GGUF file.
    #[arg(short, long)]
    model: String,
    /// Tokens of the prompt that is timed; 0 for none.
    #[arg(short = 'p', long, value_name = "N", default_value_t = 512, value_parser = count(0))]
    prompt: u32,
    /// Tokens of the answer that is timed; 0 for none.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128, value_parser = count(0))]
    decode: u32,
    /// Threads that compute; the same as --threads.
    #[arg(short = 't', value_name = "N", conflicts_with = "threads")]
    n_threads: Option<NonZeroUsize>,
    /// How often each is timed.
    #[arg(short, long, value_name = "N", default_value_t = NonZeroU32::MIN.saturating_add(4))]
    repetitions: NonZeroU32,
    /// Tokens in the cache before those that are timed.
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_value = "0",
          value_parser = count(0))]
    depths: Vec<u32>,
    /// Sequences that decode side by side.
    #[arg(
        short,
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1"
    )]
    batches: Vec<NonZeroU32>,
    /// Every depth with every batch; without, only with the smallest.
    #[arg(long)]
    all_pairs: bool,
    /// Prompt tokens a step; without, as many as the engine takes.
    #[arg(long, value_name = "N", value_parser = count(1))]
    chunk: Option<u32>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    /// Time one point for each line on stdin, which holds its number in the list written first: to
    /// take turns with another program.
    #[arg(long, conflicts_with_all = ["json", "repetitions"])]
    turns: bool,
}

fn count(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=COUNT_MOST)
}

/// A model that is open and found to fit.
struct Bench {
    gguf: Gguf,
    config: ModelConfig,
    points: Vec<Point>,
    blocks: Vec<u64>,
    limits: Limits,
    n_chunk: u32,
}

/// Measures, and writes a table or JSON on `out`.
///
/// Errors: the model is not here, cannot be computed, or does not fit with the cache that is needed;
/// `out` does not take more.
pub(super) fn run(
    args: &EngineArgs,
    config: &Config,
    gpu: Option<&Choice>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let path = find(&args.model, config)?;
    let bench = prepare(&path, args, config, gpu)?;
    let (team, isa) = app::team(&Config {
        threads: args.n_threads.or(config.threads),
        ..config.clone()
    })?;
    let limits = MachineLimits::measure(&team.take_turn());
    let mut report = Report {
        model: args.model.clone(),
        file_bytes: bench.gguf.file_bytes(),
        n_parameters: bench
            .gguf
            .tensors()
            .iter()
            .map(TensorInfo::n_elements)
            .sum(),
        isa: isa.name(),
        n_threads: team.n_threads(),
        n_chunk: bench.n_chunk,
        cost: Cost::new(&bench.gguf, &bench.config, &bench.limits),
        limits_before: limits,
        limits_after: limits,
        samples: Vec::new(),
    };
    let placement = gpu::placement(gpu, config, bench.config.n_layers)?;
    let mut driver = load(&bench, &placement, Arc::clone(&team))?;
    if args.turns {
        serve_turns(&mut driver, &bench.points, &report, out)?;
    } else {
        for point in &bench.points {
            report
                .samples
                .push(sample(&mut driver, point, args.repetitions)?);
        }
    }
    // The cache's memory is given back before as much is taken again.
    drop(driver);
    report.limits_after = MachineLimits::measure(&team.take_turn());
    if args.json || args.turns {
        writeln!(out, "{}", report.json())?;
        return Ok(());
    }
    report.write_table(out)
}

/// The file of a model.
fn find(model: &str, config: &Config) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        || path.is_file()
    {
        return Ok(path.to_owned());
    }
    let (catalog, store) = app::library(config)?;
    let manifest = catalog.find(model)?;
    let not_here = || {
        format!(
            "{} is not here: fetch it with `ingle pull {model}`",
            manifest.id
        )
    };
    store.installed(manifest).with_context(not_here)
}

/// Opens a model and sizes its cache for what was asked.
fn prepare(
    path: &Path,
    args: &EngineArgs,
    config: &Config,
    gpu: Option<&Choice>,
) -> anyhow::Result<Bench> {
    let gguf = Gguf::open(path)?;
    let model = ModelConfig::from_gguf(&gguf)?;
    let wanted = Wanted {
        n_prompt: args.prompt,
        n_decode: args.decode,
        depths: args.depths.clone(),
        batches: args.batches.clone(),
        all_pairs: args.all_pairs,
    };
    let points = points(&wanted, model.context_length)?;
    let blocks = blocks(&points);
    let n_chunk = match args.chunk {
        Some(n_chunk) => n_chunk,
        None => u32::try_from(EngineOptions::default().prefill_chunk_tokens)?,
    };
    let limits = Limits {
        max_batch_tokens: blocks.len().max(n_chunk as usize),
        max_logit_rows: blocks.len().max(1),
        n_blocks: usize::try_from(blocks.iter().sum::<u64>())?,
        kv_type: app::kv_type(config),
    };
    let n_device_layers = gpu::n_layers(gpu, config, model.n_layers);
    let (host, device) = Memory::estimate_split(&gguf, &model, &limits, n_device_layers);
    let free = match config.memory_bytes {
        Some(bytes) => bytes.get(),
        None => available_bytes().map_or(u64::MAX, default_budget),
    };
    check_memory(&host, free, "")?;
    if let Some(Choice::Used(gpu)) = gpu {
        check_memory(&device, gpu.free_bytes()?, " on the GPU")?;
    }
    Ok(Bench {
        gguf,
        config: model,
        points,
        blocks,
        limits,
        n_chunk,
    })
}

/// Errors: the model needs more memory than there is.
fn check_memory(needed: &Memory, budget: u64, place: &str) -> anyhow::Result<()> {
    let total = needed.total_bytes();
    if total > budget {
        bail!(
            "the model and a cache for these depths and batches need {}{place} (weights {}, cache {}), \
             but there are {}: ask for less depth or fewer sequences",
            DecimalBytes(total),
            DecimalBytes(needed.weights_bytes),
            DecimalBytes(needed.kv_bytes),
            DecimalBytes(budget)
        );
    }
    Ok(())
}

/// Loads the model and computes a few steps that nobody times.
fn load(bench: &Bench, placement: &Placement, team: Arc<Team>) -> anyhow::Result<Driver> {
    say("loading");
    let model = Model::load(
        &bench.gguf,
        &bench.config,
        bench.limits,
        placement,
        team,
        &mut unwatched,
    )?;
    let mut driver = Driver::new(model, bench.n_chunk, &bench.blocks)?;
    for point in &bench.points {
        let warm_up = Point {
            depth: 0,
            n_tokens: point.n_tokens.min(4),
            ..*point
        };
        driver.measure(&warm_up)?;
    }
    Ok(driver)
}

fn sample(driver: &mut Driver, point: &Point, repetitions: NonZeroU32) -> anyhow::Result<Sample> {
    say(&point.to_string());
    driver.fill(point)?;
    let rates = (0..repetitions.get()).map(|_| driver.measure(point));
    Ok(Sample {
        point: *point,
        rates: rates.collect::<Result<_, _>>()?,
    })
}

/// Writes what there is to measure, then answers each line of stdin, which is the number of a point,
/// with one JSON object.
fn serve_turns(
    driver: &mut Driver,
    points: &[Point],
    report: &Report,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    writeln!(out, "{}", report.json_of_points(points))?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let point = line
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|place| points.get(place));
        let n_points = points.len();
        let point = point.with_context(|| {
            format!("{line:?} on stdin is no number of a point: send one below {n_points}")
        })?;
        driver.fill(point)?;
        let rate = driver.measure(point)?;
        writeln!(out, "{}", serde_json::json!({ "tokens_per_second": rate }))?;
        out.flush()?;
    }
    Ok(())
}

/// Tells a person who waits what is done.
fn say(what: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        // Where stderr is gone nobody waits.
        let _ = writeln!(err, "{what} …");
    }
}
