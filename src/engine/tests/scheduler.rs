//! The scheduler's laws, one at a time.

use crate::engine::GenerateRequest;
use crate::engine::scheduler::{Row, Scheduler, StepLimits, StepPlan};
use crate::engine::sequence::{SeqId, Sequence};

use super::greedy;

const LIMITS: StepLimits = StepLimits {
    max_running: 4,
    max_batch_tokens: 64,
    max_prompt_tokens: 40,
};

fn submit(scheduler: &mut Scheduler, id: u64, n_prompt: u32, max_new_tokens: u32) {
    let request = GenerateRequest {
        prompt: (0..n_prompt).collect(),
        sampling: greedy(),
        max_new_tokens,
        stop_tokens: Vec::new(),
    };
    scheduler.submit(Sequence::new(SeqId(id), request, 10_000, 0));
}

/// Schedules a step and commits it; who ended is removed.
fn step(scheduler: &mut Scheduler) -> StepPlan {
    let plan = scheduler.schedule();
    for row in &plan.rows {
        let sequence = scheduler.sequence_mut(row.seq).unwrap();
        sequence.n_computed += row.n_tokens;
        let ended = row.wants_logits && sequence.accept(9).is_some();
        if ended || sequence.is_evaluated() {
            scheduler.remove(row.seq).unwrap();
        }
    }
    plan
}

/// Sequence, first position, tokens, whether it wants logits.
fn rows(plan: &StepPlan) -> Vec<(u64, u32, u32, bool)> {
    let parts = |row: &Row| (row.seq.0, row.start, row.n_tokens, row.wants_logits);
    plan.rows.iter().map(parts).collect()
}

fn ids(plan: &StepPlan) -> Vec<u64> {
    plan.rows.iter().map(|row| row.seq.0).collect()
}

#[test]
fn nobody_means_an_empty_step() {
    assert_eq!(Scheduler::new(LIMITS, 8).schedule(), StepPlan::default());
}

#[test]
fn prompts_share_the_budget_oldest_first_beside_every_decode() {
    let mut scheduler = Scheduler::new(LIMITS, 32);
    submit(&mut scheduler, 0, 10, 50);
    submit(&mut scheduler, 1, 70, 50);
    submit(&mut scheduler, 2, 5, 50);
    assert_eq!(
        rows(&step(&mut scheduler)),
        [(0, 0, 10, true), (1, 0, 30, false)]
    );
    assert_eq!(
        rows(&step(&mut scheduler)),
        [(0, 10, 1, true), (1, 30, 40, true)]
    );
    let third = [(0, 11, 1, true), (1, 70, 1, true), (2, 0, 5, true)];
    assert_eq!(rows(&step(&mut scheduler)), third);
}

#[test]
fn decodes_take_their_tokens_from_the_step_before_prompts_do() {
    let limits = StepLimits {
        max_running: 4,
        max_batch_tokens: 4,
        max_prompt_tokens: 40,
    };
    let mut scheduler = Scheduler::new(limits, 32);
    for id in 0..3 {
        submit(&mut scheduler, id, 1, 50);
    }
    assert_eq!(ids(&step(&mut scheduler)), [0, 1, 2]);
    submit(&mut scheduler, 3, 20, 50);
    let plan = step(&mut scheduler);
    let rows = rows(&plan);
    assert_eq!(rows[3], (3, 0, 1, false), "one place is left: {rows:?}");
}

#[test]
fn a_small_request_does_not_overtake_a_large_one() {
    let mut scheduler = Scheduler::new(LIMITS, 8);
    submit(&mut scheduler, 0, 100, 20);
    submit(&mut scheduler, 1, 200, 20);
    submit(&mut scheduler, 2, 1, 1);
    for _ in 0..3 {
        assert_eq!(
            ids(&step(&mut scheduler)),
            [0],
            "1 does not fit, and 2 waits behind it"
        );
    }
    while scheduler.sequence(SeqId(0)).is_some() {
        assert_eq!(ids(&step(&mut scheduler)), [0]);
    }
    assert_eq!(ids(&step(&mut scheduler)), [1]);
}

