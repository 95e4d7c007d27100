//! Which sequences run in the next step, and how far.

use std::collections::VecDeque;

use crate::blocks::{BlockPool, Move};
use crate::layout::Layout;
use crate::pace::Pace;
use crate::prefix::BlockHash;
use crate::sequence::{Room, Sequence};
use crate::stats::{Counters, count, set};
use crate::{EngineConfig, EngineError};

/// All sequences, and the blocks they share.
#[derive(Debug)]
pub struct Scheduler {
    /// In the order of their arrival: the last is the youngest.
    pub running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    pool: BlockPool,
    pub pace: Pace,
    arrived: u64,
    budget: usize,
    sequences_max: usize,
}

/// A share of the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index among the running sequences.
    pub sequence: usize,
    /// Pending tokens to compute.
    pub count: usize,
}

impl Scheduler {
    pub fn new(config: &EngineConfig, layout: Layout) -> Self {
        Self {
            running: Vec::new(),
            waiting: VecDeque::new(),
            pool: BlockPool::new(layout),
            pace: Pace::default(),
            arrived: 0,
            budget: config.budget_tokens_max.max(1),
            sequences_max: config.sequences_max.max(1),
        }
    }

    pub fn push(&mut self, mut sequence: Sequence) {
        self.arrived += 1;
        sequence.id = self.arrived;
        self.waiting.push_back(sequence);
    }

    /// A sequence, running or waiting, if it is still there.
    pub fn find(&mut self, id: u64) -> Option<&mut Sequence> {
        self.running.iter_mut().chain(&mut self.waiting).find(|sequence| sequence.id == id)
    }

    /// Ends a sequence, if it is still there.
    pub fn fail(&mut self, id: u64, error: EngineError) {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.remove(index).fail(error);
        } else if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index).into_iter().for_each(|sequence| sequence.fail(error.clone()));
        }
    }

    /// The first running sequence that the next step could bring to a media item which is not encoded, and that item.
    pub fn unencoded(&self) -> Option<(u64, usize)> {
        self.running.iter().find_map(|sequence| Some((sequence.id, sequence.unencoded(self.budget)?)))
    }

    /// Sequences that wait for their next token.
    pub fn writing(&self) -> usize {
        self.running.iter().filter(|sequence| sequence.pending() == 1).count()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Drops sequences that nobody listens to.
    pub fn sweep(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_cancelled());
        for i in (0..self.running.len()).rev() {
            if self.running[i].is_cancelled() {
                self.remove(i);
            }
        }
    }

    /// Takes a sequence out of the batch and its blocks back.
    pub fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        sequence.release(&mut self.pool);
        sequence
    }

    /// Lets others find what a running sequence has computed.
    pub fn publish(&mut self, index: usize) {
        self.running[index].publish(&mut self.pool);
    }

    /// Ends everything, and forgets what the cache holds.
    pub fn start_over(&mut self, error: &EngineError) {
        self.running.drain(..).chain(self.waiting.drain(..)).for_each(|sequence| sequence.fail(error.clone()));
        self.pool = self.pool.emptied();
    }

    /// What the cache has to do before the next step.
    pub fn take_moves(&mut self) -> Vec<Move> {
        self.pool.take_moves()
    }

    /// Shares of the next step; none only when there is nothing to do but to encode. Decoding sequences come first, so that a long prompt
    /// delays nobody; the rest of the budget, or as much of it as those who decode can spare, goes to prompts in the order of
    /// their arrival.
    pub fn plan(&mut self, counters: &Counters) -> Vec<Share> {
        loop {
            self.admit(counters);
            let shares = self.try_plan(counters);
            // Without a share everybody waits for blocks, but for those whose media are being encoded: the youngest gives its
            // own up.
            let whole = Room { paced: self.budget, hard: self.budget, whole: true };
            if !shares.is_empty() || self.running.iter().all(|sequence| sequence.chunk(whole) == 0) {
                return shares;
            }
            self.preempt(counters);
        }
    }

    /// Takes in those that wait, in their order, as far as there is room.
    fn admit(&mut self, counters: &Counters) {
        let mut next = 0;
        // Those far behind are not looked at: their turn is not now.
        while next < self.waiting.len().min(self.sequences_max) && self.running.len() < self.sequences_max {
            let sequence = &self.waiting[next];
            let wanted = sequence.reusable(self.pool.block_size());
            let known = self.pool.known(wanted);
            if self.is_on_its_way(wanted, known) {
                next += 1;
                continue;
            }
            let cached = known * self.pool.block_size();
            let room = Room { paced: self.budget, hard: self.budget, whole: true };
            if !self.pool.fits(&wanted[..known], cached + sequence.chunk_behind(cached, room)) {
                return;
            }
            let Some(mut sequence) = self.waiting.remove(next) else { return };
            sequence.claim(&mut self.pool, known);
            count(&counters.prefix_tokens, sequence.cached);
            sequence.start();
            self.running.push(sequence);
        }
    }

    /// Whether somebody is computing what a sequence that finds `known` of its blocks would compute itself.
    fn is_on_its_way(&self, wanted: &[BlockHash], known: usize) -> bool {
        let size = self.pool.block_size();
        self.running.iter().any(|other| {
            let next = other.next_found(known, size).filter(|blocks| *blocks <= wanted.len());
            next.is_some_and(|blocks| other.cached < blocks * size && other.hashes.get(blocks - 1) == Some(&wanted[blocks - 1]))
        })
    }

    fn try_plan(&mut self, counters: &Counters) -> Vec<Share> {
        let mut shares = Vec::new();
        let mut budget = self.budget;
        let mut i = 0;
        while i < self.running.len() && budget > 0 {
            if self.running[i].pending() == 1 && self.running[i].unencoded(1).is_none() {
                while !self.grow(i, 1) && self.running.len() > i + 1 {
                    self.preempt(counters);
                }
                if self.grow(i, 1) {
                    shares.push(Share { sequence: i, count: 1 });
                    budget -= 1;
                }
            }
            i += 1;
        }
        let writing = shares.len();
        let mut paced = self.pace.prompt_tokens(writing, budget);
        for i in 0..self.running.len() {
            let chunk = self.running[i].chunk(Room { paced, hard: budget, whole: shares.len() == writing });
            if self.running[i].pending() > 1 && chunk > 0 && self.grow(i, chunk) {
                shares.push(Share { sequence: i, count: chunk });
                budget = budget.saturating_sub(chunk);
                paced = paced.saturating_sub(chunk);
            }
        }
        shares.sort_by_key(|share| share.sequence);
        shares
    }

    fn grow(&mut self, index: usize, count: usize) -> bool {
        let sequence = &mut self.running[index];
        self.pool.grow(&mut sequence.tables, sequence.cached + count)
    }

    /// The youngest loses its blocks and waits, in front of all others.
    fn preempt(&mut self, counters: &Counters) {
        let youngest = self.remove(self.running.len() - 1);
        self.waiting.push_front(youngest);
        count(&counters.preemptions, 1);
    }

    /// Publishes the gauges.
    pub fn account(&self, counters: &Counters) {
        debug_assert!(self.pool.agrees_with(self.running.iter().map(|sequence| &sequence.tables)));
        set(&counters.running, self.running.len());
        set(&counters.waiting, self.waiting.len());
        set(&counters.cache_bytes_used, self.pool.used());
        set(&counters.cache_bytes_idle, self.pool.idle());
        set(&counters.cache_bytes_total, self.pool.total());
    }
}
