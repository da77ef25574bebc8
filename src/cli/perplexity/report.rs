//! What was measured, for people and for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::chunks::Chunks;
use super::evaluate::{Evaluation, Scores};
use super::score::{Comparison, Estimate};

/// All figures of a run.
pub(super) struct Report {
    model: String,
    isa: &'static str,
    n_threads: usize,
    n_chunks: usize,
    chunk_len: usize,
    n_scored: usize,
    ours: Side,
    reference: Option<(Side, Comparison)>,
}

/// The figures of one network.
struct Side {
    perplexity: Estimate,
    tokens_per_second: f64,
}

impl Side {
    fn new(losses: &[f64], n_tokens: usize, time: std::time::Duration) -> Self {
        Self {
            perplexity: Estimate::of(losses).perplexity(),
            tokens_per_second: n_tokens as f64 / time.as_secs_f64().max(1e-9),
        }
    }

    fn text(&self) -> String {
        let Estimate { mean, error } = self.perplexity;
        let rate = self.tokens_per_second;
        format!("perplexity {mean:.4} ± {error:.4}, {rate:.1} tokens/s")
    }

    fn json(&self) -> Value {
        json!({
            "perplexity": self.perplexity.mean,
            "perplexity_error": self.perplexity.error,
            "tokens_per_second": self.tokens_per_second,
        })
    }
}

impl Report {
    /// - `model`, `isa`, `n_threads` — what computed
    pub(super) fn new(
        (model, isa, n_threads): (String, &'static str, usize),
        chunks: &Chunks,
        evaluation: &Evaluation,
        scores: &Scores,
    ) -> Self {
        let n_tokens = chunks.n_chunks() * chunks.chunk_len();
        let reference = evaluation.reference.as_ref().map(|network| {
            let side = Side::new(&scores.reference_losses, n_tokens, network.time);
            (side, Comparison::of(&scores.compared))
        });
        Self {
            model,
            isa,
            n_threads,
            n_chunks: chunks.n_chunks(),
            chunk_len: chunks.chunk_len(),
            n_scored: scores.losses.len(),
            ours: Side::new(&scores.losses, n_tokens, evaluation.ours.time),
            reference,
        }
    }

    /// Writes it for a person.
    ///
    /// Errors: `out` does not take it.
    pub(super) fn write(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let Self {
            n_scored,
            n_chunks,
            chunk_len,
            ..
        } = self;
        writeln!(out, "{}", self.ours.text())?;
        writeln!(
            out,
            "{n_scored} tokens scored, the second halves of {n_chunks} chunks of {chunk_len}"
        )?;
        let Some((side, comparison)) = &self.reference else {
            return Ok(());
        };
        let Comparison {
            divergence,
            median,
            percentile_99,
            most,
            same_best,
        } = comparison;
        writeln!(out, "with all weights decoded to f32: {}", side.text())?;
        writeln!(
            out,
            "KL(f32 || this), nats: mean {:.6} ± {:.6}, median {median:.6}, \
             99th percentile {percentile_99:.6}, maximum {most:.6}",
            divergence.mean, divergence.error
        )?;
        writeln!(
            out,
            "the same likeliest token at {:.2} % of positions",
            100.0 * same_best
        )?;
        Ok(())
    }

    /// Writes it as one JSON object.
    ///
    /// Errors: `out` does not take it.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut all = json!({
            "model": self.model,
            "isa": self.isa,
            "threads": self.n_threads,
            "chunks": self.n_chunks,
            "chunk_tokens": self.chunk_len,
            "tokens_scored": self.n_scored,
        });
        merge(&mut all, self.ours.json());
        if let Some((side, comparison)) = &self.reference {
            let mut against = json!({ "weights": "f32" });
            merge(&mut against, side.json());
            merge(
                &mut against,
                json!({
                    "kl_mean": comparison.divergence.mean,
                    "kl_mean_error": comparison.divergence.error,
                    "kl_median": comparison.median,
                    "kl_percentile_99": comparison.percentile_99,
                    "kl_max": comparison.most,
                    "same_top_share": comparison.same_best,
                }),
            );
            merge(&mut all, json!({ "against": against }));
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        Ok(())
    }
}

/// Adds the fields of one object to another.
fn merge(all: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (all, more) {
        all.extend(more);
    }
}
