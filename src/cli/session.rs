//! A conversation with whoever answers: an engine in this process, or a running Ingle.

use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::app::App;
use super::gpu::Choice;
use super::load_bar;
use super::remote::Remote;
use crate::backend::ChatStream;
use crate::backend::local::LocalBackend;
use crate::chat::{ChatDelta, ChatRequest, Message, Role, Usage};
use crate::config::Config;

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

impl Session {
    /// A conversation with `model`, which a running Ingle serves or this process loads; `local`
    /// loads it here in any case.
    pub(super) async fn open(
        model: &str,
        (config, gpu): (&Config, Option<Choice>),
        local: bool,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let running = if local {
            None
        } else {
            Remote::find(config.listen, model).await
        };
        let (talker, model) = match running {
            Some(remote) => {
                let model = remote.model().to_owned();
                (Talker::There(remote), model)
            }
            None => here(model, (config, gpu), verbose).await?,
        };
        Ok(Self {
            talker,
            request: ChatRequest::new(model, Vec::new()),
            verbose,
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
        let is_terminal = io::stdout().is_terminal();
        // One for the whole answer: none is lost between two pieces of text.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let mut stream = tokio::select! {
            biased;
            _ = &mut interrupt => {
                // The question stays out of the conversation, so that it can be asked again.
                self.request.messages.pop();
                return Ok(true);
            }
            stream = self.talker.chat(&self.request) => stream?,
        };
        let mut text = String::new();
        let mut first = None;
        let mut interrupted = false;
        let usage = loop {
            let delta = tokio::select! {
                biased;
                _ = &mut interrupt => {
                    interrupted = true;
                    break None;
                }
                delta = stream.next() => delta,
            };
            match delta.transpose()? {
                Some(ChatDelta::Text(more)) => {
                    first.get_or_insert_with(|| clock.elapsed());
                    if is_terminal {
                        out.write_all(harmless(&more).as_bytes())?;
                    } else {
                        out.write_all(more.as_bytes())?;
                    }
                    out.flush()?;
                    text.push_str(&more);
                }
                // Only text is shown.
                Some(
                    ChatDelta::Reasoning(_) | ChatDelta::ToolCall(_) | ChatDelta::Continued { .. },
                ) => {}
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
async fn here(
    model: &str,
    (config, gpu): (&Config, Option<Choice>),
    verbose: bool,
) -> anyhow::Result<(Talker, String)> {
    let app = App::start(config, gpu)?;
    let pool = app.backend.pool().clone();
    let id = pool.resolve(model)?;
    let shown = tokio::spawn(load_bar::show(pool.load_events(), id.clone()));
    let lease = pool.acquire(id.as_str(), None).await;
    // It ends with the load; after a failed one its last line is out, too.
    let _ = shown.await;
    let lease = lease?;
    if verbose {
        tell(&format!(
            "loaded {id} in {:.2} s: {}, context of {} tokens, {}",
            lease.load_time.as_secs_f64(),
            lease.memory.total(),
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
        ..
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

/// Text without what a terminal would obey: a model says what its file makes it say.
fn harmless(text: &str) -> String {
    let shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
    let replaced = |c| {
        if shown(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    text.chars().map(replaced).collect()
}

/// A line on standard error.
pub(super) fn tell(line: &str) {
    // Where stderr is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_gives_a_terminal_no_orders() {
        assert_eq!(harmless("größe:\t1\n☃"), "größe:\t1\n☃");
        assert_eq!(
            harmless("\x1b]0;x\x07\u{9b}2J\r"),
            "\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}"
        );
    }
}
