//! The scheduler under any traffic: random arrivals, cancellations and pauses.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::network::mix;
use super::{greedy, prompt};
use crate::chat::TokenId;
use crate::engine::GenerateRequest;
use crate::engine::scheduler::{Scheduler, StepLimits, StepPlan};
use crate::engine::sequence::{SeqId, Sequence};
use crate::model::BLOCK_LEN;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Arrive {
        n_prompt: usize,
        n_new: u32,
    },
    /// The `n`th of those who are there.
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    Steps(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (1usize..120, 0u32..90).prop_map(|(n_prompt, n_new)| Deed::Arrive { n_prompt, n_new }),
        1 => (0usize..8).prop_map(Deed::Cancel),
        1 => (0usize..8).prop_map(Deed::Pause),
        1 => (0usize..8).prop_map(Deed::Resume),
        4 => (1usize..12).prop_map(Deed::Steps),
    ];
    prop::collection::vec(deed, 1..60)
}

fn limits() -> impl Strategy<Value = (StepLimits, u32)> {
    (1usize..6, 0usize..80, 1usize..80, 4u32..16).prop_map(
        |(max_running, n_more, max_prompt_tokens, n_blocks)| {
            let max_batch_tokens = max_running + n_more;
            (
                StepLimits {
                    max_running,
                    max_batch_tokens,
                    max_prompt_tokens,
                },
                n_blocks,
            )
        },
    )
}

/// The next token, a function of all before it.
fn next_token(tokens: &[TokenId]) -> TokenId {
    let hash = tokens
        .iter()
        .fold(0, |hash, token| mix(hash, *token as usize));
    u32::try_from(hash % 50_000).unwrap()
}

fn whole(prompt: &[TokenId], n_new: u32) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    for _ in 0..n_new {
        tokens.push(next_token(&tokens));
    }
    tokens
}

struct Walk {
    scheduler: Scheduler,
    limits: StepLimits,
    n_ctx: u32,
    next_id: u64,
    /// Those who are there, with what they must become.
    alive: BTreeMap<SeqId, Vec<TokenId>>,
}

impl Walk {
    fn new(limits: StepLimits, n_blocks: u32) -> Self {
        Self {
            scheduler: Scheduler::new(limits, n_blocks),
            limits,
            n_ctx: n_blocks * u32::try_from(BLOCK_LEN).unwrap(),
            next_id: 0,
            alive: BTreeMap::new(),
        }
    }

    fn act(&mut self, deed: Deed) {
        let nth = |n: usize| self.alive.keys().nth(n % self.alive.len().max(1)).copied();
        match deed {
            Deed::Arrive { n_prompt, n_new } => self.arrive(n_prompt, n_new),
            Deed::Cancel(n) => {
                if let Some(id) = nth(n) {
                    self.end(id);
                }
            }
            // Only who was sent a token can be slow to read it.
            Deed::Pause(n) => {
                let sequence = nth(n).and_then(|id| self.scheduler.sequence_mut(id));
                if let Some(sequence) = sequence.filter(|sequence| sequence.n_generated() > 0) {
                    sequence.paused = true;
                }
            }
            Deed::Resume(n) => {
                if let Some(sequence) = nth(n).and_then(|id| self.scheduler.sequence_mut(id)) {
                    sequence.paused = false;
                }
            }
            Deed::Steps(n_steps) => (0..n_steps).for_each(|_| self.step()),
        }
        self.check_blocks();
    }

    fn arrive(&mut self, n_prompt: usize, n_new: u32) {
        let id = SeqId(self.next_id);
        self.next_id += 1;
        let prompt = prompt(usize::try_from(id.0).unwrap(), n_prompt);
        let n_left = self.n_ctx - u32::try_from(n_prompt).unwrap();
        self.alive.insert(id, whole(&prompt, n_new.min(n_left)));
        let request = GenerateRequest {
            prompt,
            sampling: greedy(),
            max_new_tokens: n_new,
            stop_tokens: Vec::new(),
        };
        self.scheduler
            .submit(Sequence::new(id, request, self.n_ctx, 0));
    }

    fn end(&mut self, id: SeqId) -> (Sequence, Vec<TokenId>) {
        (
            self.scheduler.remove(id).unwrap(),
            self.alive.remove(&id).unwrap(),
        )
    }

    fn sequence(&self, id: SeqId) -> &Sequence {
        self.scheduler.sequence(id).unwrap()
    }

    /// The oldest sequence that holds blocks and can run, and how far it is.
    fn leader(&self) -> Option<(SeqId, u32)> {
        let mut alive = self.alive.keys().map(|id| self.sequence(*id));
        let leader = alive.find(|s| !s.paused && !s.block_table.is_empty())?;
        Some((leader.id, leader.n_computed))
    }

