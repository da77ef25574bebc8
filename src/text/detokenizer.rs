//! Tokens to text as they come.

use std::sync::Arc;

use super::vocabulary::TokenKind;
use crate::chat::TokenId;

/// The bytes each token writes, one after the other in one block.
#[derive(Debug)]
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    /// Encoding puts a space in front of a text, so decoding takes one away.
    has_space_prefix: bool,
}

impl TokenBytes {
    pub(super) fn new(has_space_prefix: bool) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            has_space_prefix,
        }
    }

    pub(super) fn has_space_prefix(&self) -> bool {
        self.has_space_prefix
    }

    /// Appends the next token's bytes. Structure and unknown characters write nothing.
    pub(super) fn push(&mut self, kind: TokenKind, bytes: impl IntoIterator<Item = u8>) {
        if !matches!(kind, TokenKind::Control | TokenKind::Unknown) {
            self.bytes.extend(bytes);
        }
        self.ends.push(self.bytes.len());
    }

    /// The bytes of a token; none for an id that is not in the vocabulary.
    fn get(&self, id: TokenId) -> &[u8] {
        let idx = usize::try_from(id).unwrap_or(usize::MAX);
        let start = idx
            .checked_sub(1)
            .and_then(|idx| self.ends.get(idx))
            .copied()
            .unwrap_or(0);
        let end = self.ends.get(idx).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// Turns the tokens of one answer into text, never giving half a character.
///
/// A SentencePiece vocabulary whose encoder puts a space in front of every text writes it into the
/// first token; that one space is not part of the answer and is left out, as SentencePiece's own
/// decoder does. Control tokens write nothing. Bytes that are no UTF-8 become U+FFFD once it is
/// certain that they are none, one for each maximal ill-formed part.
#[derive(Debug)]
pub struct Detokenizer {
    table: Arc<TokenBytes>,
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
    /// The next text may begin with the encoder's space.
    at_start: bool,
}

impl Detokenizer {
    pub(super) fn new(table: Arc<TokenBytes>) -> Self {
        let at_start = table.has_space_prefix;
        Self {
            table,
            held: Vec::new(),
            at_start,
        }
    }

    /// The same for tokens that go on with a text: no space is left out.
    pub(super) fn within_a_text(mut self) -> Self {
        self.at_start = false;
        self
    }

    /// Takes the next token and gives the text that is certain by now; empty while a character
    /// is incomplete. An id outside the vocabulary writes nothing.
    pub fn push(&mut self, token_id: TokenId) -> String {
        let mut bytes = self.table.get(token_id);
        if self.at_start && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.at_start = false;
        }
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let n_incomplete = self
            .held
            .utf8_chunks()
            .last()
            .map_or(0, |chunk| incomplete(chunk.invalid()));
        let certain = self.held.len().saturating_sub(n_incomplete);
        for chunk in self.held[..certain].utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..certain);
        text
    }

    /// Gives what was held back: a character that stayed incomplete is U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// How many bytes at the end of a text may yet become a character, given its last ill-formed part.
fn incomplete(part: &[u8]) -> usize {
    match std::str::from_utf8(part) {
        Err(error) if error.error_len().is_none() => part.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Token `n` is byte `n`, token 256 is a control token, then a few longer ones.
    fn table(has_space_prefix: bool) -> Arc<TokenBytes> {
        let mut table = TokenBytes::new(has_space_prefix);
        for byte in 0..=255 {
            table.push(TokenKind::Byte, [byte]);
        }
        table.push(TokenKind::Control, *b"<s>");
        for text in [" Hello", "  two", "héé", "\u{1F469}\u{200D}"] {
            table.push(TokenKind::Normal, text.bytes());
        }
        Arc::new(table)
    }

    fn streamed(detokenizer: Detokenizer, ids: &[TokenId]) -> Vec<String> {
        let mut detokenizer = detokenizer;
        let mut texts: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
        texts.push(detokenizer.finish());
        texts
    }

    #[test]
    fn half_a_character_is_held_back() {
        let texts = streamed(
            Detokenizer::new(table(false)),
            &[0xF0, 0x9F, 0x98, 0x80, 0x41],
        );
        assert_eq!(texts, ["", "", "", "😀", "A", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters_when_certain() {
        let texts = streamed(
            Detokenizer::new(table(false)),
            &[0xE2, 0x41, 0xFF, 0xE2, 0x82],
        );
        assert_eq!(texts, ["", "\u{FFFD}A", "\u{FFFD}", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn the_encoders_space_is_taken_away_once() {
        assert_eq!(
            streamed(Detokenizer::new(table(true)), &[256, 257, 257]).concat(),
            "Hello Hello"
        );
        assert_eq!(
            streamed(Detokenizer::new(table(true)), &[258]).concat(),
            " two"
        );
        assert_eq!(
            streamed(Detokenizer::new(table(true)), &[0x41, 257]).concat(),
            "A Hello"
        );
        assert_eq!(
            streamed(Detokenizer::new(table(false)), &[257, 999]).concat(),
            " Hello"
        );
    }

    proptest! {
        #[test]
        fn pushes_and_finish_are_the_whole(ids in prop::collection::vec(0u32..263, 0..40)) {
            let table = table(false);
            let bytes: Vec<u8> = ids.iter().flat_map(|id| table.get(*id).to_vec()).collect();
            let texts = streamed(Detokenizer::new(table), &ids);
            prop_assert_eq!(texts.concat(), String::from_utf8_lossy(&bytes));
        }
    }
}
