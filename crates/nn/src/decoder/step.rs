use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::rope::RopeTable;
use crate::{Adapted, Ahead, Batch, NnError, Rope, Scores, Span};

/// What the layers of one step share: the batch, rotary angles, and masks.
pub struct Step<'a> {
    pub(crate) batch: &'a Batch,
    ropes: Vec<RopeTable>,
    adapted: Adapted,
    masks: RefCell<HashMap<Sight, View>>,
    device: Device,
}

/// A span, and what its rows see: the window, and what lies ahead.
type Sight = (usize, Option<usize>, Ahead);

/// Which part of the cache a span looks at.
#[derive(Clone)]
pub(crate) struct View {
    /// First token that any row sees.
    pub from: usize,
    /// 0 or -inf, [rows, tokens from `from`]; absent when every row sees all.
    pub mask: Option<Tensor>,
}

impl<'a> Step<'a> {
    /// Works out the angles.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(batch: &'a Batch, ropes: &[Rope], device: &Device) -> Result<Self, NnError> {
        let ropes = ropes.iter().map(|rope| rope.table_of(batch, device)).collect::<Result<_, _>>()?;
        Ok(Self { batch, ropes, adapted: Adapted::of(&batch.spans), masks: RefCell::default(), device: device.clone() })
    }

    /// Which rows take which adapters.
    pub fn adapted(&self) -> &Adapted {
        &self.adapted
    }

    pub(crate) fn rope(&self, index: usize) -> &RopeTable {
        &self.ropes[index]
    }

    /// What the span's rows see; worked out by the first layer that asks.
    pub(crate) fn view(&self, span: usize, scores: Scores) -> Result<View, NnError> {
        let key = (span, scores.window, scores.ahead);
        if let Some(view) = self.masks.borrow().get(&key) {
            return Ok(view.clone());
        }
        let view = view(&self.batch.spans[span], scores.window, scores.ahead, &self.device)?;
        self.masks.borrow_mut().insert(key, view.clone());
        Ok(view)
    }
}

fn view(span: &Span, window: Option<usize>, ahead: Ahead, device: &Device) -> Result<View, NnError> {
    let from = window.map_or(0, |window| (span.start + 1).saturating_sub(window));
    let (rows, tokens) = (span.rows.len(), span.end() - from);
    if rows == 1 {
        return Ok(View { from, mask: None });
    }
    let mut mask = vec![f32::NEG_INFINITY; rows * tokens];
    for (row, line) in mask.chunks_exact_mut(tokens).enumerate() {
        let token = span.start + row;
        let island = span.islands.iter().find(|island| ahead == Ahead::Island && island.contains(&token));
        let first = window.map_or(0, |window| (token + 1).saturating_sub(window));
        let last = island.map_or(token, |island| island.end - 1);
        line[first - from..=last - from].fill(0.0);
    }
    Ok(View { from, mask: Some(Tensor::from_vec(mask, (rows, tokens), device)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_see_the_past_their_window_and_their_island() {
        let island = 3..5;
        type Case<'a> = (usize, usize, Option<usize>, Ahead, &'a [&'a str]);
        let cases: [Case; 6] = [
            (0, 3, None, Ahead::Island, &["x..", "xx.", "xxx"]),
            (2, 2, None, Ahead::Island, &["xxx.", "xxxx"]),
            (0, 4, Some(2), Ahead::Island, &["x...", "xx..", ".xx.", "..xx"]),
            (4, 2, Some(3), Ahead::Island, &["xxx.", ".xxx"]),
            (2, 4, Some(2), Ahead::Island, &["xx...", ".xxx.", "..xx.", "...xx"]),
            (2, 4, Some(2), Ahead::Nothing, &["xx...", ".xx..", "..xx.", "...xx"]),
        ];
        for (start, rows, window, ahead, expected) in cases {
            let islands = if start == 2 && rows == 4 { vec![island.clone()] } else { vec![] };
            let span = Span { rows: 0..rows, start, islands, ..Span::default() };
            let mask = view(&span, window, ahead, &Device::Cpu).unwrap().mask.unwrap().to_vec2::<f32>().unwrap();
            let drawn: Vec<String> =
                mask.iter().map(|line| line.iter().map(|&m| if m == 0.0 { 'x' } else { '.' }).collect()).collect();
            assert_eq!(drawn, expected, "{start} {rows} {window:?}");
        }
    }
}
