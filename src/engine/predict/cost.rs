//! What a step costs, learned from the steps there were.

/// The least time a step is taken to need. Units: seconds.
const LEAST: f64 = 1e-6;
/// What a step's time is made of: the step itself, prompt tokens, decodes, and the positions that each of both attends to.
const N_TERMS: usize = 5;
/// Terms are of the size of 1 in a full step, so that none drowns in the arithmetic.
const SCALES: [f64; N_TERMS] = [1.0, 128.0, 16.0, 128_000.0, 16_000.0];
/// Steps of one kind that are remembered; older ones fade.
const MEMORY: f64 = 32.0;
/// Steps after which the pace of the machine counts half.
const PACE_HALF_LIFE: f64 = 24.0;
/// A step may move what is known of its kind by so many times that kind's usual deviation.
const CLIP: f64 = 3.0;
/// Bounds of the kinds: prompt tokens and decodes below them.
const PROMPT_BOUNDS: [u32; 3] = [1, 48, 112];
const DECODE_BOUNDS: [u32; 7] = [1, 2, 3, 5, 9, 15, 33];
const N_KINDS: usize = (PROMPT_BOUNDS.len() + 1) * (DECODE_BOUNDS.len() + 1);

/// What a step computes, as far as it costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepShape {
    /// Tokens of prompts.
    pub n_prompt_tokens: u32,
    /// Positions these attend to, all together.
    pub prompt_context: f64,
    /// Sequences that decode one token.
    pub n_decodes: u32,
    /// Positions these attend to, all together.
    pub decode_context: f64,
}

impl StepShape {
    fn terms(&self) -> [f64; N_TERMS] {
        [
            1.0,
            f64::from(self.n_prompt_tokens),
            f64::from(self.n_decodes),
            self.prompt_context,
            self.decode_context,
        ]
    }

    fn kind(&self) -> usize {
        let prompt = PROMPT_BOUNDS.partition_point(|bound| *bound <= self.n_prompt_tokens);
        let decode = DECODE_BOUNDS.partition_point(|bound| *bound <= self.n_decodes);
        prompt * (DECODE_BOUNDS.len() + 1) + decode
    }
}

/// The time of a step as a sum of what it computes. Units: seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepCost {
    /// Of each term: the step itself, a prompt token, a decode, and a position that each attends to.
    per: [f64; N_TERMS],
}

impl StepCost {
    /// Units: seconds.
    pub fn of(&self, shape: &StepShape) -> f64 {
        let terms = self.per.iter().zip(shape.terms());
        terms.map(|(per, n)| per * n).sum::<f64>().max(LEAST)
    }

    /// So many consecutive steps, of which `first` is the first: each decode attends to one position more in
    /// each step, and prompts of one sequence to what the steps before computed. Units: seconds.
    pub(super) fn of_run(&self, first: &StepShape, n_steps: u32) -> f64 {
        let n = f64::from(n_steps);
        let pairs = n * (n - 1.0) / 2.0;
        let mut terms = first.terms().map(|term| term * n);
        terms[3] += f64::from(first.n_prompt_tokens).powi(2) * pairs;
        terms[4] += f64::from(first.n_decodes) * pairs;
        let terms = self.per.iter().zip(terms);
        terms.map(|(per, n)| per * n).sum::<f64>().max(LEAST * n)
    }

    /// Every step waits so long before it. Units: seconds.
    pub(super) fn with_wait(mut self, wait: f64) -> Self {
        self.per[0] += wait;
        self
    }

    /// Everything so many times as dear.
    #[must_use]
    pub fn times(mut self, times: f64) -> Self {
        self.per.iter_mut().for_each(|per| *per *= times);
        self
    }
}

/// The mean of the steps of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    n_steps: f64,
    terms: [f64; N_TERMS],
    seconds: f64,
    /// Mean distance from what was expected, relative.
    deviation: f64,
}

/// Learns a [`StepCost`]. Steps are gathered by kind, so that the many of one kind do not make it forget the
/// few of another; one that took strangely long counts for little; and what the whole machine does at the
/// moment (its pace) is followed faster than what a kind costs beside another.
#[derive(Clone, Debug)]
pub struct CostFit {
    kinds: [Kind; N_KINDS],
    cost: StepCost,
    pace: f64,
    n_steps: u64,
}

impl Default for CostFit {
    fn default() -> Self {
        Self {
            kinds: [Kind::default(); N_KINDS],
            cost: StepCost::default(),
            pace: 1.0,
            n_steps: 0,
        }
    }
}

