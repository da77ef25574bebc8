//! What an engine's thread and its callers both see.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::{EngineError, SubmitError};
use super::snapshot::EngineSnapshot;

/// The gate requests come in by, and the figures of the last step.
#[derive(Debug)]
pub(super) struct Shared {
    /// Requests that may wait or run at once.
    max_live: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests submitted and not ended.
    n_live: usize,
    /// When the engine last showed life.
    heartbeat: Instant,
    failed: Option<Arc<str>>,
    figures: EngineSnapshot,
}

impl Shared {
    /// Nobody is there yet.
    pub(super) fn new(max_live: usize, figures: EngineSnapshot) -> Self {
        let state = State {
            n_live: 0,
            heartbeat: Instant::now(),
            failed: None,
            figures,
        };
        Self {
            max_live,
            state: Mutex::new(state),
        }
    }

    /// Lets one more request in.
    ///
    /// Errors: [`SubmitError::QueueFull`], [`SubmitError::Stopped`].
    pub(super) fn enter(&self, now: Instant) -> Result<(), SubmitError> {
        let mut state = self.lock();
        if let Some(reason) = &state.failed {
            let error = EngineError::Failed {
                reason: Arc::clone(reason),
            };
            return Err(SubmitError::Stopped {
                reason: error.to_string(),
            });
        }
        if state.n_live >= self.max_live {
            let n_waiting = state.n_live - state.figures.n_running.min(state.n_live);
            return Err(SubmitError::QueueFull { n_waiting });
        }
        if state.n_live == 0 {
            // It had nothing to do until now.
            state.heartbeat = now;
        }
        state.n_live += 1;
        Ok(())
    }

    /// Requests ended.
    pub(super) fn leave(&self, n_requests: usize) {
        let mut state = self.lock();
        state.n_live = state.n_live.saturating_sub(n_requests);
    }

    /// The engine's thread is through with a step, or looked around; `n_ended` requests ended.
    pub(super) fn publish(&self, figures: EngineSnapshot, n_ended: usize, now: Instant) {
        let mut state = self.lock();
        state.n_live = state.n_live.saturating_sub(n_ended);
        state.heartbeat = now;
        state.figures = figures;
    }

    /// The engine will not answer any more.
    pub(super) fn fail(&self, reason: &Arc<str>) {
        self.lock().failed = Some(Arc::clone(reason));
    }

    /// The figures at `now`.
    pub(super) fn snapshot(&self, now: Instant) -> EngineSnapshot {
        let state = self.lock();
        let age = now.saturating_duration_since(state.heartbeat);
        EngineSnapshot {
            // Those in the channel wait too.
            n_waiting: state.n_live.saturating_sub(state.figures.n_running),
            last_step_age: (state.n_live > 0).then_some(age),
            failed: state.failed.as_ref().map(ToString::to_string),
            ..state.figures.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain figures: whoever panicked with the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn refuses_beyond_its_bound_and_after_a_failure() {
        let shared = Shared::new(2, EngineSnapshot::default());
        let now = Instant::now();
        assert_eq!(shared.enter(now), Ok(()));
        assert_eq!(shared.enter(now), Ok(()));
        assert_eq!(
            shared.enter(now),
            Err(SubmitError::QueueFull { n_waiting: 2 })
        );
        shared.leave(1);
        assert_eq!(shared.enter(now), Ok(()));
        shared.fail(&Arc::from("index out of bounds"));
        let Err(SubmitError::Stopped { reason }) = shared.enter(now) else {
            panic!("let in")
        };
        assert_eq!(reason, "the engine failed: index out of bounds");
    }

    #[test]
    fn the_heart_beats_only_with_something_to_do_and_afresh_after_idling() {
        let shared = Shared::new(2, EngineSnapshot::default());
        let now = Instant::now();
        let later = now + Duration::from_mins(10);
        assert_eq!(shared.snapshot(later).last_step_age, None);
        shared.enter(later).unwrap();
        let stuck = later + Duration::from_secs(70);
        assert_eq!(
            shared.snapshot(stuck).last_step_age,
            Some(Duration::from_secs(70))
        );
        shared.publish(EngineSnapshot::default(), 0, stuck);
        assert_eq!(shared.snapshot(stuck).last_step_age, Some(Duration::ZERO));
        shared.publish(EngineSnapshot::default(), 1, stuck);
        assert_eq!(shared.snapshot(stuck).last_step_age, None);
    }
}
