//! The domain: what a chat is, in no dialect's words.

use std::fmt;

use crate::keep_alive::KeepAlive;

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
    /// What is said: parts in order; only text so far.
    pub content: Vec<ContentPart>,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentPart {
    /// Plain text.
    Text(String),
}

impl Message {
    /// A message of one text part.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![ContentPart::Text(text.into())],
        }
    }

    /// All text of the message, parts joined without a separator.
    pub fn to_text(&self) -> String {
        self.content
            .iter()
            .map(|ContentPart::Text(text)| text.as_str())
            .collect()
    }
}

/// How the next token is drawn. Absent means "the neutral value", which changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
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

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
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
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// How long the model stays in memory afterwards; absent: as it was told before.
    pub keep_alive: Option<KeepAlive>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatDelta {
    /// More text. Never empty, never half a character.
    Text(String),
    /// The end. Nothing follows.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn or a stop text matched.
    Stop,
    /// `max_new_tokens` or the context was used up.
    Length,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
        })
    }
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, the end-of-generation token included.
    pub completion_tokens: u32,
}
