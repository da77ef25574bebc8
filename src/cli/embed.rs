//! `ingle embed`: vectors of texts, one JSON list a line.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use super::app::App;
use super::gpu::Choice;
use super::load_bar;
use super::remote::Remote;
use crate::backend::local::LocalBackend;
use crate::config::Config;
use crate::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};
use crate::pool::Lease;

/// Lines of standard input that are computed together.
const LINES_AT_ONCE: usize = 256;

/// Flags of `ingle embed`.
#[derive(Args, Debug)]
pub(super) struct EmbedArgs {
    /// A name of the catalogue, a folder with an embedding model, or a GGUF file.
    model: String,
    /// The texts; without any, each line of standard input is one.
    texts: Vec<String>,
    /// Cut off what is too long for the model instead of refusing it.
    #[arg(long)]
    truncate: bool,
    /// Numbers of a vector, where the model was trained for shorter ones.
    #[arg(long, value_name = "N")]
    dimensions: Option<u32>,
    /// As one JSON object a line, with the text beside its vector.
    #[arg(long)]
    json: bool,
    /// Load the model here even where an Ingle that serves it is running.
    #[arg(long)]
    local: bool,
}

/// Whoever computes: here with the model held in memory, or a running Ingle.
enum Maker {
    Here {
        backend: Box<LocalBackend>,
        _lease: Lease,
    },
    There(Remote),
}

impl Maker {
    async fn find(
        args: &EmbedArgs,
        config: &Config,
        gpu: Option<Choice>,
    ) -> anyhow::Result<(Self, String)> {
        if !args.local
            && let Some(remote) = Remote::find(config.listen, &args.model).await
        {
            let model = remote.model().to_owned();
            return Ok((Self::There(remote), model));
        }
        let app = App::start(config, gpu)?;
        let pool = app.backend.pool().clone();
        let id = pool.resolve(&args.model)?;
        let shown = tokio::spawn(load_bar::show(pool.load_events(), id.clone()));
        let lease = pool.acquire(id.as_str(), None).await;
        // It ends with the load; after a failed one its last line is out, too.
        let _ = shown.await;
        let here = Self::Here {
            backend: Box::new(app.backend),
            _lease: lease?,
        };
        Ok((here, id.to_string()))
    }

    async fn embed(&self, request: EmbedRequest) -> anyhow::Result<Embeddings> {
        match self {
            Self::Here { backend, .. } => Ok(backend.embed(request, None).await?),
            Self::There(remote) => remote.embed(&request).await,
        }
    }
}

/// Runs the verb.
pub(super) async fn run(
    args: EmbedArgs,
    config: Config,
    gpu: Option<Choice>,
) -> anyhow::Result<()> {
    let is_piped = args.texts.is_empty();
    anyhow::ensure!(
        !(is_piped && io::stdin().is_terminal()),
        "there is no text: name some, or pipe them in, one a line"
    );
    let (maker, model) = Maker::find(&args, &config, gpu).await?;
    let mut out = io::stdout();
    if !is_piped {
        return write(&maker, &model, &args, args.texts.clone(), &mut out).await;
    }
    let mut lines = BufReader::new(io::stdin()).lines();
    loop {
        let some = lines.by_ref().take(LINES_AT_ONCE);
        let texts: Vec<String> = some.collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Ok(());
        }
        write(&maker, &model, &args, texts, &mut out).await?;
    }
}

/// What `--json` says of a text.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    embedding: &'a [f32],
}

async fn write(
    maker: &Maker,
    model: &str,
    args: &EmbedArgs,
    texts: Vec<String>,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    if let Some(place) = texts.iter().position(String::is_empty) {
        anyhow::bail!("text {} is empty: it has no vector", place + 1);
    }
    let request = EmbedRequest {
        model: model.to_owned(),
        inputs: texts.iter().cloned().map(EmbedInput::Text).collect(),
        overlong: if args.truncate {
            Overlong::Truncate
        } else {
            Overlong::Refuse
        },
        dimensions: args.dimensions,
        keep_alive: None,
    };
    let made = maker.embed(request).await?;
    for (text, vector) in texts.iter().zip(&made.vectors) {
        if args.json {
            let line = Line {
                text,
                embedding: vector,
            };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        } else {
            writeln!(out, "{}", serde_json::to_string(vector)?)?;
        }
    }
    Ok(out.flush()?)
}
