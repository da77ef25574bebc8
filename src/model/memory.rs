//! How large a model may get, and the bytes it then takes.

use ingle_kernels::KvType;
use ingle_kernels::quantize::row_words;

use super::BLOCK_LEN;
use super::config::ModelConfig;
use crate::gguf::{Gguf, TensorInfo};

/// Values that the results of single spans of attention may take on a GPU. Units: floats; 64 MiB.
pub(super) const PARTIAL_VALUES: usize = 16 << 20;
/// What the tensor library and CUDA's keep on a GPU for a model, whatever its size: the partial sums of
/// products (16 MiB), handles, code. Units: bytes.
const LIBRARY_BYTES: u64 = 96 << 20;

/// The largest step and the size of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of one step.
    pub max_batch_tokens: usize,
    /// Tokens of one step whose logits are wanted.
    pub max_logit_rows: usize,
    /// Blocks of the KV cache, [`BLOCK_LEN`] tokens each.
    pub n_blocks: usize,
    /// The form of keys and values in it.
    pub kv_type: KvType,
}

impl Limits {
    /// Positions a sequence can reach: what the model was trained for, if the cache holds it.
    pub(super) fn n_positions(&self, config: &ModelConfig) -> usize {
        let n_slots = self.n_blocks.saturating_mul(BLOCK_LEN);
        n_slots.min(config.context_length as usize)
    }
}

/// What a model takes. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The weights: packed, at as many bytes as in the file (of Q3_K and Q6_K, 1 to 2 % more). or decoded.
    pub weights_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
    /// The buffers of the largest step and the tables of positions.
    pub workspace_bytes: u64,
}

impl Memory {
    /// Estimates a model before it is loaded.
    pub fn estimate(gguf: &Gguf, config: &ModelConfig, limits: &Limits) -> Self {
        Self::of(
            gguf.tensors().iter().map(TensorInfo::n_bytes).sum(),
            config,
            limits,
        )
    }

    /// Estimates a model whose weights take so many bytes, and whose shape is known.
    pub fn of(weights_bytes: u64, config: &ModelConfig, limits: &Limits) -> Self {
        let f32s = Sizes::new(config, limits).total();
        let rope = limits.n_positions(config).saturating_mul(config.rope.dim);
        let workspace = f32s.saturating_add(rope);
        Self {
            weights_bytes,
            kv_bytes: bytes(kv_bytes(config, limits).saturating_mul(config.n_layers), 1),
            workspace_bytes: bytes(workspace, 4),
        }
    }

    /// Estimates a model whose last `n_device_layers` lie on a GPU: what it takes of the host's memory,
    /// and of the GPU's.
    pub fn estimate_split(
        gguf: &Gguf,
        config: &ModelConfig,
        limits: &Limits,
        n_device_layers: usize,
    ) -> (Self, Self) {
        let n_device_layers = n_device_layers.min(config.n_layers);
        let n_host_layers = config.n_layers - n_device_layers;
        let whole = Self::estimate(gguf, config, limits);
        if n_device_layers == 0 {
            return (whole, Self::default());
        }
        // Both have buffers of the whole step; the logits' copy and the table of positions are the host's.
        let share = |n_layers: usize| Self {
            weights_bytes: 0,
            kv_bytes: bytes(kv_bytes(config, limits).saturating_mul(n_layers), 1),
            workspace_bytes: whole.workspace_bytes,
        };
        let (mut host, mut device) = (share(n_host_layers), share(n_device_layers));
        let longest = config.n_ff.max(config.n_embd);
        let tokens = limits.max_batch_tokens;
        for more in [
            bytes(PARTIAL_VALUES, 4),
            // A product of the tensor library, and the activations it makes bytes of.
            bytes(tokens.saturating_mul(longest), 4),
            bytes(tokens.saturating_mul(longest.div_ceil(512) * 4), 144),
            LIBRARY_BYTES,
        ] {
            device.workspace_bytes = device.workspace_bytes.saturating_add(more);
        }
        for tensor in gguf.tensors() {
            let is_on_device = match tensor.layer() {
                Some(layer) => layer >= n_host_layers,
                None => tensor.name != "token_embd.weight" || n_host_layers == 0,
            };
            let of = if is_on_device { &mut device } else { &mut host };
            of.weights_bytes = of.weights_bytes.saturating_add(tensor.n_bytes());
        }
        // A tied embedding serves as the output too, where the output is.
        let tied = gguf.tensor("token_embd.weight");
        if let (Some(tied), None, true) = (tied, gguf.tensor("output.weight"), n_host_layers > 0) {
            device.weights_bytes = device.weights_bytes.saturating_add(tied.n_bytes());
        }
        (host, device)
    }

