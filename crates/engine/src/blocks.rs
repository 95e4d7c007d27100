//! Who owns which block of the cache, and what the blocks hold that nobody owns.
//!
//! Layers come in groups ([`nn::CacheGroup`]); each group has blocks of its own, of its own size in bytes. All share one budget:
//! a block that is not used takes no memory, or gives it back when another group needs it.

use std::collections::{BTreeMap, HashMap};

use nn::{Back, Retention};

use crate::layout::{self, Layout};
use crate::prefix::BlockHash;

/// A place in a table whose block is not needed any more.
pub(crate) const GONE: u32 = u32::MAX;

/// A sequence's blocks, by group.
pub(crate) type Tables = Vec<Vec<u32>>;

/// What the storage has to do before the next step, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// A block's memory is needed elsewhere.
    Discard { group: usize, block: u32 },
    /// A state becomes another block's.
    CopyState { group: usize, from: u32, to: u32 },
}

/// The blocks of the cache. A block is owned by sequences, or idle: still there to be found by its hash, until the room is
/// needed; or free.
#[derive(Debug)]
pub(crate) struct BlockPool {
    layout: Layout,
    groups: Vec<Group>,
    /// Idle blocks, (group, block); the first has been so for longest.
    idle: BTreeMap<u64, (usize, u32)>,
    by_hash: HashMap<(usize, BlockHash), u32>,
    moves: Vec<Move>,
    clock: u64,
}

#[derive(Debug)]
struct Group {
    retention: Retention,
    /// Of a block.
    bytes: usize,
    blocks: Vec<Block>,
    /// Free blocks that have memory.
    free: Vec<u32>,
    /// Free blocks that have none.
    bare: Vec<u32>,
    idle: usize,
}

#[derive(Debug, Clone, Default)]
struct Block {
    owners: u32,
    /// What it holds, if it may be found.
    hash: Option<BlockHash>,
    /// When it became idle; its key among those.
    idle_since: u64,
}

impl Group {
    fn used(&self) -> usize {
        self.blocks.len() - self.free.len() - self.bare.len() - self.idle
    }

    /// Bytes of blocks that have memory.
    fn backed(&self) -> usize {
        (self.blocks.len() - self.bare.len()) * self.bytes
    }
}

impl BlockPool {
    /// A pool of free blocks.
    pub fn new(layout: Layout) -> Self {
        let group = |(i, group): (usize, &layout::Group)| Group {
            retention: group.retention,
            bytes: group.block_bytes,
            blocks: vec![Block::default(); layout.blocks[i]],
            free: Vec::new(),
            bare: (0..layout.blocks[i] as u32).rev().collect(),
            idle: 0,
        };
        let groups = layout.groups.iter().enumerate().map(group).collect();
        Self { layout, groups, idle: BTreeMap::new(), by_hash: HashMap::new(), moves: Vec::new(), clock: 0 }
    }

    /// The same, with all blocks free.
    pub fn emptied(&self) -> Self {
        Self::new(self.layout.clone())
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.layout.block_size
    }

    /// Bytes that all blocks together may take.
    pub fn total(&self) -> usize {
        self.layout.bytes
    }

    /// Bytes of blocks without an owner that can be found.
    pub fn idle(&self) -> usize {
        self.groups.iter().map(|group| group.idle * group.bytes).sum()
    }

    /// Bytes of blocks with an owner.
    pub fn used(&self) -> usize {
        self.groups.iter().map(|group| group.used() * group.bytes).sum()
    }

    /// What the storage has to do since this was asked last.
    pub fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// Extends tables until they hold `tokens`; says false, and takes nothing, where there is too little room. Free blocks go
    /// first, then those that were idle for longest.
    pub fn grow(&mut self, tables: &mut Tables, tokens: usize) -> bool {
        let lacking = self.lacking(tables, tokens);
        if !self.has_room(&lacking) {
            return false;
        }
        for (group, count) in lacking.into_iter().enumerate() {
            for _ in 0..count {
                let Some(block) = self.take(group) else { return false };
                tables[group].push(block);
            }
        }
        true
    }

    /// Whether a sequence that begins behind these blocks, which are there, could go on until it has `tokens`.
    pub fn fits(&self, found: &[BlockHash], tokens: usize) -> bool {
        let found = self.found(found);
        let mut lacking = self.lacking(&found, tokens);
        for (group, table) in found.iter().enumerate() {
            let idle = |block: &&u32| self.groups[group].blocks.get(**block as usize).is_some_and(|block| block.owners == 0);
            // They are there for the taking, and so is what they hold; but then they are nobody else's.
            lacking[group] += table.iter().filter(idle).count();
        }
        self.has_room(&lacking)
    }

