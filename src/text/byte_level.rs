//! Byte-level BPE, as GPT-2, Llama 3 and SmolLM2 have it.
//!
//! A vocabulary of this kind writes every byte as a printable character, so that any text can be
//! written with it and a token is a text even when it holds half a character.

use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab};

use super::Error;
use super::pre_tokenizer::{Family, PreTokenizer};
use super::vocabulary::{Token, TokenKind, Vocabulary};
use crate::chat::TokenId;
use crate::gguf::Strings;

/// Words are merged no longer than this. No text anyone reads has such words; it bounds the
/// memory a hostile one takes.
const MAX_WORD_BYTES: usize = 1 << 16;

/// The characters that stand for bytes.
///
/// Source: `bytes_to_unicode` of GPT-2: the printable bytes of Latin-1 stand for themselves, the
/// others are numbered from U+0100 on.
#[derive(Debug)]
pub(super) struct ByteAlphabet {
    chars: [char; 256],
}

impl ByteAlphabet {
    pub(super) fn new() -> Self {
        let mut others = '\u{100}'..;
        let chars = std::array::from_fn(|idx| match u8::try_from(idx).unwrap_or_default() {
            byte @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(byte),
            _ => others.next().unwrap_or(char::REPLACEMENT_CHARACTER),
        });
        Self { chars }
    }

    fn char(&self, byte: u8) -> char {
        self.chars[usize::from(byte)]
    }

    fn byte(&self, char: char) -> Option<u8> {
        let idx = match u32::from(char) {
            code @ 0..=0xFF if self.chars[usize::try_from(code).ok()?] == char => {
                return u8::try_from(code).ok();
            }
            0x100.. => self.chars.iter().position(|other| *other == char)?,
            _ => return None,
        };
        u8::try_from(idx).ok()
    }

    /// The bytes a token writes. User-defined tokens are written as they are; so is a token with a
    /// character outside the alphabet.
    pub(super) fn decode(&self, token: &Token) -> Vec<u8> {
        let bytes = || {
            token
                .text
                .chars()
                .map(|char| self.byte(char))
                .collect::<Option<Vec<u8>>>()
        };
        match token.kind {
            TokenKind::UserDefined => token.text.as_bytes().to_vec(),
            _ => bytes().unwrap_or_else(|| token.text.as_bytes().to_vec()),
        }
    }
}

/// The tokenizer of such a vocabulary.
#[derive(Debug)]
pub(super) struct ByteLevel {
    pre_tokenizer: PreTokenizer,
    alphabet: ByteAlphabet,
    bpe: BPE,
}

impl ByteLevel {
    /// Errors: a merge is not two tokens that make a third.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        merges: Strings<'_>,
        family: &Family,
    ) -> Result<Self, Error> {
        // Structure is never made of text, whatever the merges say.
        let pieces = vocabulary
            .iter()
            .filter(|(_, token)| token.kind != TokenKind::Control);
        let vocab: Vocab = pieces
            .map(|(id, token)| (token.text.clone().into(), id))
            .collect();
        let merges = merges.iter().enumerate();
        let merges = merges
            .map(|(number, merge)| pair(&vocab, number, merge))
            .collect::<Result<_, _>>()?;
        // The library caches per thread and never lets go of a model's words: no cache.
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .cache_capacity(0)
            .ignore_merges(family.ignores_merges)
            .build()
            .map_err(|error| Error::Bpe {
                problem: error.to_string(),
            })?;
        Ok(Self {
            pre_tokenizer: PreTokenizer::new(family)?,
            alphabet: ByteAlphabet::new(),
            bpe,
        })
    }

    /// Appends the tokens of a text. A byte the vocabulary has no token for is left out, as the
    /// models' own tokenizers do.
    ///
    /// Errors: the library fails, which it has no reason to.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), Error> {
        let mut outcome = Ok(());
        let mut letters = String::new();
        self.pre_tokenizer.words(text, &mut |word| {
            for part in word.as_bytes().chunks(MAX_WORD_BYTES) {
                letters.clear();
                letters.extend(part.iter().map(|byte| self.alphabet.char(*byte)));
                match self.bpe.tokenize(&letters) {
                    Ok(tokens) => out.extend(tokens.iter().map(|token| token.id)),
                    Err(error) => {
                        outcome = Err(Error::Bpe {
                            problem: error.to_string(),
                        });
                    }
                }
            }
        });
        outcome
    }
}

/// The two sides of a merge, known to make a token.
fn pair(vocab: &Vocab, number: usize, merge: &[u8]) -> Result<(String, String), Error> {
    let shown = String::from_utf8_lossy(merge);
    let refuse = |problem| {
        Err(Error::Merge {
            number,
            merge: shown.chars().take(80).collect(),
            problem,
        })
    };
    let Ok(text) = std::str::from_utf8(merge) else {
        return refuse("it is not UTF-8");
    };
    // The alphabet has no space, but a merge may begin with one that is not a separator.
    let separator = text.char_indices().skip(1).find(|(_, char)| *char == ' ');
    let Some((left, right)) =
        separator.and_then(|(idx, _)| Some((text.get(..idx)?, text.get(idx + 1..)?)))
    else {
        return refuse("it is not two tokens with a space between");
    };
    if !vocab.contains_key(left) || !vocab.contains_key(right) {
        return refuse("it names a token that is not in the vocabulary");
    }
    if !vocab.contains_key(&format!("{left}{right}")) {
        return refuse("what it makes is not in the vocabulary");
    }
    Ok((left.into(), right.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let alphabet = ByteAlphabet::new();
        for byte in 0..=255 {
            assert_eq!(alphabet.byte(alphabet.char(byte)), Some(byte));
        }
        assert_eq!((alphabet.char(b' '), alphabet.char(b'\n')), ('Ġ', 'Ċ'));
        assert_eq!(alphabet.byte(' '), None);
        assert_eq!(alphabet.byte('▁'), None);
    }

    #[test]
    fn a_token_outside_the_alphabet_is_written_as_it_is() {
        let alphabet = ByteAlphabet::new();
        let token = |text: &str, kind| Token {
            text: text.into(),
            kind,
        };
        assert_eq!(alphabet.decode(&token("Ġé", TokenKind::Normal)), b" \xE9");
        assert_eq!(
            alphabet.decode(&token("Ġ", TokenKind::UserDefined)),
            "Ġ".as_bytes()
        );
        assert_eq!(alphabet.decode(&token("a b", TokenKind::Normal)), b"a b");
    }

    #[test]
    fn a_merge_must_make_a_token_of_two() {
        let vocab: Vocab = [("a", 0), ("b", 1), ("ab", 2)]
            .map(|(text, id)| (text.to_owned(), id))
            .into_iter()
            .collect();
        assert_eq!(pair(&vocab, 0, b"a b").unwrap(), ("a".into(), "b".into()));
        let problem = |merge: &[u8]| pair(&vocab, 7, merge).unwrap_err().to_string();
        assert_eq!(
            problem(b"a x"),
            "merge 7 of tokenizer.ggml.merges, \"a x\": it names a token that is not in the vocabulary"
        );
        assert!(problem(b"b a").ends_with("what it makes is not in the vocabulary"));
        assert!(problem(b"ab").ends_with("it is not two tokens with a space between"));
        assert!(problem(b"\xFF a").ends_with("it is not UTF-8"));
        assert!(problem("a ".repeat(1000).as_bytes()).len() < 250);
    }
}
