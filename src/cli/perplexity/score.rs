//! From logits to figures: likelihoods, divergences, their means and errors. All in double precision.

/// A next-token distribution: logits, and what makes them log-probabilities.
pub(in crate::cli) struct Distribution<'a> {
    logits: &'a [f32],
    /// The logarithm of the sum of their exponentials.
    log_sum: f64,
}

impl<'a> Distribution<'a> {
    /// None where the logits make no distribution: one is not a number, or all are infinite.
    pub(in crate::cli) fn new(logits: &'a [f32]) -> Option<Self> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let most = f64::from(most);
        let exps = logits.iter().map(|logit| (f64::from(*logit) - most).exp());
        let log_sum = most + exps.sum::<f64>().ln();
        log_sum.is_finite().then_some(Self { logits, log_sum })
    }

    /// The log-probability of a token. Units: nats.
    pub(super) fn log_probability(&self, token: usize) -> f64 {
        self.logits
            .get(token)
            .map_or(f64::NEG_INFINITY, |logit| f64::from(*logit) - self.log_sum)
    }

    /// The likeliest token, the first where there are several.
    pub(super) fn best(&self) -> usize {
        let better = |best: usize, token: usize| {
            if self.logits[token] > self.logits[best] {
                token
            } else {
                best
            }
        };
        (0..self.logits.len()).reduce(better).unwrap_or_default()
    }

    /// The Kullback-Leibler divergence KL(self || other). Units: nats.
    pub(in crate::cli) fn divergence(&self, other: &Self) -> f64 {
        let pairs = self.logits.iter().zip(other.logits);
        let term = |(ours, theirs): (&f32, &f32)| {
            let log_p = f64::from(*ours) - self.log_sum;
            let log_q = f64::from(*theirs) - other.log_sum;
            let p = log_p.exp();
            // Nothing comes of what has no probability.
            if p > 0.0 { p * (log_p - log_q) } else { 0.0 }
        };
        pairs.map(term).sum()
    }
}

/// A mean and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) mean: f64,
    /// The standard error of the mean.
    pub(super) error: f64,
}

impl Estimate {
    /// The mean of at least two values.
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (squares / n / (n - 1.0)).sqrt();
        Self { mean, error }
    }

    /// Perplexity, where the mean is of negative log-likelihoods.
    pub(super) fn perplexity(self) -> Self {
        let mean = self.mean.exp();
        Self {
            mean,
            error: mean * self.error,
        }
    }
}

/// The value below which this share of the sorted values lies, between two neighbours in proportion.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share * last as f64;
    // The place lies between 0 and the last.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// What is kept of a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// KL(reference || ours). Units: nats.
    pub(super) divergence: f64,
    /// Whether both hold the same token for the likeliest.
    pub(super) same_best: bool,
}

/// What is kept of all positions.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) divergence: Estimate,
    pub(super) median: f64,
    pub(super) percentile_99: f64,
    pub(super) most: f64,
    /// The share of positions with the same likeliest token.
    pub(super) same_best: f64,
}

impl Comparison {
    /// Over at least two positions.
    pub(super) fn of(positions: &[Compared]) -> Self {
        let mut divergences: Vec<f64> = positions.iter().map(|one| one.divergence).collect();
        let divergence = Estimate::of(&divergences);
        divergences.sort_by(f64::total_cmp);
        let n_same = positions.iter().filter(|one| one.same_best).count();
        Self {
            divergence,
            median: quantile(&divergences, 0.5),
            percentile_99: quantile(&divergences, 0.99),
            most: quantile(&divergences, 1.0),
            same_best: n_same as f64 / positions.len() as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let logits = [2.0_f32.ln(), 5.0_f32.ln(), 3.0_f32.ln()];
        let distribution = Distribution::new(&logits).unwrap();
        for (token, share) in [0.2, 0.5, 0.3_f64].into_iter().enumerate() {
            assert!((distribution.log_probability(token) - share.ln()).abs() < 1e-6);
        }
        assert_eq!(distribution.best(), 1);
        // Far from zero nothing overflows.
        let far = logits.map(|logit| logit + 1e4);
        let far = Distribution::new(&far).unwrap();
        assert!((far.log_probability(1) - 0.5_f64.ln()).abs() < 1e-2);
    }

    #[test]
    fn a_distribution_diverges_from_others_and_never_from_itself() {
        let (a, b) = ([0.0_f32, 0.0], [3.0_f32.ln(), 0.0]);
        let (a, b) = (
            Distribution::new(&a).unwrap(),
            Distribution::new(&b).unwrap(),
        );
        // 1/2 ln (1/2 / 3/4) + 1/2 ln (1/2 / 1/4)
        let expected = 0.5 * (2.0_f64 / 3.0).ln() + 0.5 * 2.0_f64.ln();
        assert!((a.divergence(&b) - expected).abs() < 1e-7);
        assert!(b.divergence(&a) > 0.0);
        assert_eq!((a.divergence(&a), b.divergence(&b)), (0.0, 0.0));
        let never = [0.0, f32::NEG_INFINITY];
        let never = Distribution::new(&never).unwrap();
        assert!(close(never.divergence(&a), 2.0_f64.ln()));
    }

    #[test]
    fn logits_that_are_no_numbers_make_no_distribution() {
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(Distribution::new(&[0.0, broken, 1.0]).is_none());
        }
        assert!(Distribution::new(&[f32::NEG_INFINITY; 2]).is_none());
    }

    #[test]
    fn means_errors_and_quantiles() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let estimate = Estimate::of(&values);
        assert!(close(estimate.mean, 2.5));
        // The sample's deviation by the root of its size.
        assert!(close(estimate.error, (5.0_f64 / 3.0).sqrt() / 2.0));
        let perplexity = estimate.perplexity();
        assert!(close(perplexity.error / perplexity.mean, estimate.error));
        assert!(close(quantile(&values, 0.5), 2.5));
        assert!(close(quantile(&values, 0.99), 3.97));
        assert!(close(quantile(&values, 1.0), 4.0));
    }
}