    /// Blocks that tables lack to hold `tokens`.
    fn lacking(&self, tables: &Tables, tokens: usize) -> Vec<usize> {
        let wanted = |group: &Group| match group.retention {
            Retention::State => 1,
            Retention::Tokens(_) => tokens.div_ceil(self.block_size()),
        };
        self.groups.iter().zip(tables).map(|(group, table)| wanted(group).saturating_sub(table.len())).collect()
    }

    /// Whether so many blocks of each group can be had.
    fn has_room(&self, lacking: &[usize]) -> bool {
        let bytes: usize = self.groups.iter().zip(lacking).map(|(group, count)| group.bytes * count).sum();
        let there = |(group, count): (&Group, &usize)| *count <= group.blocks.len() - group.used();
        bytes <= self.total() - self.used() && self.groups.iter().zip(lacking).all(there)
    }

    /// A block of a group, if there is room for one.
    fn take(&mut self, group: usize) -> Option<u32> {
        let block = loop {
            let Group { free, bare, bytes, .. } = &mut self.groups[group];
            let bytes = *bytes;
            if let Some(block) = free.pop() {
                break block;
            }
            if !bare.is_empty() && self.backed() + bytes <= self.total() {
                break self.groups[group].bare.pop()?;
            }
            match self.groups.iter().position(|group| !group.free.is_empty()) {
                Some(other) => self.discard(other),
                None => self.evict()?,
            }
        };
        self.groups[group].blocks[block as usize].owners = 1;
        Some(block)
    }

    fn backed(&self) -> usize {
        self.groups.iter().map(Group::backed).sum()
    }

    /// Takes the memory of a free block.
    fn discard(&mut self, group: usize) {
        if let Some(block) = self.groups[group].free.pop() {
            self.groups[group].bare.push(block);
            self.moves.push(Move::Discard { group, block });
        }
    }

    /// Forgets the block that has been idle for longest.
    fn evict(&mut self) -> Option<()> {
        let (_, (group, block)) = self.idle.pop_first()?;
        self.groups[group].idle -= 1;
        self.groups[group].free.push(block);
        let hash = self.groups[group].blocks[block as usize].hash.take()?;
        self.by_hash.remove(&(group, hash));
        Some(())
    }

    /// From how many of these blocks on a sequence could go on: all that the next token looks at is there.
    pub fn known(&self, hashes: &[BlockHash]) -> usize {
        let mut most = hashes.len();
        for group in (0..self.groups.len()).filter(|group| self.groups[*group].retention == Retention::Tokens(Back::All)) {
            most = hashes[..most].iter().take_while(|hash| self.by_hash.contains_key(&(group, **hash))).count();
        }
        let mut known = 0;
        // Of each group, blocks without a gap until here.
        let mut lengths = vec![0; self.groups.len()];
        for (i, hash) in hashes[..most].iter().enumerate() {
            let enough = self.groups.iter().enumerate().zip(&mut lengths).fold(true, |enough, ((g, group), length)| {
                let there = group.retention == Retention::Tokens(Back::All) || self.by_hash.contains_key(&(g, *hash));
                *length = if there { *length + 1 } else { 0 };
                enough && *length >= i + 1 - self.first_needed(group, i + 1)
            });
            known = if enough { i + 1 } else { known };
        }
        known
    }

    /// The first block that is needed to go on behind so many.
    fn first_needed(&self, group: &Group, blocks: usize) -> usize {
        match group.retention {
            Retention::Tokens(back) => back.first(blocks * self.block_size()) / self.block_size(),
            Retention::State => blocks.saturating_sub(1),
        }
        .min(blocks)
    }

    /// The blocks with these hashes that are needed to go on behind them; of a state, none.
    fn found(&self, hashes: &[BlockHash]) -> Tables {
        let table = |(g, group): (usize, &Group)| {
            let first = self.first_needed(group, hashes.len());
            let block = |hash: &BlockHash| self.by_hash.get(&(g, *hash)).copied().unwrap_or(GONE);
            match group.retention {
                Retention::State => Vec::new(),
                _ => std::iter::repeat_n(GONE, first).chain(hashes[first..].iter().map(block)).collect(),
            }
        };
        self.groups.iter().enumerate().map(table).collect()
    }

