//! What the next step computes: continuous batching over a paged cache.
//!
//! The law, in order:
//! 1. Running sequences that need one token computed (decodes) come first, oldest first. One that
//!    needs a block when none is free takes it from a paused sequence, else from the youngest: that
//!    one gives all its blocks back and waits again, to be computed again later (its tokens stay).
//! 2. If nobody had to give blocks back, waiting sequences are admitted in the order they came, as
//!    long as blocks suffice for their whole prompt and one more for everybody who runs.
//! 3. What is left of the prompt budget goes to running prompts, oldest first.
//!
//! Paused sequences are skipped everywhere, and give way to whoever could run instead. The oldest
//! sequence that is not paused is never preempted for another, and alone it always fits: so every
//! request ends.
//!
//! Pure: no clock, no channel, no tensor.

use std::collections::VecDeque;

use super::blocks::BlockAllocator;
use super::predict::{SequenceLoad, StepShape};
use super::sequence::{SeqId, Sequence, count};

/// Bounds of a step, all at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "each is the most there may be")]
pub(super) struct StepLimits {
    /// Sequences that hold blocks; a step can always decode all of them.
    pub(super) max_running: usize,
    /// Tokens of a step.
    pub(super) max_batch_tokens: usize,
    /// Prompt tokens of a step.
    pub(super) max_prompt_tokens: usize,
}

/// Consecutive tokens of one sequence that a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) seq: SeqId,
    /// Position of the first token.
    pub(super) start: u32,
    pub(super) n_tokens: u32,
    /// A token is to be drawn after the last one.
    pub(super) wants_logits: bool,
}

/// What one step computes: at most one row per sequence, decodes first.
#[derive(Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StepPlan {
    pub(super) rows: Vec<Row>,
}

/// The sequences of an engine and the blocks they hold.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Scheduler {
    limits: StepLimits,
    blocks: BlockAllocator,
    /// Without blocks, oldest first.
    waiting: VecDeque<Sequence>,
    /// With blocks, oldest first.
    running: Vec<Sequence>,
    n_preempted: u64,
}

impl StepPlan {
    /// What it costs.
    pub(super) fn shape(&self) -> StepShape {
        let mut shape = StepShape::default();
        for row in &self.rows {
            let (start, n) = (f64::from(row.start), f64::from(row.n_tokens));
            let context = n * start + n * (n + 1.0) / 2.0;
            if row.n_tokens == 1 {
                shape.n_decodes += 1;
                shape.decode_context += context;
            } else {
                shape.n_prompt_tokens += row.n_tokens;
                shape.prompt_context += context;
            }
        }
        shape
    }
}

impl Scheduler {
    /// Nobody waits, all blocks are free.
    pub(super) fn new(limits: StepLimits, n_blocks: u32) -> Self {
        Self {
            limits,
            blocks: BlockAllocator::new(n_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            n_preempted: 0,
        }
    }

    /// Takes a sequence in, younger than all others. The caller bounds how many, and lets none in
    /// that would not fit alone.
    pub(super) fn submit(&mut self, sequence: Sequence) {
        debug_assert!(
            self.waiting.back().is_none_or(|last| last.id < sequence.id),
            "ids ascend"
        );
        self.waiting.push_back(sequence);
    }

    /// Decides the next step. Empty when there is nobody, or everybody is paused.
    pub(super) fn schedule(&mut self) -> StepPlan {
        let mut plan = StepPlan::default();
        let n_preempted = self.n_preempted;
        self.plan_decodes(&mut plan);
        if self.n_preempted == n_preempted {
            self.admit();
        }
        self.plan_prompts(&mut plan);
        plan
    }

    /// A sequence by its number.
    pub(super) fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        match self.running_index(id) {
            Ok(index) => Some(&self.running[index]),
            Err(_) => self.waiting.iter().find(|sequence| sequence.id == id),
        }
    }

    /// A sequence by its number.
    pub(super) fn sequence_mut(&mut self, id: SeqId) -> Option<&mut Sequence> {
        match self.running_index(id) {
            Ok(index) => Some(&mut self.running[index]),
            Err(_) => self.waiting.iter_mut().find(|sequence| sequence.id == id),
        }
    }

