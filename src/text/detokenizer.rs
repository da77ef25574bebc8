//! Tokens to text as they come.

use crate::chat::TokenId;

/// Turns the tokens of one answer into text, never giving half a character.
pub struct Detokenizer {}

impl Detokenizer {
    /// Takes the next token and gives the text that is certain by now; empty while a character
    /// is incomplete.
    pub fn push(&mut self, _token_id: TokenId) -> String {
        todo!()
    }

    /// Gives what was held back. Nothing can be pushed afterwards.
    pub fn finish(self) -> String {
        todo!()
    }
}
