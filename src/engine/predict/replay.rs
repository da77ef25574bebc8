//! The scheduler's law, replayed ahead of time: the same order, the same bounds, as many steps at once as
//! nothing changes in.
//!
//! What it leaves out: paused sequences run on here, as their readers mostly do.

use super::super::sequence::n_blocks_for;
use super::cost::{StepCost, StepShape};
use super::outlook::{Outlook, SequenceLoad};
use crate::model::BLOCK_LEN;

/// Runs of steps that a replay takes at most: what lasts longer is far beyond any deadline.
const RUNS_MOST: usize = 4096;

/// When a sequence is served. Units: seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Served {
    pub(super) first_token: f64,
    pub(super) end: f64,
}

/// A sequence of the replay.
#[derive(Clone, Copy, Debug)]
struct Live {
    ticket: u64,
    n_pending: u32,
    n_computed: u32,
    /// Tokens it will still draw.
    n_left: u32,
    n_blocks: u32,
    /// It has drawn none.
    is_new: bool,
}

impl Live {
    fn new(load: &SequenceLoad, n_left: u32) -> Self {
        Self {
            ticket: load.ticket,
            n_pending: load.n_pending,
            n_computed: load.n_computed,
            n_left,
            n_blocks: load.n_blocks,
            is_new: load.n_generated == 0,
        }
    }

    fn is_decode(&self) -> bool {
        self.n_pending == 1
    }

    fn n_blocks_wanted(&self) -> u32 {
        let n_tokens = self.n_computed + self.n_pending;
        blocks_for(n_tokens.saturating_add(self.n_left.min(1)))
    }

    /// Blocks it lacks to decode so many tokens.
    fn n_blocks_lacking(&self, n_steps: u32) -> u32 {
        blocks_for(self.n_computed.saturating_add(n_steps)).saturating_sub(self.n_blocks)
    }
}

fn blocks_for(n_tokens: u32) -> u32 {
    u32::try_from(n_blocks_for(n_tokens)).unwrap_or(u32::MAX)
}

/// The state of a replay; one is used for many, so that nothing is allocated anew.
#[derive(Debug, Default)]
pub(super) struct Replay {
    running: Vec<Live>,
    /// The next one last.
    waiting: Vec<Live>,
    n_free_blocks: u32,
    clock: f64,
    next_ticket: u64,
    next_arrival: f64,
}

/// Steps at once.
struct Run {
    n_steps: u32,
    /// Prompt tokens of a step at most.
    budget: u32,
    /// What the first of them computes.
    shape: StepShape,
}

impl Replay {
    /// When the sequence `target` is served; `length` draws how long each answer will be: the sequence, and how
    /// many tokens it has yet to draw at most. With `until_end` false, the end is that of the first token.
    pub(super) fn serve(
        &mut self,
        outlook: &Outlook,
        (newcomer, target): (Option<SequenceLoad>, u64),
        until_end: bool,
        length: &mut dyn FnMut(&SequenceLoad) -> u32,
    ) -> Option<Served> {
        let cost = outlook.cost?.with_wait(outlook.turn_wait);
        let mut live = |load: &SequenceLoad| Live::new(load, length(load));
        self.running.clear();
        self.running.extend(outlook.running.iter().map(&mut live));
        self.waiting.clear();
        self.waiting.extend(outlook.waiting.iter().rev().map(&mut live));
        self.n_free_blocks = u32::try_from(outlook.n_free_blocks).unwrap_or(u32::MAX);
        self.clock = 0.0;
        self.next_ticket = target.saturating_add(1);
        let spacing = 1.0 / outlook.traffic.per_second.max(1e-9);
        self.next_arrival = spacing;
        let mut late = outlook.incoming.iter();
        if self.running.is_empty() && self.waiting.is_empty() {
            // It had nothing to do: the step under way is the first one's.
            self.waiting.extend(late.next().map(&mut live));
        }
        let mut first_token = None;
        if let Some(age) = outlook.step_age {
            // Who came since waits for the end of the step under way.
            self.admit(outlook);
            first_token = self.run(outlook, &cost, target, 1);
            let took = self.clock;
            self.clock = (took - age.as_secs_f64()).max(0.0);
            first_token = first_token.map(|_| self.clock);
        }
        let n_before = self.waiting.len();
        self.waiting.extend(late.chain(&newcomer).map(&mut live));
        self.waiting[n_before..].reverse();
        self.waiting.rotate_left(n_before);
        for _ in 0..RUNS_MOST {
            let is_over = first_token.is_some() && !until_end;
            if is_over || !self.has(target) {
                break;
            }
            self.admit(outlook);
            if until_end && first_token.is_some() {
                self.let_others_in(outlook, spacing, length);
            }
            let first = self.run(outlook, &cost, target, u32::MAX);
            first_token = first_token.or(first);
        }
        Some(Served {
            first_token: first_token.unwrap_or(self.clock),
            end: self.clock,
        })
    }

