//! How right predictions were: what came, over what was predicted.

use super::prediction::{Prediction, Quantiles};

/// Ratios that are told apart, eight an octave, from a sixteenth to sixteen times.
const N_BUCKETS: usize = 64;
const PER_OCTAVE: f32 = 8.0;
/// Answers after which an answer counts half.
const HALF_LIFE: f32 = 128.0;
/// As many answers as the belief that predictions are right counts for.
const BELIEF: f32 = 16.0;
/// The least and the greatest that a prediction is corrected by.
const CORRECTION: (f32, f32) = (0.25, 4.0);

/// Ratios of actual to predicted times, counted by size; older ones fade.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios {
    counts: [f32; N_BUCKETS],
}

/// Ratios of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioBucket {
    /// No ratio in it is greater.
    pub most: f32,
    /// How many there are, the older ones counting for less.
    pub n: f32,
}

impl Default for Ratios {
    fn default() -> Self {
        Self {
            counts: [0.0; N_BUCKETS],
        }
    }
}

impl Ratios {
    /// Counts one.
    pub fn add(&mut self, ratio: f32) {
        if ratio.is_nan() {
            return;
        }
        let fade = (-1.0 / HALF_LIFE).exp2();
        self.counts.iter_mut().for_each(|count| *count *= fade);
        let index = (0..N_BUCKETS - 1).find(|index| ratio <= most(*index));
        self.counts[index.unwrap_or(N_BUCKETS - 1)] += 1.0;
    }

    /// The ratio that a `share` of them does not exceed; 1 as long as few are known.
    pub fn quantile(&self, share: f32) -> f32 {
        let n: f32 = self.counts.iter().sum();
        let mut left = share * n;
        let mut ratio = 1.0;
        for (index, count) in self.counts.iter().enumerate() {
            if *count > 0.0 && left <= *count {
                // Within a bucket they are taken to be spread evenly.
                let part = left.max(0.0) / count;
                ratio = most(index) * ((part - 1.0) / PER_OCTAVE).exp2();
                break;
            }
            left -= count;
        }
        ratio.powf(n / (n + BELIEF))
    }

    /// How many of each size there are, for a plot.
    pub fn buckets(&self) -> impl Iterator<Item = RatioBucket> {
        let bucket = |(index, n): (usize, &f32)| RatioBucket {
            most: most(index),
            n: *n,
        };
        self.counts.iter().enumerate().map(bucket)
    }
}

/// The greatest ratio of a bucket.
fn most(index: usize) -> f32 {
    let index = f32::from(u16::try_from(index).unwrap_or(u16::MAX));
    ((index + 1.0) / PER_OCTAVE - 4.0).exp2()
}

/// What came of predictions of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Actual over the twentieth part that was predicted.
    pub to_p05: Ratios,
    /// Actual over the median that was predicted.
    pub to_p50: Ratios,
    /// Actual over the ninetieth percentile that was predicted.
    pub to_p90: Ratios,
}

impl Record {
    fn add(&mut self, predicted: &Quantiles, seconds: f64) {
        let ratio = |predicted: f64| narrow(seconds / predicted.max(1e-6));
        self.to_p05.add(ratio(predicted.p05));
        self.to_p50.add(ratio(predicted.p50));
        self.to_p90.add(ratio(predicted.p90));
    }

    fn correct(&self, raw: &Quantiles) -> Quantiles {
        let (least, most) = CORRECTION;
        let low = f64::from(self.to_p05.quantile(0.03).clamp(least, most));
        let middle = f64::from(self.to_p50.quantile(0.5).clamp(least, most));
        let high = f64::from(self.to_p90.quantile(0.9).clamp(least, most));
        let p50 = raw.p50 * middle;
        Quantiles {
            p05: (raw.p05 * low).min(p50),
            p50,
            p90: (raw.p90 * high).max(p50),
        }
    }
}

/// What came of an engine's predictions; corrects the next ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// Of the time to the first token.
    pub ttft: Record,
    /// Of the whole time.
    pub total: Record,
}

impl Calibration {
    /// The first token came after so long. Units: seconds.
    pub fn add_ttft(&mut self, raw: &Prediction, seconds: f64) {
        self.ttft.add(&raw.ttft, seconds);
    }

    /// The answer ended after so long. Units: seconds.
    pub fn add_total(&mut self, raw: &Prediction, seconds: f64) {
        self.total.add(&raw.total, seconds);
    }

    /// A prediction with what is known of earlier ones' errors.
    pub(super) fn correct(&self, raw: &Prediction) -> Prediction {
        Prediction {
            ttft: self.ttft.correct(&raw.ttft),
            total: self.total.correct(&raw.total),
        }
    }
}

fn narrow(ratio: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a ratio to three digits")]
    {
        ratio as f32
    }
}
