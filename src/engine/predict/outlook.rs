//! What an engine has before it: everything a prediction needs, at one moment.

use std::time::Duration;

use super::super::options::EngineOptions;
use super::super::scheduler::StepLimits;
use super::super::sequence::n_blocks_for;
use super::calibration::Calibration;
use super::cost::StepCost;
use super::lengths::OutputLengths;
use super::traffic::Traffic;

/// Tokens of a prompt nothing is known of.
const WAITING_PROMPT_TOKENS: u32 = 512;

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
    /// Of an engine that is not there yet, so fast as is supposed, and for which some wait: of them nothing is
    /// known, so they ask for a middling prompt and for whatever answers have.
    pub fn cold(
        options: &EngineOptions,
        n_ctx: u32,
        (cost, lengths): (StepCost, OutputLengths),
        n_waiting: usize,
    ) -> Self {
        let waiting = SequenceLoad::new(0, WAITING_PROMPT_TOKENS.min(n_ctx), n_ctx);
        let waiting = (0..).map(|ticket| SequenceLoad { ticket, ..waiting });
        Self {
            limits: StepLimits {
                max_running: options.max_running,
                max_batch_tokens: options.prefill_chunk_tokens + options.max_running,
                max_prompt_tokens: options.prefill_chunk_tokens,
            },
            n_ctx,
            // It takes what it finds; how much that is, is not known yet.
            n_free_blocks: options.max_running * n_blocks_for(n_ctx),
            running: Vec::new(),
            waiting: waiting.take(n_waiting.min(options.max_waiting)).collect(),
            incoming: Vec::new(),
            step_age: None,
            cost: Some(cost),
            turn_wait: 0.0,
            lengths,
            traffic: Traffic::default(),
            calibration: Calibration::default(),
        }
    }

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
