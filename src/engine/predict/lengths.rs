//! How long answers are, learned from those there were.

use std::sync::LazyLock;

/// Lengths that are told apart: four an octave, so a length is known to a fifth.
const N_BUCKETS: usize = 72;
/// Answers after which an answer counts half.
const HALF_LIFE: f32 = 200.0;
/// Before any is known, answers end after so many tokens on the average. Units: tokens.
const MEAN_AT_FIRST: f32 = 256.0;
/// As many answers as that counts for.
const WEIGHT_AT_FIRST: f32 = 2.0;

/// How likely an answer goes on, by the tokens it has. Answers cut short by their bound tell that they were
/// at least so long, and no more.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputLengths {
    /// Answers that ended by themselves with so many tokens, by bucket.
    ended: [f32; N_BUCKETS],
    /// Answers that were cut.
    cut: [f32; N_BUCKETS],
    /// The share of answers that are longer than each bucket's lower bound.
    survival: [f32; N_BUCKETS + 1],
}

/// The least length of each bucket, and where the last one ends. The lengths below 8 have a bucket each, so
/// that quarters of octaves above are no less than a token.
static BOUNDS: LazyLock<[f32; N_BUCKETS + 1]> = LazyLock::new(|| {
    std::array::from_fn(|bucket| match u16::try_from(bucket).unwrap_or(u16::MAX) {
        bucket @ 0..8 => f32::from(bucket),
        bucket => (3.0 + f32::from(bucket - 8) / 4.0).exp2(),
    })
});

fn bucket(n_tokens: f32) -> usize {
    let after = BOUNDS.partition_point(|bound| *bound <= n_tokens);
    after.clamp(1, N_BUCKETS) - 1
}

impl Default for OutputLengths {
    fn default() -> Self {
        let mut lengths = Self {
            ended: [0.0; N_BUCKETS],
            cut: [0.0; N_BUCKETS],
            survival: [1.0; N_BUCKETS + 1],
        };
        lengths.refresh();
        lengths
    }
}

impl OutputLengths {
    /// Counts an answer that ended by itself after so many tokens.
    pub fn ended(&mut self, n_tokens: u32) {
        self.fade();
        self.ended[bucket(n_tokens as f32)] += 1.0;
        self.refresh();
    }

    /// Counts an answer that would have gone on after so many tokens.
    pub fn cut(&mut self, n_tokens: u32) {
        self.fade();
        self.cut[bucket(n_tokens as f32)] += 1.0;
        self.refresh();
    }

    /// The length that a share `u` of the answers do not exceed that have `n_generated` tokens already; at
    /// least one more, at most `n_most`.
    pub fn quantile(&self, n_generated: u32, u: f32, n_most: u32) -> u32 {
        let aim = self.survival_at(n_generated as f32) * (1.0 - u);
        let after = self.survival.partition_point(|share| *share > aim);
        let length = if after > N_BUCKETS {
            u32::MAX
        } else {
            let before = after.saturating_sub(1);
            let (low, high) = (BOUNDS[before], BOUNDS[before + 1]);
            let (from, to) = (self.survival[before], self.survival[after.max(1)]);
            let part = if from > to {
                (from - aim) / (from - to)
            } else {
                1.0
            };
            whole(low + part.clamp(0.0, 1.0) * (high - low))
        };
        length.max(n_generated.saturating_add(1)).min(n_most)
    }

    fn survival_at(&self, n_tokens: f32) -> f32 {
        let bucket = bucket(n_tokens);
        let (low, high) = (BOUNDS[bucket], BOUNDS[bucket + 1]);
        let part = ((n_tokens - low) / (high - low)).clamp(0.0, 1.0);
        let (from, to) = (self.survival[bucket], self.survival[bucket + 1]);
        from + part * (to - from)
    }

    fn fade(&mut self) {
        let factor = (-1.0 / HALF_LIFE).exp2();
        for count in self.ended.iter_mut().chain(&mut self.cut) {
            *count *= factor;
        }
    }

    fn refresh(&mut self) {
        let mut at_risk: f32 = self.ended.iter().chain(&self.cut).sum();
        for bucket in 0..N_BUCKETS {
            let width = BOUNDS[bucket + 1] - BOUNDS[bucket];
            let at_first = 1.0 - (-width / MEAN_AT_FIRST).exp();
            // Who was cut within the bucket was at risk in half of it.
            let risk = at_risk - self.cut[bucket] / 2.0;
            let hazard =
                (self.ended[bucket] + WEIGHT_AT_FIRST * at_first) / (risk + WEIGHT_AT_FIRST);
            self.survival[bucket + 1] = self.survival[bucket] * (1.0 - hazard).clamp(0.0, 1.0);
            at_risk = (at_risk - self.ended[bucket] - self.cut[bucket]).max(0.0);
        }
    }
}

/// The nearest whole number of tokens.
fn whole(tokens: f32) -> u32 {
    // Saturates, and no length comes near.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length is no less than 0 and far below the greatest number"
    )]
    {
        tokens.round() as u32
    }
}
