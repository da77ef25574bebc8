//! The domain: what a chat is, in no dialect's words.

mod size;

use std::fmt;

use serde_json::{Map, Value};

pub use size::{BYTES_PER_TOKEN, PromptSize};

use crate::keep_alive::KeepAlive;
use crate::money::MicroUsd;

/// A token of a model's vocabulary.
pub type TokenId = u32;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Standing instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name chat templates know the role by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said: parts in order.
    pub content: Vec<ContentPart>,
    /// Of an assistant: the tools it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the call that this is the result of.
    pub tool_call_id: Option<String>,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentPart {
    /// Plain text.
    Text(String),
    /// A picture.
    Image(Image),
}

/// A picture in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Where a provider may fetch it.
    Url {
        /// An address.
        url: String,
        /// How closely to look, in the provider's words.
        detail: Option<String>,
    },
    /// The picture itself.
    Data {
        /// Its form, e.g. `image/png`.
        media_type: String,
        /// Its bytes in base64.
        base64: String,
        /// How closely to look, in the provider's words.
        detail: Option<String>,
    },
}

/// A call of a tool that a model asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// By which its result names it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What it is called with: JSON as text, as the model wrote it.
    pub arguments: String,
}

/// A tool a model may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// A JSON schema of what it is called with, passed through.
    pub parameters: Option<Value>,
    /// Whether calls must follow the schema exactly.
    pub strict: Option<bool>,
}

/// Whether and which tool is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// One at least.
    Required,
    /// This one.
    Tool(String),
}

/// The form an answer must have.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseFormat {
    /// Any JSON.
    JsonObject,
    /// JSON of a schema: OpenAI's object with `name`, `schema` and `strict`, passed through.
    JsonSchema(Value),
}

impl Message {
    /// A message of one text part.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self::of(role, vec![ContentPart::Text(text.into())])
    }

    /// A message of some parts.
    pub fn of(role: Role, content: Vec<ContentPart>) -> Self {
        Self {
            role,
            content,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// All text of the message, parts joined without a separator.
    pub fn to_text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            ContentPart::Text(text) => Some(text.as_str()),
            ContentPart::Image(_) => None,
        });
        texts.collect()
    }
}

/// How the next token is drawn. Absent means "the neutral value", which changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; absent: 1, or what a chain of fallbacks says.
    pub temperature: Option<f32>,
    /// Keep the `k` most likely tokens.
    pub top_k: Option<u32>,
    /// Keep the smallest set of tokens whose probability reaches `p`; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this share as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides (multiplies when negative) the logits of tokens already seen; 1 is neutral.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens already generated; 0 is neutral.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens for each time they were generated; 0 is neutral.
    pub frequency_penalty: f32,
    /// Same seed, same prompt, same text. Absent: the server draws one.
    pub seed: Option<u64>,
    /// Do not stop at an end-of-generation token.
    pub ignore_eos: bool,
    /// No end-of-generation token before so many tokens were generated.
    pub min_tokens: u32,
}

impl Sampling {
    /// The temperature to draw with.
    pub fn temperature(&self) -> f32 {
        self.temperature.unwrap_or(1.0)
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: None,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            ignore_eos: false,
            min_tokens: 0,
        }
    }
}

