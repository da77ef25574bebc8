//! The scheduler's law, replayed ahead of time: the same order, the same bounds, as many steps at once as
//! nothing changes in.
//!
//! What decodes goes in lockstep, so it is kept by the step in which it ends and is not looked at before; blocks
//! that it takes on the way are counted when they might become scarce. What is left out: paused sequences
//! run on here, as their readers mostly do.

mod sequences;

use self::sequences::{Decode, Live, count};
use super::cost::{StepCost, StepShape};
use super::outlook::{Outlook, SequenceLoad};
use crate::model::BLOCK_LEN;

/// Runs of steps that a replay takes at most: what lasts longer is far beyond any deadline.
const RUNS_MOST: usize = 8192;

/// When a sequence is served. Units: seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Served {
    pub(super) first_token: f64,
    pub(super) end: f64,
}

/// What a replay cannot know and takes as drawn.
pub(super) trait Draw {
    /// How many tokens a sequence has yet to draw.
    fn n_left(&mut self, load: &SequenceLoad) -> u32;

    /// How long after the request before it one that others send comes. Units: seconds.
    fn gap(&mut self, ticket: u64) -> f64;
}

/// All go on as long as they may, and nobody else comes.
pub(super) struct ToTheBound;

impl Draw for ToTheBound {
    fn n_left(&mut self, load: &SequenceLoad) -> u32 {
        load.n_new_most
    }

    fn gap(&mut self, _ticket: u64) -> f64 {
        f64::INFINITY
    }
}

