//! One step: compute, draw.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nn::{Batch, Cache, Model, NnError, Span};

use crate::blocks::Move;
use crate::encodings::Encodings;
use crate::pace::Pace;
use crate::scheduler::{Scheduler, Share};
use crate::sequence::Sequence;
use crate::stats::{Counters, count};
use crate::{Constraint, EngineError, Mask};

/// What computes.
pub struct Runner {
    pub cache: Cache,
    pub encodings: Encodings,
    pub counters: Arc<Counters>,
}

impl Runner {
    /// Computes the shares and removes sequences that end or fail.
    pub fn step(&mut self, model: &dyn Model, scheduler: &mut Scheduler, shares: Vec<Share>) {
        for wanted in scheduler.take_moves() {
            match wanted {
                Move::Discard { group, block } => self.cache.discard(group, block),
                Move::CopyState { group, from, to } => self.cache.copy_state(group, from, to),
            }
        }
        let mut ended: Vec<usize> = Vec::new();
        let masking = Masking::of(&mut scheduler.running, &shares);
        let no_mask = || Err(EngineError::Constraint("its mask could not be made".into()));
        let mut masks: HashMap<_, _> = masking.sequences().into_iter().map(|sequence| (sequence, no_mask())).collect();
        let began = Instant::now();
        let (results, masked) = masking.meanwhile(|| self.compute_each(model, &scheduler.running, &shares));
        self.time(&mut scheduler.pace, &shares, began.elapsed());
        for Masked { sequence, constraint, mask } in masked {
            scheduler.running[sequence].constraint = Some(constraint);
            masks.insert(sequence, mask);
        }
        for (share, result) in shares.iter().zip(results) {
            let sequence = &mut scheduler.running[share.sequence];
            let mask = masks.remove(&share.sequence).transpose();
            let result = result.and_then(|logits| self.commit(sequence, share.count, logits, mask?.as_ref()));
            match result {
                Ok(complete) => {
                    ended.extend(complete.then_some(share.sequence));
                    scheduler.publish(share.sequence);
                }
                Err(error) => {
                    sequence.fail(error);
                    ended.push(share.sequence);
                }
            }
        }
        ended.sort_unstable();
        ended.into_iter().rev().for_each(|i| drop(scheduler.remove(i)));
    }

    /// The share's tokens are done; whether the sequence is.
    fn commit(
        &self,
        sequence: &mut Sequence,
        tokens: usize,
        logits: Option<Vec<f32>>,
        mask: Option<&Mask>,
    ) -> Result<bool, EngineError> {
        let of_prompt = sequence.prompt.tokens.len().saturating_sub(sequence.cached).min(tokens);
        count(&self.counters.prompt_tokens, of_prompt);
        sequence.advance(tokens);
        let Some(logits) = logits else { return Ok(false) };
        let before = sequence.tokens.len();
        let complete = sequence.draw(&logits, mask);
        count(&self.counters.generated_tokens, sequence.tokens.len() - before);
        complete
    }

    /// Notes how long a step took.
    fn time(&self, pace: &mut Pace, shares: &[Share], took: Duration) {
        let (writing, reading): (Vec<&Share>, Vec<&Share>) = shares.iter().partition(|share| share.count == 1);
        let prompt_tokens = reading.iter().map(|share| share.count).sum();
        pace.observe(writing.len(), prompt_tokens, took.as_secs_f64());
        count(&self.counters.steps, usize::from(!shares.is_empty()));
        let phase = if prompt_tokens > 0 { &self.counters.prefill_micros } else { &self.counters.decode_micros };
        count(phase, took.as_micros() as usize);
    }

    /// What becomes of each share.
    fn compute_each(
        &mut self,
        model: &dyn Model,
        running: &[Sequence],
        shares: &[Share],
    ) -> Vec<Result<Option<Vec<f32>>, EngineError>> {
        match self.compute(model, running, shares) {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(error) if shares.len() == 1 => vec![Err(error)],
            // Somebody's share is at fault: each alone shows whose.
            Err(_) => shares.iter().map(|share| self.compute(model, running, &[*share]).map(|mut rows| rows.remove(0))).collect(),
        }
    }

