//! `ingle perplexity`: how well a model predicts a text, and how far its arithmetic is from f32.
//!
//! The text is cut into chunks, each a prompt of its own; the second half of each is scored, as by
//! llama.cpp's tool of that name, so that their figures can be compared.

mod chunks;
mod evaluate;
mod logits_file;
mod network;
mod progress;
mod report;
pub(super) mod score;

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use ingle_kernels::Team;
use tokio_util::sync::CancellationToken;

use super::app;
use super::gpu::{self, Choice};
use super::run::Interrupted;
use super::session::tell;
use crate::config::Config;
use crate::gguf::Gguf;
use crate::model::{Form, Limits, Memory, Model, ModelConfig, Placement, unwatched};
use crate::pool::memory::{available_bytes, default_budget};
use crate::text::{Text, TextOptions};
use chunks::Chunks;
use evaluate::Evaluation;
use logits_file::LogitsFile;
use network::Network;
use report::Report;

/// A step under way may take so long to end after an interrupt, for the sake of a half-written file.
const GRACE: Duration = Duration::from_secs(5);

/// Flags of `ingle perplexity`.
#[derive(Args, Debug)]
pub(super) struct PerplexityArgs {
    /// A plain text, UTF-8.
    file: PathBuf,
    /// A name of the catalogue, or a GGUF file.
    #[arg(long, short)]
    model: String,
    /// Tokens of a chunk; what is left at the end of the text is not evaluated.
    #[arg(long, value_name = "N", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(8..))]
    ctx_chunk: u32,
    /// Evaluate so many chunks at most.
    #[arg(long, value_name = "N")]
    chunks: Option<NonZeroU32>,
    /// Compare with the same weights, decoded: f32 rounds neither weights nor activations again.
    #[arg(long, value_name = "WEIGHTS")]
    against: Option<Against>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    /// Write the logits of every scored position, those of --against where it is given.
    #[arg(long, value_name = "OUT")]
    logits: Option<PathBuf>,
}

/// What a model is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// Its own weights as floats.
    #[value(name = "f32")]
    F32,
}

/// Runs the verb.
pub(super) async fn run(
    args: PerplexityArgs,
    config: Config,
    gpu: Option<Choice>,
) -> anyhow::Result<()> {
    let content = read_text(&args.file)?;
    let path = app::model_file(&args.model, &config).await?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let work = move || measure(&args, (&config, gpu.as_ref()), &path, &content, &stopped);
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

fn read_text(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{shown} cannot be read"))?;
    anyhow::ensure!(
        !bytes.is_empty(),
        "{shown} is empty: name a file with text in it"
    );
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{shown} is not UTF-8 at byte {place}: name a plain text in UTF-8")
    })
}

/// Loads, evaluates and prints. Blocks its thread.
fn measure(
    args: &PerplexityArgs,
    (config, gpu): (&Config, Option<&Choice>),
    path: &Path,
    content: &str,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let gguf = Gguf::open(path)?;
    let shape = ModelConfig::from_gguf(&gguf)?;
    anyhow::ensure!(
        args.ctx_chunk <= shape.context_length,
        "--ctx-chunk is {} and the model was trained for {} tokens: take at most that",
        args.ctx_chunk,
        shape.context_length
    );
    let chunk_len = usize::try_from(args.ctx_chunk)?;
    let at_most = args.chunks.map(|n| usize::try_from(n.get())).transpose()?;
    // Nobody chats here: a file whose chat template does not parse can be measured all the same.
    let options = TextOptions {
        chat_template: Some(String::new()),
        ..TextOptions::default()
    };
    let text = Text::from_gguf(gguf.metadata(), &options)?;
    let chunks = Chunks::new(&text, content, chunk_len, at_most)
        .with_context(|| args.file.display().to_string())?;
    let (team, isa) = app::team(config)?;
    let source = Loading {
        gguf: &gguf,
        shape: &shape,
        limits: network::limits(chunk_len, app::kv_type(config)),
        team: &team,
    };
    let n_device_layers = gpu::n_layers(gpu, config, shape.n_layers);
    source.check_memory(args.against, config, n_device_layers)?;
    tell(&format!("loading {}", path.display()));
    let mut evaluation = Evaluation {
        ours: source.network(&gpu::placement(gpu, config, shape.n_layers)?)?,
        reference: match args.against {
            Some(_) => Some(source.network(&Placement::on_cpu(Form::Decoded))?),
            None => None,
        },
        file: None,
    };
    if let Some(out) = &args.logits {
        evaluation.file = Some(LogitsFile::begin(out, shape.n_vocab, &chunks)?);
    }
    let scores = evaluation.run(&chunks, stop)?;
    if let Some(file) = evaluation.file.take() {
        file.finish()?;
    }
    let computer = (args.model.clone(), isa.name(), team.n_threads());
    let report = Report::new(computer, &chunks, &evaluation, &scores);
    let mut out = io::stdout().lock();
    if args.json {
        report.write_json(&mut out)
    } else {
        report.write(&mut out)
    }
}

/// What a network is loaded from, and how large.
struct Loading<'a> {
    gguf: &'a Gguf,
    shape: &'a ModelConfig,
    limits: Limits,
    team: &'a Arc<Team>,
}

impl Loading<'_> {
    fn network(&self, placement: &Placement) -> anyhow::Result<Network> {
        let team = Arc::clone(self.team);
        let model = Model::load(
            self.gguf,
            self.shape,
            self.limits,
            placement,
            team,
            &mut unwatched,
        )?;
        Network::new(model)
    }

    /// Checks that what is going to be loaded fits in the host's memory.
    fn check_memory(
        &self,
        against: Option<Against>,
        config: &Config,
        n_device_layers: usize,
    ) -> anyhow::Result<()> {
        // A system that does not say what it has free is not limited here.
        let Some(allowed) = config
            .memory_bytes
            .map(Into::into)
            .or_else(|| available_bytes().map(default_budget))
        else {
            return Ok(());
        };
        let (gguf, shape, limits) = (self.gguf, self.shape, &self.limits);
        let (ours, _) = Memory::estimate_split(gguf, shape, limits, n_device_layers);
        let ours = ours.total_bytes();
        let decoded = against.map(|_| Memory::estimate_decoded(gguf, shape, limits).total_bytes());
        let needed = ours.saturating_add(decoded.unwrap_or(0));
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let beside = decoded.map_or(String::new(), |decoded| {
            format!(
                " with its weights decoded to f32 ({} MB) beside it",
                megabytes(decoded)
            )
        });
        anyhow::ensure!(
            needed <= allowed,
            "the model takes {} MB of memory{beside} and {} MB may be used: \
             take a smaller model, or a machine with more memory",
            megabytes(needed),
            megabytes(allowed)
        );
        Ok(())
    }
}
