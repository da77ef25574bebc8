//! How far it is, on stderr: a bar on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::session::tell;

/// So often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows chunks as they are done.
pub(super) struct Progress {
    /// None where stderr is no terminal.
    bar: Option<ProgressBar>,
    n_chunks: usize,
    told: Instant,
}

impl Progress {
    pub(super) fn stderr(n_chunks: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(n_chunks as u64), target);
            match ProgressStyle::with_template("{wide_bar} {pos}/{len} chunks, {msg} ETA {eta}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            n_chunks,
            told: Instant::now(),
        }
    }

    /// So many chunks are done, and this is the perplexity of them.
    pub(super) fn done(&mut self, n_done: usize, perplexity: f64) {
        let so_far = format!("perplexity {perplexity:.4} so far");
        match &self.bar {
            Some(bar) => {
                bar.set_message(so_far);
                bar.set_position(n_done as u64);
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                tell(&format!("{n_done} of {} chunks, {so_far}", self.n_chunks));
                self.told = Instant::now();
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
