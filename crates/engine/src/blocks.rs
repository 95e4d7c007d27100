//! Who owns which block of the cache, and what the blocks hold that nobody owns.

use std::collections::{BTreeMap, HashMap};

use crate::prefix::BlockHash;

/// The blocks of the cache. A block is owned by sequences, or idle: still there to be found by its hash, until the room is
/// needed; or free.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Idle blocks; the first has been so for longest.
    idle: BTreeMap<u64, u32>,
    by_hash: HashMap<BlockHash, u32>,
    block_size: usize,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Block {
    owners: u32,
    /// What it holds, if it may be found.
    hash: Option<BlockHash>,
    /// When it became idle; its key among those.
    idle_since: u64,
}

impl BlockPool {
    /// A pool of free blocks.
    pub fn new(blocks: usize, block_size: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            free: (0..blocks as u32).rev().collect(),
            idle: BTreeMap::new(),
            by_hash: HashMap::new(),
            block_size,
            clock: 0,
        }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks without an owner: there for the taking.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks without an owner that can be found.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Blocks with an owner.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Blocks that a table of `held` blocks lacks to hold `tokens`.
    pub fn lacking(&self, held: usize, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size).saturating_sub(held)
    }

    /// Extends a table until it holds `tokens`; says false, and takes nothing, where there are too few blocks. Free ones go
    /// first, then those that were idle for longest.
    pub fn grow(&mut self, table: &mut Vec<u32>, tokens: usize) -> bool {
        let lacking = self.lacking(table.len(), tokens);
        if lacking > self.available() {
            return false;
        }
        for _ in 0..lacking {
            let Some(block) = self.free.pop().or_else(|| self.evict()) else { return false };
            self.blocks[block as usize].owners = 1;
            table.push(block);
        }
        true
    }

    /// How many blocks from the first on are there.
    pub fn known(&self, hashes: &[BlockHash]) -> usize {
        hashes.iter().take_while(|hash| self.by_hash.contains_key(*hash)).count()
    }

    /// Takes a share of the blocks with these hashes, until one is missing.
    pub fn claim(&mut self, hashes: &[BlockHash]) -> Vec<u32> {
        let table: Vec<u32> = hashes.iter().map_while(|hash| self.by_hash.get(hash).copied()).collect();
        for block in &table {
            let block = &mut self.blocks[*block as usize];
            if block.owners == 0 {
                self.idle.remove(&block.idle_since);
            }
            block.owners += 1;
        }
        table
    }

    /// A block is full and can be found from now on. One that holds the same already stays the one that is found.
    pub fn publish(&mut self, block: u32, hash: BlockHash) {
        self.by_hash.entry(hash).or_insert_with(|| {
            self.blocks[block as usize].hash = Some(hash);
            block
        });
    }

    /// Gives up a table's share of its blocks. The last becomes idle first, so that what is left of a prefix is its beginning.
    pub fn release(&mut self, table: &mut Vec<u32>) {
        for id in table.drain(..).rev() {
            let block = &mut self.blocks[id as usize];
            block.owners -= 1;
            match (block.owners, block.hash) {
                (0, Some(_)) => {
                    self.clock += 1;
                    block.idle_since = self.clock;
                    self.idle.insert(self.clock, id);
                }
                (0, None) => self.free.push(id),
                _ => {}
            }
        }
    }

    /// Forgets the block that has been idle for longest.
    fn evict(&mut self) -> Option<u32> {
        let (_, id) = self.idle.pop_first()?;
        if let Some(hash) = self.blocks[id as usize].hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Whether the books agree with these tables, which are all there are: every block is owned as often as it is listed; one
    /// that nobody lists is idle when it can be found, and free when it cannot.
    pub fn agrees_with<'a>(&self, tables: impl Iterator<Item = &'a Vec<u32>>) -> bool {
        let mut owners = vec![0; self.total()];
        tables.flatten().for_each(|block| owners[*block as usize] += 1);
        let mut free = vec![0; self.total()];
        self.free.iter().for_each(|block| free[*block as usize] += 1);
        let mut idle = vec![0; self.total()];
        self.idle.values().for_each(|block| idle[*block as usize] += 1);
        let found = |id: usize, hash| self.by_hash.get(&hash) == Some(&(id as u32));
        self.blocks.iter().enumerate().all(|(id, block)| {
            let expected = match (block.owners, block.hash) {
                (0, None) => (1, 0),
                (0, Some(_)) => (0, 1),
                _ => (0, 0),
            };
            block.owners == owners[id] && (free[id], idle[id]) == expected && block.hash.is_none_or(|hash| found(id, hash))
        }) && self.by_hash.len() == self.blocks.iter().filter(|block| block.hash.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_by_whole_blocks_or_not_at_all() {
        let mut pool = BlockPool::new(3, 4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(pool.grow(&mut a, 5));
        assert!(pool.grow(&mut a, 8));
        assert_eq!((a.len(), pool.available(), pool.used()), (2, 1, 2));
        assert!(!pool.grow(&mut b, 5));
        assert!(b.is_empty());
        assert!(pool.grow(&mut b, 4));
        assert!(pool.agrees_with([&a, &b].into_iter()));
        assert!(!pool.agrees_with([&a].into_iter()));
        pool.release(&mut a);
        assert!(a.is_empty());
        assert!(pool.grow(&mut b, 12));
        pool.release(&mut b);
        assert_eq!((pool.available(), pool.used()), (3, 0));
        assert!(pool.agrees_with([].into_iter()));
    }

    #[test]
    fn what_was_idle_for_longest_goes_first_and_from_its_end() {
        let hash = |n: u8| [n; 32];
        let mut pool = BlockPool::new(4, 4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(pool.grow(&mut a, 8) && pool.grow(&mut b, 8));
        for (block, n) in [(a[0], 1), (a[1], 2), (b[0], 3), (b[1], 2)] {
            pool.publish(block, hash(n));
        }
        let mut shared = pool.claim(&[hash(1), hash(2), hash(9)]);
        assert_eq!(shared, a);
        assert!(pool.agrees_with([&a, &b, &shared].into_iter()));
        pool.release(&mut a);
        assert_eq!((pool.idle(), pool.used()), (0, 4));
        pool.release(&mut shared);
        pool.release(&mut b);
        // b's second block was never to be found: another held the same.
        assert_eq!((pool.idle(), pool.available()), (3, 4));
        assert!(pool.agrees_with([].into_iter()));
        assert!(pool.grow(&mut a, 8));
        assert_eq!((pool.known(&[hash(1), hash(2)]), pool.known(&[hash(3)])), (1, 1));
        assert!(pool.agrees_with([&a].into_iter()));
    }
}
