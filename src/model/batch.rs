//! What one step computes: rows of several sequences, one after the other, without padding.

use super::config::ModelConfig;
use super::error::Error;
use super::{BLOCK_LEN, Limits};
use crate::chat::TokenId;

/// The tokens of one step: prompt chunks of some sequences beside single tokens of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The tokens, sequence after sequence: `[n_tokens]`.
    pub token_ids: Vec<TokenId>,
    /// Where each token stands in its sequence: `[n_tokens]`.
    pub positions: Vec<u32>,
    /// Where each sequence's tokens begin, and the end: `[n_sequences + 1]`.
    pub cu_seqlens: Vec<u32>,
    /// Where each token's keys and values go, `block * BLOCK_LEN + offset`: `[n_tokens]`.
    pub slot_mapping: Vec<u32>,
    /// For each sequence, the blocks that hold its positions from 0 on.
    pub block_tables: Vec<Vec<u32>>,
    /// The tokens whose logits are wanted.
    pub logit_rows: Vec<u32>,
    /// The tokens whose states behind the last norm are wanted.
    pub state_rows: Vec<u32>,
}

impl Batch {
    /// Tokens in the step.
    pub fn n_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Checks it against the model's limits and itself.
    ///
    /// Errors: [`Error::Batch`].
    pub(super) fn check(&self, config: &ModelConfig, limits: &Limits) -> Result<(), Error> {
        let n_tokens = self.n_tokens();
        at_most("the number of tokens", n_tokens, limits.max_batch_tokens)?;
        let n_rows = self.logit_rows.len();
        at_most("the number of logit rows", n_rows, limits.max_logit_rows)?;
        equal("the number of positions", self.positions.len(), n_tokens)?;
        equal("the number of slots", self.slot_mapping.len(), n_tokens)?;
        let n_sequences = self.block_tables.len();
        equal(
            "the number of starts",
            self.cu_seqlens.len(),
            n_sequences + 1,
        )?;
        let n_slots = limits.n_blocks * BLOCK_LEN;
        let n_positions = limits.n_positions(config);
        below("a token", &self.token_ids, config.n_vocab)?;
        below("a position", &self.positions, n_positions)?;
        below("a slot", &self.slot_mapping, n_slots)?;
        below("a logit row", &self.logit_rows, n_tokens)?;
        below("a state row", &self.state_rows, n_tokens)?;
        // Starts, tables and the blocks in them are the attention's to check.
        Ok(())
    }
}

fn at_most(what: &'static str, got: usize, limit: usize) -> Result<(), Error> {
    if got <= limit {
        return Ok(());
    }
    let must_be = format!("at most {limit}");
    Err(Error::Batch { what, got, must_be })
}

fn equal(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let must_be = expected.to_string();
    Err(Error::Batch { what, got, must_be })
}

fn below(what: &'static str, values: &[u32], limit: usize) -> Result<(), Error> {
    match values.iter().find(|value| **value as usize >= limit) {
        Some(value) => Err(Error::Batch {
            what,
            got: *value as usize,
            must_be: format!("below {limit}"),
        }),
        None => Ok(()),
    }
}
