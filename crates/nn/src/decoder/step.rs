use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::looking::Looking;
use crate::rope::RopeTable;
use crate::{Adapted, Ahead, Back, Batch, NnError, Rope, Scores, Span};

/// What the layers of one step share: the batch, rotary angles, masks, and who looks at media.
pub struct Step<'a> {
    pub(crate) batch: &'a Batch,
    ropes: Vec<RopeTable>,
    adapted: Adapted,
    looking: Option<Looking<'a>>,
    masks: RefCell<HashMap<Sight, View>>,
    device: Device,
}

/// A span, and what its rows see: how far back, and what lies ahead.
type Sight = (usize, Back, Ahead);

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
        let (adapted, looking) = (Adapted::of(&batch.spans), Looking::of(batch)?);
        Ok(Self { batch, ropes, adapted, looking, masks: RefCell::default(), device: device.clone() })
    }

    /// Which rows take which adapters.
    pub fn adapted(&self) -> &Adapted {
        &self.adapted
    }

    pub(crate) fn rope(&self, index: usize) -> &RopeTable {
        &self.ropes[index]
    }

    /// Rows that look at media, if there are any.
    pub(crate) fn looking(&self) -> Option<&Looking<'a>> {
        self.looking.as_ref()
    }

    /// What the span's rows see; worked out by the first layer that asks.
    pub(crate) fn view(&self, span: usize, scores: Scores) -> Result<View, NnError> {
        let key = (span, scores.back, scores.ahead);
        if let Some(view) = self.masks.borrow().get(&key) {
            return Ok(view.clone());
        }
        let view = view(&self.batch.spans[span], scores.back, scores.ahead, &self.device)?;
        self.masks.borrow_mut().insert(key, view.clone());
        Ok(view)
    }
}

fn view(span: &Span, back: Back, ahead: Ahead, device: &Device) -> Result<View, NnError> {
    let from = back.first(span.start);
    let (rows, tokens) = (span.rows.len(), span.end() - from);
    if rows == 1 {
        return Ok(View { from, mask: None });
    }
    let mut mask = vec![f32::NEG_INFINITY; rows * tokens];
    for (row, line) in mask.chunks_exact_mut(tokens).enumerate() {
        let token = span.start + row;
        let island = span.islands.iter().find(|island| ahead == Ahead::Island && island.contains(&token));
        let first = back.first(token);
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
        type Case<'a> = (usize, usize, Back, Ahead, &'a [&'a str]);
        let cases: [Case; 7] = [
            (0, 3, Back::All, Ahead::Island, &["x..", "xx.", "xxx"]),
            (2, 2, Back::All, Ahead::Island, &["xxx.", "xxxx"]),
            (0, 4, Back::Window(2), Ahead::Island, &["x...", "xx..", ".xx.", "..xx"]),
            (4, 2, Back::Window(3), Ahead::Island, &["xxx.", ".xxx"]),
            (2, 4, Back::Window(2), Ahead::Island, &["xx...", ".xxx.", "..xx.", "...xx"]),
            (2, 4, Back::Window(2), Ahead::Nothing, &["xx...", ".xx..", "..xx.", "...xx"]),
            (4, 4, Back::Chunk(3), Ahead::Nothing, &["xx...", "xxx..", "...x.", "...xx"]),
        ];
        for (start, rows, back, ahead, expected) in cases {
            let islands = if start == 2 && rows == 4 { vec![island.clone()] } else { vec![] };
            let span = Span { rows: 0..rows, start, islands, ..Span::default() };
            let mask = view(&span, back, ahead, &Device::Cpu).unwrap().mask.unwrap().to_vec2::<f32>().unwrap();
            let drawn: Vec<String> =
                mask.iter().map(|line| line.iter().map(|&m| if m == 0.0 { 'x' } else { '.' }).collect()).collect();
            assert_eq!(drawn, expected, "{start} {rows} {back:?}");
        }
    }
}
