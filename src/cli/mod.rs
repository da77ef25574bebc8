//! F9: the program's verbs.

mod app;
mod bench;
mod bundle;
mod chat;
mod config;
mod copy_bar;
mod doctor;
mod egress;
mod embed;
mod fetch_bar;
mod gpu;
mod hand_over;
mod import;
mod inspect;
mod key;
mod load_bar;
mod mcp;
mod models;
mod node;
mod perplexity;
mod quantize;
mod reload;
mod remote;
mod router;
mod run;
mod running;
mod serve;
mod session;
mod table;
mod usage;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Flags, KvType};
use crate::egress::Egress;
use crate::telemetry::{self, LogFormat};
use fetch_bar::FetchBar;
use gpu::Choice;

/// A local LLM engine and the server in front of it.
#[derive(Debug, Parser)]
#[command(name = "ingle", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags of every verb.
#[derive(Args, Debug)]
struct Settings {
    /// Read this file instead of ingle.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of model files.
    #[arg(long, global = true, value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Let nothing leave this machine.
    #[arg(long, global = true)]
    offline: bool,
    /// A folder of GGUF files, each a model under its name; may be given several times.
    #[arg(long = "model-folder", global = true, value_name = "FOLDER")]
    model_folders: Vec<PathBuf>,
    /// Threads that compute.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Tokens of one conversation at most.
    #[arg(long, global = true, value_name = "N")]
    ctx: Option<NonZeroU32>,
    /// In what form keys and values are kept: f16, or int8 for half the memory.
    #[arg(long, global = true, value_name = "TYPE", value_parser = kv_type)]
    kv_type: Option<KvType>,
    /// Layers of a model that lie on the GPU, 0 for none; unless said, as many as its memory holds.
    #[arg(long, global = true, value_name = "N")]
    gpu_layers: Option<usize>,
    /// On a GPU too, compute every answer with the same bits in any batch.
    #[arg(long, global = true)]
    deterministic: bool,
    /// How log lines are written: text or json.
    #[arg(long, global = true, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer a prompt, or chat.
    Run(run::RunArgs),
    /// Make vectors of texts.
    Embed(embed::EmbedArgs),
    /// Serve models over HTTP.
    Serve(ServeArgs),
    /// Offer the models to an MCP client, on stdin and stdout.
    Mcp,
    /// Say who may ask the server, and what they may.
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// Show what was used, and what it cost.
    Usage(usage::UsageArgs),
    /// Prove what left this machine for providers.
    #[command(subcommand)]
    Egress(egress::EgressVerb),
    /// Fetch a model unless it is here.
    Pull {
        /// A name of the catalogue.
        model: String,
    },
    /// List the models that are known and those that are here.
    List,
    /// Remove a model's file.
    Rm {
        /// A name of the catalogue.
        model: String,
    },
    /// List the models in the running Ingle's memory.
    Ps {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load a model into the running Ingle's memory.
    Load(node::LoadArgs),
    /// Take a model out of the running Ingle's memory, or call its load off.
    #[command(alias = "stop")]
    Unload {
        /// A name of the catalogue, or of a file the server was started with.
        model: String,
    },
    /// Show what a model is and how much memory it asks for.
    Info {
        /// A name of the catalogue, or a GGUF file.
        model: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Carry models, and this program, to machines without a network.
    #[command(subcommand)]
    Bundle(bundle::BundleVerb),
    /// Use the models of an Ollama or LM Studio store where they lie.
    Import(import::ImportArgs),
    /// Check what is configured.
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Show the metadata, kinds and shapes of a GGUF file.
    Inspect {
        /// The file; of a sharded model, the first.
        file: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show what this machine has, which models fit it, how fast they are likely to be, and what is misconfigured.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the GPU that models are put on.
    Gpu,
    /// Measure how well a model predicts a text, and how far from f32 it computes.
    Perplexity(perplexity::PerplexityArgs),
    /// Turn a folder of Hugging Face's or a GGUF file into a GGUF file of another weight type.
    Quantize(quantize::QuantizeArgs),
    /// Measure this machine and the engine on it; make models to measure with.
    #[command(subcommand)]
    Bench(bench::BenchVerb),
}

impl Verb {
    /// Whether it computes, so that a GPU is looked for.
    fn computes(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Embed(_)
            | Self::Serve(_)
            | Self::Mcp
            | Self::Perplexity(_)
            | Self::Doctor { .. }
            | Self::Gpu => true,
            Self::Bench(verb) => verb.computes(),
            _ => false,
        }
    }
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// Models to load at once: names of the catalogue, GGUF files, or folders with an embedding model. Others load on first request.
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A file of API keys, one a line.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen where others reach it, without any key.
    #[arg(long)]
    insecure: bool,
}

fn kv_type(text: &str) -> Result<KvType, String> {
    match text {
        "f16" => Ok(KvType::F16),
        "int8" => Ok(KvType::Int8),
        other => Err(format!("{other:?} is neither f16 nor int8")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{other:?} is neither text nor json")),
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        // Whoever interrupted it knows; shells call it 128 and the signal's number.
        Err(error) if error.is::<run::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            // Where stderr is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(io_error)
}

fn start(cli: Cli) -> anyhow::Result<()> {
    if let Verb::Inspect { file, json } = &cli.verb {
        let mut out = io::stdout().lock();
        return if *json {
            inspect::run_json(file, &mut out)
        } else {
            inspect::run(file, &mut out)
        };
    }
    if let Verb::Config(verb) = &cli.verb {
        let file = cli.settings.config.as_deref();
        return config::run(verb, &flags(&cli), file, &mut io::stdout().lock());
    }
    let config = Config::load(&flags(&cli), cli.settings.config.as_deref())?;
    // A chat's screen is for the chat; a server tells what it does.
    let level = match cli.verb {
        Verb::Serve(_) => "info",
        // A client shows what comes on stderr as trouble.
        Verb::Mcp => "warn",
        _ => "error",
    };
    telemetry::init_logs(config.log_format, level);
    let gpu = if cli.verb.computes() {
        gpu::find(&config)?
    } else {
        None
    };
    if let Verb::Bench(verb) = &cli.verb {
        // No other thread shall run beside what is timed.
        return bench::run(verb, &config, gpu.as_ref(), &mut io::stdout().lock());
    }
    if let Verb::Gpu = &cli.verb {
        return gpu::show(gpu.as_ref(), &mut io::stdout().lock());
    }
    match &cli.verb {
        Verb::Key(verb) => return key::run(verb, &config, &mut io::stdout().lock()),
        Verb::Usage(args) => return usage::run(args, &config, &mut io::stdout().lock()),
        Verb::Egress(verb) => return egress::run(verb, &config, &mut io::stdout().lock()),
        Verb::Bundle(verb) => return bundle::run(verb, &config, &mut io::stdout().lock()),
        Verb::Import(args) => return import::run(args, &config, &mut io::stdout().lock()),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(run_verb(cli.verb, config, gpu));
    // What still waits for a terminal or a resolver must not keep the program.
    runtime.shutdown_background();
    done
}

fn flags(cli: &Cli) -> Flags {
    let settings = &cli.settings;
    let mut flags = Flags {
        threads: settings.threads,
        ctx: settings.ctx,
        home: settings.home.clone(),
        offline: settings.offline.then_some(true),
        model_folders: settings.model_folders.clone(),
        kv_type: settings.kv_type,
        gpu_layers: settings.gpu_layers,
        deterministic: settings.deterministic.then_some(true),
        log_format: settings.log_format,
        ..Flags::default()
    };
    if let Verb::Serve(serve) = &cli.verb {
        flags.listen = serve.listen;
        flags.api_key_file.clone_from(&serve.api_key_file);
        flags.insecure = serve.insecure.then_some(true);
    }
    flags
}

async fn run_verb(verb: Verb, config: Config, gpu: Option<Choice>) -> anyhow::Result<()> {
    match verb {
        Verb::Run(args) => Box::pin(run::run(args, config, gpu)).await,
        Verb::Embed(args) => Box::pin(embed::run(args, config, gpu)).await,
        Verb::Serve(args) => Box::pin(serve::serve(&args.models, config, gpu)).await,
        Verb::Mcp => Box::pin(mcp::run(config, gpu)).await,
        Verb::Pull { model } => {
            let (catalog, store) = app::library(&config)?;
            let egress = Egress::new(config.offline);
            let library = (&*catalog, &*store);
            let (bar, mut out) = (FetchBar::stderr(), io::stdout());
            models::pull(&model, library, egress, &bar, &mut out).await
        }
        Verb::List => {
            let (catalog, store) = app::library(&config)?;
            models::list(&catalog, &store, &mut io::stdout())
        }
        Verb::Ps { json } => node::ps(&config, json, &mut io::stdout()).await,
        Verb::Load(args) => node::load(&args, &config, &mut io::stdout()).await,
        Verb::Unload { model } => node::unload(&model, &config, &mut io::stdout()).await,
        Verb::Info { model, json } => node::info(&model, json, &config, &mut io::stdout()).await,
        Verb::Rm { model } => {
            if models::forget(&model, &config, &mut io::stdout()).await? {
                return Ok(());
            }
            if let Some(freed) = node::remove(&model, &config).await? {
                return models::say_removed(&model, freed, &mut io::stdout());
            }
            let (catalog, store) = app::library(&config)?;
            models::rm(&model, &catalog, &store, &mut io::stdout())
        }
        Verb::Doctor { json } => doctor::run(json, &config, gpu, &mut io::stdout()).await,
        Verb::Perplexity(args) => Box::pin(perplexity::run(args, config, gpu)).await,
        Verb::Quantize(args) => quantize::run(args, config).await,
        // Need no runtime: done before.
        Verb::Inspect { .. }
        | Verb::Config(_)
        | Verb::Bench(_)
        | Verb::Gpu
        | Verb::Bundle(_)
        | Verb::Key(_)
        | Verb::Usage(_)
        | Verb::Egress(_)
        | Verb::Import(_) => Ok(()),
    }
}
