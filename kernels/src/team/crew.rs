//! The threads of a team: how a job reaches them, and how they are known to have left it.
//!
//! One word holds the job's number, whether it is open, and how many workers are in it. A worker joins
//! an open job by counting itself in with a compare-and-swap; the caller closes the job once the tasks
//! are taken and waits only for those inside. A worker that was asleep or descheduled meanwhile finds
//! the job closed and never touches it, so nobody waits for it.

use std::cell::UnsafeCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a worker stays awake after a job: the gaps between a step's operations are shorter.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the job between two looks at the clock.
const LOOKS: u32 = 64;
/// Looks the caller takes at the workers before it lets others run.
const PATIENCE: u32 = 20_000;

/// Set while workers may join the job.
const OPEN: u64 = 1 << 31;
/// The count of workers inside the job.
const INSIDE: u64 = OPEN - 1;
/// One job further.
const NUMBER: u64 = 1 << 32;

/// What a worker does for a job, given its index.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// Keeps what workers poll apart from what the caller writes.
#[repr(align(128))]
struct Line<T>(T);

/// What the caller and the workers share.
pub(super) struct Crew {
    state: Line<AtomicU64>,
    /// The job while it is open or somebody is inside.
    job: UnsafeCell<Option<Job<'static>>>,
    /// Which workers sleep, or are about to.
    asleep: Vec<Line<AtomicBool>>,
    threads: OnceLock<Vec<Thread>>,
    dismissed: AtomicBool,
}

// SAFETY: `job` is written only by the caller of `run` while the job is closed and nobody is inside,
// and read only by workers inside an open job; `state` orders the two. All else is Sync by itself.
unsafe impl Sync for Crew {}

impl Crew {
    pub(super) fn new(n_workers: usize) -> Self {
        Self {
            state: Line(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            asleep: (0..n_workers)
                .map(|_| Line(AtomicBool::new(false)))
                .collect(),
            threads: OnceLock::new(),
            dismissed: AtomicBool::new(false),
        }
    }

    /// Tells whom to wake; once, before the first job.
    pub(super) fn introduce(&self, threads: Vec<Thread>) {
        self.threads.get_or_init(|| threads);
    }

    /// Ends all workers.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        for thread in self.threads.get().into_iter().flatten() {
            thread.unpark();
        }
    }

    /// Calls `job(0)` here while workers call `job(worker_idx)`; returns when all of them have.
    ///
    /// The job must not unwind, and one thread at a time may call this: the turn sees to both.
    pub(super) fn run(&self, job: Job<'_>) {
        // SAFETY: only the lifetime changes. Workers use the job only while they are inside, and this
        // function returns only after the job is closed and nobody is.
        let job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        // SAFETY: the last job is closed and nobody is inside, so no worker reads.
        unsafe { *self.job.get() = Some(job) };
        // The worker's half: it says that it sleeps, then looks at the state. SeqCst on both sides
        // makes it impossible that each misses the other.
        self.state.0.fetch_add(NUMBER | OPEN, Ordering::SeqCst);
        for (asleep, thread) in self
            .asleep
            .iter()
            .zip(self.threads.get().into_iter().flatten())
        {
            if asleep.0.load(Ordering::SeqCst) && asleep.0.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        job(0);
        self.close();
    }

    /// Lets nobody in any more and waits for those inside.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0_u32;
        while state & INSIDE != 0 {
            if looks < PATIENCE {
                looks += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    /// The life of a worker.
    pub(super) fn work(&self, worker_idx: usize) {
        let mut last_number = 0;
        while let Some(state) = self.await_job(worker_idx, last_number) {
            let inside = self.state.0.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if inside.is_err() {
                continue;
            }
            last_number = state / NUMBER;
            // SAFETY: this worker is counted inside an open job, so nobody writes the cell.
            if let Some(job) = unsafe { *self.job.get() } {
                job(worker_idx);
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state of an open job other than the last one; none when dismissed.
    fn await_job(&self, worker_idx: usize, last_number: u64) -> Option<u64> {
        let mut awake_since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let state = self.state.0.load(Ordering::Acquire);
                if state & OPEN != 0 && state / NUMBER != last_number {
                    return Some(state);
                }
                std::hint::spin_loop();
            }
            if self.dismissed.load(Ordering::SeqCst) {
                return None;
            }
            if awake_since.elapsed() > SPIN {
                self.sleep(worker_idx, last_number);
                awake_since = Instant::now();
            }
        }
    }

    /// Sleeps until woken, unless there is a job or an end to see already.
    fn sleep(&self, worker_idx: usize, last_number: u64) {
        let asleep = &self.asleep[worker_idx - 1].0;
        asleep.store(true, Ordering::SeqCst);
        let state = self.state.0.load(Ordering::SeqCst);
        let has_job = state & OPEN != 0 && state / NUMBER != last_number;
        if !has_job && !self.dismissed.load(Ordering::SeqCst) {
            std::thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
    }
}
