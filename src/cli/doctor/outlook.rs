//! How fast a model is likely to be: what its steps multiply and read, against what this machine can do.

use ingle_kernels::limits::Limits;

use crate::catalog::Network;
use crate::pool::{Description, FileDescription};

/// Of the multiplying rate, what prompts reach. Source: benches/RESULTS.md, 0.5 to 0.57 on AVX2 and AVX-512.
const PROMPT_SHARE: f64 = 0.52;
/// Of the reading rate, what decoding reaches. Source: benches/RESULTS.md, 0.8 to 1.0.
const DECODE_SHARE: f64 = 0.85;

/// Rates that are foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outlook {
    pub(super) prompt_tokens_per_second: f64,
    pub(super) tokens_per_second: f64,
}

/// What a step asks of the machine, as far as it is known from a shape.
struct Work {
    /// Weights of the layers.
    n_layer_weights: f64,
    /// Weights of the output matrix, and of the embedding.
    n_vocab_weights: f64,
    weights_bytes: f64,
    is_tied: bool,
}

impl Outlook {
    pub(super) fn of_network(network: &Network, limits: &Limits) -> Self {
        let of = |value: std::num::NonZeroU32| f64::from(value.get());
        let (n_embd, n_heads) = (of(network.n_embd), of(network.n_heads));
        let kv_width = n_embd / n_heads * of(network.n_kv_heads);
        let layer =
            2.0 * n_embd * n_embd + 2.0 * n_embd * kv_width + 3.0 * n_embd * of(network.n_ff);
        let n_layer_weights = layer * of(network.n_layers);
        let work = Work {
            n_layer_weights,
            n_vocab_weights: of(network.n_vocab) * n_embd,
            weights_bytes: network.weights_bytes.get() as f64,
            is_tied: false,
        };
        work.outlook(limits)
    }

    pub(super) fn of_file(
        file: &FileDescription,
        described: &Description,
        limits: &Limits,
    ) -> Self {
        let config = &file.shape;
        let n_vocab_weights = (config.n_vocab * config.n_embd) as f64;
        let kv_width = config.head_dim * config.n_kv_heads;
        let width = config.head_dim * config.n_heads;
        let layer = 2 * config.n_embd * (width + kv_width) + 3 * config.n_embd * config.n_ff;
        let n_layer_weights = (layer * config.n_layers) as f64;
        let weights = described
            .requirements
            .first()
            .map(|first| first.needs.weights.total());
        let work = Work {
            n_layer_weights,
            n_vocab_weights,
            weights_bytes: weights.unwrap_or(file.size_bytes) as f64,
            // With an output matrix of its own there are as many weights again.
            is_tied: (file.n_parameters as f64) < n_layer_weights + 1.5 * n_vocab_weights,
        };
        work.outlook(limits)
    }
}

impl Work {
    fn outlook(&self, limits: &Limits) -> Outlook {
        // An embedding that is not the output is hardly read.
        let n_vocab = if self.is_tied { 1.0 } else { 2.0 };
        let n_weights = self.n_layer_weights + n_vocab * self.n_vocab_weights;
        let n_read = self.n_layer_weights + self.n_vocab_weights;
        let read_bytes = self.weights_bytes * n_read / n_weights;
        Outlook {
            prompt_tokens_per_second: PROMPT_SHARE * limits.multiply_adds_per_second
                / self.n_layer_weights,
            tokens_per_second: DECODE_SHARE * limits.read_bytes_per_second / read_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn llama_3_8b_on_a_known_machine_is_as_fast_as_it_was() {
        // The machine of benches/RESULTS.md with AVX-512: 36 tok/s of prompt, 8.2 decoded.
        let limits = Limits {
            read_bytes_per_second: 38e9,
            multiply_adds_per_second: 460e9,
        };
        let catalog = Catalog::load(None).unwrap();
        let network = catalog.find("llama3").unwrap().network.unwrap();
        let outlook = Outlook::of_network(&network, &limits);
        assert!(
            (30.0..40.0).contains(&outlook.prompt_tokens_per_second),
            "{outlook:?}"
        );
        assert!(
            (6.0..9.0).contains(&outlook.tokens_per_second),
            "{outlook:?}"
        );
    }
}
