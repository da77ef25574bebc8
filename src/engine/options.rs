//! What bounds an engine.

use std::time::Duration;

use super::error::EngineError;
use super::network::NetworkLimits;
use super::scheduler::StepLimits;
use super::sequence::count;
use crate::model::BLOCK_LEN;

/// Bounds of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens one sequence may hold, answer included; absent: what the model was trained for.
    /// Never more than the model's blocks hold.
    pub n_ctx: Option<u32>,
    /// Sequences computed together; never more than the model's limits allow.
    pub max_running: usize,
    /// Requests that may wait while `max_running` run.
    pub max_waiting: usize,
    /// Prompt tokens per step, all sequences together: more is faster for the prompt, slower for
    /// those who decode beside it. Never more than the model's limits allow.
    pub prefill_chunk_tokens: usize,
    /// Events a request's channel holds before its sequence pauses.
    pub event_queue_len: usize,
    /// A sequence paused for so long is given up.
    pub reader_timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            max_running: 16,
            max_waiting: 256,
            prefill_chunk_tokens: 128,
            event_queue_len: 256,
            reader_timeout: Duration::from_secs(30),
        }
    }
}

impl EngineOptions {
    /// Checks that every bound lets something through.
    ///
    /// Errors: [`EngineError::Option`].
    pub(super) fn check(&self, network: &NetworkLimits) -> Result<(), EngineError> {
        let bounds = [
            ("n_ctx", self.n_ctx.map_or(1, |n_ctx| n_ctx as usize)),
            ("max_running", self.max_running),
            ("prefill_chunk_tokens", self.prefill_chunk_tokens),
            ("event_queue_len", self.event_queue_len),
            ("context_length", network.context_length as usize),
            ("n_blocks", network.n_blocks),
            ("max_batch_tokens", network.max_batch_tokens),
            ("max_logit_rows", network.max_logit_rows),
        ];
        match bounds.into_iter().find(|(_, value)| *value == 0) {
            Some((name, value)) => Err(EngineError::Option { name, value }),
            None => Ok(()),
        }
    }

    /// Tokens one sequence may hold: alone, it fits into the cache.
    pub(super) fn n_ctx_on(&self, network: &NetworkLimits) -> u32 {
        let n_slots = count(network.n_blocks.saturating_mul(BLOCK_LEN));
        network
            .context_length
            .min(n_slots)
            .min(self.n_ctx.unwrap_or(u32::MAX))
    }

    /// The bounds of a step: every running sequence can decode in it and have its logits.
    pub(super) fn step_limits_on(&self, network: &NetworkLimits) -> StepLimits {
        let NetworkLimits {
            max_batch_tokens,
            max_logit_rows,
            ..
        } = *network;
        StepLimits {
            max_running: self.max_running.min(max_batch_tokens).min(max_logit_rows),
            max_batch_tokens,
            max_prompt_tokens: self.prefill_chunk_tokens,
        }
    }

    /// Requests that may wait or run at once.
    pub(super) fn max_live_on(&self, network: &NetworkLimits) -> usize {
        self.step_limits_on(network)
            .max_running
            .saturating_add(self.max_waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkLimits = NetworkLimits {
        n_vocab: 10,
        context_length: 1000,
        n_blocks: 4,
        max_batch_tokens: 64,
        max_logit_rows: 8,
    };

    #[test]
    fn the_networks_bounds_hold_for_every_option() {
        let options = EngineOptions {
            n_ctx: Some(500),
            ..EngineOptions::default()
        };
        assert_eq!(options.n_ctx_on(&NETWORK), 128);
        assert_eq!(options.step_limits_on(&NETWORK).max_running, 8);
        let small = EngineOptions {
            n_ctx: Some(50),
            ..options
        };
        assert_eq!(small.n_ctx_on(&NETWORK), 50);
    }

    #[test]
    fn a_bound_of_zero_is_refused_by_name() {
        let options = EngineOptions {
            max_running: 0,
            ..EngineOptions::default()
        };
        let error = options.check(&NETWORK).unwrap_err().to_string();
        assert_eq!(
            error,
            "engine option max_running is 0: it must be at least 1"
        );
        let network = NetworkLimits {
            n_blocks: 0,
            ..NETWORK
        };
        let error = EngineOptions::default()
            .check(&network)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "engine option n_blocks is 0: it must be at least 1");
    }
}
