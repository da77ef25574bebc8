//! How copying is shown on stderr: a bar on a terminal, now and then a line elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// So often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const STYLE: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}";

/// Shows how far a copy is.
pub(super) struct CopyBar {
    /// What is being done.
    what: &'static str,
    bar: Option<ProgressBar>,
    told: Cell<Instant>,
}

impl CopyBar {
    /// A bar if stderr is a terminal, else lines.
    pub(super) fn stderr(what: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(STYLE) {
                bar.set_style(style);
            }
            bar.with_message(what)
        });
        Self {
            what,
            bar,
            told: Cell::new(Instant::now()),
        }
    }

    /// So many bytes are done.
    pub(super) fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.told.get().elapsed() >= LINE_EVERY {
            self.told.set(Instant::now());
            let (what, done, total) = (self.what, DecimalBytes(done), DecimalBytes(total));
            // Nobody may be there to read; the copy does not depend on it.
            let _ = writeln!(io::stderr(), "{what}: {done} of {total}");
        }
    }

    /// It is done.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What follows on stderr is not written into the bar.
impl Drop for CopyBar {
    fn drop(&mut self) {
        self.end();
    }
}
