//! A network whose logits are a hash of the tokens it finds in its cache, read through the block
//! tables: a token in a wrong slot, a wrong table or a block with two owners gives other tokens.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::chat::TokenId;
use crate::engine::network::{Fault, Network, NetworkLimits};
use crate::model::{BLOCK_LEN, Batch, LogitRow, Seen, TopLogits};

pub(super) const N_VOCAB: usize = 61;
const SEED: u64 = 0x51ED_270B;

/// What a step does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Compute,
    /// Spoils the slots it should write and gives up.
    Fail,
    /// The step cannot be computed, nor any later one.
    Lose,
    Panic,
    /// The logits of one row are not numbers.
    Nan(usize),
    /// Shows no logits.
    Withhold,
}

type Script = Box<dyn FnMut(&Batch) -> Act + Send>;

/// The sizes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) n_tokens: usize,
    pub(super) n_seqs: usize,
}

pub(super) struct HashNetwork {
    pub(super) limits: NetworkLimits,
    /// Position and token of every slot.
    cache: Vec<Option<(u32, TokenId)>>,
    script: Script,
    /// Of the logits, so many are shown first.
    n_top: usize,
    shapes: Arc<Mutex<Vec<Shape>>>,
}

impl HashNetwork {
    pub(super) fn new(n_blocks: usize) -> Self {
        let limits = NetworkLimits {
            n_vocab: N_VOCAB,
            context_length: u32::MAX,
            n_blocks,
            max_batch_tokens: 256,
            max_logit_rows: 32,
        };
        Self {
            limits,
            cache: vec![None; n_blocks * BLOCK_LEN],
            script: Box::new(|_| Act::Compute),
            n_top: 0,
            shapes: Arc::default(),
        }
    }

    /// Shows so many of the greatest logits first, as a GPU does.
    pub(super) fn showing(mut self, n_top: usize) -> Self {
        self.n_top = n_top;
        self
    }

    /// Asks `script` before each step.
    pub(super) fn scripted(mut self, script: impl FnMut(&Batch) -> Act + Send + 'static) -> Self {
        self.script = Box::new(script);
        self
    }

    /// Each step waits for a permit, until the sender of permits is dropped.
    pub(super) fn gated(self) -> (Self, Sender<()>) {
        let (permits, gate) = channel();
        let network = self.scripted(move |_| {
            let _ = gate.recv();
            Act::Compute
        });
        (network, permits)
    }

    /// The shapes of all steps, for as long as it computes.
    pub(super) fn shapes(&self) -> Arc<Mutex<Vec<Shape>>> {
        Arc::clone(&self.shapes)
    }

    fn check(&self, batch: &Batch) {
        let n_tokens = batch.token_ids.len();
        assert!((1..=self.limits.max_batch_tokens).contains(&n_tokens));
        assert!(batch.logit_rows.len() <= self.limits.max_logit_rows);
        assert_eq!(batch.positions.len(), n_tokens);
        assert_eq!(batch.slot_mapping.len(), n_tokens);
        assert_eq!(batch.cu_seqlens.len(), batch.block_tables.len() + 1);
        assert_eq!(
            batch.cu_seqlens.last().copied(),
            u32::try_from(n_tokens).ok()
        );
        let slots: HashSet<&u32> = batch.slot_mapping.iter().collect();
        assert_eq!(slots.len(), n_tokens, "two tokens for one slot");
        let blocks: HashSet<&u32> = batch.block_tables.iter().flatten().collect();
        let n_held: usize = batch.block_tables.iter().map(Vec::len).sum();
        assert_eq!(blocks.len(), n_held, "a block with two owners");
    }

    fn logits(&self, last: u32, block_table: &[u32]) -> Vec<f32> {
        let hash = (0..=last).fold(SEED, |hash, position| {
            let at = position as usize;
            let slot = block_table[at / BLOCK_LEN] as usize * BLOCK_LEN + at % BLOCK_LEN;
            let (written_at, token) = self.cache[slot].expect("a slot nobody wrote");
            assert_eq!(written_at, position, "another position's slot");
            mix(hash, token as usize)
        });
        logits_of(hash)
    }
}

impl Network for HashNetwork {
    fn limits(&self) -> NetworkLimits {
        self.limits
    }

