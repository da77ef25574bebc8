//! A world in which an engine works: the real scheduler, steps as long as recorded ones, requests that come,
//! wait, leave and are answered. Everything is drawn from one seed, and a world can be copied: what would have
//! come of a request that left is seen in a copy where it stays and everybody else does as before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::{
    Calibration, CostFit, Deadlines, Outlook, OutputLengths, Prediction, SequenceLoad, Shown,
    StepCost, StepShape, TrafficMeter, Verdict, judge, predict, predict_queued, predict_raw,
};
use super::Random;
use super::law::outlook;
use crate::chat::Sampling;
use crate::engine::GenerateRequest;
use crate::engine::scheduler::{Scheduler, StepLimits, StepPlan};
use crate::engine::sequence::{SeqId, Sequence};

/// What an engine is started with where nobody says otherwise.
pub(super) const LIMITS: StepLimits = StepLimits {
    max_running: 16,
    max_batch_tokens: 144,
    max_prompt_tokens: 128,
};
const N_BLOCKS: u32 = 1400;
const N_CTX: u32 = 8192;
const STOP: u32 = 7;

/// Steps that really were, and what their shapes explain of their times.
#[derive(Debug)]
pub(super) struct Steps {
    recorded: Vec<(StepShape, f64)>,
    cost: StepCost,
}

impl Steps {
    pub(super) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/predict/steps.csv");
        let text = std::fs::read_to_string(file).unwrap();
        let step = |line: &str| {
            let n: Vec<u32> = line.split(',').map(|n| n.parse().unwrap()).collect();
            let shape = StepShape {
                n_prompt_tokens: n[0],
                prompt_context: f64::from(n[1]),
                n_decodes: n[2],
                decode_context: f64::from(n[3]),
            };
            (shape, f64::from(n[4]) / 1e6)
        };
        let lines = text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let recorded: Vec<_> = lines.map(step).collect();
        let mut fit = CostFit::default();
        for (shape, seconds) in &recorded {
            fit.add(shape, *seconds);
        }
        Self {
            cost: fit.cost().unwrap(),
            recorded,
        }
    }

    /// The time of a step: that of a recorded one as like it as there is, made up for what they differ in.
    fn draw(&self, shape: &StepShape, random: &mut Random) -> f64 {
        let n = u32::try_from(self.recorded.len()).unwrap();
        let unlike = |other: &StepShape| {
            let apart = |a: u32, b: u32| f64::from(a.abs_diff(b));
            apart(shape.n_prompt_tokens, other.n_prompt_tokens) / 16.0
                + apart(shape.n_decodes, other.n_decodes)
                + (shape.prompt_context - other.prompt_context).abs() / 40_000.0
                + (shape.decode_context - other.decode_context).abs() / 4_000.0
        };
        let draws = (0..16).map(|_| &self.recorded[random.below(n) as usize]);
        let like = draws.min_by(|a, b| unlike(&a.0).total_cmp(&unlike(&b.0)));
        let (like, seconds) = like.unwrap();
        seconds * self.cost.of(shape) / self.cost.of(like)
    }
}

/// A request as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: f64,
    pub(super) n_prompt: u32,
    /// Tokens its answer will have.
    pub(super) n_new: u32,
    /// Tokens it asks for at most.
    pub(super) max_new: u32,
}

/// What became of a request. Units: seconds since it came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) foretold: Option<Prediction>,
    foretold_raw: Option<Prediction>,
    pub(super) first_token: Option<f64>,
    pub(super) end: Option<f64>,
    pub(super) left: Option<f64>,
}

/// Who decides whether a request leaves.
#[derive(Clone, Debug)]
pub(super) enum Will {
    /// Whoever is judged to leave.
    Judge(Deadlines),
    /// The same leave at the same moments as before. Units: seconds.
    AsBefore(Arc<BTreeMap<u64, f64>>),
}

#[derive(Clone, Debug)]
pub(super) struct World {
    shown: Shown,
    pub(super) now: f64,
    steps: Arc<Steps>,
    arrivals: Arc<Vec<Arrival>>,
    n_arrived: usize,
    scheduler: Scheduler,
    /// Came during the step under way.
    incoming: Vec<SequenceLoad>,
    /// Left during it.
    leaving: Vec<u64>,
    step: Option<(StepPlan, f64, f64)>,
    posted: (Vec<SequenceLoad>, Vec<SequenceLoad>, usize),
    checks: BTreeMap<u64, f64>,
    fit: CostFit,
    lengths: OutputLengths,
    traffic: TrafficMeter,
    pub(super) calibration: Calibration,
    random: Random,
    pub(super) fates: Vec<Fate>,
    /// It stays whatever was before.
    pub(super) stays: Option<u64>,
}

