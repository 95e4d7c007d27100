//! Who owns which block of the cache.

/// The blocks of the cache: free ones on a list, others with the number of their owners.
#[derive(Debug)]
pub(crate) struct BlockPool {
    owners: Vec<u32>,
    free: Vec<u32>,
    block_size: usize,
}

impl BlockPool {
    /// A pool of free blocks.
    pub fn new(blocks: usize, block_size: usize) -> Self {
        Self { owners: vec![0; blocks], free: (0..blocks as u32).rev().collect(), block_size }
    }

    /// Blocks without an owner.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.owners.len()
    }

    /// Blocks with an owner.
    pub fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Blocks that a table of `held` blocks lacks to hold `tokens`.
    pub fn lacking(&self, held: usize, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size).saturating_sub(held)
    }

    /// Extends a table until it holds `tokens`; says false, and takes nothing, where there are too few free blocks.
    pub fn grow(&mut self, table: &mut Vec<u32>, tokens: usize) -> bool {
        let lacking = self.lacking(table.len(), tokens);
        if lacking > self.free.len() {
            return false;
        }
        for block in self.free.drain(self.free.len() - lacking..).rev() {
            self.owners[block as usize] = 1;
            table.push(block);
        }
        true
    }

    /// Gives up a table's share of its blocks.
    pub fn release(&mut self, table: &mut Vec<u32>) {
        for block in table.drain(..) {
            let owners = &mut self.owners[block as usize];
            *owners -= 1;
            if *owners == 0 {
                self.free.push(block);
            }
        }
    }

    /// Whether the books agree with these tables, which are all there are: every block is owned as often as it is listed,
    /// and is free exactly when nobody lists it.
    pub fn agrees_with<'a>(&self, tables: impl Iterator<Item = &'a Vec<u32>>) -> bool {
        let mut owners = vec![0; self.total()];
        tables.flatten().for_each(|block| owners[*block as usize] += 1);
        let mut free = vec![false; self.total()];
        self.free.iter().for_each(|block| free[*block as usize] = true);
        let unowned = owners.iter().filter(|count| **count == 0).count();
        owners == self.owners && unowned == self.free() && owners.iter().zip(&free).all(|(count, free)| (*count == 0) == *free)
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
        assert_eq!((a.len(), pool.free(), pool.used()), (2, 1, 2));
        assert!(!pool.grow(&mut b, 5));
        assert!(b.is_empty());
        assert!(pool.grow(&mut b, 4));
        assert!(pool.agrees_with([&a, &b].into_iter()));
        assert!(!pool.agrees_with([&a].into_iter()));
        pool.release(&mut a);
        assert!(a.is_empty());
        assert!(pool.grow(&mut b, 12));
        pool.release(&mut b);
        assert_eq!((pool.free(), pool.used()), (3, 0));
        assert!(pool.agrees_with([].into_iter()));
    }
}
