//! How an engine does.

use std::time::Duration;

/// An engine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineSnapshot {
    /// Requests that wait for their first step, or wait again after they gave their blocks back.
    pub n_waiting: usize,
    /// Sequences in memory, the paused ones included.
    pub n_running: usize,
    /// Sequences that wait for their reader.
    pub n_paused: usize,
    /// Cache blocks nobody holds.
    pub n_free_blocks: usize,
    /// Cache blocks.
    pub n_blocks: usize,
    /// Prompt tokens evaluated per second of the steps that evaluate any, the decodes beside them
    /// included; absent until measured. Older steps fade, half of their weight every 10 busy seconds.
    pub prefill_tokens_per_second: Option<f64>,
    /// Tokens one sequence gains per second of the steps that decode, the prompts beside it
    /// included; absent until measured. Fades like the other.
    pub decode_tokens_per_second: Option<f64>,
    /// Since the engine last began or ended a step; absent while it has nothing to do. Old means stuck.
    pub last_step_age: Option<Duration>,
    /// Prompt tokens of all requests whose prompt was evaluated.
    pub n_prompt_total: u64,
    /// Tokens generated.
    pub n_generated_total: u64,
    /// Steps computed.
    pub n_steps_total: u64,
    /// Times a sequence gave its blocks back to be computed again later.
    pub n_preempted_total: u64,
    /// Requests that finished.
    pub n_finished_total: u64,
    /// Requests whose receiver went away first.
    pub n_cancelled_total: u64,
    /// Requests that failed.
    pub n_failed_total: u64,
    /// Why the engine will not answer any more; absent while it will.
    pub failed: Option<String>,
}
