//! A team of threads that all engines of a process share.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::Isa;

/// Persistent worker threads; whoever has the turn is worker 0.
pub struct Team {
    isa: Isa,
    n_threads: usize,
}

/// The right to run tasks on the team until dropped.
pub struct Turn<'a> {
    team: &'a Team,
    /// One thread at a time may call `run`: a turn may move to another thread but not be shared.
    not_sync: PhantomData<std::cell::Cell<()>>,
}

impl Team {
    /// Starts a team of `n_threads`, the caller of [`Turn::run`] being one of them.
    ///
    /// Where the system refuses more threads, the team is as large as it could get.
    pub fn new(n_threads: NonZeroUsize, isa: Isa) -> Arc<Self> {
        todo!()
    }

    /// How many threads work on a run.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Waits for its turn, first come, first served.
    pub fn take_turn(&self) -> Turn<'_> {
        todo!()
    }
}

impl Turn<'_> {
    /// The instructions to use.
    pub fn isa(&self) -> Isa {
        self.team.isa
    }

    /// How many threads work on a run.
    pub fn n_threads(&self) -> usize {
        self.team.n_threads
    }

    /// Calls `task` with every number below `n_tasks`, each once, on all threads, and waits for the end.
    ///
    /// Panics: when a task panicked, with its message, after all tasks have ended.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        todo!()
    }
}
