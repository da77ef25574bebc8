//! What a fetch tells while it goes on.

use std::time::Instant;

/// Hears how a fetch goes. Called from the fetching task: it must not block.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: FetchEvent);
}

/// Nobody listens.
impl Progress for () {
    fn event(&self, _: FetchEvent) {}
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// Another process or task is fetching the same model: its end is waited for.
    Waiting,
    /// A source is being read.
    Started {
        /// Which one, in one line.
        source: String,
        /// Bytes of all files, where known.
        total: Option<u64>,
    },
    /// One of several files is being read.
    File {
        /// What it is called.
        name: String,
        /// Which one, from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// Its bytes, where known.
        size_bytes: Option<u64>,
    },
    /// So much of all files is here. At most a few times a second.
    Bytes {
        /// Bytes here, those of an earlier try included.
        done: u64,
        /// Bytes of all files, where known.
        total: Option<u64>,
    },
    /// A connection broke; the download goes on where it ended.
    Retrying {
        /// What happened, in one clause.
        reason: String,
    },
    /// A source gave nothing.
    Failed {
        /// Which one.
        source: String,
        /// Why, in one clause.
        reason: String,
        /// Which one is tried now; `None` after the last.
        next: Option<String>,
    },
    /// All bytes of a file are here; their checksum is computed.
    Verifying,
    /// All is in its place.
    Done,
}

/// Tells of one file of several: its bytes count behind those of the files before.
pub(super) struct OneOfMany<'a> {
    pub(super) progress: &'a dyn Progress,
    /// Bytes of the files before.
    pub(super) before: u64,
    /// Bytes of all files, where known.
    pub(super) total: Option<u64>,
}

impl Progress for OneOfMany<'_> {
    fn event(&self, event: FetchEvent) {
        self.progress.event(match event {
            FetchEvent::Bytes { done, .. } => FetchEvent::Bytes {
                done: done.saturating_add(self.before),
                total: self.total,
            },
            other => other,
        });
    }
}

/// So often `Bytes` is told at most.
const TELL_EVERY_MILLIS: u128 = 100;

/// Tells `Bytes`, but not for every chunk.
pub(super) struct Meter<'a> {
    progress: &'a dyn Progress,
    total: Option<u64>,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a dyn Progress, total: Option<u64>) -> Self {
        Self {
            progress,
            total,
            told: None,
        }
    }

    pub(super) fn at(&mut self, done: u64) {
        let is_last = self.total == Some(done);
        let is_due = self
            .told
            .is_none_or(|told| told.elapsed().as_millis() >= TELL_EVERY_MILLIS);
        if is_last || is_due {
            self.told = Some(Instant::now());
            let total = self.total;
            self.progress.event(FetchEvent::Bytes { done, total });
        }
    }
}