    /// Takes a share of the blocks with these hashes, which are [`Self::known`], and a copy of the state behind them.
    pub fn claim(&mut self, hashes: &[BlockHash]) -> Tables {
        let mut tables = self.found(hashes);
        for (group, table) in tables.iter().enumerate() {
            for &id in table.iter().filter(|id| **id != GONE) {
                let block = &mut self.groups[group].blocks[id as usize];
                block.owners += 1;
                if block.owners == 1 {
                    self.idle.remove(&block.idle_since);
                    self.groups[group].idle -= 1;
                }
            }
        }
        if let (Some(group), Some(hash)) = (self.state_group(), hashes.last())
            && let Some(&from) = self.by_hash.get(&(group, *hash))
            && let Some(to) = self.take(group)
        {
            self.moves.push(Move::CopyState { group, from, to });
            tables[group].push(to);
        }
        tables
    }

    /// The blocks of a place in the tables are full and can be found from now on. One that holds the same already stays the one
    /// that is found.
    pub fn publish(&mut self, tables: &Tables, place: usize, hash: BlockHash) {
        for (group, table) in tables.iter().enumerate() {
            let full = self.groups[group].retention != Retention::State;
            if let Some(&id) = table.get(place).filter(|id| full && **id != GONE) {
                self.name(group, id, hash);
            }
        }
    }

    fn name(&mut self, group: usize, id: u32, hash: BlockHash) {
        self.by_hash.entry((group, hash)).or_insert_with(|| {
            self.groups[group].blocks[id as usize].hash = Some(hash);
            id
        });
    }

    /// The group of states, if layers keep any.
    pub fn state_group(&self) -> Option<usize> {
        self.groups.iter().position(|group| group.retention == Retention::State)
    }

    /// Keeps a copy of a sequence's state behind the block with this hash, where there is room for it.
    pub fn keep_state(&mut self, tables: &Tables, hash: BlockHash) {
        let Some(group) = self.state_group() else { return };
        let count: Vec<usize> = (0..self.groups.len()).map(|i| usize::from(i == group)).collect();
        if self.by_hash.contains_key(&(group, hash)) || !self.has_room(&count) {
            return;
        }
        if let (Some(&from), Some(to)) = (tables[group].first(), self.take(group)) {
            self.moves.push(Move::CopyState { group, from, to });
            self.name(group, to, hash);
            self.let_go(group, to);
        }
    }

    /// Forgets the copy of a state.
    pub fn forget_state(&mut self, hash: BlockHash) {
        let Some(group) = self.state_group() else { return };
        if let Some(id) = self.by_hash.remove(&(group, hash)) {
            let block = &mut self.groups[group].blocks[id as usize];
            block.hash = None;
            self.idle.remove(&block.idle_since);
            self.groups[group].idle -= 1;
            self.groups[group].free.push(id);
        }
    }

    /// Gives up the blocks that no token behind the first `tokens` looks at.
    pub fn trim(&mut self, tables: &mut Tables, tokens: usize) {
        for (group, table) in tables.iter_mut().enumerate() {
            let Retention::Tokens(back) = self.groups[group].retention else { continue };
            let needed = (back.first(tokens) / self.layout.block_size).min(table.len());
            // What was given up before lies in front.
            for place in table[..needed].iter_mut().rev().take_while(|id| **id != GONE) {
                self.let_go(group, std::mem::replace(place, GONE));
            }
        }
    }

    /// Gives up a sequence's share of its blocks. The last becomes idle first, so that what is left of a prefix is its beginning.
    pub fn release(&mut self, tables: &mut Tables) {
        let longest = tables.iter().map(Vec::len).max().unwrap_or(0);
        for place in (0..longest).rev() {
            for (group, table) in tables.iter_mut().enumerate() {
                if let Some(id) = (place < table.len()).then(|| table.pop()).flatten().filter(|id| *id != GONE) {
                    self.let_go(group, id);
                }
            }
        }
    }

    /// One owner less.
    fn let_go(&mut self, group: usize, id: u32) {
        let of = &mut self.groups[group];
        let block = &mut of.blocks[id as usize];
        block.owners -= 1;
        match (block.owners, block.hash) {
            (0, Some(_)) => {
                self.clock += 1;
                block.idle_since = self.clock;
                of.idle += 1;
                self.idle.insert(self.clock, (group, id));
            }
            (0, None) => of.free.push(id),
            _ => {}
        }
    }

