//! What can be wrong with a vocabulary, a template or a conversation, one sentence each.

use std::path::PathBuf;

use crate::chat::TokenId;
use crate::gguf;

/// Why text cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the model file is absent or of the wrong type.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The file's tokenizer is of a kind that is not built in.
    #[error(
        "tokenizer.ggml.model is {model:?}: supported are \"gpt2\" (byte-level BPE) and \"llama\" \
         (SentencePiece)"
    )]
    UnknownModel {
        /// What the file says.
        model: String,
    },
    /// The file names rules for cutting text into words that are not built in.
    #[error("tokenizer.ggml.pre is {pre:?}: supported are {supported}")]
    UnknownPreTokenizer {
        /// What the file says.
        pre: String,
        /// The names that are known.
        supported: String,
    },
    /// A rule for cutting text into words does not compile: a mistake in Ingle.
    #[error("the rule {rule:?} for cutting text into words does not compile: {problem}")]
    PreTokenizer {
        /// The regular expression.
        rule: &'static str,
        /// What the regular expression engine said.
        problem: String,
    },
    /// There is no token, or more than ids can count.
    #[error("tokenizer.ggml.tokens has {n_tokens} tokens: 1 to {limit} are supported")]
    VocabularySize {
        /// How many there are.
        n_tokens: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A token is not UTF-8.
    #[error("token {id} of tokenizer.ggml.tokens is not UTF-8")]
    NotUtf8 {
        /// The token.
        id: TokenId,
    },
    /// Two lists that go together differ in length.
    #[error("{key} has {got} entries for {expected} tokens")]
    Length {
        /// The key of the list.
        key: &'static str,
        /// Its length.
        got: usize,
        /// How many tokens there are.
        expected: usize,
    },
    /// A token is of a kind that does not exist.
    #[error("token {id} is of type {kind} in tokenizer.ggml.token_type: 1 to 6 are known")]
    TokenKind {
        /// The token.
        id: TokenId,
        /// What the file says.
        kind: i32,
    },
    /// A byte token does not name a byte.
    #[error("token {id} is a byte token but reads {text:?} instead of \"<0x00>\" to \"<0xFF>\"")]
    ByteToken {
        /// The token.
        id: TokenId,
        /// Its text.
        text: String,
    },
    /// A character without a token could not be written in any way.
    #[error(
        "the vocabulary has no token for byte 0x{byte:02X} and no unknown token to stand in for it"
    )]
    NoFallback {
        /// The byte.
        byte: u8,
    },
    /// The score of a token is no number.
    #[error("token {id} has score {score} in tokenizer.ggml.scores: it must be finite")]
    Score {
        /// The token.
        id: TokenId,
        /// What the file says.
        score: f32,
    },
    /// A merge is not two tokens that make a third.
    #[error("merge {number} of tokenizer.ggml.merges, {merge:?}: {problem}")]
    Merge {
        /// Its number, from 0.
        number: usize,
        /// Its text, cut at 80 characters.
        merge: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The BPE library refuses the vocabulary.
    #[error("the vocabulary does not make a BPE tokenizer: {problem}")]
    Bpe {
        /// What the library said.
        problem: String,
    },
    /// A special token is not in the vocabulary.
    #[error("{key} is {id} but the vocabulary has {n_vocab} tokens")]
    TokenOutOfRange {
        /// The key that names it.
        key: &'static str,
        /// Its id.
        id: u32,
        /// How many tokens there are.
        n_vocab: usize,
    },
    /// The texts of the special tokens are too many or too long to search for.
    #[error("the special tokens have {n_bytes} bytes of text: at most {limit} are supported")]
    SpecialTokens {
        /// Their length together.
        n_bytes: usize,
        /// How long they may be.
        limit: usize,
    },
    /// A stop token of the catalogue is not in the vocabulary.
    #[error("the stop token {text:?} is not in the model's vocabulary")]
    StopToken {
        /// Its text.
        text: String,
    },
    /// A file of a model's folder that cannot be used.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer of a model's folder refuses a text.
    #[error("the model's tokenizer refuses the text: {problem}")]
    Encoding {
        /// What the library said.
        problem: String,
    },
    /// A text is too long to be tokenized.
    #[error("the text has {n_bytes} bytes: at most {limit} can be tokenized at once")]
    TextTooLong {
        /// Its length.
        n_bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A chat template is too long.
    #[error("the chat template of {origin} has {n_bytes} bytes: at most {limit} are supported")]
    TemplateTooLong {
        /// Where it comes from.
        origin: String,
        /// Its length.
        n_bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A chat template does not parse.
    #[error("the chat template of {origin} does not parse: {problem}")]
    TemplateSyntax {
        /// Where it comes from.
        origin: String,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// A chat template says that it is not made for such a conversation.
    #[error("the model's chat template refuses this conversation: {reason}")]
    TemplateRefused {
        /// What it says.
        reason: String,
    },
    /// A chat template leaves the last message out, or writes something else in its place.
    #[error("the chat template of {origin} cannot leave the last message open to be continued")]
    NoContinuation {
        /// Where the template comes from.
        origin: String,
    },
    /// A chat template failed.
    #[error("the chat template of {origin} fails on this conversation: {problem}")]
    Template {
        /// Where it comes from.
        origin: String,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// A chat template does more than any honest one would for the conversation.
    #[error(
        "the chat template of {origin} needs too much work or memory for a conversation of \
         {n_bytes} bytes: it loops or grows without end"
    )]
    TemplateBudget {
        /// Where it comes from.
        origin: String,
        /// The length of the conversation.
        n_bytes: usize,
    },
    /// A stop text is empty: it would match everywhere.
    #[error("stop text {number} is empty")]
    EmptyStop {
        /// Its number, from 0.
        number: usize,
    },
    /// There are more stop texts than anyone means.
    #[error("there are {n_stops} stop texts: at most {limit} are supported")]
    TooManyStops {
        /// How many there are.
        n_stops: usize,
        /// How many there may be.
        limit: usize,
    },
}
