//! `ingle run`: one answer, or a chat.

use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;

use super::app::App;
use super::chat;
use super::load_bar;
use super::remote::Remote;
use crate::backend::ChatStream;
use crate::backend::local::LocalBackend;
use crate::chat::{ChatDelta, ChatRequest, Message, Role, Sampling, Usage};
use crate::config::Config;

/// Flags of `ingle run`.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// A name of the catalogue, or a GGUF file.
    model: String,
    /// What to ask; without it, standard input is asked, or a chat begins on a terminal.
    prompt: Vec<String>,
    /// Standing instructions.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.2, value_name = "T")]
    temperature: f32,
    /// Keep the likeliest tokens up to this share of probability.
    #[arg(long, default_value_t = 0.9, value_name = "P")]
    top_p: f32,
    /// Keep so many of the likeliest tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep tokens at least this share as likely as the likeliest.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f32,
    /// Divide the logits of tokens already seen by it.
    #[arg(long, default_value_t = 1.1, value_name = "X")]
    repetition_penalty: f32,
    /// The same seed gives the same text.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Tokens of an answer at most.
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Say what it took, on standard error.
    #[arg(long, short)]
    verbose: bool,
    /// Load the model here even where an Ingle that serves it is running.
    #[arg(long)]
    local: bool,
}

/// Whoever answers.
pub(super) enum Talker {
    /// An engine in this process.
    Here(Box<LocalBackend>),
    /// A running Ingle.
    There(Remote),
}

/// A conversation and how it is carried on.
pub(super) struct Session {
    talker: Talker,
    pub(super) request: ChatRequest,
    verbose: bool,
}

/// The person stopped the only answer there was to be.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Runs the verb.
pub(super) async fn run(args: RunArgs, config: Config) -> anyhow::Result<()> {
    let prompt = if args.prompt.is_empty() {
        piped_prompt()?
    } else {
        Some(args.prompt.join(" "))
    };
    let mut session = Session::open(&args, &config).await?;
    match prompt {
        Some(prompt) => {
            session.say(prompt);
            let interrupted = session.answer(&mut io::stdout()).await?;
            anyhow::ensure!(!interrupted, Interrupted);
            Ok(())
        }
        None => chat::chat(session, args.system.as_deref()).await,
    }
}

/// All of standard input, where it is no terminal.
fn piped_prompt() -> anyhow::Result<Option<String>> {
    let mut stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text)?;
    let text = text.trim_end();
    anyhow::ensure!(!text.is_empty(), "standard input holds no prompt: name one");
    Ok(Some(text.to_owned()))
}

impl Session {
    async fn open(args: &RunArgs, config: &Config) -> anyhow::Result<Self> {
        let running = if args.local {
            None
        } else {
            Remote::find(config.listen, &args.model).await
        };
        let (talker, model) = match running {
            Some(remote) => {
                let model = remote.model().to_owned();
                (Talker::There(remote), model)
            }
            None => here(&args.model, config, args.verbose).await?,
        };
        let system = args
            .system
            .iter()
            .map(|text| Message::text(Role::System, text));
        Ok(Self {
            talker,
            request: ChatRequest {
                model,
                messages: system.collect(),
                sampling: Sampling {
                    temperature: args.temperature,
                    top_k: args.top_k,
                    top_p: args.top_p,
                    min_p: args.min_p,
                    repetition_penalty: args.repetition_penalty,
                    seed: args.seed,
                    ..Sampling::default()
                },
                max_new_tokens: args.max_tokens,
                stop: Vec::new(),
            },
            verbose: args.verbose,
        })
    }

    /// Adds what the person says.
    pub(super) fn say(&mut self, text: String) {
        self.request.messages.push(Message::text(Role::User, text));
    }

    /// Writes the answer as it comes, adds it to the conversation, and says what it took. An
    /// interrupt ends it where it is; true when one came.
    pub(super) async fn answer(&mut self, out: &mut (dyn Write + Send)) -> anyhow::Result<bool> {
        let clock = Instant::now();
        let mut stream = tokio::select! {
            stream = self.talker.chat(&self.request) => stream?,
            _ = tokio::signal::ctrl_c() => {
                // The question stays out of the conversation, so that it can be asked again.
                self.request.messages.pop();
                return Ok(true);
            }
        };
        let mut text = String::new();
        let mut first = None;
        let mut interrupted = false;
        let usage = loop {
            let delta = tokio::select! {
                delta = stream.next() => delta,
                _ = tokio::signal::ctrl_c() => {
                    interrupted = true;
                    break None;
                }
            };
            match delta.transpose()? {
                Some(ChatDelta::Text(more)) => {
                    first.get_or_insert_with(|| clock.elapsed());
                    out.write_all(more.as_bytes())?;
                    out.flush()?;
                    text.push_str(&more);
                }
                Some(ChatDelta::Finished { usage, .. }) => break Some(usage),
                None => break None,
            }
        };
        writeln!(out)?;
        if let (true, Some(usage)) = (self.verbose, usage) {
            tell_rates(usage, first.unwrap_or_default(), clock.elapsed());
        }
        self.request
            .messages
            .push(Message::text(Role::Assistant, text));
        Ok(interrupted)
    }
}

impl Talker {
    async fn chat(&self, request: &ChatRequest) -> anyhow::Result<ChatStream> {
        match self {
            Self::Here(backend) => Ok(backend.chat(request, None).await?),
            Self::There(remote) => Ok(remote.chat(request).await?),
        }
    }
}

/// Loads the model in this process.
async fn here(model: &str, config: &Config, verbose: bool) -> anyhow::Result<(Talker, String)> {
    let app = App::start(config)?;
    let pool = app.backend.pool().clone();
    let id = pool.resolve(model)?;
    let shown = tokio::spawn(load_bar::show(pool.load_events(), id.clone()));
    let lease = pool.acquire(id.as_str(), None).await;
    // It ends with the load; after a failed one its last line is out, too.
    let _ = shown.await;
    let lease = lease?;
    if verbose {
        tell(&format!(
            "loaded {id} in {:.2} s: {} MB, context of {} tokens, {}",
            lease.load_time.as_secs_f64(),
            lease.memory.total() / 1_000_000,
            lease.n_ctx,
            app.fingerprint,
        ));
    }
    Ok((Talker::Here(Box::new(app.backend)), id.to_string()))
}

/// What an answer took: the prompt's rate to the first text, the answer's from there.
fn tell_rates(usage: Usage, first: Duration, whole: Duration) {
    let Usage {
        prompt_tokens,
        completion_tokens,
    } = usage;
    let rate = |n: u32, time: Duration| f64::from(n) / time.as_secs_f64().max(1e-9);
    tell(&format!(
        "first token after {:.3} s; prompt: {prompt_tokens} tokens, {:.1} tokens/s; \
         answer: {completion_tokens} tokens, {:.1} tokens/s",
        first.as_secs_f64(),
        rate(prompt_tokens, first),
        rate(
            completion_tokens.saturating_sub(1),
            whole.saturating_sub(first)
        ),
    ));
}

/// A line on standard error.
pub(super) fn tell(line: &str) {
    // Where stderr is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}
