//! What is foretold of a request.

/// A time that is not certain. Units: seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quantiles {
    /// One of twenty is sooner.
    pub p05: f64,
    /// As many are sooner as later.
    pub p50: f64,
    /// One of ten is later.
    pub p90: f64,
}

impl Quantiles {
    /// Of equally likely times; they are sorted. Nothing of none.
    pub(super) fn of(times: &mut [f64]) -> Self {
        times.sort_by(f64::total_cmp);
        Self {
            p05: at(times, 0.05),
            p50: at(times, 0.5),
            p90: at(times, 0.9),
        }
    }

    /// All of it later by so much.
    #[must_use]
    pub fn after(self, seconds: Self) -> Self {
        Self {
            p05: self.p05 + seconds.p05,
            p50: self.p50 + seconds.p50,
            p90: self.p90 + seconds.p90,
        }
    }
}

/// Between the sorted times where so great a share lies below.
fn at(times: &[f64], share: f64) -> f64 {
    let n = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let place = (share * f64::from(n) - 0.5).clamp(0.0, f64::from(n.saturating_sub(1)));
    let mut below = 0.0;
    let mut pairs = times.windows(2);
    while below + 1.0 <= place
        && let Some(_) = pairs.next()
    {
        below += 1.0;
    }
    match (pairs.next(), times.last()) {
        (Some(&[low, high]), _) => low + (place - below) * (high - low),
        (_, Some(last)) => *last,
        _ => 0.0,
    }
}

/// How long a request will take from now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Until its first token; of a prompt alone, until it is evaluated.
    pub ttft: Quantiles,
    /// Until its end.
    pub total: Quantiles,
}

impl Prediction {
    /// All of it later by so much, as when a model has to be loaded first.
    #[must_use]
    pub fn after(self, seconds: Quantiles) -> Self {
        Self {
            ttft: self.ttft.after(seconds),
            total: self.total.after(seconds),
        }
    }
}