    /// Logits of each share's last row, where all its tokens are computed with it.
    fn compute(
        &mut self,
        model: &dyn Model,
        running: &[Sequence],
        shares: &[Share],
    ) -> Result<Vec<Option<Vec<f32>>>, EngineError> {
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::default();
        for share in shares {
            add(&running[share.sequence], share.count, &mut batch)?;
        }
        let wanted = batch.wanted.len();
        let logits: Vec<Vec<f32>> = guarded(|| {
            let logits = model.forward(&batch, &mut self.cache)?;
            Ok::<_, NnError>(if wanted == 0 { Vec::new() } else { logits.to_vec2()? })
        })
        .map_err(EngineError::Compute)?;
        if logits.len() != wanted {
            return Err(EngineError::Compute(format!("{} rows of logits instead of {wanted}", logits.len())));
        }
        let mut logits = logits.into_iter();
        let draws = |share: &Share| running[share.sequence].draws_after(share.count);
        Ok(shares.iter().map(|share| if draws(share) { logits.next() } else { None }).collect())
    }
}

/// Constraints of the sequences that draw a token in this step.
struct Masking(Vec<(usize, Box<dyn Constraint>)>);

/// A constraint, and what it allows now.
struct Masked {
    sequence: usize,
    constraint: Box<dyn Constraint>,
    mask: Result<Mask, EngineError>,
}

impl Masking {
    /// Takes them out of their sequences.
    fn of(running: &mut [Sequence], shares: &[Share]) -> Self {
        let draws = |share: &&Share| running[share.sequence].draws_after(share.count);
        let drawing: Vec<usize> = shares.iter().filter(draws).map(|share| share.sequence).collect();
        Self(drawing.into_iter().filter_map(|i| Some((i, running[i].constraint.take()?))).collect())
    }

    /// Who draws under a constraint.
    fn sequences(&self) -> Vec<usize> {
        self.0.iter().map(|(sequence, _)| *sequence).collect()
    }

    /// Makes the masks on a thread of their own while the model computes; none where there is no thread to be had.
    fn meanwhile<T>(self, work: impl FnOnce() -> T) -> (T, Vec<Masked>) {
        if self.0.is_empty() {
            return (work(), Vec::new());
        }
        let made = |(sequence, mut constraint): (usize, Box<dyn Constraint>)| {
            let mask = guarded(|| constraint.mask()).map_err(EngineError::Constraint);
            Masked { sequence, constraint, mask }
        };
        std::thread::scope(|scope| {
            let masks = std::thread::Builder::new()
                .name("masks".into())
                .spawn_scoped(scope, || self.0.into_iter().map(made).collect::<Vec<_>>());
            (work(), masks.ok().and_then(|masks| masks.join().ok()).unwrap_or_default())
        })
    }
}

/// Puts the next `count` tokens of a sequence into the batch.
fn add(sequence: &Sequence, count: usize, batch: &mut Batch) -> Result<(), EngineError> {
    let (first, start, end) = (batch.tokens.len(), sequence.cached, sequence.cached + count);
    batch.tokens.extend(&sequence.tokens[start..end]);
    batch.positions.extend((start..end).map(|i| sequence.prompt.positions.at(i)));
    let islands = sequence.prompt.islands.iter().filter(|island| island.start < end && island.end > start).cloned().collect();
    let (rows, tables, mode) = (first..first + count, sequence.tables.clone(), sequence.prompt.mode);
    batch.spans.push(Span { rows, start, tables, islands, mode });
    for (placement, item) in sequence.media_of(start..end) {
        let item = item.as_ref().ok_or_else(|| EngineError::Internal("a media item was not encoded".into()))?;
        batch.show(placement, item, start..end, first).map_err(|e| EngineError::Internal(e.to_string()))?;
    }
    if sequence.draws_after(count) {
        batch.wanted.push(first + count - 1);
    }
    Ok(())
}

/// An error or a panic of the model, or of a constraint, is one sequence's bad luck, not the engine's end.
pub fn guarded<T, E: ToString>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    let result = catch_unwind(AssertUnwindSafe(work));
    result.map_err(|_| "it panicked".to_string())?.map_err(|e| e.to_string())
}
