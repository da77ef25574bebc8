//! Chunks through one network, or through two that are compared.

use tokio_util::sync::CancellationToken;

use super::chunks::Chunks;
use super::logits_file::LogitsFile;
use super::network::{Network, pieces};
use super::progress::Progress;
use super::score::{Compared, Distribution, Estimate};
use crate::chat::TokenId;
use crate::cli::run::Interrupted;

/// What is kept of all scored positions.
#[derive(Default)]
pub(super) struct Scores {
    /// The negative log-likelihoods of the tokens that came. Units: nats.
    pub(super) losses: Vec<f64>,
    /// The same by the reference, if there is one.
    pub(super) reference_losses: Vec<f64>,
    /// How far from the reference each position is.
    pub(super) compared: Vec<Compared>,
}

/// The network under test, what it is compared with, and where logits are written.
pub(super) struct Evaluation {
    pub(super) ours: Network,
    pub(super) reference: Option<Network>,
    /// Gets the reference's logits if there is one, else ours.
    pub(super) file: Option<LogitsFile>,
}

impl Evaluation {
    /// Evaluates all chunks; `stop` ends it between two steps.
    ///
    /// Errors: it was stopped; a network does not compute or gives no finite logits; the file cannot
    /// be written.
    pub(super) fn run(
        &mut self,
        chunks: &Chunks,
        stop: &CancellationToken,
    ) -> anyhow::Result<Scores> {
        let mut scores = Scores::default();
        let mut progress = Progress::stderr(chunks.n_chunks());
        for (chunk_idx, chunk) in chunks.iter().enumerate() {
            for piece in pieces(chunks.chunk_len()) {
                anyhow::ensure!(!stop.is_cancelled(), Interrupted);
                let all = chunks.scored();
                let scored = all.start.max(piece.start)..all.end.min(piece.end);
                let ours = self.ours.step(chunk, piece.clone(), scored.clone())?;
                let reference = match &mut self.reference {
                    Some(reference) => Some(reference.step(chunk, piece, scored.clone())?),
                    None => None,
                };
                for (row, position) in scored.enumerate() {
                    let ours = ours.row(row);
                    let reference = reference.map(|logits| logits.row(row));
                    if let Some(file) = &mut self.file {
                        file.row(reference.unwrap_or(ours))?;
                    }
                    scores.add(ours, reference, chunk[position + 1])?;
                }
            }
            let so_far = Estimate::of(&scores.losses).perplexity();
            progress.done(chunk_idx + 1, so_far.mean);
        }
        Ok(scores)
    }
}

impl Scores {
    /// Adds a position, after which `token` came.
    fn add(
        &mut self,
        ours: &[f32],
        reference: Option<&[f32]>,
        token: TokenId,
    ) -> anyhow::Result<()> {
        let ours = self.distribution(ours, "the model")?;
        self.losses.push(-ours.log_probability(token as usize));
        let Some(reference) = reference else {
            return Ok(());
        };
        let reference = self.distribution(reference, "the model in f32")?;
        self.reference_losses
            .push(-reference.log_probability(token as usize));
        self.compared.push(Compared {
            divergence: reference.divergence(&ours),
            same_best: reference.best() == ours.best(),
        });
        Ok(())
    }

    fn distribution<'a>(&self, logits: &'a [f32], whose: &str) -> anyhow::Result<Distribution<'a>> {
        Distribution::new(logits).ok_or_else(|| {
            let number = self.losses.len() + 1;
            anyhow::anyhow!(
                "{whose} gives logits that are no numbers at the {number}. scored token: \
                 its file is damaged, fetch it again"
            )
        })
    }
}