    fn step(&mut self) {
        let leader = self.leader();
        let waits = |id: &SeqId| self.sequence(*id).block_table.is_empty();
        let waiting = self.alive.keys().copied().filter(waits).collect();
        let plan = self.scheduler.schedule();
        self.check_plan(&plan);
        self.check_fairness(&plan, leader, waiting);
        for row in &plan.rows {
            let sequence = self.scheduler.sequence_mut(row.seq).unwrap();
            sequence.n_computed += row.n_tokens;
            let token = next_token(sequence.tokens());
            let ended = row.wants_logits && sequence.accept(token).is_some();
            if ended || sequence.is_evaluated() {
                let (sequence, expected) = self.end(row.seq);
                assert_eq!(sequence.tokens(), expected, "{:?}", row.seq);
            }
        }
        self.check_blocks();
    }

    fn check_plan(&self, plan: &StepPlan) {
        let n_tokens: u32 = plan.rows.iter().map(|row| row.n_tokens).sum();
        assert!(
            n_tokens as usize <= self.limits.max_batch_tokens,
            "{plan:?}"
        );
        assert!(plan.rows.len() <= self.limits.max_running, "{plan:?}");
        let prompts = plan.rows.iter().filter(|row| row.n_tokens > 1);
        let n_prompt_tokens: u32 = prompts.map(|row| row.n_tokens).sum();
        assert!(
            n_prompt_tokens as usize <= self.limits.max_prompt_tokens,
            "{plan:?}"
        );
        let seqs: HashSet<SeqId> = plan.rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs.len(), plan.rows.len(), "one row a sequence: {plan:?}");
        for row in &plan.rows {
            let sequence = self.sequence(row.seq);
            assert!(!sequence.paused && row.n_tokens > 0);
            assert_eq!(row.start, sequence.n_computed);
            let end = row.start + row.n_tokens;
            assert!(end <= sequence.n_tokens() && end as usize <= sequence.n_slots());
            let draws = end == sequence.n_tokens() && sequence.wants_token();
            assert_eq!(row.wants_logits, draws);
        }
    }

    /// First come, first served; the oldest always moves on; nobody idles while one could run.
    fn check_fairness(
        &self,
        plan: &StepPlan,
        leader: Option<(SeqId, u32)>,
        waiting: BTreeSet<SeqId>,
    ) {
        let can_run = self.alive.keys().any(|id| !self.sequence(*id).paused);
        assert_eq!(!plan.rows.is_empty(), can_run);
        if let Some((id, n_computed)) = leader {
            assert_eq!(
                self.sequence(id).n_computed,
                n_computed,
                "the oldest {id:?} gave way"
            );
        }
        // An older one may have been let in again.
        if let Some((id, _)) = self.leader() {
            assert!(
                plan.rows.iter().any(|row| row.seq == id),
                "the oldest {id:?} stood still"
            );
        }
        let (admitted, left): (BTreeSet<_>, BTreeSet<_>) = waiting
            .into_iter()
            .filter(|id| !self.sequence(*id).paused)
            .partition(|id| !self.sequence(*id).block_table.is_empty());
        if let (Some(last), Some(first)) = (admitted.last(), left.first()) {
            assert!(last < first, "{last:?} overtook {first:?}");
        }
    }

    fn check_blocks(&self) {
        let mut held = HashSet::new();
        for id in self.alive.keys() {
            let sequence = self.sequence(*id);
            assert!(sequence.n_computed as usize <= sequence.n_slots());
            for block in &sequence.block_table {
                assert!(
                    held.insert(block.index()),
                    "block {} has two owners",
                    block.index()
                );
            }
        }
        let n_blocks = self.scheduler.n_blocks();
        assert_eq!(
            held.len() + self.scheduler.n_free_blocks(),
            n_blocks,
            "blocks leak"
        );
    }

    /// Everybody reads again: all end, each with its own tokens.
    fn finish(mut self) {
        let ids: Vec<SeqId> = self.alive.keys().copied().collect();
        for id in &ids {
            self.scheduler.sequence_mut(*id).unwrap().paused = false;
        }
        // One token a step for the oldest, begun again for each older one that is let in again.
        let n_tokens: usize = self.alive.values().map(|tokens| tokens.len() + 1).sum();
        let bound = n_tokens * self.alive.len();
        for _ in 0..bound {
            if self.alive.is_empty() {
                break;
            }
            self.step();
        }
        assert!(self.alive.is_empty(), "starved: {:?}", self.alive.keys());
        assert_eq!(self.scheduler.n_free_blocks(), self.scheduler.n_blocks());
        assert_eq!(self.scheduler.n_running(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_traffic_is_served_fairly_and_leaves_nothing_behind(
        (limits, n_blocks) in limits(),
        deeds in deeds(),
    ) {
        let mut walk = Walk::new(limits, n_blocks);
        for deed in deeds {
            walk.act(deed);
        }
        walk.finish();
    }
}
