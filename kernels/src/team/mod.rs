//! A team of threads that all engines of a process share.
//!
//! Whoever holds the [`Turn`] is worker 0 and the only one to hand out work. Workers spin for a short
//! while after a run, so that the next operation of a step finds them awake, and then sleep.

mod crew;
mod disjoint;
mod topology;

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::Isa;
use crew::Crew;
pub(crate) use disjoint::Disjoint;
pub use topology::default_threads;

/// Persistent worker threads; whoever has the turn is worker 0.
pub struct Team {
    isa: Isa,
    crew: Arc<Crew>,
    workers: Vec<JoinHandle<()>>,
    queue: Mutex<Queue>,
    moved_up: Condvar,
    /// Working memory of each thread, kept from run to run.
    scratch: Vec<Mutex<Vec<f32>>>,
    /// Working memory of a whole run, kept likewise.
    shared: Mutex<Vec<f32>>,
}

/// The turnstile: numbers drawn, and the number whose turn it is.
#[derive(Default)]
struct Queue {
    next_ticket: u64,
    serving: u64,
}

/// The right to run tasks on the team until dropped.
pub struct Turn<'a> {
    team: &'a Team,
    /// One thread at a time may call `run`: a turn may move to another thread but not be shared.
    not_sync: PhantomData<Cell<()>>,
}

/// Locks even where a panicking task left a lock behind: what these locks guard has no broken state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Team {
    /// Starts a team of `n_threads`, the caller of [`Turn::run`] being one of them.
    ///
    /// Where the system refuses more threads, the team is as large as it could get.
    pub fn new(n_threads: NonZeroUsize, isa: Isa) -> Arc<Self> {
        let crew = Arc::new(Crew::new(n_threads.get() - 1));
        let mut workers = Vec::with_capacity(n_threads.get() - 1);
        for worker_idx in 1..n_threads.get() {
            let joined = Arc::clone(&crew);
            let name = format!("ingle-team-{worker_idx}");
            let started = std::thread::Builder::new()
                .name(name)
                .spawn(move || joined.work(worker_idx));
            match started {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
        }
        crew.introduce(
            workers
                .iter()
                .map(|worker| worker.thread().clone())
                .collect(),
        );
        let scratch = (0..=workers.len()).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            isa,
            crew,
            workers,
            queue: Mutex::default(),
            moved_up: Condvar::new(),
            scratch,
            shared: Mutex::default(),
        })
    }

    /// How many threads work on a run.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Waits for its turn, first come, first served.
    pub fn take_turn(&self) -> Turn<'_> {
        let mut queue = lock(&self.queue);
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        while queue.serving != ticket {
            queue = self
                .moved_up
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            team: self,
            not_sync: PhantomData,
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.crew.dismiss();
        for worker in self.workers.drain(..) {
            // A worker contains its tasks' panics, so there is nothing to hear from it.
            drop(worker.join());
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team")
            .field("isa", &self.isa)
            .field("n_threads", &self.n_threads())
            .finish_non_exhaustive()
    }
}

impl Turn<'_> {
    /// The instructions to use.
    pub fn isa(&self) -> Isa {
        self.team.isa
    }

    /// How many threads work on a run.
    pub fn n_threads(&self) -> usize {
        self.team.n_threads()
    }

    /// Calls `task` with every number below `n_tasks`, each once, on all threads, and waits for the end.
    ///
    /// Panics: when a task panicked, with its payload, after all tasks that had begun have ended.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_workers(n_tasks, &|_, task_idx| task(task_idx));
    }

    /// Like [`Turn::run`], with working memory of `len` values for each task; its content is arbitrary.
    pub(crate) fn run_with_scratch(
        &self,
        n_tasks: usize,
        len: usize,
        task: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        let scratch = &self.team.scratch;
        self.run_workers(n_tasks, &|worker_idx, task_idx| {
            // One worker, one lock: nobody else ever waits for it.
            let mut memory = lock(&scratch[worker_idx]);
            if memory.len() < len {
                memory.resize(len, 0.0);
            }
            task(task_idx, &mut memory[..len]);
        });
    }

    /// Calls `work` with memory of `len` values for all its tasks; its content is arbitrary.
    pub(crate) fn with_shared_memory(&self, len: usize, work: &dyn Fn(&mut [f32])) {
        // Only the turn's holder comes here, and not twice at once: nobody waits.
        let mut memory = lock(&self.team.shared);
        if memory.len() < len {
            memory.resize(len, 0.0);
        }
        work(&mut memory[..len]);
    }

    /// Runs `task(worker_idx, task_idx)`.
    fn run_workers(&self, n_tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if n_tasks <= 1 || self.n_threads() == 1 {
            (0..n_tasks).for_each(|task_idx| task(0, task_idx));
            return;
        }
        let tasks = Handout::new(n_tasks, task);
        self.team.crew.run(&|worker_idx| tasks.work(worker_idx));
        if let Some(payload) = tasks
            .panic
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            resume_unwind(payload);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.team.queue).serving += 1;
        self.team.moved_up.notify_all();
    }
}

/// Numbered tasks, and who takes which.
struct Handout<'a> {
    next: AtomicUsize,
    n_tasks: usize,
    call: &'a (dyn Fn(usize, usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> Handout<'a> {
    fn new(n_tasks: usize, task: &'a (dyn Fn(usize, usize) + Sync)) -> Self {
        Self {
            next: AtomicUsize::new(0),
            n_tasks,
            call: task,
            panic: Mutex::new(None),
        }
    }

    /// Takes tasks until none is left; keeps the first panic for the caller.
    fn work(&self, worker_idx: usize) {
        loop {
            let task_idx = self.next.fetch_add(1, Ordering::Relaxed);
            if task_idx >= self.n_tasks {
                return;
            }
            let ran = catch_unwind(AssertUnwindSafe(|| (self.call)(worker_idx, task_idx)));
            if let Err(payload) = ran {
                lock(&self.panic).get_or_insert(payload);
            }
        }
    }
}

#[cfg(test)]
mod tests;
