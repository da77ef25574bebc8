//! The chat template: a conversation to the one text a model was trained to go on from.
//!
//! Templates come with model files, from anyone. They are run with a budget for work and memory,
//! know neither files nor the environment, and see messages in which no control token is left.

mod functions;
mod json;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};

use super::Error;

/// What rendering is given when a model has no template at all.
const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The longest templates in use have some 20 KB.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;

/// One unit pays for one instruction or for 64 bytes of text; so this is 32 MB at most.
const FUEL: u64 = 500_000;
/// A template does something with every message,
const FUEL_PER_MESSAGE: u64 = 2_000;
/// and copies what it says a few times: 64 times at most.
const FUEL_PER_BYTE: u64 = 1;

/// Calls of calls; each takes stack.
const MAX_RECURSION: usize = 100;

/// A message as templates see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    pub(super) role: &'a str,
    pub(super) content: &'a str,
}

/// Whether the model's next turn is begun behind the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextTurn {
    Begun,
    Left,
}

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    origin: String,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles a template. `bos` and `eos` are what it sees as `bos_token` and `eos_token`.
    ///
    /// Errors: it is too long or does not parse.
    pub(super) fn new(source: &str, origin: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        let n_bytes = source.len();
        let origin = origin.to_owned();
        if n_bytes > MAX_TEMPLATE_BYTES {
            return Err(Error::TemplateTooLong {
                origin,
                n_bytes,
                limit: MAX_TEMPLATE_BYTES,
            });
        }
        match environment(source) {
            Ok(environment) => Ok(Self {
                environment,
                origin,
                bos: bos.into(),
                eos: eos.into(),
            }),
            Err(error) => Err(Error::TemplateSyntax {
                origin,
                problem: describe(&error),
            }),
        }
    }

    /// The template for models that have none.
    ///
    /// Errors: none.
    pub(super) fn chatml(bos: &str, eos: &str) -> Result<Self, Error> {
        tracing::warn!(
            "neither the model file nor the catalogue has a chat template: using ChatML"
        );
        Self::new(CHATML, "ChatML (fallback)", bos, eos)
    }

    /// Where the template comes from.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// The conversation as text, up to where the model's next turn begins, or without the beginning of a next
    /// turn.
    ///
    /// Errors: the template refuses the conversation, fails, or spends its budget.
    pub(super) fn render(&self, turns: &[Turn<'_>], next: NextTurn) -> Result<String, Error> {
        let n_bytes: usize = turns.iter().map(|turn| turn.content.len()).sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(
            FUEL + FUEL_PER_MESSAGE * as_u64(turns.len()) + FUEL_PER_BYTE * as_u64(n_bytes),
        ));
        let messages: Vec<Value> = turns
            .iter()
            .map(|turn| context! { role => turn.role, content => turn.content })
            .collect();
        let context = context! {
            messages,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => next == NextTurn::Begun,
            tools => (),
            documents => (),
        };
        let rendered = environment
            .get_template("chat")
            .and_then(|template| template.render(context));
        rendered.map_err(|error| self.explain(&error, n_bytes))
    }

    fn explain(&self, error: &minijinja::Error, n_bytes: usize) -> Error {
        let origin = self.origin.clone();
        if let Some(reason) = functions::refusal(error) {
            return Error::TemplateRefused { reason };
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Error::TemplateBudget { origin, n_bytes };
        }
        Error::Template {
            origin,
            problem: describe(error),
        }
    }
}

/// Everything a template runs in, and itself in it as `chat`.
fn environment(source: &str) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    // As the library models are published with sets its own: tags take their line with them.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_recursion_limit(MAX_RECURSION);
    functions::register(&mut environment);
    environment.add_template_owned("chat", source.to_owned())?;
    Ok(environment)
}

/// What went wrong and where, in one line.
fn describe(error: &minijinja::Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = error
        .line()
        .map_or_else(String::new, |line| format!(" (line {line})"));
    what.chars()
        .take(300)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect::<String>()
        + &line
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