    /// Whether the books agree with these tables, which are all there are: every block is owned as often as it is listed; one
    /// that nobody lists is idle when it can be found, and free when it cannot; and the blocks with memory keep to the budget.
    pub fn agrees_with<'a>(&self, tables: impl Iterator<Item = &'a Tables>) -> bool {
        let count = |ids: &mut dyn Iterator<Item = u32>, blocks: usize| {
            let mut counts = vec![0; blocks];
            ids.filter(|id| *id != GONE).for_each(|id| counts[id as usize] += 1);
            counts
        };
        let tables: Vec<&Tables> = tables.collect();
        let agree = self.groups.iter().enumerate().all(|(g, group)| {
            let blocks = group.blocks.len();
            let owners = count(&mut tables.iter().flat_map(|tables| &tables[g]).copied(), blocks);
            let free = count(&mut group.free.iter().chain(&group.bare).copied(), blocks);
            let idle = count(&mut self.idle.values().filter(|(of, _)| *of == g).map(|(_, id)| *id), blocks);
            let found = |id: usize, hash| self.by_hash.get(&(g, hash)) == Some(&(id as u32));
            group.idle == idle.iter().sum::<u32>() as usize
                && group.blocks.iter().enumerate().all(|(id, block)| {
                    let expected = match (block.owners, block.hash) {
                        (0, None) => (1, 0),
                        (0, Some(_)) => (0, 1),
                        _ => (0, 0),
                    };
                    block.owners == owners[id]
                        && (free[id], idle[id]) == expected
                        && block.hash.is_none_or(|hash| found(id, hash))
                })
        });
        let named = self.groups.iter().flat_map(|group| &group.blocks).filter(|block| block.hash.is_some()).count();
        agree && self.by_hash.len() == named && self.backed() <= self.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Retention = Retention::Tokens(Back::All);

    /// Blocks of 4 tokens, for groups of these retentions and bytes.
    fn pool(groups: &[(Retention, usize)], bytes: usize) -> BlockPool {
        let groups: Vec<_> = groups.iter().map(|&(retention, block_bytes)| layout::Group { retention, block_bytes }).collect();
        let blocks = groups.iter().map(|group| bytes / group.block_bytes).collect();
        BlockPool::new(Layout { groups, blocks, bytes, block_size: 4 })
    }

    fn tables(pool: &BlockPool) -> Tables {
        vec![Vec::new(); pool.groups.len()]
    }

    fn hash(n: u8) -> BlockHash {
        [n; 32]
    }

    #[test]
    fn tables_grow_by_whole_blocks_or_not_at_all() {
        let mut pool = pool(&[(ALL, 1)], 3);
        let (mut a, mut b) = (tables(&pool), tables(&pool));
        assert!(pool.grow(&mut a, 5));
        assert!(pool.grow(&mut a, 8));
        assert_eq!((a[0].len(), pool.used()), (2, 2));
        assert!(!pool.grow(&mut b, 5));
        assert!(b[0].is_empty());
        assert!(pool.grow(&mut b, 4));
        assert!(pool.agrees_with([&a, &b].into_iter()));
        assert!(!pool.agrees_with([&a].into_iter()));
        pool.release(&mut a);
        assert!(a[0].is_empty());
        assert!(pool.grow(&mut b, 12));
        pool.release(&mut b);
        assert_eq!(pool.used(), 0);
        assert!(pool.agrees_with([].into_iter()));
    }

    #[test]
    fn what_was_idle_for_longest_goes_first_and_from_its_end() {
        let mut pool = pool(&[(ALL, 1)], 4);
        let (mut a, mut b) = (tables(&pool), tables(&pool));
        assert!(pool.grow(&mut a, 8) && pool.grow(&mut b, 8));
        for (tables, place, n) in [(&a, 0, 1), (&a, 1, 2), (&b, 0, 3), (&b, 1, 2)] {
            pool.publish(tables, place, hash(n));
        }
        assert_eq!(pool.known(&[hash(1), hash(2), hash(9)]), 2);
        let mut shared = pool.claim(&[hash(1), hash(2)]);
        assert_eq!(shared, a);
        assert!(pool.agrees_with([&a, &b, &shared].into_iter()));
        pool.release(&mut a);
        assert_eq!((pool.idle(), pool.used()), (0, 4));
        pool.release(&mut shared);
        pool.release(&mut b);
        // b's second block was never to be found: another held the same.
        assert_eq!((pool.idle(), pool.used()), (3, 0));
        assert!(pool.fits(&[hash(1), hash(2)], 16) && !pool.fits(&[hash(1), hash(2)], 17));
        assert!(pool.grow(&mut a, 8));
        assert_eq!((pool.known(&[hash(1), hash(2)]), pool.known(&[hash(3)])), (1, 1));
        assert!(pool.agrees_with([&a].into_iter()));
    }

    #[test]
    fn a_window_gives_up_what_nobody_looks_at_and_is_found_by_its_end() {
        let mut pool = pool(&[(ALL, 2), (Retention::Tokens(Back::Window(5)), 3)], 40);
        let mut held = tables(&pool);
        assert!(pool.grow(&mut held, 16));
        (0..4).for_each(|place| pool.publish(&held, place, hash(place as u8)));
        // Tokens seen from token 8 on: 4 and later.
        for (tokens, gone) in [(7, 0), (8, 1), (11, 1), (12, 2)] {
            pool.trim(&mut held, tokens);
            assert_eq!(held[1].iter().filter(|id| **id == GONE).count(), gone, "{tokens}");
        }
        assert_eq!((pool.used(), pool.idle()), (4 * 2 + 2 * 3, 2 * 3));
        let hashes: Vec<_> = (0..4).map(hash).collect();
        assert_eq!(pool.known(&hashes), 4);
        // The first group lacks 5 blocks, and the second 6, of which 2 are to be had by taking those that are idle.
        let mut other = tables(&pool);
        assert!(pool.grow(&mut other, 20));
        assert!(pool.agrees_with([&held, &other].into_iter()));
        assert_eq!((pool.known(&hashes), pool.known(&hashes[..2])), (4, 0));
        let mut again = pool.claim(&hashes);
        assert_eq!(again[1], [GONE, GONE, GONE, held[1][3]]);
        [&mut held, &mut other, &mut again].into_iter().for_each(|tables| pool.release(tables));
        assert!(pool.agrees_with([].into_iter()));
    }

    #[test]
    fn a_chunk_is_given_up_when_the_next_begins() {
        let mut pool = pool(&[(ALL, 1), (Retention::Tokens(Back::Chunk(8)), 1)], 40);
        let mut held = tables(&pool);
        assert!(pool.grow(&mut held, 20));
        (0..5).for_each(|place| pool.publish(&held, place, hash(place as u8)));
        for (tokens, gone) in [(7, 0), (8, 2), (15, 2), (16, 4)] {
            pool.trim(&mut held, tokens);
            assert_eq!(held[1].iter().filter(|id| **id == GONE).count(), gone, "{tokens}");
        }
        let hashes: Vec<_> = (0..5).map(hash).collect();
        // Where a chunk begins, nothing of those before is looked at.
        let again = [(5, vec![GONE, GONE, GONE, GONE, held[1][4]]), (4, vec![GONE; 4])];
        for (blocks, expected) in again {
            assert_eq!(pool.known(&hashes[..blocks]), blocks);
            let mut found = pool.claim(&hashes[..blocks]);
            assert_eq!(found[1], expected);
            pool.release(&mut found);
        }
        pool.release(&mut held);
        assert!(pool.agrees_with([].into_iter()));
    }

    #[test]
    fn a_state_is_copied_when_it_is_kept_and_when_it_is_found() {
        let mut pool = pool(&[(ALL, 1), (Retention::State, 10)], 34);
        let mut a = tables(&pool);
        assert!(pool.grow(&mut a, 8));
        pool.publish(&a, 0, hash(0));
        pool.keep_state(&a, hash(0));
        pool.publish(&a, 1, hash(1));
        assert_eq!((pool.known(&[hash(0), hash(1)]), pool.used(), pool.idle()), (1, 12, 10));
        let b = pool.claim(&[hash(0)]);
        assert_eq!((b[0][0], b[1].len()), (a[0][0], 1));
        let [kept, found] = pool.take_moves()[..] else { panic!("two copies") };
        let copy = |from: u32, to: u32| Move::CopyState { group: 1, from, to };
        assert_eq!([kept, found], [copy(a[1][0], 1), copy(1, b[1][0])]);
        // There is room for one copy, and for that only as long as tokens do not need it.
        pool.keep_state(&b, hash(2));
        assert_eq!((pool.known(&[hash(0)]), pool.idle()), (0, 10));
        assert!(pool.grow(&mut a, 24));
        assert_eq!(pool.idle(), 0);
        assert_eq!(pool.take_moves(), [copy(b[1][0], 1), Move::Discard { group: 1, block: 1 }]);
        pool.release(&mut a);
        pool.keep_state(&b, hash(3));
        assert!(pool.agrees_with([&b].into_iter()));
        pool.forget_state(hash(3));
        assert!(pool.agrees_with([&b].into_iter()));
    }
}
