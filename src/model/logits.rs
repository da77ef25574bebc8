//! What a step says of the next tokens.

use crate::chat::TokenId;

/// The logits of a step, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    n_vocab: usize,
}

impl<'a> Logits<'a> {
    /// Rows of `n_vocab` each, side by side.
    pub(super) fn new(values: &'a [f32], n_vocab: usize) -> Self {
        Self { values, n_vocab }
    }

    /// Rows: one for each of the batch's `logit_rows`.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_vocab
    }

    /// A row, `[n_vocab]`.
    ///
    /// Panics: when there is no such row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.n_vocab..(index + 1) * self.n_vocab]
    }
}

/// A row of logits, as much of it as is shown.
#[derive(Clone, Copy, Debug)]
pub enum LogitRow<'a> {
    /// All of it, `[n_vocab]`.
    Whole(&'a [f32]),
    /// The greatest.
    Top(&'a TopLogits),
}

/// Whether what was shown of a row is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next row may come.
    Enough,
    /// The whole row is needed: it comes next.
    TheWholeIsNeeded,
}

/// The greatest logits of a row, and what the whole row adds up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogits {
    /// Tokens with their logits, greatest first, of equal ones the lowest token first.
    pub logits: Vec<(TokenId, f32)>,
    /// The sum of `exp(logit - greatest)` over the whole row.
    pub weight: f64,
    /// Whether there is a NaN or an infinity in the row, but for -inf.
    pub is_faulty: bool,
    /// Whether the row has no others.
    pub is_all: bool,
}