impl CostFit {
    /// Counts a step that took so long. Units: seconds.
    pub fn add(&mut self, shape: &StepShape, seconds: f64) {
        if !(seconds.is_finite() && seconds > 0.0) {
            return;
        }
        let terms = shape.terms();
        let kind = &mut self.kinds[shape.kind()];
        let is_new = kind.n_steps == 0.0;
        let expected = if is_new || self.n_steps == 0 {
            seconds
        } else {
            self.cost.of(shape)
        };
        let off = seconds / expected - 1.0;
        let clip = if kind.n_steps < 4.0 {
            1.0
        } else {
            (CLIP * kind.deviation).max(0.02)
        };
        let off = off.clamp(-clip, clip);
        let part = 1.0 / (kind.n_steps + 1.0).min(MEMORY);
        kind.n_steps = (kind.n_steps + 1.0).min(MEMORY);
        kind.deviation += part * (off.abs() - kind.deviation);
        kind.seconds += part * (expected * (1.0 + off) - kind.seconds);
        for (mean, term) in kind.terms.iter_mut().zip(terms) {
            *mean += part * (term - *mean);
        }
        self.n_steps += 1;
        self.cost = fit(&self.kinds);
        let part = 1.0 - (-1.0 / PACE_HALF_LIFE).exp2();
        let pace = (seconds / self.cost.of(shape)).clamp(1.0 - clip.min(0.5), 1.0 + clip);
        self.pace += part * (pace - self.pace);
    }

    /// What a step costs now; absent until one was measured.
    pub fn cost(&self) -> Option<StepCost> {
        (self.n_steps > 0).then(|| self.cost.times(self.pace))
    }
}

/// The costs that make the mean steps of all kinds right as nearly as may be, relative to their time; none is
/// less than nothing.
fn fit(kinds: &[Kind; N_KINDS]) -> StepCost {
    let mut normal = [[0.0; N_TERMS]; N_TERMS];
    let mut right = [0.0; N_TERMS];
    for kind in kinds.iter().filter(|kind| kind.n_steps > 0.0) {
        let scaled: [f64; N_TERMS] =
            std::array::from_fn(|term| kind.terms[term] / SCALES[term] / kind.seconds);
        // Kinds count alike, whatever the number of their steps, once they are known.
        let weight = kind.n_steps.min(8.0);
        for row in 0..N_TERMS {
            right[row] += weight * scaled[row];
            for column in 0..N_TERMS {
                normal[row][column] += weight * scaled[row] * scaled[column];
            }
        }
    }
    let greatest = (0..N_TERMS)
        .map(|term| normal[term][term])
        .fold(0.0, f64::max);
    for (term, row) in normal.iter_mut().enumerate() {
        row[term] += 1e-6 * greatest;
    }
    let mut is_free = [true; N_TERMS];
    loop {
        let solution = solve(&normal, &right, is_free);
        let least = (0..N_TERMS)
            .filter(|term| is_free[*term] && solution[*term] < 0.0)
            .min_by(|a, b| solution[*a].total_cmp(&solution[*b]));
        let Some(least) = least else {
            let per = std::array::from_fn(|term| solution[term] / SCALES[term]);
            return StepCost { per };
        };
        is_free[least] = false;
    }
}

/// Gauss's elimination on the terms that are free; the others are 0. The matrix is positive definite.
fn solve(
    normal: &[[f64; N_TERMS]; N_TERMS],
    right: &[f64; N_TERMS],
    is_free: [bool; N_TERMS],
) -> [f64; N_TERMS] {
    let (mut matrix, mut x) = (*normal, *right);
    for term in 0..N_TERMS {
        if !is_free[term] {
            matrix[term] = [0.0; N_TERMS];
            for row in &mut matrix {
                row[term] = 0.0;
            }
            matrix[term][term] = 1.0;
            x[term] = 0.0;
        }
    }
    for pivot in 0..N_TERMS {
        let row = matrix[pivot];
        for other in pivot + 1..N_TERMS {
            let factor = matrix[other][pivot] / row[pivot];
            for column in pivot..N_TERMS {
                matrix[other][column] -= factor * row[column];
            }
            x[other] -= factor * x[pivot];
        }
    }
    for pivot in (0..N_TERMS).rev() {
        for column in pivot + 1..N_TERMS {
            x[pivot] -= matrix[pivot][column] * x[column];
        }
        x[pivot] /= matrix[pivot][pivot];
    }
    x
}