    /// Estimates a model of which [`Form::Decoded`](super::Form::Decoded) is asked.
    pub fn estimate_decoded(gguf: &Gguf, config: &ModelConfig, limits: &Limits) -> Self {
        let floats = |tensor: &TensorInfo| tensor.n_elements().saturating_mul(4);
        let n_bytes = gguf.tensors().iter().map(floats);
        Self {
            weights_bytes: n_bytes.fold(0, u64::saturating_add),
            ..Self::estimate(gguf, config, limits)
        }
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.workspace_bytes)
    }
}

fn bytes(n_values: usize, each: u64) -> u64 {
    (n_values as u64).saturating_mul(each)
}

/// Bytes of one layer's cache, keys and values together.
pub(super) fn kv_bytes(config: &ModelConfig, limits: &Limits) -> usize {
    let token_bytes = limits.kv_type.token_bytes(config.head_dim);
    [config.n_kv_heads, BLOCK_LEN, token_bytes, 2]
        .into_iter()
        .fold(limits.n_blocks, usize::saturating_mul)
}

/// Elements of each buffer of the workspace, four bytes each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// `[max_batch_tokens, n_embd]`: the residual stream, and the same normalised.
    pub(super) state: usize,
    /// `[max_batch_tokens, n_heads * head_dim]`: queries, and what attention makes of them.
    pub(super) heads: usize,
    /// `[max_batch_tokens, n_kv_heads * head_dim]`: keys and values.
    pub(super) kv_heads: usize,
    /// `[max_batch_tokens, n_ff]`: gate, up and their product.
    pub(super) ff: usize,
    /// `[max_batch_tokens, row_words(longest row)]`: quantised activations.
    pub(super) words: usize,
    /// `[max_logit_rows, n_embd]`: the rows whose logits are wanted.
    pub(super) picked: usize,
    /// `[max_logit_rows, n_vocab]`.
    pub(super) logits: usize,
}

impl Sizes {
    pub(super) fn new(config: &ModelConfig, limits: &Limits) -> Self {
        let ModelConfig {
            n_embd,
            n_heads,
            n_kv_heads,
            head_dim,
            n_ff,
            n_vocab,
            ..
        } = *config;
        let tokens = |n: usize| n.saturating_mul(limits.max_batch_tokens);
        let rows = |n: usize| n.saturating_mul(limits.max_logit_rows);
        let (heads, kv_heads) = (n_heads * head_dim, n_kv_heads * head_dim);
        let longest = n_embd.max(heads).max(n_ff);
        Self {
            state: tokens(n_embd),
            heads: tokens(heads),
            kv_heads: tokens(kv_heads),
            ff: tokens(n_ff),
            // The logits' rows are quantised too, and may be more than a small step has tokens.
            words: tokens(row_words(longest)).max(rows(row_words(n_embd))),
            picked: rows(n_embd),
            logits: rows(n_vocab),
        }
    }

    /// All buffers together.
    fn total(&self) -> usize {
        let Self {
            state,
            heads,
            kv_heads,
            ff,
            words,
            picked,
            logits,
        } = *self;
        // The logits stand once more on the host.
        [
            state, state, heads, heads, kv_heads, kv_heads, ff, ff, ff, words, picked, picked,
            logits, logits,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}
