//! Tokens per second, measured while working.

use std::time::Duration;

/// Busy time after which a measurement counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// A rate whose older measurements fade with the time spent working since. Idle time does not
/// count: a rate says how fast the engine works, not how much it is asked.
#[derive(Debug, Default)]
pub(super) struct Rate {
    n_tokens: f64,
    seconds: f64,
}

impl Rate {
    /// Counts a step of `n_tokens` that took `time`.
    pub(super) fn add(&mut self, n_tokens: u32, time: Duration) {
        let faded = (-time.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.n_tokens = self.n_tokens * faded + f64::from(n_tokens);
        self.seconds = self.seconds * faded + time.as_secs_f64();
    }

    /// Units: tokens per second; `None` until measured.
    pub(super) fn per_second(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.n_tokens / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_change_and_weighs_by_time() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), None);
        for _ in 0..100 {
            rate.add(10, Duration::from_millis(100));
        }
        assert!((rate.per_second().unwrap() - 100.0).abs() < 1e-9);
        // A half life at a tenth of the rate: about half the weight.
        for _ in 0..100 {
            rate.add(1, Duration::from_millis(100));
        }
        let halfway = rate.per_second().unwrap();
        assert!((30.0..60.0).contains(&halfway), "{halfway}");
        // One token of a long prompt's tail hardly moves it.
        rate.add(1, Duration::from_millis(1));
        assert!((rate.per_second().unwrap() - halfway).abs() < 1.0);
    }
}
