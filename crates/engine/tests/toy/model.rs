use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use nn::{Back, Batch, Cache, CacheSpec, Device, Encoded, LayerCache, MediaInput, Model, NnError, Pause, Span, Tensor, Then};

pub const VOCAB: usize = 61;
/// Tokens that make the toy model misbehave.
pub const ERR: u32 = 57;
pub const PANIC: u32 = 58;
pub const NAN: u32 = 59;
/// Pictures that take as long as three steps of others, and for ever.
pub const SLOW: f32 = -3.0;
pub const ENDLESS: f32 = -4.0;

/// Layers of a toy: all tokens, a window, a chunk, a state.
pub const ALL: LayerCache = LayerCache::Kv { kv_heads: 1, head_dim: 2, back: Back::All };
pub const WINDOW: LayerCache = LayerCache::Kv { kv_heads: 1, head_dim: 2, back: Back::Window(7) };
pub const CHUNK: LayerCache = LayerCache::Kv { kv_heads: 1, head_dim: 2, back: Back::Chunk(10) };
pub const STATE: LayerCache = LayerCache::State { numbers: 3 };

/// Its answers depend on every token, position, media row, look and island that it should see.
pub struct Toy {
    layers: Vec<LayerCache>,
    spec: CacheSpec,
    pub encodes: Arc<AtomicUsize>,
    /// What it keeps for a token in each slot of a group's blocks: value and position.
    slots: RefCell<HashMap<(usize, usize), [f32; 2]>>,
    /// A step waits for one of these, until their sender has gone.
    permits: Option<Receiver<()>>,
    /// Steps so far.
    steps: Cell<usize>,
}

impl Toy {
    pub fn new() -> (Self, Arc<AtomicUsize>) {
        let toy = Self::of(&[ALL]);
        let encodes = toy.encodes.clone();
        (toy, encodes)
    }

    /// Whose steps wait for permits.
    pub fn waiting(permits: Receiver<()>) -> Self {
        Self { permits: Some(permits), ..Self::of(&[ALL]) }
    }

    /// With these layers, in the order of their groups.
    pub fn of(layers: &[LayerCache]) -> Self {
        let (layers, spec) = (layers.to_vec(), CacheSpec::new(layers.iter().copied()));
        Self { layers, spec, encodes: Arc::default(), slots: RefCell::default(), permits: None, steps: Cell::default() }
    }

    /// Keeps the span's tokens; for each of them, what it makes of those that it sees.
    fn look(&self, layer: usize, span: &Span, cache: &mut Cache, rows: &[[f32; 2]]) -> Vec<u64> {
        let size = cache.block_size();
        let back = match self.layers[layer] {
            LayerCache::Kv { back, .. } => back,
            LayerCache::State { .. } => {
                let states = cache.states(layer, std::slice::from_ref(span)).unwrap();
                let [state, ..] = states.into_iter().next().unwrap() else { panic!("an empty state") };
                let mut next = |row: &[f32; 2]| {
                    *state = (*state * 31.0 + row[0] * 7.0 + row[1]) % 65521.0;
                    *state as u64
                };
                return rows.iter().map(&mut next).collect();
            }
        };
        let slot = |token: usize| (layer, span.tables[layer][token / size] as usize * size + token % size);
        let mut slots = self.slots.borrow_mut();
        slots.extend((span.start..).map(slot).zip(rows.iter().copied()));
        let look = |token: usize| {
            let island = span.islands.iter().find(|island| island.contains(&token));
            let end = island.map_or(token + 1, |island| island.end);
            let fold = |h: u64, v: f32| h.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(v.to_bits().into());
            (back.first(token)..end).flat_map(|token| slots[&slot(token)]).fold(7, fold)
        };
        (span.start..span.end()).map(look).collect()
    }
}

impl Model for Toy {
    fn cache_spec(&self) -> &CacheSpec {
        &self.spec
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Encoded, NnError> {
        let value = input.arrays["value"].data[0];
        let steps = self.steps.get();
        while value == SLOW && self.steps.get() < steps + 3 {
            pause()?;
        }
        if value == ENDLESS {
            loop {
                pause()?;
            }
        }
        self.encodes.fetch_add(1, Ordering::Relaxed);
        assert!(value != -2.0, "this picture makes the encoder panic");
        if value == -1.0 {
            return Err(NnError::Input("value"));
        }
        let rows: Vec<f32> = (0..input.rows).map(|i| value + i as f32).collect();
        Ok(Encoded::Rows(Tensor::from_vec(rows, (input.rows, 1), &Device::Cpu)?))
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        if let Some(permits) = &self.permits {
            let _ = permits.recv();
        }
        self.steps.set(self.steps.get() + 1);
        let mut values: Vec<f32> = batch.tokens.iter().map(|&t| t as f32).collect();
        for item in &batch.media {
            let rows: Vec<f32> = item.rows.flatten_all()?.to_vec1()?;
            values[item.at..item.at + rows.len()].copy_from_slice(&rows);
        }
        for look in &batch.looks {
            let seen: f32 = look.item.narrow(0, look.seen)?.flatten_all()?.to_vec1()?.iter().sum();
            let seen = if look.then == Then::Nothing { -seen } else { seen };
            values[look.rows.clone()].iter_mut().for_each(|value| *value += seen);
        }
        let mut hashes = vec![0u64; values.len()];
        let mut nan = vec![false; values.len()];
        for span in &batch.spans {
            let tokens = &batch.tokens[span.rows.clone()];
            assert!(!tokens.contains(&PANIC), "this token makes the model panic");
            if tokens.contains(&ERR) {
                return Err(NnError::Input("token"));
            }
            let rows: Vec<[f32; 2]> = span.rows.clone().map(|row| [values[row], batch.positions[row][1] as f32]).collect();
            for layer in 0..self.layers.len() {
                let looks = self.look(layer, span, cache, &rows);
                for (hash, look) in hashes[span.rows.clone()].iter_mut().zip(looks) {
                    *hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(look);
                }
            }
            nan[span.rows.clone()].fill(tokens.contains(&NAN));
        }
        let logit = |row: usize, id: usize| match () {
            () if nan[row] => f32::NAN,
            () if id >= ERR as usize => -1e4, // never drawn
            () => ((hashes[row] >> 20).wrapping_mul(id as u64 + 3) % 997) as f32 / 100.0,
        };
        let logits: Vec<f32> = batch.wanted.iter().flat_map(|&row| (0..VOCAB).map(move |id| logit(row, id))).collect();
        Ok(Tensor::from_vec(logits, (batch.wanted.len(), VOCAB), &Device::Cpu)?)
    }
}