    /// Takes a sequence out, wherever it is; its blocks are free at once.
    pub(super) fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let mut sequence = if let Ok(index) = self.running_index(id) {
            self.running.remove(index)
        } else {
            let index = self.waiting.iter().position(|sequence| sequence.id == id)?;
            self.waiting.remove(index)?
        };
        self.release_blocks(&mut sequence);
        Some(sequence)
    }

    /// Writes down who runs and who waits, in place of what was there.
    pub(super) fn post(&self, running: &mut Vec<SequenceLoad>, waiting: &mut Vec<SequenceLoad>) {
        running.clear();
        running.extend(self.running.iter().map(Sequence::load));
        waiting.clear();
        waiting.extend(self.waiting.iter().map(Sequence::load));
    }

    /// Sequences with blocks.
    pub(super) fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Sequences with blocks that wait for their reader.
    pub(super) fn n_paused(&self) -> usize {
        self.running
            .iter()
            .filter(|sequence| sequence.paused)
            .count()
    }

    /// Blocks of the cache.
    pub(super) fn n_blocks(&self) -> usize {
        self.blocks.n_blocks()
    }

    /// Blocks nobody holds.
    pub(super) fn n_free_blocks(&self) -> usize {
        self.blocks.n_free()
    }

    /// Times a sequence gave its blocks back.
    pub(super) fn n_preempted(&self) -> u64 {
        self.n_preempted
    }

    fn plan_decodes(&mut self, plan: &mut StepPlan) {
        let decodes = self.running.iter().filter(|sequence| is_decode(sequence));
        let ids: Vec<SeqId> = decodes.map(|sequence| sequence.id).collect();
        for id in ids {
            if self.grow(id) {
                plan.rows
                    .extend(self.sequence(id).map(|sequence| row(sequence, 1)));
            }
        }
    }

    /// Makes room for one more token of a decode. False if it had to give way itself.
    fn grow(&mut self, id: SeqId) -> bool {
        loop {
            let Ok(index) = self.running_index(id) else {
                return false;
            };
            let sequence = &mut self.running[index];
            if sequence.n_slots() > sequence.n_computed as usize {
                return true;
            }
            if let Some(block) = self.blocks.allocate() {
                sequence.block_table.push(block);
            } else if !self.preempt_paused() {
                self.preempt(self.running.len() - 1);
            }
        }
    }

    fn admit(&mut self) {
        while let Some(index) = self.waiting.iter().position(|sequence| !sequence.paused) {
            let n_wanted = self.waiting[index].n_blocks_wanted();
            while !self.has_room_for(n_wanted) && self.preempt_paused() {}
            // Preempting may have put paused sequences before it.
            let next = self.waiting.iter().position(|sequence| !sequence.paused);
            let (true, Some(index)) = (self.has_room_for(n_wanted), next) else {
                return;
            };
            let Some(mut sequence) = self.waiting.remove(index) else {
                return;
            };
            let blocks = &mut self.blocks;
            sequence
                .block_table
                .extend(std::iter::from_fn(|| blocks.allocate()).take(n_wanted));
            let place = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(place, sequence);
        }
    }

    /// Whether one more sequence may run on `n_wanted` blocks, one left over for each who runs, so
    /// that it is not preempted soon after. Alone, it may take them all.
    fn has_room_for(&self, n_wanted: usize) -> bool {
        let n_running = self.running.len();
        n_running < self.limits.max_running && n_wanted + n_running <= self.blocks.n_free()
    }

    fn plan_prompts(&self, plan: &mut StepPlan) {
        let n_left = self.limits.max_batch_tokens.saturating_sub(plan.rows.len());
        let mut budget = count(n_left.min(self.limits.max_prompt_tokens));
        for sequence in self.running.iter().filter(|sequence| !sequence.paused) {
            let planned = plan.rows.iter().any(|row| row.seq == sequence.id);
            let n_tokens = sequence.n_pending().min(budget);
            if !planned && n_tokens > 0 {
                plan.rows.push(row(sequence, n_tokens));
                budget -= n_tokens;
            }
        }
    }

    /// Takes the blocks of the youngest paused sequence; false if none is paused.
    fn preempt_paused(&mut self) -> bool {
        let index = self.running.iter().rposition(|sequence| sequence.paused);
        index.is_some_and(|index| {
            self.preempt(index);
            true
        })
    }

    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.release_blocks(&mut sequence);
        self.n_preempted += 1;
        let place = self.waiting.partition_point(|other| other.id < sequence.id);
        self.waiting.insert(place, sequence);
    }

    fn release_blocks(&mut self, sequence: &mut Sequence) {
        for block in sequence.block_table.drain(..).rev() {
            self.blocks.release(block);
        }
        sequence.n_computed = 0;
    }

    fn running_index(&self, id: SeqId) -> Result<usize, usize> {
        self.running
            .binary_search_by_key(&id, |sequence| sequence.id)
    }
}

fn is_decode(sequence: &Sequence) -> bool {
    !sequence.paused && sequence.n_pending() == 1
}

fn row(sequence: &Sequence, n_tokens: u32) -> Row {
    Row {
        seq: sequence.id,
        start: sequence.n_computed,
        n_tokens,
        wants_logits: n_tokens == sequence.n_pending() && sequence.wants_token(),
    }
}