impl World {
    pub(super) fn new(
        steps: Arc<Steps>,
        arrivals: Arc<Vec<Arrival>>,
        shown: Shown,
        seed: u64,
    ) -> Self {
        let fates = vec![Fate::default(); arrivals.len()];
        let mut fit = CostFit::default();
        let mut random = Random(seed);
        // As the warm-up leaves it.
        for (n_prompt, n_decodes) in [(32, 0), (0, 1), (0, 1), (0, 1)] {
            let shape = StepShape {
                n_prompt_tokens: n_prompt,
                prompt_context: f64::from(n_prompt) * 16.0,
                n_decodes,
                decode_context: f64::from(n_decodes) * 33.0,
            };
            fit.add(&shape, steps.draw(&shape, &mut random));
        }
        Self {
            shown,
            now: 0.0,
            steps,
            arrivals,
            n_arrived: 0,
            scheduler: Scheduler::new(LIMITS, N_BLOCKS),
            incoming: Vec::new(),
            leaving: Vec::new(),
            step: None,
            posted: (Vec::new(), Vec::new(), N_BLOCKS as usize),
            checks: BTreeMap::new(),
            fit,
            lengths: OutputLengths::default(),
            traffic: TrafficMeter::default(),
            calibration: Calibration::default(),
            random,
            fates,
            stays: None,
        }
    }

    /// The next thing happens; false when nothing will any more. A request that leaves is told to `leave` first.
    pub(super) fn tick(&mut self, will: &Will, leave: &mut dyn FnMut(&Self, u64)) -> bool {
        let step = self.step.as_ref().map(|step| step.2);
        let arrival = self.arrivals.get(self.n_arrived).map(|arrival| arrival.at);
        let check = self.checks.iter().min_by(|a, b| a.1.total_cmp(b.1));
        let check = check.map(|(ticket, at)| (*ticket, *at));
        let times = [step, check.map(|check| check.1), arrival];
        let Some(next) = times.into_iter().flatten().min_by(f64::total_cmp) else {
            return false;
        };
        self.now = self.now.max(next);
        if step == Some(next) {
            self.end_step();
        } else if let Some((ticket, at)) = check.filter(|check| check.1 == next) {
            self.check(ticket, at, will, leave);
        } else {
            self.arrive(will);
        }
        true
    }

    fn outlook(&self) -> Outlook {
        let mut outlook = outlook(LIMITS, self.fit.cost().unwrap());
        outlook.n_ctx = N_CTX;
        outlook.running.clone_from(&self.posted.0);
        outlook.waiting.clone_from(&self.posted.1);
        outlook.n_free_blocks = self.posted.2;
        outlook.incoming.clone_from(&self.incoming);
        let age = self.step.as_ref().map(|step| self.now - step.1);
        outlook.step_age = age.map(std::time::Duration::from_secs_f64);
        outlook.lengths = self.lengths.clone();
        outlook.traffic = self.traffic.traffic(self.now);
        outlook.calibration = self.calibration.clone();
        outlook
    }

    fn arrive(&mut self, will: &Will) {
        let ticket = self.n_arrived as u64;
        let arrival = self.arrivals[self.n_arrived];
        self.n_arrived += 1;
        let load = SequenceLoad::new(ticket, arrival.n_prompt, arrival.max_new);
        if !matches!(will, Will::AsBefore(_)) {
            let outlook = self.outlook();
            let fate = &mut self.fates[self.n_arrived - 1];
            fate.foretold = predict(&outlook, arrival.n_prompt, arrival.max_new);
            fate.foretold_raw = predict_raw(&outlook, arrival.n_prompt, arrival.max_new);
        }
        self.incoming.push(load);
        match will {
            Will::Judge(_) => {
                self.checks.insert(ticket, self.now);
            }
            Will::AsBefore(left) => {
                if let Some(at) = left.get(&ticket) {
                    self.checks.insert(ticket, *at);
                }
            }
        }
        if self.step.is_none() {
            self.begin_step();
        }
    }

