//! Text to tokens and back: the tokenizer and the chat template of a model, stop texts.
//!
//! Everything here is made once, when a model is loaded, and then only read: a [`Text`] can be
//! used by many threads at once. Nothing here knows of scheduling.

mod byte_level;
mod detokenizer;
mod error;
mod pre_tokenizer;
mod sentence_piece;
mod sentences;
mod special;
mod stop;
mod template;
mod tokenizer;
mod vocabulary;

use template::{NextTurn, Template, Turn};
use tokenizer::Tokenizer;

use crate::chat::{Message, TokenId};
use crate::gguf::Metadata;

pub use detokenizer::Detokenizer;
pub use error::Error;
pub use sentences::{SentenceTokens, Sentences};
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
#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    template: Template,
    end_of_generation: Vec<TokenId>,
}

impl Text {
    /// Reads the vocabulary and the chat template of a model file.
    ///
    /// # Errors
    /// [`Error`]: the vocabulary is not one of a supported kind or contradicts itself, the chat
    /// template does not parse, a stop token is not in the vocabulary.
    pub fn from_gguf(metadata: &Metadata, options: &TextOptions) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_gguf(metadata)?;
        let vocabulary = tokenizer.vocabulary();
        let (bos, eos) = (
            vocabulary.text(vocabulary.bos),
            vocabulary.text(vocabulary.eos),
        );
        let in_file = metadata.opt_str("tokenizer.chat_template")?;
        let template = match (&options.chat_template, in_file) {
            (Some(source), _) => {
                let name = options.template_name.as_deref().unwrap_or("the catalogue");
                Template::new(source, name, bos, eos)?
            }
            (None, Some(source)) => Template::new(source, "the model file", bos, eos)?,
            (None, None) => Template::chatml(bos, eos)?,
        };
        let end_of_generation = tokenizer.end_of_generation(&options.stop_tokens)?;
        Ok(Self {
            tokenizer,
            template,
            end_of_generation,
        })
    }

    /// The prompt of a conversation whose next turn is the model's.
    ///
    /// What a message says is text: control tokens spelled out in it are not parsed.
    ///
    /// # Errors
    /// The chat template refuses the conversation or fails on it, or the prompt is too long.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<TokenId>, Error> {
        self.tokenizer.encode_prompt(&self.quoted_prompt(messages)?)
    }

    /// The prompt for more of the last message, which is the assistant's and not at its end.
    ///
    /// # Errors
    /// As [`encode_chat`](Self::encode_chat), and where the template does not write the last message as it is.
    pub fn encode_continuation(&self, messages: &[Message]) -> Result<Vec<TokenId>, Error> {
        let mut turns = self.quoted(messages);
        if let Some(last) = turns.last_mut() {
            last.push_str(special::OPEN_END);
        }
        let mut prompt = self.render(messages, &turns, NextTurn::Left)?;
        let Some(end) = prompt.rfind(special::OPEN_END) else {
            let origin = self.template.origin().to_owned();
            return Err(Error::NoContinuation { origin });
        };
        prompt.truncate(end);
        self.tokenizer.encode_prompt(&prompt)
    }

    /// The same prompt as text. Parsed again it may come out differently: in a text it cannot be
    /// told which control tokens are the template's.
    ///
    /// # Errors
    /// The chat template refuses the conversation or fails on it.
    pub fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        Ok(special::unquote(&self.quoted_prompt(messages)?).into_owned())
    }

    fn quoted_prompt(&self, messages: &[Message]) -> Result<String, Error> {
        self.render(messages, &self.quoted(messages), NextTurn::Begun)
    }

    /// What the messages say, with control tokens quoted.
    fn quoted(&self, messages: &[Message]) -> Vec<String> {
        let special = self.tokenizer.special();
        let quoted = |message: &Message| special.quote(&message.to_text()).into_owned();
        messages.iter().map(quoted).collect()
    }

    fn render(
        &self,
        messages: &[Message],
        quoted: &[String],
        next: NextTurn,
    ) -> Result<String, Error> {
        let turns: Vec<Turn<'_>> = messages
            .iter()
            .zip(quoted)
            .map(|(message, content)| Turn {
                role: message.role.as_str(),
                content,
            })
            .collect();
        self.template.render(&turns, next)
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// The text is longer than 16 MiB.
    pub fn encode(
        &self,
        text: &str,
        special_tokens: SpecialTokens,
        framing: Framing,
    ) -> Result<Vec<TokenId>, Error> {
        self.tokenizer.encode(text, special_tokens, framing)
    }

    /// The token that begins every text, if the model wants one.
    pub fn beginning(&self) -> Option<TokenId> {
        self.tokenizer.beginning()
    }

    /// The text of tokens: what a [`Detokenizer`] gives for them, all at once.
    pub fn decode(&self, token_ids: &[TokenId]) -> String {
        let mut detokenizer = self.detokenizer();
        let text: String = token_ids.iter().map(|id| detokenizer.push(*id)).collect();
        text + &detokenizer.finish()
    }

    /// As [`detokenizer`](Self::detokenizer), for tokens that go on with a text.
    pub fn detokenizer_within(&self) -> Detokenizer {
        self.tokenizer.detokenizer().within_a_text()
    }

    /// Turns the tokens of one answer into text as they come.
    pub fn detokenizer(&self) -> Detokenizer {
        self.tokenizer.detokenizer()
    }

    /// The tokens that end an answer, in ascending order.
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.end_of_generation
    }

    /// How many tokens the vocabulary has.
    pub fn n_vocab(&self) -> usize {
        self.tokenizer.vocabulary().tokens.len()
    }

    /// Where the chat template comes from, e.g. `the model file`.
    pub fn template_source(&self) -> &str {
        self.template.origin()
    }
}
