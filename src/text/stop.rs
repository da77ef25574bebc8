//! Texts that end an answer and are not part of it.

use super::Error;

/// Finds the first of several stop texts in an answer that comes in pieces.
pub struct StopMatcher {}

/// What a piece of the answer led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopProgress {
    /// Text that is certainly not part of a stop text.
    pub text: String,
    /// A stop text is complete: the answer ends after `text`.
    pub matched: bool,
}

impl StopMatcher {
    /// Matches any of these texts.
    ///
    /// # Errors
    /// One of them is empty.
    pub fn new(_stops: Vec<String>) -> Result<Self, Error> {
        todo!()
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, _text: &str) -> StopProgress {
        todo!()
    }

    /// The answer ended without a stop text: gives what was held back.
    pub fn finish(self) -> String {
        todo!()
    }
}