/// The state of a replay; one is used for many, so that nothing is allocated anew.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Steps taken.
    step: u32,
    clock: f64,
    target: u64,
    /// The next one to end last.
    decodes: Vec<Decode>,
    /// Tokens all of them have in the cache.
    decode_context: f64,
    /// Running prompts, oldest first.
    prompts: Vec<Live>,
    /// The next one last.
    waiting: Vec<Live>,
    /// As of the step in which decodes were last asked how many they took.
    n_free_blocks: u32,
    counted_at: u32,
    /// The target draws its first token in the next step, as a decode.
    is_target_about_to: bool,
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
    /// When the sequence `target` is served, `draw` saying what nobody knows. None where nothing is known of the
    /// engine's speed.
    pub(super) fn serve(
        &mut self,
        outlook: &Outlook,
        (newcomer, target): (Option<SequenceLoad>, u64),
        draw: &mut dyn Draw,
    ) -> Option<Served> {
        let cost = outlook.cost?.with_wait(outlook.turn_wait);
        let mut next_ticket = target.saturating_add(1);
        self.begin(outlook, target, draw);
        self.next_arrival = draw.gap(next_ticket);
        let mut late = outlook.incoming.iter();
        if self.n_running() == 0 && self.waiting.is_empty() {
            // It had nothing to do: the step under way is the first one's.
            let first = late.next();
            self.waiting
                .extend(first.map(|load| Live::new(load, draw.n_left(load))));
        }
        let mut queued = outlook.running.iter().chain(&outlook.waiting);
        let has_begun = |load: &SequenceLoad| load.ticket == target && load.n_generated > 0;
        let has_begun = queued.any(has_begun);
        let mut first_token = has_begun.then_some(0.0);
        if let Some(age) = outlook.step_age {
            // Who came since waits for the end of the step under way.
            self.admit(outlook);
            let is_first = self.run(outlook, &cost, 1).is_some();
            self.clock = (self.clock - age.as_secs_f64()).max(0.0);
            first_token = first_token.or(is_first.then_some(self.clock));
        }
        let n_before = self.waiting.len();
        let late = late.chain(&newcomer);
        self.waiting
            .extend(late.map(|load| Live::new(load, draw.n_left(load))));
        self.waiting[n_before..].reverse();
        self.waiting.rotate_left(n_before);
        for _ in 0..RUNS_MOST {
            if !self.has_target() {
                break;
            }
            self.admit(outlook);
            if first_token.is_some() {
                self.let_others_in(outlook, &mut next_ticket, draw);
            }
            let first = self.run(outlook, &cost, u32::MAX);
            first_token = first_token.or(first);
        }
        Some(Served {
            first_token: first_token.unwrap_or(self.clock),
            end: self.clock,
        })
    }

    /// Those who run, and those who wait.
    fn begin(&mut self, outlook: &Outlook, target: u64, draw: &mut dyn Draw) {
        self.step = 0;
        self.clock = 0.0;
        self.target = target;
        self.decodes.clear();
        self.decode_context = 0.0;
        self.prompts.clear();
        self.n_free_blocks = count(outlook.n_free_blocks);
        self.counted_at = 0;
        self.is_target_about_to = false;
        self.next_arrival = f64::INFINITY;
        for load in &outlook.running {
            self.go_on(Live::new(load, draw.n_left(load)));
        }
        self.waiting.clear();
        let waiting = outlook.waiting.iter().rev();
        self.waiting
            .extend(waiting.map(|load| Live::new(load, draw.n_left(load))));
    }

    fn n_running(&self) -> usize {
        self.decodes.len() + self.prompts.len()
    }

    fn has_target(&self) -> bool {
        self.decodes
            .iter()
            .any(|decode| decode.ticket == self.target)
            || self.prompts.iter().any(|live| live.ticket == self.target)
            || self.waiting.iter().any(|live| live.ticket == self.target)
    }

    /// Puts a sequence that has blocks where it belongs.
    fn go_on(&mut self, live: Live) {
        if live.n_pending > 1 {
            let place = self
                .prompts
                .partition_point(|other| other.ticket < live.ticket);
            self.prompts.insert(place, live);
            return;
        }
        let decode = Decode {
            ticket: live.ticket,
            // One that draws nothing has its last token yet to compute.
            end: self.step.saturating_add(live.n_left.max(1)),
            begun: (self.step, live.n_computed),
            n_blocks: live.n_blocks,
        };
        self.is_target_about_to |= live.is_new && live.ticket == self.target;
        self.decode_context += f64::from(live.n_computed);
        let place = self.decodes.partition_point(|other| other.end > decode.end);
        self.decodes.insert(place, decode);
    }

    fn admit(&mut self, outlook: &Outlook) {
        while let Some(next) = self.waiting.last()
            && self.n_running() < outlook.limits.max_running
        {
            let n_wanted = next.n_blocks_wanted();
            if !self.has_room_for(n_wanted) {
                return;
            }
            if let Some(next) = self.waiting.pop() {
                self.start(next, n_wanted);
            }
        }
    }

    fn start(&mut self, mut live: Live, n_blocks: u32) {
        live.n_blocks = n_blocks;
        self.n_free_blocks -= n_blocks;
        self.go_on(live);
    }

    fn has_room_for(&mut self, n_wanted: u32) -> bool {
        let n_needed = n_wanted.saturating_add(count(self.n_running()));
        if n_needed.saturating_add(self.n_taken_most(0)) <= self.n_free_blocks {
            return true;
        }
        self.count_blocks();
        n_needed <= self.n_free_blocks
    }

    /// Blocks that decodes took since they were last counted, and will within so many steps, at most.
    fn n_taken_most(&self, n_steps: u32) -> u32 {
        let n_steps = (self.step - self.counted_at).saturating_add(n_steps);
        let each = n_steps / count(BLOCK_LEN) + 1;
        count(self.decodes.len()).saturating_mul(each)
    }

    fn count_blocks(&mut self) {
        for decode in &mut self.decodes {
            let n_blocks = decode.n_lacking(self.step);
            decode.n_blocks += n_blocks;
            self.n_free_blocks = self.n_free_blocks.saturating_sub(n_blocks);
        }
        self.counted_at = self.step;
    }

    /// Requests that others will have sent by now take the places nobody else waits for.
    fn let_others_in(&mut self, outlook: &Outlook, next_ticket: &mut u64, draw: &mut dyn Draw) {
        let n_prompt_tokens = outlook.traffic.n_prompt_tokens.max(1);
        while self.next_arrival <= self.clock
            && self.waiting.is_empty()
            && self.n_running() < outlook.limits.max_running
        {
            let load = SequenceLoad::new(*next_ticket, n_prompt_tokens, outlook.n_ctx);
            let other = Live::new(&load, draw.n_left(&load).max(1));
            let n_wanted = other.n_blocks_wanted();
            if !self.has_room_for(n_wanted) {
                return;
            }
            *next_ticket += 1;
            self.next_arrival += draw.gap(*next_ticket);
            self.start(other, n_wanted);
        }
    }

    /// Computes steps until something changes, at most `n_most`. Gives the moment of the target's first
    /// token, if it is among them.
    fn run(&mut self, outlook: &Outlook, cost: &StepCost, n_most: u32) -> Option<f64> {
        let Run {
            mut n_steps,
            budget,
            shape,
        } = self.plan(outlook, n_most)?;
        if self.n_running() < outlook.limits.max_running && n_steps > 1 {
            // Somebody may come while there are places.
            let until = (self.next_arrival - self.clock) / cost.of(&shape);
            n_steps = n_steps.min(whole_steps(until));
        }
        self.clock += cost.of_run(&shape, n_steps);
        self.advance(budget, n_steps).then_some(self.clock)
    }

    /// How many steps are alike, and what the first computes; none if nobody runs.
    fn plan(&mut self, outlook: &Outlook, n_most: u32) -> Option<Run> {
        loop {
            let next_end = self.decodes.last().map(|decode| decode.end - self.step);
            if next_end.is_none() && self.prompts.is_empty() {
                return None;
            }
            let n_decodes = self.decodes.len();
            let mut shape = StepShape {
                n_decodes: count(n_decodes),
                decode_context: self.decode_context + n_decodes as f64,
                ..StepShape::default()
            };
            let limits = &outlook.limits;
            let n_places = limits.max_batch_tokens.saturating_sub(n_decodes);
            let budget = count(n_places.min(limits.max_prompt_tokens));
            let mut n_steps = next_end.unwrap_or(n_most).min(n_most);
            if self.is_target_about_to {
                n_steps = 1;
            }
            if budget > 0
                && let Some(alike) = self.plan_prompts(budget, &mut shape)
            {
                n_steps = n_steps.min(alike);
            }
            if self.n_taken_most(n_steps) > self.n_free_blocks {
                self.count_blocks();
                n_steps = self.n_steps_with_blocks(n_steps);
            }
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

    /// Gives the prompts their tokens of a step; how many steps are like it, if there are prompts.
    fn plan_prompts(&self, budget: u32, shape: &mut StepShape) -> Option<u32> {
        let mut n_left = budget;
        for live in &self.prompts {
            let n = live.n_pending.min(n_left);
            if n == 0 {
                break;
            }
            n_left -= n;
            if n == 1 {
                // It costs what a decode costs.
                shape.n_decodes += 1;
                shape.decode_context += f64::from(live.n_computed + 1);
                continue;
            }
            shape.n_prompt_tokens += n;
            let (start, n) = (f64::from(live.n_computed), f64::from(n));
            shape.prompt_context += n * start + n * (n + 1.0) / 2.0;
        }
        let first = self.prompts.first()?;
        Some(((first.n_pending - 1) / budget).max(1))
    }

    /// As many of the steps as there are free blocks for, which are counted.
    fn n_steps_with_blocks(&self, n_steps: u32) -> u32 {
        let fits = |n_steps: u32| {
            let step = self.step.saturating_add(n_steps);
            let lacking = self.decodes.iter().map(|decode| decode.n_lacking(step));
            lacking.sum::<u32>() <= self.n_free_blocks
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

    /// Takes the blocks of the youngest of all who run; they are counted.
    fn preempt_youngest(&mut self) {
        let decodes = self.decodes.iter().enumerate();
        let youngest = decodes.max_by_key(|(_, decode)| decode.ticket);
        let prompt = self.prompts.last().map(|live| live.ticket);
        match youngest {
            Some((index, decode)) if prompt.is_none_or(|ticket| ticket < decode.ticket) => {
                let decode = self.decodes.remove(index);
                let n_computed = decode.n_computed(self.step);
                self.decode_context -= f64::from(n_computed);
                self.n_free_blocks += decode.n_blocks;
                let is_target = decode.ticket == self.target;
                self.waiting.push(Live {
                    ticket: decode.ticket,
                    n_pending: n_computed + 1,
                    n_computed: 0,
                    n_left: decode.end - self.step,
                    n_blocks: 0,
                    is_new: is_target && self.is_target_about_to,
                });
                if is_target {
                    self.is_target_about_to = false;
                }
            }
            _ => {
                if let Some(mut live) = self.prompts.pop() {
                    self.n_free_blocks += live.n_blocks;
                    live.n_pending += live.n_computed;
                    live.n_computed = 0;
                    live.n_blocks = 0;
                    self.waiting.push(live);
                }
            }
        }
    }

    /// Whether the target drew its first token, or its prompt was through.
    fn advance(&mut self, budget: u32, n_steps: u32) -> bool {
        let mut is_first = std::mem::take(&mut self.is_target_about_to);
        self.step += n_steps;
        self.decode_context += f64::from(n_steps) * self.decodes.len() as f64;
        while let Some(decode) = self.decodes.pop_if(|decode| decode.end <= self.step) {
            self.decode_context -= f64::from(decode.n_computed(self.step));
            // What it took since the last count was never taken from the free ones.
            self.n_free_blocks += decode.n_blocks;
        }
        let mut n_prompt_left = budget.saturating_mul(n_steps);
        while let Some(live) = self.prompts.first_mut() {
            let n = live.n_pending.min(n_prompt_left);
            n_prompt_left -= n;
            live.n_pending -= n;
            live.n_computed += n;
            if live.n_pending > 1 {
                break;
            }
            let mut live = self.prompts.remove(0);
            if live.n_pending == 0 {
                is_first |= live.is_new && live.ticket == self.target;
                live.is_new = false;
                if live.n_left <= 1 {
                    self.n_free_blocks += live.n_blocks;
                    continue;
                }
                live.n_pending = 1;
                live.n_left -= 1;
            }
            self.go_on(live);
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
    replay.begin(outlook, u64::MAX, &mut ToTheBound);
    let incoming = outlook.incoming.iter().rev();
    let incoming = incoming.map(|load| Live::new(load, load.n_new_most));
    replay.waiting.splice(0..0, incoming);
    replay.admit(outlook);
    let run = replay.plan(outlook, 1);
    run.map(|run| run.shape).unwrap_or_default()
}
