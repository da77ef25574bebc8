//! Who holds which block of the paged cache.

/// A share in one block of the cache. It cannot be copied: whoever holds it gives it back exactly
/// once, so that a block is never freed twice.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Block(u32);

impl Block {
    /// The block's number in the cache.
    pub(super) fn index(&self) -> u32 {
        self.0
    }
}

/// Gives out the blocks of a cache and counts who shares them. Blocks are plain numbers here; what
/// lies in them is the model's. The same calls give the same blocks.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct BlockAllocator {
    /// Free blocks, the next one last.
    free: Vec<u32>,
    /// Holders of each block.
    n_holders: Vec<u32>,
}

impl BlockAllocator {
    /// All of `n_blocks` free.
    pub(super) fn new(n_blocks: u32) -> Self {
        Self {
            free: (0..n_blocks).rev().collect(),
            n_holders: vec![0; n_blocks as usize],
        }
    }

    /// Blocks in all.
    pub(super) fn n_blocks(&self) -> usize {
        self.n_holders.len()
    }

    /// Blocks nobody holds.
    pub(super) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// A block of one's own, or `None` when all are held.
    pub(super) fn allocate(&mut self) -> Option<Block> {
        let index = self.free.pop()?;
        self.n_holders[index as usize] = 1;
        Some(Block(index))
    }

    /// One more share in a block that is held. A shared block may be read, not written.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "sharing begins with the prefix tree; its law is tested now"
        )
    )]
    pub(super) fn share(&mut self, block: &Block) -> Block {
        self.n_holders[block.0 as usize] += 1;
        Block(block.0)
    }

    /// True while nobody else holds the block: only then may it be written.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "sharing begins with the prefix tree; its law is tested now"
        )
    )]
    pub(super) fn is_exclusive(&self, block: &Block) -> bool {
        self.n_holders[block.0 as usize] == 1
    }

    /// Gives a share back; with the last one the block is free.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it takes the share from its holder"
    )]
    pub(super) fn release(&mut self, block: Block) {
        let Block(index) = block;
        let n_holders = &mut self.n_holders[index as usize];
        *n_holders -= 1;
        if *n_holders == 0 {
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn gives_every_block_once_and_then_none() {
        let mut blocks = BlockAllocator::new(3);
        let held: Vec<Block> = std::iter::from_fn(|| blocks.allocate()).collect();
        assert_eq!(held.iter().map(Block::index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(blocks.n_free(), 0);
        for block in held {
            blocks.release(block);
        }
        assert_eq!(blocks.n_free(), 3);
    }

    #[test]
    fn a_shared_block_is_free_after_its_last_holder_and_not_before() {
        let mut blocks = BlockAllocator::new(1);
        let first = blocks.allocate().unwrap();
        let second = blocks.share(&first);
        assert!(!blocks.is_exclusive(&first));
        blocks.release(first);
        assert!(blocks.is_exclusive(&second));
        assert_eq!(blocks.n_free(), 0);
        blocks.release(second);
        assert_eq!(blocks.n_free(), 1);
    }

    #[test]
    fn a_random_walk_neither_leaks_nor_frees_twice() {
        let mut random = 0x9e37_79b9_u64;
        let mut next = |n: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % n
        };
        let mut blocks = BlockAllocator::new(17);
        let mut held: Vec<Block> = Vec::new();
        for _ in 0..20_000 {
            match next(3) {
                0 => held.extend(blocks.allocate()),
                1 if !held.is_empty() && held.len() < 60 => {
                    let share = blocks.share(&held[next(held.len())]);
                    held.push(share);
                }
                _ if !held.is_empty() => blocks.release(held.swap_remove(next(held.len()))),
                _ => {}
            }
            let mut shares: HashMap<u32, u32> = HashMap::new();
            for block in &held {
                *shares.entry(block.index()).or_default() += 1;
            }
            assert_eq!(blocks.n_free() + shares.len(), blocks.n_blocks());
            assert!(blocks.free.iter().all(|index| !shares.contains_key(index)));
            for block in &held {
                assert_eq!(blocks.is_exclusive(block), shares[&block.index()] == 1);
            }
        }
    }
}