    fn check(&mut self, ticket: u64, at: f64, will: &Will, leave: &mut dyn FnMut(&Self, u64)) {
        self.checks.remove(&ticket);
        let waited = at - self.arrivals[usize::try_from(ticket).unwrap()].at;
        if let Will::Judge(deadlines) = will {
            let first = if waited == 0.0 {
                self.fates[usize::try_from(ticket).unwrap()].foretold
            } else {
                predict_queued(&self.outlook(), ticket)
            };
            let Some(prediction) = first else { return };
            match judge(&prediction, waited, deadlines) {
                Verdict::Stay => return,
                Verdict::AskAgain(after) => {
                    self.checks.insert(ticket, at + after);
                    return;
                }
                Verdict::Leave => {}
            }
        }
        leave(self, ticket);
        if self.stays == Some(ticket) {
            return;
        }
        self.fates[usize::try_from(ticket).unwrap()].left = Some(waited);
        self.leaving.push(ticket);
    }

    fn begin_step(&mut self) {
        for load in std::mem::take(&mut self.incoming) {
            let arrival = self.arrivals[usize::try_from(load.ticket).unwrap()];
            let request = GenerateRequest {
                prompt: vec![1; arrival.n_prompt as usize],
                sampling: Sampling::default(),
                max_new_tokens: arrival.max_new,
                stop_tokens: vec![STOP],
            };
            let sequence = Sequence::new(SeqId(load.ticket), request, N_CTX, 0);
            self.scheduler.submit(sequence);
        }
        for ticket in std::mem::take(&mut self.leaving) {
            let waited = self.now - self.arrivals[usize::try_from(ticket).unwrap()].at;
            let raw = self.fates[usize::try_from(ticket).unwrap()].foretold_raw;
            if let Some(raw) = raw.filter(|raw| waited > raw.ttft.p90) {
                self.calibration.add_ttft(&raw, waited);
            }
            self.scheduler.remove(SeqId(ticket));
        }
        let plan = self.scheduler.schedule();
        let (running, waiting, n_free) = &mut self.posted;
        self.scheduler.post(running, waiting);
        *n_free = self.scheduler.n_free_blocks();
        if plan.rows.is_empty() {
            self.step = None;
            return;
        }
        for row in &plan.rows {
            if row.start == 0 {
                self.traffic.add(
                    self.scheduler
                        .sequence(row.seq)
                        .unwrap()
                        .usage()
                        .prompt_tokens,
                    self.now,
                );
            }
        }
        let seconds = self.steps.draw(&plan.shape(), &mut self.random);
        self.step = Some((plan, self.now, self.now + seconds));
    }

    fn end_step(&mut self) {
        let Some((plan, begun, end)) = self.step.take() else {
            return;
        };
        self.fit.add(&plan.shape(), end - begun);
        for row in &plan.rows {
            let index = usize::try_from(row.seq.0).unwrap();
            let arrival = self.arrivals[index];
            let since = self.now - arrival.at;
            let Some(sequence) = self.scheduler.sequence_mut(row.seq) else {
                continue;
            };
            sequence.n_computed += row.n_tokens;
            if !row.wants_logits {
                continue;
            }
            let is_last = sequence.n_generated() + 1 == arrival.n_new;
            let token = if is_last && arrival.n_new < arrival.max_new {
                STOP
            } else {
                9
            };
            let end = sequence.accept(token);
            let n_generated = sequence.n_generated();
            let fate = &mut self.fates[index];
            let raw = fate.foretold_raw;
            if n_generated == 1 {
                fate.first_token = Some(since);
                if self.shown == Shown::AsItComes {
                    self.checks.remove(&row.seq.0);
                }
                if let Some(raw) = raw {
                    self.calibration.add_ttft(&raw, since);
                }
            }
            if end.is_some() {
                self.checks.remove(&row.seq.0);
                fate.end = Some(since);
                if let Some(raw) = raw {
                    self.calibration.add_total(&raw, since);
                }
                if token == STOP {
                    self.lengths.ended(n_generated);
                } else {
                    self.lengths.cut(n_generated);
                }
                self.scheduler.remove(row.seq);
            }
        }
        self.begin_step();
    }
}
