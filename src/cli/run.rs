//! `ingle run`: one answer, or a chat.

use std::io::{self, IsTerminal, Read};

use clap::Args;

use super::chat;
use super::gpu::Choice;
use super::session::Session;
use crate::chat::{Message, Role, Sampling};
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
    #[arg(
        long,
        default_value_t = 0.2,
        value_name = "T",
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Keep the likeliest tokens up to this share of probability.
    #[arg(
        long,
        default_value_t = 0.9,
        value_name = "P",
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Keep so many of the likeliest tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep tokens at least this share as likely as the likeliest.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "P",
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Divide the logits of tokens already seen by it.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "X",
        allow_negative_numbers = true
    )]
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

/// The person stopped the only answer there was to be.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Runs the verb.
pub(super) async fn run(args: RunArgs, config: Config, gpu: Option<Choice>) -> anyhow::Result<()> {
    let prompt = if args.prompt.is_empty() {
        piped_prompt()?
    } else {
        Some(args.prompt.join(" "))
    };
    let mut session = Session::open(&args.model, (&config, gpu), args.local, args.verbose).await?;
    session.request.sampling = args.sampling();
    session.request.max_new_tokens = args.max_tokens;
    let system = args
        .system
        .iter()
        .map(|text| Message::text(Role::System, text));
    session.request.messages = system.collect();
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

impl RunArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: Some(self.temperature),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        }
    }
}
