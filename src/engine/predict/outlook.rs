//! What an engine has before it: everything a prediction needs, at one moment.

use std::time::Duration;

use super::super::scheduler::StepLimits;
use super::calibration::Calibration;
use super::cost::StepCost;
use super::lengths::OutputLengths;
use super::traffic::Traffic;

/// A sequence as far as it takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceLoad {
    /// The place in the order in which requests came.
    pub ticket: u64,
    /// Tokens to compute before the next is drawn; 1 while decoding.
    pub n_pending: u32,
    /// Tokens in the cache.
    pub n_computed: u32,
    /// Tokens drawn.
    pub n_generated: u32,
    /// Tokens that may still be drawn; 0 where only the prompt is wanted.
    pub n_new_most: u32,
    /// Cache blocks it holds.
    pub n_blocks: u32,
}

impl SequenceLoad {
    /// A request that has not begun.
    pub fn new(ticket: u64, n_prompt_tokens: u32, max_new_tokens: u32) -> Self {
        Self {
            ticket,
            n_pending: n_prompt_tokens,
            n_computed: 0,
            n_generated: 0,
            n_new_most: max_new_tokens,
            n_blocks: 0,
        }
    }
}

/// An engine's queue and what it knows of its own speed.
#[derive(Clone, Debug)]
pub struct Outlook {
    pub(in crate::engine) limits: StepLimits,
    /// Tokens one sequence may hold.
    pub n_ctx: u32,
    /// Cache blocks nobody holds.
    pub n_free_blocks: usize,
    /// Sequences with blocks, oldest first.
    pub running: Vec<SequenceLoad>,
    /// Those without, oldest first.
    pub waiting: Vec<SequenceLoad>,
    /// Requests that came since the step under way began, oldest first.
    pub incoming: Vec<SequenceLoad>,
    /// Since the step under way began; absent while there is nothing to do.
    pub step_age: Option<Duration>,
    /// What a step costs; absent until one was measured.
    pub cost: Option<StepCost>,
    /// How long each step waits for other engines to take their turn. Units: seconds.
    pub turn_wait: f64,
    /// How long answers are.
    pub lengths: OutputLengths,
    /// What others send.
    pub traffic: Traffic,
    /// How right predictions were.
    pub calibration: Calibration,
}

impl Outlook {
    /// Whether any request is under way.
    pub fn is_busy(&self) -> bool {
        self.n_live() > 0
    }

    /// Requests that run or wait.
    pub fn n_live(&self) -> usize {
        self.running.len() + self.waiting.len() + self.incoming.len()
    }

    /// The mean time of a step like the next one: what other engines wait for when they share the threads.
    /// Units: seconds; 0 while there is nothing to do.
    pub fn next_step(&self) -> f64 {
        let cost = self.cost.filter(|_| self.is_busy());
        cost.map_or(0.0, |cost| cost.of(&super::replay::next_shape(self)))
    }
}
