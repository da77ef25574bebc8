//! Text to tokens and back: the tokenizer and the chat template of a model, stop texts.
//!
//! Everything here is made once, when a model is loaded, and then only read: a [`Text`] can be
//! used by many threads at once. Nothing here knows of scheduling.

mod detokenizer;
mod error;
mod stop;

use crate::chat::{Message, TokenId};
use crate::gguf::Metadata;

pub use detokenizer::Detokenizer;
pub use error::Error;
pub use stop::{StopMatcher, StopProgress};

/// What the catalogue says of a model's text, over what its file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// The source of a chat template that takes the place of the file's.
    pub chat_template: Option<String>,
    /// What that template is called in messages, e.g. `templates/llama3.jinja`.
    pub template_name: Option<String>,
    /// Texts of tokens that end an answer, beside those the file names.
    pub stop_tokens: Vec<String>,
}

/// What the text of a control token means where it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// The control token.
    Parse,
    /// Text like any other.
    AsText,
}

/// Whether the tokens a model wants around every text are put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The beginning-of-sequence token in front and the end-of-sequence token behind, each only
    /// if the file asks for it.
    AsTheModelWants,
    /// Nothing is added.
    Bare,
}

/// A model's tokenizer and chat template.
pub struct Text {
    n_vocab: usize,
}

impl Text {
    /// Reads the vocabulary and the chat template of a model file.
    ///
    /// # Errors
    /// [`Error`]: the vocabulary is not one of a supported kind or contradicts itself, the chat
    /// template does not parse, a stop token is not in the vocabulary.
    pub fn from_gguf(_metadata: &Metadata, _options: &TextOptions) -> Result<Self, Error> {
        todo!()
    }

    /// The prompt of a conversation whose next turn is the model's.
    ///
    /// # Errors
    /// The chat template refuses the conversation, or the prompt grows out of all proportion.
    pub fn encode_chat(&self, _messages: &[Message]) -> Result<Vec<TokenId>, Error> {
        todo!()
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// The text is longer than 64 MiB.
    pub fn encode(
        &self,
        _text: &str,
        _special_tokens: SpecialTokens,
        _framing: Framing,
    ) -> Result<Vec<TokenId>, Error> {
        todo!()
    }

    /// The text of tokens.
    pub fn decode(&self, _token_ids: &[TokenId]) -> String {
        todo!()
    }

    /// Turns the tokens of one answer into text as they come.
    pub fn detokenizer(&self) -> Detokenizer {
        todo!()
    }

    /// The tokens that end an answer, in ascending order.
    pub fn end_of_generation(&self) -> &[TokenId] {
        todo!()
    }

    /// How many tokens the vocabulary has.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Where the chat template comes from, e.g. `the model file`.
    pub fn template_source(&self) -> &str {
        todo!()
    }
}
