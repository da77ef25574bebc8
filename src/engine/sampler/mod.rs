//! Which token comes next.
//!
//! Order of application, each step with its neutral value:
//! 1. guard: a NaN or +∞ among the logits fails the request; −∞ means "never";
//! 2. repetition penalty (1), then frequency penalty (0), then presence penalty (0);
//! 3. mask: stop tokens become −∞ under `ignore_eos`, or before `min_tokens` were generated;
//! 4. temperature: 0 takes the greatest logit, of equal ones the lowest token, and ends here;
//!    otherwise logits are divided by it (1);
//! 5. top-k (absent or 0): the `k` likeliest;
//! 6. top-p (1): of these, the shortest run of likeliest tokens whose share reaches `p`;
//! 7. min-p (0): of these, the tokens at least `min_p` times as likely as the likeliest;
//! 8. a draw among the rest, by their probabilities.
//!
//! The draw takes one random number that depends on the seed and the position alone, so the same
//! logits give the same token whatever else runs, and after a preemption too.

mod candidates;
mod penalties;
mod random;

use self::candidates::{Candidate, greatest};
use self::penalties::Penalties;
use super::error::EngineError;
use crate::chat::{Sampling, TokenId};
use crate::model::TopLogits;

/// How many tokens top-p looks at first; eight times as many when they do not reach `p`.
const FIRST_LOOK: usize = 64;

/// The sampling of one sequence: its settings and what it has seen.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sampler {
    temperature: f32,
    top_k: Option<usize>,
    top_p: f64,
    min_p: f64,
    seed: u64,
    penalties: Option<Penalties>,
    stop_tokens: Vec<TokenId>,
    /// Stop tokens are masked until so many tokens are generated.
    n_masked: u32,
    n_generated: u32,
}