    fn has(&self, target: u64) -> bool {
        let mut all = self.running.iter().chain(&self.waiting);
        all.any(|live| live.ticket == target)
    }

    fn admit(&mut self, outlook: &Outlook) {
        while let Some(next) = self.waiting.last()
            && self.running.len() < outlook.limits.max_running
            && self.has_room_for(next.n_blocks_wanted())
            && let Some(next) = self.waiting.pop()
        {
            self.start(next);
        }
    }

    fn has_room_for(&self, n_wanted: u32) -> bool {
        let n_running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        n_wanted.saturating_add(n_running) <= self.n_free_blocks
    }

    fn start(&mut self, mut live: Live) {
        live.n_blocks = live.n_blocks_wanted();
        self.n_free_blocks -= live.n_blocks;
        let place = self.running.partition_point(|other| other.ticket < live.ticket);
        self.running.insert(place, live);
    }

    /// Requests that others will have sent by now take the places nobody else waits for.
    fn let_others_in(
        &mut self,
        outlook: &Outlook,
        spacing: f64,
        length: &mut dyn FnMut(&SequenceLoad) -> u32,
    ) {
        let n_prompt_tokens = outlook.traffic.n_prompt_tokens.max(1);
        while self.next_arrival <= self.clock
            && self.waiting.is_empty()
            && self.running.len() < outlook.limits.max_running
        {
            let load = SequenceLoad::new(self.next_ticket, n_prompt_tokens, outlook.n_ctx);
            let other = Live::new(&load, length(&load).max(1));
            if !self.has_room_for(other.n_blocks_wanted()) {
                return;
            }
            self.next_ticket += 1;
            self.next_arrival += spacing;
            self.start(other);
        }
    }

    /// Computes steps until something changes, at most `n_most`. Gives the moment of the target's first
    /// token, if it is among them.
    fn run(&mut self, outlook: &Outlook, cost: &StepCost, target: u64, n_most: u32) -> Option<f64> {
        let Run {
            mut n_steps,
            budget,
            shape,
        } = self.plan(outlook, target, n_most)?;
        if self.running.len() < outlook.limits.max_running && n_steps > 1 {
            // Somebody may come while there are places.
            let until = (self.next_arrival - self.clock) / cost.of(&shape);
            n_steps = n_steps.min(whole_steps(until));
        }
        self.clock += cost.of_run(&shape, n_steps);
        self.advance(budget, n_steps, target).then_some(self.clock)
    }

    /// How many steps are alike, and what the first computes; none if nobody runs.
    fn plan(&mut self, outlook: &Outlook, target: u64, n_most: u32) -> Option<Run> {
        loop {
            let mut shape = StepShape::default();
            let mut next_end = n_most;
            let mut decode_context = 0;
            let mut has_prompts = false;
            for live in &self.running {
                if live.is_decode() {
                    shape.n_decodes += 1;
                    decode_context += live.n_computed + 1;
                    next_end = next_end.min(live.n_left.max(1));
                    if live.is_new && live.ticket == target {
                        next_end = 1;
                    }
                } else {
                    has_prompts = true;
                }
            }
            if self.running.is_empty() {
                return None;
            }
            shape.decode_context = f64::from(decode_context);
            let limits = &outlook.limits;
            let n_places = limits.max_batch_tokens.saturating_sub(shape.n_decodes as usize);
            let budget = n_places.min(limits.max_prompt_tokens);
            let budget = u32::try_from(budget).unwrap_or(u32::MAX);
            let n_steps = if has_prompts && budget > 0 {
                next_end.min(self.plan_prompts(budget, &mut shape))
            } else {
                next_end
            };
            // Each decode takes a block more every so many steps; mostly there are plenty.
            let block_len = u32::try_from(BLOCK_LEN).unwrap_or(u32::MAX);
            let n_blocks_most = shape.n_decodes * (n_steps / block_len + 1);
            let n_steps = if n_blocks_most <= self.n_free_blocks {
                n_steps
            } else {
                self.n_steps_with_blocks(n_steps)
            };
            if n_steps > 0 {
                return Some(Run {
                    n_steps,
                    budget,
                    shape,
                });
            }
            self.preempt_youngest();
        }
    }

