//! The replay against the scheduler itself.

use super::super::replay::{Replay, ToTheBound};
use super::super::{
    Calibration, CostFit, Outlook, OutputLengths, SequenceLoad, StepCost, StepShape, Traffic,
};
use super::Random;
use crate::chat::Sampling;
use crate::engine::GenerateRequest;
use crate::engine::scheduler::{Scheduler, StepLimits};
use crate::engine::sequence::{SeqId, Sequence};

const N_CTX: u32 = 4096;

/// A cost of which every term counts.
pub(super) fn some_cost() -> StepCost {
    let mut fit = CostFit::default();
    for step in 0..400_u32 {
        let (n_prompt_tokens, n_decodes) = (step % 5 * 32, step / 5 % 17);
        let shape = StepShape {
            n_prompt_tokens,
            prompt_context: f64::from(n_prompt_tokens * (step % 7 * 100 + 60)),
            n_decodes,
            decode_context: f64::from(n_decodes * (step % 11 * 100 + 50)),
        };
        fit.add(&shape, seconds(&shape));
    }
    fit.cost().unwrap()
}

pub(super) fn seconds(shape: &StepShape) -> f64 {
    0.004
        + 1.1e-3 * f64::from(shape.n_prompt_tokens)
        + 8e-4 * f64::from(shape.n_decodes)
        + 3e-7 * shape.prompt_context
        + 9e-7 * shape.decode_context
}

fn sequence(id: u64, n_prompt: u32, max_new_tokens: u32) -> Sequence {
    let request = GenerateRequest {
        prompt: vec![1; n_prompt as usize],
        sampling: Sampling::default(),
        max_new_tokens,
        stop_tokens: Vec::new(),
    };
    Sequence::new(SeqId(id), request, N_CTX, 0)
}

/// Computes a step and gives its time, and who drew a first token in it, and who ended.
fn step(scheduler: &mut Scheduler, cost: &StepCost) -> (f64, Vec<SeqId>, Vec<SeqId>) {
    let plan = scheduler.schedule();
    let (mut first, mut ended) = (Vec::new(), Vec::new());
    for row in &plan.rows {
        let sequence = scheduler.sequence_mut(row.seq).unwrap();
        sequence.n_computed += row.n_tokens;
        let is_end = row.wants_logits && sequence.accept(9).is_some();
        if row.wants_logits && sequence.n_generated() == 1 || sequence.is_evaluated() {
            first.push(row.seq);
        }
        if is_end || sequence.is_evaluated() {
            ended.push(row.seq);
            scheduler.remove(row.seq).unwrap();
        }
    }
    (cost.of(&plan.shape()), first, ended)
}

pub(super) fn outlook(limits: StepLimits, cost: StepCost) -> Outlook {
    Outlook {
        limits,
        n_ctx: N_CTX,
        n_free_blocks: 0,
        running: Vec::new(),
        waiting: Vec::new(),
        incoming: Vec::new(),
        step_age: None,
        cost: Some(cost),
        turn_wait: 0.0,
        lengths: OutputLengths::default(),
        traffic: Traffic::default(),
        calibration: Calibration::default(),
    }
}

/// With lengths known and steps as expected, a replay is what comes: chunks, admission, preemption and all.
#[test]
fn a_replay_takes_the_schedulers_steps() {
    let cost = some_cost();
    let mut random = Random(3);
    let mut n_preempted = 0;
    for case in 0..300 {
        let max_running = 1 + random.below(12) as usize;
        let limits = StepLimits {
            max_running,
            max_batch_tokens: max_running + random.below(150) as usize,
            max_prompt_tokens: 1 + random.below(128) as usize,
        };
        let n_blocks = 30 + random.below(if case % 2 == 0 { 40 } else { 2000 });
        let mut scheduler = Scheduler::new(limits, n_blocks);
        let mut id = 0;
        for _ in 0..random.below(30) {
            let n_new = random.below(120);
            scheduler.submit(sequence(id, 2 + random.below(600), n_new));
            id += 1;
            for _ in 0..random.below(40) {
                step(&mut scheduler, &cost);
            }
        }
        let before = scheduler.n_preempted();
        let mut outlook = outlook(limits, cost);
        scheduler.post(&mut outlook.running, &mut outlook.waiting);
        outlook.n_free_blocks = scheduler.n_free_blocks();
        let (n_prompt, n_new) = (2 + random.below(600), random.below(200));
        let newcomer = SequenceLoad::new(id, n_prompt, n_new);
        let served = Replay::default()
            .serve(&outlook, (Some(newcomer), id), &mut ToTheBound)
            .unwrap();

        scheduler.submit(sequence(id, n_prompt, n_new));
        let (mut now, mut first_token) = (0.0, None);
        while scheduler.sequence(SeqId(id)).is_some() {
            let (seconds, first, _) = step(&mut scheduler, &cost);
            now += seconds;
            if first.contains(&SeqId(id)) {
                first_token = first_token.or(Some(now));
            }
        }
        n_preempted += scheduler.n_preempted() - before;
        let near = |a: f64, b: f64| (a - b).abs() <= 0.002 * b + 1e-9;
        // A prompt of one token is taken for a decode from the first step on: there are none here.
        // Who gives way in a step keeps others from coming in, once; nothing else may differ.
        let is_exact = scheduler.n_preempted() == before;
        let (first_token, seen) = (first_token.unwrap(), (served, now));
        if is_exact {
            assert!(
                near(served.first_token, first_token),
                "{case}: {first_token} {seen:?}"
            );
            assert!(near(served.end, now), "{case}: {seen:?}");
        } else {
            assert!((served.end / now - 1.0).abs() < 0.2, "{case}: {seen:?}");
        }
    }
    assert!(n_preempted > 5, "{n_preempted}: memory was never scarce");
}