/// Buffers that one row after the other is sampled in.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// The sampler of a sequence that begins with `prompt`. `seed` counts if `sampling` has none.
    pub(super) fn new(
        sampling: &Sampling,
        seed: u64,
        prompt: &[TokenId],
        stop_tokens: &[TokenId],
    ) -> Self {
        let n_masked = if sampling.ignore_eos {
            u32::MAX
        } else {
            sampling.min_tokens
        };
        let top_k = sampling.top_k.filter(|k| *k > 0);
        Self {
            temperature: sampling.temperature(),
            top_k: top_k.map(|k| k as usize),
            top_p: f64::from(sampling.top_p),
            min_p: f64::from(sampling.min_p),
            seed: sampling.seed.unwrap_or(seed),
            penalties: Penalties::new(sampling, prompt),
            stop_tokens: if n_masked > 0 {
                stop_tokens.to_vec()
            } else {
                Vec::new()
            },
            n_masked,
            n_generated: 0,
        }
    }

    /// The token at `position`, by the logits after the token before it.
    ///
    /// Errors: [`EngineError::Logits`], [`EngineError::NoTokenLeft`].
    pub(super) fn sample(
        &self,
        row: &[f32],
        position: u32,
        scratch: &mut Scratch,
    ) -> Result<TokenId, EngineError> {
        guard(row, position)?;
        let Scratch { logits, candidates } = scratch;
        let logits = if self.changes_logits() {
            logits.clear();
            logits.extend_from_slice(row);
            self.penalize_and_mask(logits);
            logits.as_slice()
        } else {
            row
        };
        let max = logits
            .iter()
            .fold(f32::NEG_INFINITY, |max, l| if *l > max { *l } else { max });
        if max == f32::NEG_INFINITY {
            return Err(EngineError::NoTokenLeft { position });
        }
        let token = if self.temperature == 0.0 {
            (0..)
                .zip(logits)
                .find(|(_, logit)| **logit >= max)
                .map(|(token, _)| token)
        } else {
            let uniform = random::uniform(self.seed, u64::from(position));
            self.draw(logits, max, uniform, candidates)
        };
        token.ok_or(EngineError::NoTokenLeft { position })
    }

    /// The same from the greatest logits alone, where they are enough to say it. None where the whole
    /// row is needed: for penalties and masks, for a draw among all, for a fault in the row.
    pub(super) fn sample_top(
        &self,
        top: &TopLogits,
        position: u32,
        scratch: &mut Scratch,
    ) -> Option<TokenId> {
        let (first, max) = *top.logits.first()?;
        if self.changes_logits() || top.is_faulty || max == f32::NEG_INFINITY {
            return None;
        }
        if self.temperature == 0.0 {
            return Some(first);
        }
        let candidates = &mut scratch.candidates;
        candidates.clear();
        let above_nothing = top.logits.iter().filter(|(_, l)| *l > f32::NEG_INFINITY);
        candidates.extend(above_nothing.map(|(token, logit)| Candidate {
            logit: *logit,
            token: *token,
        }));
        let weight = self.weight(max);
        let total = match self.top_k {
            Some(top_k) if top_k <= top.logits.len() || top.is_all => {
                candidates.truncate(top_k);
                candidates.iter().map(|c| weight(c.logit)).sum()
            }
            // What the row adds up to is known without a temperature.
            None if self.top_p < 1.0 && self.temperature == 1.0 => top.weight,
            _ => return None,
        };
        let has_reached = self.top_p >= 1.0 || self.keep_share(candidates, total, &weight);
        if !has_reached && self.top_k.is_none() && !top.is_all {
            return None;
        }
        let uniform = random::uniform(self.seed, u64::from(position));
        self.pick_likely(candidates, &weight, uniform)
    }

    /// Remembers a token that was drawn.
    pub(super) fn observe(&mut self, token: TokenId) {
        self.n_generated += 1;
        if let Some(penalties) = &mut self.penalties {
            penalties.observe(token);
        }
    }

    fn masks_stop_tokens(&self) -> bool {
        self.n_generated < self.n_masked
    }

    fn changes_logits(&self) -> bool {
        self.penalties.is_some() || self.masks_stop_tokens()
    }

    fn penalize_and_mask(&self, logits: &mut [f32]) {
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        if self.masks_stop_tokens() {
            for token in &self.stop_tokens {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Draws by `uniform` in `[0, 1)`. Tokens are walked likeliest first where top-k or top-p had
    /// to put them in order, else by their number.
    fn draw(
        &self,
        logits: &[f32],
        max: f32,
        uniform: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Option<TokenId> {
        let weight = self.weight(max);
        if self.top_k.is_none() && self.top_p >= 1.0 {
            let kept = (0..)
                .zip(logits)
                .map(|(token, logit)| (token, weight(*logit)));
            return pick(kept.filter(|(_, weight)| *weight >= self.min_p), uniform);
        }
        self.likeliest(logits, &weight, candidates);
        self.pick_likely(candidates, &weight, uniform)
    }

    /// What a logit weighs against the greatest, so that no exponential overflows.
    fn weight(&self, max: f32) -> impl Fn(f32) -> f64 + use<> {
        let temperature = self.temperature;
        move |logit| f64::from(((logit - max) / temperature).exp())
    }

    /// Draws among those that are likely enough.
    fn pick_likely(
        &self,
        candidates: &[Candidate],
        weight: &impl Fn(f32) -> f64,
        uniform: f64,
    ) -> Option<TokenId> {
        let n_kept = candidates.partition_point(|c| weight(c.logit) >= self.min_p);
        let kept = candidates.iter().take(n_kept);
        pick(
            kept.map(|candidate| (candidate.token, weight(candidate.logit))),
            uniform,
        )
    }

    /// Keeps the shortest run of likeliest tokens whose share of `total` reaches top-p; all of them,
    /// and false, if none does.
    fn keep_share(
        &self,
        candidates: &mut Vec<Candidate>,
        total: f64,
        weight: &impl Fn(f32) -> f64,
    ) -> bool {
        let mut share = 0.0;
        let last = candidates.iter().position(|candidate| {
            share += weight(candidate.logit);
            share >= self.top_p * total
        });
        if let Some(last) = last {
            candidates.truncate(last + 1);
        }
        last.is_some()
    }

    /// The tokens top-k and top-p keep, likeliest first.
    fn likeliest(
        &self,
        logits: &[f32],
        weight: &impl Fn(f32) -> f64,
        candidates: &mut Vec<Candidate>,
    ) {
        let (mut n, total) = if let Some(top_k) = self.top_k {
            greatest(logits, top_k, candidates);
            (
                top_k,
                candidates
                    .iter()
                    .map(|candidate| weight(candidate.logit))
                    .sum(),
            )
        } else {
            greatest(logits, FIRST_LOOK, candidates);
            (
                FIRST_LOOK,
                logits.iter().map(|logit| weight(*logit)).sum::<f64>(),
            )
        };
        if self.top_p >= 1.0 {
            return;
        }
        loop {
            if self.keep_share(candidates, total, weight) {
                return;
            }
            if self.top_k.is_some() || n >= logits.len() {
                return;
            }
            n = n.saturating_mul(8);
            greatest(logits, n, candidates);
        }
    }
}

/// The token at `uniform` of the way through the weights, never one of weight 0.
fn pick(weighted: impl Iterator<Item = (TokenId, f64)> + Clone, uniform: f64) -> Option<TokenId> {
    let target = uniform * weighted.clone().map(|(_, weight)| weight).sum::<f64>();
    let mut share = 0.0;
    let mut last = None;
    for (token, weight) in weighted.filter(|(_, weight)| *weight > 0.0) {
        share += weight;
        last = Some(token);
        if share > target {
            break;
        }
    }
    last
}

fn guard(row: &[f32], position: u32) -> Result<(), EngineError> {
    let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    // Without a way out of the loop, which lets it run on vectors.
    if !row.iter().fold(false, |bad, logit| bad | is_bad(logit)) {
        return Ok(());
    }
    let found = (0..).zip(row).find(|(_, logit)| is_bad(logit));
    let (token, value) = found.map_or((0, f32::NAN), |(token, logit)| (token, *logit));
    Err(EngineError::Logits {
        position,
        token,
        value,
    })
}

#[cfg(test)]
mod tests;