    /// Gives the prompts their tokens of a step; how many steps are like it.
    fn plan_prompts(&self, budget: u32, shape: &mut StepShape) -> u32 {
        let mut n_left = budget;
        let mut n_steps = None;
        for live in self.running.iter().filter(|live| !live.is_decode()) {
            let n = live.n_pending.min(n_left);
            if n == 0 {
                break;
            }
            n_left -= n;
            n_steps = n_steps.or(Some(((live.n_pending - 1) / budget).max(1)));
            shape.n_prompt_tokens += n;
            let (start, n) = (f64::from(live.n_computed), f64::from(n));
            shape.prompt_context += n * start + n * (n + 1.0) / 2.0;
        }
        n_steps.unwrap_or(1)
    }

    /// As many of the steps as there are free blocks for.
    fn n_steps_with_blocks(&self, n_steps: u32) -> u32 {
        let fits = |n_steps: u32| {
            let decodes = self.running.iter().filter(|live| live.is_decode());
            let lacking: u32 = decodes.map(|live| live.n_blocks_lacking(n_steps)).sum();
            lacking <= self.n_free_blocks
        };
        if fits(n_steps) {
            return n_steps;
        }
        let (mut most, mut too_many) = (0, n_steps);
        while most + 1 < too_many {
            let middle = most.midpoint(too_many);
            if fits(middle) {
                most = middle;
            } else {
                too_many = middle;
            }
        }
        most
    }

    fn preempt_youngest(&mut self) {
        if let Some(mut youngest) = self.running.pop() {
            self.n_free_blocks += youngest.n_blocks;
            youngest.n_pending += youngest.n_computed;
            youngest.n_computed = 0;
            youngest.n_blocks = 0;
            self.waiting.push(youngest);
        }
    }

    /// Whether the target drew its first token, or its prompt was through.
    fn advance(&mut self, budget: u32, n_steps: u32, target: u64) -> bool {
        let mut n_prompt_left = budget.saturating_mul(n_steps);
        let (mut is_first, mut is_end) = (false, false);
        for live in &mut self.running {
            if live.is_decode() {
                let n_blocks = live.n_blocks_lacking(n_steps);
                live.n_blocks += n_blocks;
                self.n_free_blocks -= n_blocks;
                live.n_computed += n_steps;
                live.n_left = live.n_left.saturating_sub(n_steps);
            } else {
                let n = live.n_pending.min(n_prompt_left);
                n_prompt_left -= n;
                live.n_pending -= n;
                live.n_computed += n;
                if live.n_pending > 0 {
                    continue;
                }
                live.n_pending = 1;
                live.n_left = live.n_left.saturating_sub(1);
            }
            is_first |= live.is_new && live.ticket == target;
            live.is_new = false;
            is_end |= live.n_left == 0;
        }
        if is_end {
            let free = &mut self.n_free_blocks;
            self.running.retain(|live| {
                if live.n_left == 0 {
                    *free += live.n_blocks;
                }
                live.n_left > 0
            });
        }
        is_first
    }
}

/// At least one step.
fn whole_steps(steps: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates: more steps than that are never taken at once"
    )]
    {
        steps.ceil().max(1.0) as u32
    }
}

/// The step that comes next for those who are there.
pub(super) fn next_shape(outlook: &Outlook) -> StepShape {
    let mut replay = Replay::default();
    let live = |load: &SequenceLoad| Live::new(load, load.n_new_most);
    replay.running.extend(outlook.running.iter().map(live));
    let waiting = outlook.waiting.iter().chain(&outlook.incoming);
    replay.waiting.extend(waiting.map(live));
    replay.waiting.reverse();
    replay.n_free_blocks = u32::try_from(outlook.n_free_blocks).unwrap_or(u32::MAX);
    replay.admit(outlook);
    replay
        .plan(outlook, u64::MAX, 1)
        .map(|run| run.shape)
        .unwrap_or_default()
}