    fn forward(
        &mut self,
        batch: &Batch,
        see: &mut dyn FnMut(LogitRow<'_>) -> Seen,
    ) -> Result<(), Fault> {
        self.check(batch);
        self.shapes.lock().unwrap().push(Shape {
            n_tokens: batch.token_ids.len(),
            n_seqs: batch.block_tables.len(),
        });
        let act = (self.script)(batch);
        assert!(!matches!(act, Act::Panic), "the network fell over");
        let tokens = batch.positions.iter().zip(&batch.token_ids);
        for (slot, (position, token)) in batch.slot_mapping.iter().zip(tokens) {
            self.cache[*slot as usize] = Some((*position, *token));
        }
        if matches!(act, Act::Fail | Act::Lose) {
            for slot in &batch.slot_mapping {
                self.cache[*slot as usize] = None;
            }
            return Err(Fault {
                error: Arc::new(io::Error::other("no memory for the step")),
                is_final: matches!(act, Act::Lose),
            });
        }
        let seqs = batch.cu_seqlens.windows(2).zip(&batch.block_tables);
        let mut n_shown = 0;
        for (bounds, block_table) in seqs {
            let of_seq = |row: &&u32| (bounds[0]..bounds[1]).contains(row);
            for row in batch.logit_rows.iter().filter(of_seq) {
                let mut logits = self.logits(batch.positions[*row as usize], block_table);
                match act {
                    Act::Nan(index) if index == n_shown => logits[3] = f32::NAN,
                    Act::Withhold => continue,
                    _ => {}
                }
                let is_enough = match self.n_top {
                    0 => false,
                    n_top => see(LogitRow::Top(&top_of(&logits, n_top))) == Seen::Enough,
                };
                if !is_enough {
                    see(LogitRow::Whole(&logits));
                }
                n_shown += 1;
            }
        }
        Ok(())
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// A token's state says where it stands and which it is.
    fn states(&mut self, batch: &Batch, see: &mut dyn FnMut(&[f32])) -> Result<(), Fault> {
        let float = |n: u32| f32::from(u16::try_from(n).unwrap());
        for row in &batch.state_rows {
            let row = *row as usize;
            see(&[float(batch.positions[row]), float(batch.token_ids[row])]);
        }
        Ok(())
    }
}

/// The greatest logits of a row.
pub(in crate::engine) fn top_of(row: &[f32], n_top: usize) -> TopLogits {
    let mut logits: Vec<(TokenId, f32)> = (0..).zip(row.iter().copied()).collect();
    logits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    logits.truncate(n_top);
    let greatest = logits[0].1;
    let weights = row.iter().map(|logit| f64::from((logit - greatest).exp()));
    TopLogits {
        weight: weights.sum(),
        is_faulty: row
            .iter()
            .any(|logit| logit.is_nan() || *logit == f32::INFINITY),
        is_all: n_top >= row.len(),
        logits,
    }
}

/// SplitMix64, one step.
pub(super) fn mix(hash: u64, value: usize) -> u64 {
    let mut z = (hash ^ value as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn logits_of(hash: u64) -> Vec<f32> {
    let logit = |token| {
        let [.., low, high] = mix(!hash, token).to_le_bytes();
        f32::from(u16::from_le_bytes([low, high])) / 8192.0
    };
    (0..N_VOCAB).map(logit).collect()
}

/// The greedy answer to `prompt`, from the definition: `masked` may not come among its first
/// `n_masked` tokens.
pub(super) fn reply(
    prompt: &[TokenId],
    n_tokens: usize,
    masked: TokenId,
    n_masked: usize,
) -> Vec<TokenId> {
    let read = |hash, token: &TokenId| mix(hash, *token as usize);
    let mut hash = prompt.iter().fold(SEED, read);
    let mut answer = Vec::new();
    while answer.len() < n_tokens {
        let mut logits = logits_of(hash);
        if answer.len() < n_masked {
            logits[masked as usize] = f32::NEG_INFINITY;
        }
        let mut best = 0;
        for (token, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = token;
            }
        }
        let token = u32::try_from(best).unwrap();
        answer.push(token);
        hash = read(hash, &token);
    }
    answer
}

/// [`reply`] with nothing masked.
pub(super) fn plain_reply(prompt: &[TokenId], n_tokens: usize) -> Vec<TokenId> {
    reply(prompt, n_tokens, 0, 0)
}