#[test]
fn no_more_run_than_may() {
    let mut scheduler = Scheduler::new(LIMITS, 100);
    for id in 0..9 {
        submit(&mut scheduler, id, 2, 3);
    }
    assert_eq!(ids(&step(&mut scheduler)), [0, 1, 2, 3]);
    assert_eq!(scheduler.n_running(), 4);
    step(&mut scheduler);
    step(&mut scheduler);
    assert_eq!(
        ids(&step(&mut scheduler)),
        [4, 5, 6, 7],
        "after the end of the first four"
    );
}

#[test]
fn the_youngest_gives_way_keeps_its_tokens_and_comes_before_later_ones() {
    let mut scheduler = Scheduler::new(LIMITS, 4);
    submit(&mut scheduler, 0, 20, 70);
    submit(&mut scheduler, 1, 20, 70);
    submit(&mut scheduler, 2, 70, 1);
    let mut n_tokens = 0;
    while scheduler.n_preempted() == 0 {
        n_tokens = scheduler.sequence(SeqId(1)).unwrap().n_tokens();
        step(&mut scheduler);
    }
    let young = scheduler.sequence(SeqId(1)).unwrap();
    assert_eq!((young.n_tokens(), young.n_computed), (n_tokens, 0));
    assert!(young.block_table.is_empty());
    // 20 prompt tokens and 70 of the answer, of which the last is never computed.
    while scheduler.sequence(SeqId(0)).is_some() {
        assert_eq!(ids(&step(&mut scheduler)), [0], "2 waits behind 1");
    }
    let plan = step(&mut scheduler);
    assert_eq!(plan.rows[0].seq, SeqId(1));
    assert_eq!(plan.rows[0].start, 0, "all of it is computed again");
}

#[test]
fn a_sequence_alone_may_have_every_block() {
    let mut scheduler = Scheduler::new(LIMITS, 3);
    submit(&mut scheduler, 0, 60, 36);
    let mut n_steps = 0;
    while scheduler.sequence(SeqId(0)).is_some() {
        assert_eq!(ids(&step(&mut scheduler)), [0]);
        n_steps += 1;
    }
    assert_eq!(n_steps, 37, "two for the prompt, one of them draws");
    assert_eq!((scheduler.n_preempted(), scheduler.n_free_blocks()), (0, 3));
}

#[test]
fn who_is_paused_is_skipped_and_gives_way_first() {
    let mut scheduler = Scheduler::new(LIMITS, 3);
    submit(&mut scheduler, 0, 20, 70);
    submit(&mut scheduler, 1, 20, 70);
    step(&mut scheduler);
    scheduler.sequence_mut(SeqId(0)).unwrap().paused = true;
    while scheduler.n_preempted() == 0 {
        assert_eq!(ids(&step(&mut scheduler)), [1], "the younger runs on");
    }
    assert!(scheduler.sequence(SeqId(0)).unwrap().block_table.is_empty());
    assert_eq!(ids(&step(&mut scheduler)), [1]);
    scheduler.sequence_mut(SeqId(1)).unwrap().paused = true;
    assert_eq!(
        step(&mut scheduler),
        StepPlan::default(),
        "everybody is paused"
    );
    scheduler.sequence_mut(SeqId(0)).unwrap().paused = false;
    assert_eq!(ids(&step(&mut scheduler)), [0]);
}

#[test]
fn whoever_is_removed_leaves_nothing() {
    let mut scheduler = Scheduler::new(LIMITS, 8);
    submit(&mut scheduler, 0, 100, 20);
    submit(&mut scheduler, 1, 100, 20);
    submit(&mut scheduler, 2, 100, 20);
    step(&mut scheduler);
    assert!(scheduler.n_free_blocks() < 8);
    for id in [1, 0, 2] {
        assert_eq!(scheduler.remove(SeqId(id)).unwrap().id, SeqId(id));
        assert!(scheduler.remove(SeqId(id)).is_none());
    }
    assert_eq!((scheduler.n_free_blocks(), scheduler.n_running()), (8, 0));
    assert_eq!(scheduler.schedule(), StepPlan::default());
}
