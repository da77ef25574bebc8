//! The vocabulary of a model file, checked.

use super::Error;
use crate::chat::TokenId;
use crate::gguf::Metadata;

/// No vocabulary in use has a quarter as many.
const MAX_TOKENS: usize = 1 << 22;

/// What a token is for.
///
/// Source: the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for what the vocabulary cannot write.
    Unknown,
    /// Structure of the prompt, never text.
    Control,
    /// A piece of text that is always one token.
    UserDefined,
    /// In the table only.
    Unused,
    /// One byte of a character that has no token.
    Byte,
}

/// A token as the file has it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: Box<str>,
    pub(super) kind: TokenKind,
}

/// The tokens of a model and which of them have a part to play.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<Token>,
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
    pub(super) unknown: Option<TokenId>,
    /// Other tokens the file says end an answer.
    pub(super) end_of_turn: Vec<TokenId>,
}

impl Vocabulary {
    /// Reads and checks the token table.
    ///
    /// Errors: it is empty, not UTF-8, or other keys contradict it.
    pub(super) fn from_gguf(metadata: &Metadata) -> Result<Self, Error> {
        let mut tokens = texts(metadata)?;
        let n_vocab = tokens.len();
        let special = |key| special_token(metadata, key, n_vocab);
        let bos = special("tokenizer.ggml.bos_token_id")?;
        let eos = special("tokenizer.ggml.eos_token_id")?;
        let unknown = special("tokenizer.ggml.unknown_token_id")?;
        let mut end_of_turn = Vec::new();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            end_of_turn.extend(special(key)?);
        }
        match metadata.opt_i32s("tokenizer.ggml.token_type")? {
            Some(kinds) => set_kinds(&mut tokens, &kinds)?,
            None => guess_kinds(&mut tokens, [bos, eos], unknown),
        }
        Ok(Self {
            tokens,
            bos,
            eos,
            unknown,
            end_of_turn,
        })
    }

    /// The tokens with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, &Token)> {
        (0..).zip(&self.tokens)
    }

    /// A token by its id.
    pub(super) fn get(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(usize::try_from(id).ok()?)
    }

    /// The text of a token, empty when there is none.
    pub(super) fn text(&self, id: Option<TokenId>) -> &str {
        id.and_then(|id| self.get(id))
            .map_or("", |token| &token.text)
    }
}

fn texts(metadata: &Metadata) -> Result<Vec<Token>, Error> {
    let texts = metadata.strings("tokenizer.ggml.tokens")?;
    let n_tokens = texts.len();
    if !(1..=MAX_TOKENS).contains(&n_tokens) {
        return Err(Error::VocabularySize {
            n_tokens,
            limit: MAX_TOKENS,
        });
    }
    let token = |(id, bytes)| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Token {
            text: text.into(),
            kind: TokenKind::Normal,
        }),
        Err(_) => Err(Error::NotUtf8 { id }),
    };
    (0..).zip(texts.iter()).map(token).collect()
}

fn special_token(
    metadata: &Metadata,
    key: &'static str,
    n_vocab: usize,
) -> Result<Option<TokenId>, Error> {
    let id = metadata.opt_u32(key)?;
    match id {
        Some(id) if usize::try_from(id).is_ok_and(|idx| idx < n_vocab) => Ok(Some(id)),
        Some(id) => Err(Error::TokenOutOfRange { key, id, n_vocab }),
        None => Ok(None),
    }
}

fn set_kinds(tokens: &mut [Token], kinds: &[i32]) -> Result<(), Error> {
    if kinds.len() != tokens.len() {
        let key = "tokenizer.ggml.token_type";
        return Err(Error::Length {
            key,
            got: kinds.len(),
            expected: tokens.len(),
        });
    }
    for ((id, token), &kind) in (0..).zip(tokens).zip(kinds) {
        token.kind = match kind {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => return Err(Error::TokenKind { id, kind }),
        };
    }
    Ok(())
}

/// A file without token types still says which tokens play a part, and byte tokens are known by
/// their look.
fn guess_kinds(tokens: &mut [Token], control: [Option<TokenId>; 2], unknown: Option<TokenId>) {
    for (id, token) in (0..).zip(tokens) {
        token.kind = if control.contains(&Some(id)) {
            TokenKind::Control
        } else if unknown == Some(id) {
            TokenKind::Unknown
        } else if named_byte(&token.text).is_some() {
            TokenKind::Byte
        } else {
            TokenKind::Normal
        };
    }
}

/// The byte a text like `<0x0A>` names.
pub(super) fn named_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_hexadecimal_digits_name_a_byte() {
        assert_eq!(named_byte("<0x00>"), Some(0));
        assert_eq!(named_byte("<0xfF>"), Some(255));
        for text in [
            "<0x-1>", "<0x+1>", "<0x1>", "<0x100>", "<0xé>", "0x00", "<0x>", "",
        ] {
            assert_eq!(named_byte(text), None, "{text}");
        }
    }
}
