//! What a model asks of a machine, and which part of the machine's limits a rate reaches.

use ingle_kernels::limits::Limits;

use super::points::{Point, Test};
use crate::gguf::Gguf;
use crate::model::{BLOCK_LEN, Limits as CacheLimits, Memory, ModelConfig};

/// What steps of a model read and multiply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// Weights a step reads, as long as they are in the file; of an embedding that is not the output
    /// matrix too, a step reads next to nothing. Units: bytes.
    pub(super) weight_bytes: u64,
    /// In the linear layers, without the output matrix.
    pub(super) multiply_adds_per_token: u64,
    /// In the output matrix, for each token whose logits are wanted.
    pub(super) multiply_adds_per_logits: u64,
    /// Keys and values of a position, in all layers. Units: bytes.
    pub(super) kv_bytes_per_position: u64,
    /// Positions that a token sees at most.
    window: u32,
}

/// Which part of the machine's limits a rate reaches: 1 is all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reached {
    /// Of reading, by the weights alone.
    pub(super) reading_weights: f64,
    /// Of reading, by the weights and the keys and values of the context.
    pub(super) reading_all: f64,
    /// Of multiplying, in the linear layers.
    pub(super) multiplying: f64,
}

impl Cost {
    /// What a step of the model in `gguf` costs with a cache of `limits`.
    pub(super) fn new(gguf: &Gguf, config: &ModelConfig, limits: &CacheLimits) -> Self {
        const EMBEDDING: &str = "token_embd.weight";
        const OUTPUT: &str = "output.weight";
        let output = if gguf.tensor(OUTPUT).is_some() {
            OUTPUT
        } else {
            EMBEDDING
        };
        let kv_bytes = Memory::estimate(gguf, config, limits).kv_bytes;
        let n_positions = (limits.n_blocks * BLOCK_LEN) as u64;
        let mut cost = Self {
            weight_bytes: 0,
            multiply_adds_per_token: 0,
            multiply_adds_per_logits: 0,
            kv_bytes_per_position: kv_bytes / n_positions.max(1),
            window: config.sliding_window.unwrap_or(u32::MAX),
        };
        for tensor in gguf.tensors() {
            match tensor.name.as_str() {
                name if name == output => cost.multiply_adds_per_logits = tensor.n_elements(),
                EMBEDDING => continue,
                _ if tensor.dims.len() > 1 => cost.multiply_adds_per_token += tensor.n_elements(),
                _ => {}
            }
            cost.weight_bytes += tensor.n_bytes();
        }
        cost
    }

    /// Which part of `limits` a point reaches. Units: the rate is in tokens a second, all sequences
    /// together; prompts are computed `n_chunk` tokens a step.
    pub(super) fn reached(
        &self,
        point: &Point,
        rate: f64,
        n_chunk: u32,
        limits: &Limits,
    ) -> Reached {
        let n_all = point.n_tokens_in_all();
        let seconds = n_all as f64 / rate;
        let n_tokens = u64::from(point.n_tokens);
        let (n_steps, n_logits) = match point.test {
            Test::Prompt => (n_tokens.div_ceil(n_chunk.into()), 1),
            Test::Decode => (n_tokens, n_all),
        };
        let weights = (n_steps * self.weight_bytes) as f64;
        // Each step reads the positions before it; on average half of its own tokens' are among them.
        let seen = f64::from(point.depth) + n_tokens as f64 / 2.0;
        let seen = seen.min(f64::from(self.window));
        let contexts = (n_steps * u64::from(point.n_sequences)) as f64;
        let kv = contexts * seen * self.kv_bytes_per_position as f64;
        let multiply_adds =
            n_all * self.multiply_adds_per_token + n_logits * self.multiply_adds_per_logits;
        let reading = seconds * limits.read_bytes_per_second;
        Reached {
            reading_weights: weights / reading,
            reading_all: (weights + kv) / reading,
            multiplying: multiply_adds as f64 / seconds / limits.multiply_adds_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        weight_bytes: 1000,
        multiply_adds_per_token: 4000,
        multiply_adds_per_logits: 500,
        kv_bytes_per_position: 10,
        window: u32::MAX,
    };
    const LIMITS: Limits = Limits {
        read_bytes_per_second: 10_000.0,
        multiply_adds_per_second: 100_000.0,
    };

    fn point(test: Test, depth: u32, n_sequences: u32, n_tokens: u32) -> Point {
        Point {
            depth,
            test,
            n_sequences,
            n_tokens,
        }
    }

    #[test]
    fn one_sequence_reads_all_weights_for_each_token() {
        let reached = COST.reached(&point(Test::Decode, 95, 1, 10), 5.0, 128, &LIMITS);
        assert_eq!(reached.reading_weights, 0.5);
        assert_eq!(reached.reading_all, 1.0);
        assert_eq!(reached.multiplying, 5.0 * 4500.0 / 100_000.0);
    }

    #[test]
    fn sequences_share_the_weights_and_a_window_bounds_the_context() {
        let four = COST.reached(&point(Test::Decode, 0, 4, 10), 20.0, 128, &LIMITS);
        assert_eq!(four.reading_weights, 0.5);
        assert_eq!(four.multiplying, 20.0 * 4500.0 / 100_000.0);
        let narrow = Cost { window: 50, ..COST };
        let reached = narrow.reached(&point(Test::Decode, 1000, 1, 10), 5.0, 128, &LIMITS);
        assert_eq!(reached.reading_all, 0.75);
    }

    #[test]
    fn a_prompt_reads_the_weights_for_each_chunk_and_wants_logits_once() {
        let reached = COST.reached(&point(Test::Prompt, 0, 1, 20), 20.0, 8, &LIMITS);
        assert_eq!(reached.reading_weights, 0.3);
        assert_eq!(reached.multiplying, (20.0 * 4000.0 + 500.0) / 100_000.0);
    }
}
