//! From a plan to what the network reads.

use super::blocks::Block;
use super::scheduler::{Scheduler, StepPlan};
use super::sequence::count;
use crate::model::{BLOCK_LEN, Batch, Pooling};

/// Fills `batch` with the rows of `plan`, one after the other, in place of what it held.
pub(super) fn fill(batch: &mut Batch, plan: &StepPlan, scheduler: &Scheduler) {
    batch.token_ids.clear();
    batch.positions.clear();
    batch.slot_mapping.clear();
    batch.logit_rows.clear();
    batch.state_rows.clear();
    batch.cu_seqlens.clear();
    batch.cu_seqlens.push(0);
    batch.block_tables.resize_with(plan.rows.len(), Vec::new);
    for (row, block_table) in plan.rows.iter().zip(&mut batch.block_tables) {
        let Some(sequence) = scheduler.sequence(row.seq) else {
            continue;
        };
        block_table.clear();
        block_table.extend(sequence.block_table.iter().map(Block::index));
        let positions = row.start..row.start + row.n_tokens;
        for position in positions.clone() {
            batch.token_ids.push(sequence.tokens()[position as usize]);
            batch.slot_mapping.push(slot(block_table, position));
        }
        batch.positions.extend(positions);
        let n_before = count(batch.token_ids.len()) - row.n_tokens;
        let n_tokens = n_before + row.n_tokens;
        if let Some(pooler) = &sequence.pooler {
            let is_whole = row.start + row.n_tokens == sequence.n_tokens();
            batch.state_rows.extend(match pooler.pooling() {
                Pooling::First => n_before..n_before + u32::from(row.start == 0),
                Pooling::Last => n_tokens - u32::from(is_whole)..n_tokens,
                Pooling::Mean | Pooling::MeanSqrtLen | Pooling::Max => n_before..n_tokens,
            });
        }
        batch.cu_seqlens.push(n_tokens);
        if row.wants_logits {
            batch.logit_rows.push(n_tokens - 1);
        }
    }
}

/// Where in the cache a position's keys and values lie.
fn slot(block_table: &[u32], position: u32) -> u32 {
    let block_len = count(BLOCK_LEN);
    block_table[(position / block_len) as usize] * block_len + position % block_len
}

#[cfg(test)]
mod tests {
    use super::super::request::GenerateRequest;
    use super::super::scheduler::StepLimits;
    use super::super::sequence::{SeqId, Sequence};
    use super::*;
    use crate::chat::Sampling;

    #[test]
    fn rows_follow_each_other_and_point_into_their_own_blocks() {
        let limits = StepLimits {
            max_running: 4,
            max_batch_tokens: 64,
            max_prompt_tokens: 40,
        };
        let mut scheduler = Scheduler::new(limits, 8);
        for (id, n_prompt) in [(0, 33), (1, 50)] {
            let request = GenerateRequest {
                prompt: (100 * (id + 1)..).take(n_prompt).collect(),
                sampling: Sampling::default(),
                max_new_tokens: 5,
                stop_tokens: Vec::new(),
            };
            let id = SeqId(u64::from(id));
            scheduler.submit(Sequence::new(id, request, 256, 0));
        }
        let plan = scheduler.schedule();
        let mut batch = Batch::default();
        fill(&mut batch, &plan, &scheduler);

        assert_eq!(batch.cu_seqlens, [0, 33, 40]);
        assert_eq!(
            batch.token_ids,
            (100..133).chain(200..207).collect::<Vec<_>>()
        );
        assert_eq!(batch.positions, (0..33).chain(0..7).collect::<Vec<_>>());
        assert_eq!(batch.block_tables, [vec![0, 1], vec![2, 3]]);
        assert_eq!(
            batch.slot_mapping,
            (0..33).chain(64..71).collect::<Vec<_>>()
        );
        // The first prompt is through, the second is not.
        assert_eq!(batch.logit_rows, [32]);
    }
}
