//! Sequences through a model, without an engine.

use nn::{Batch, Cache, Device, Encoded, Model, Prompt, Span};

pub const BLOCK_SIZE: usize = 4;
const BLOCKS: usize = 1024;

/// A cache with room for a few sequences, and the blocks that nobody has yet.
pub struct Room {
    cache: Cache,
    free: Vec<u32>,
}

/// A sequence: its prompt, encoded media, and the tokens that came after.
pub struct Sequence<'a> {
    prompt: &'a Prompt,
    encoded: Vec<Encoded>,
    tokens: Vec<u32>,
    done: usize,
    blocks: Vec<u32>,
}

impl Room {
    pub fn new(model: &dyn Model) -> Self {
        let spec = model.cache_spec();
        let blocks = vec![BLOCKS; spec.groups().len()];
        let cache = Cache::new(spec, &blocks, BLOCK_SIZE, nn::KvFormat::F32, &Device::Cpu).unwrap();
        // Handed out in an order in which neighbours are rarely neighbours in memory.
        let free = (0..BLOCKS as u32).map(|i| (i * 389) % BLOCKS as u32).collect();
        Self { cache, free }
    }

    /// Runs one step over `count` further tokens of each sequence; the logits of all these rows, sequence by sequence.
    pub fn step(&mut self, model: &dyn Model, sequences: &mut [(&mut Sequence, usize)]) -> Vec<Vec<Vec<f32>>> {
        let mut batch = Batch::default();
        for (sequence, count) in sequences.iter_mut() {
            sequence.schedule(*count, &mut batch, self);
        }
        batch.wanted = (0..batch.tokens.len()).collect();
        let logits: Vec<Vec<f32>> = model.forward(&batch, &mut self.cache).unwrap().to_vec2().unwrap();
        let mut logits = logits.into_iter();
        batch.spans.iter().map(|span| logits.by_ref().take(span.rows.len()).collect()).collect()
    }
}

impl<'a> Sequence<'a> {
    pub fn new(model: &dyn Model, prompt: &'a Prompt) -> Self {
        let encoded = prompt.media.iter().map(|item| model.encode(&item.input, &mut || Ok(())).unwrap()).collect();
        Self { prompt, encoded, tokens: prompt.tokens.clone(), done: 0, blocks: Vec::new() }
    }

    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// The next `count` tokens, or more when that would cut an island.
    pub fn chunk(&self, count: usize) -> usize {
        let end = (self.done + count).min(self.tokens.len());
        let island = self.prompt.islands.iter().find(|island| island.start < end && end < island.end);
        island.map_or(end, |island| island.end) - self.done
    }

    fn schedule(&mut self, count: usize, batch: &mut Batch, room: &mut Room) {
        let (first, start, end) = (batch.tokens.len(), self.done, self.done + count);
        while self.blocks.len() * BLOCK_SIZE < end {
            self.blocks.push(room.free.pop().unwrap());
        }
        batch.tokens.extend(&self.tokens[start..end]);
        batch.positions.extend((start..end).map(|i| self.prompt.positions.at(i)));
        let islands = self.prompt.islands.clone();
        // The same numbers in every group; the first is that of a state.
        let tables = vec![self.blocks.clone(); room.cache.groups()];
        batch.spans.push(Span { rows: first..first + count, start, tables, islands, mode: self.prompt.mode });
        for (placement, item) in self.prompt.media.iter().zip(&self.encoded) {
            batch.show(placement, item, start..end, first).unwrap();
        }
        self.done = end;
    }
}

/// Logits of all rows of the prompt, computed in steps of at most `chunk` tokens.
pub fn prompt_logits(model: &dyn Model, prompt: &Prompt, chunk: usize) -> Vec<Vec<f32>> {
    let mut room = Room::new(model);
    let mut sequence = Sequence::new(model, prompt);
    let mut logits = Vec::new();
    while logits.len() < prompt.tokens.len() {
        let count = sequence.chunk(chunk);
        logits.extend(room.step(model, &mut [(&mut sequence, count)]).remove(0));
    }
    logits
}

/// Greedy tokens until `count` or an end token, which is the last entry then, and the logits of each.
pub fn greedy(model: &dyn Model, prompt: &Prompt, count: usize, ends: &[u32]) -> (Vec<u32>, Vec<Vec<f32>>) {
    let mut room = Room::new(model);
    let mut sequence = Sequence::new(model, prompt);
    let (mut answer, mut logits) = (Vec::new(), Vec::new());
    let mut new = prompt.tokens.len();
    loop {
        let last = room.step(model, &mut [(&mut sequence, new)]).remove(0).pop().unwrap();
        let token = argmax(&last);
        answer.push(token);
        logits.push(last);
        if answer.len() == count || ends.contains(&token) {
            return (answer, logits);
        }
        sequence.push(token);
        new = 1;
    }
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0 as u32
}