/// A valid request for an answer: every dialect's parser ends here.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model as the client named it.
    pub model: String,
    /// The conversation so far, at least one message.
    pub messages: Vec<Message>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most so many tokens; absent: to the end of the context. 0 evaluates the prompt only.
    pub max_new_tokens: Option<u32>,
    /// Go on with the last message, which is the assistant's, rather than answer it.
    pub continue_final: bool,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// How long the model stays in memory afterwards; absent: as it was told before.
    pub keep_alive: Option<KeepAlive>,
    /// What a model may ask for.
    pub tools: Vec<Tool>,
    /// Which of them it shall ask for.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may ask for several at once.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer; absent: text.
    pub response_format: Option<ResponseFormat>,
    /// Fields only providers understand, passed through in OpenAI's words: those of [`EXTRA_FIELDS`].
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request that says nothing but this.
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
        Self {
            model: model.into(),
            messages,
            sampling: Sampling::default(),
            max_new_tokens: None,
            continue_final: false,
            stop: Vec::new(),
            keep_alive: None,
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            response_format: None,
            extra: Map::new(),
        }
    }

    /// The fields that ask for more than text in and text out.
    pub fn not_of_text(&self) -> Vec<&'static str> {
        let calls =
            |message: &Message| !message.tool_calls.is_empty() || message.tool_call_id.is_some();
        let asked = [
            ("tools", !self.tools.is_empty()),
            ("response_format", self.response_format.is_some()),
            (
                "messages",
                self.has_images() || self.messages.iter().any(calls),
            ),
        ];
        let asked = asked.into_iter().filter(|(_, is_asked)| *is_asked);
        asked.map(|(name, _)| name).collect()
    }

    /// Whether a picture is part of it.
    pub fn has_images(&self) -> bool {
        let mut parts = self.messages.iter().flat_map(|message| &message.content);
        parts.any(|part| matches!(part, ContentPart::Image(_)))
    }
}

/// The fields of [`ChatRequest::extra`].
pub const EXTRA_FIELDS: &[&str] = &[
    "metadata",
    "plugins",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "provider",
    "reasoning",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "session_id",
    "store",
    "thinking",
    "transforms",
    "user",
    "verbosity",
];

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatDelta {
    /// More text. Never empty, never half a character.
    Text(String),
    /// More of what the model thinks before it answers. Never empty.
    Reasoning(String),
    /// More of a call of a tool.
    ToolCall(ToolCallDelta),
    /// What follows comes from elsewhere and goes on with the text so far, since what wrote that broke off.
    Continued {
        /// Who wrote the text so far.
        from: String,
        /// Who goes on.
        by: String,
    },
    /// The end. Nothing follows.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

impl ChatDelta {
    /// Whether a reader sees something new: the moment from which an answer cannot be another's.
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Finished { .. } | Self::Continued { .. })
    }
}

/// What an answer has said so far: its deltas put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// What was thought.
    pub reasoning: String,
    /// The tools asked for.
    pub tool_calls: Vec<ToolCall>,
}

impl Said {
    /// Calls of tools an answer may hold: what a stranger numbers higher is no call.
    const MOST_TOOL_CALLS: usize = 1024;

    /// Adds what `delta` says.
    pub fn push(&mut self, delta: ChatDelta) {
        match delta {
            ChatDelta::Text(text) => self.text.push_str(&text),
            ChatDelta::Reasoning(text) => self.reasoning.push_str(&text),
            ChatDelta::ToolCall(piece) => {
                let index = piece.index as usize;
                if index >= Self::MOST_TOOL_CALLS {
                    return;
                }
                if self.tool_calls.len() <= index {
                    self.tool_calls.resize_with(index + 1, ToolCall::default);
                }
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.id = piece.id.unwrap_or_else(|| std::mem::take(&mut call.id));
                    call.name = piece.name.unwrap_or_else(|| std::mem::take(&mut call.name));
                    call.arguments.push_str(&piece.arguments);
                }
            }
            ChatDelta::Continued { .. } | ChatDelta::Finished { .. } => {}
        }
    }
}

/// A piece of a call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Which of the answer's calls, counted from 0.
    pub index: u32,
    /// Its id, with the first piece of the call.
    pub id: Option<String>,
    /// The tool, with the first piece of the call.
    pub name: Option<String>,
    /// More of the arguments; may be empty.
    pub arguments: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn or a stop text matched.
    Stop,
    /// `max_new_tokens` or the context was used up.
    Length,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// A provider withheld the rest.
    ContentFilter,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        })
    }
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, those read from a cache included.
    pub prompt_tokens: u32,
    /// Tokens generated, the end-of-generation token included.
    pub completion_tokens: u32,
    /// Tokens of the prompt that a provider had in its cache.
    pub cached_tokens: u32,
    /// Tokens of the prompt that a provider put in its cache.
    pub cache_write_tokens: u32,
    /// Tokens of the answer that were thought and not said.
    pub reasoning_tokens: u32,
    /// What a provider says it charged.
    pub cost: Option<MicroUsd>,
    /// Nobody reported these figures: they are guessed from the texts.
    pub is_estimated: bool,
}
