use std::collections::BTreeSet;
use std::ops::Range;

use candle_core::Tensor;

use crate::{Adapted, Batch, Encoded, KeyValues, MediaLook, NnError, Sight, Then};

/// Who looks at media in a step.
pub struct Looking<'a> {
    /// Rows of the batch that look.
    pub rows: Chosen,
    /// Of these, those that the feed-forward part works on afterwards.
    pub fed: Chosen,
    /// Which adapters the rows take, and those of them that go on.
    pub adapted: [Adapted; 2],
    /// Neighbours among them, and what they see.
    sights: Vec<(Range<usize>, Vec<Seen<'a>>)>,
}

/// An item's keys and values by layer, and how many are seen.
type Seen<'a> = (&'a [KeyValues], usize);

/// Some rows of a tensor.
pub struct Chosen {
    /// In order, and with others between them.
    runs: Vec<Range<usize>>,
    all: usize,
}

impl<'a> Looking<'a> {
    /// None where nobody looks.
    ///
    /// # Errors
    /// An item was encoded without keys and values.
    pub fn of(batch: &'a Batch) -> Result<Option<Self>, NnError> {
        let (rows, fed, adapted) = (Chosen::of(batch.tokens.len()), Chosen::of(0), [Adapted::default(), Adapted::default()]);
        let mut looking = Self { rows, fed, adapted, sights: Vec::new() };
        let cuts: BTreeSet<usize> = batch.looks.iter().flat_map(|look| [look.rows.start, look.rows.end]).collect();
        for (&start, &end) in cuts.iter().zip(cuts.iter().skip(1)) {
            let looks = batch.looks.iter().filter(|look| look.rows.start <= start && end <= look.rows.end);
            let looks: Vec<&MediaLook> = looks.collect();
            if looks.is_empty() {
                continue;
            }
            let first = looking.fed.all;
            looking.fed.all += end - start;
            looking.rows.push(start..end);
            if looks.iter().any(|look| look.then == Then::FeedForward) {
                looking.fed.push(first..looking.fed.all);
            }
            let seen = |look: &&'a MediaLook| match &look.item {
                Encoded::KeyValues(layers) => Ok((&**layers, look.seen)),
                Encoded::Rows(_) => Err(NnError::Input("media with keys and values")),
            };
            looking.sights.push((first..looking.fed.all, looks.iter().map(seen).collect::<Result<_, _>>()?));
        }
        let adapted = Adapted::of(&batch.spans).parts(&looking.rows.runs);
        looking.adapted = [adapted.clone(), adapted.parts(&looking.fed.runs)];
        Ok((!looking.sights.is_empty()).then_some(looking))
    }

    /// What the rows see in a layer, by its number among those that look.
    pub fn sights(&self, layer: usize) -> Result<Vec<Sight<'a>>, NnError> {
        let sight = |(rows, at): &(Range<usize>, Vec<Seen<'a>>)| {
            let at = at
                .iter()
                .map(|(layers, seen)| Ok((layers.get(layer).ok_or(NnError::Input("keys and values of each layer"))?, *seen)));
            Ok(Sight { rows: rows.clone(), at: at.collect::<Result<_, NnError>>()? })
        };
        self.sights.iter().map(sight).collect()
    }
}

impl Chosen {
    /// None of so many.
    fn of(all: usize) -> Self {
        Self { runs: Vec::new(), all }
    }

    /// Adds rows behind all others.
    fn push(&mut self, rows: Range<usize>) {
        match self.runs.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => self.runs.push(rows),
        }
    }

    /// x [rows, width] with these rows changed by `work`, which may take their place. Takes the place of x, so nobody else may hold it.
    pub fn change(&self, x: Tensor, work: impl FnOnce(Tensor) -> Result<Tensor, NnError>) -> Result<Tensor, NnError> {
        match self.runs[..] {
            [] => return Ok(x),
            [Range { start: 0, end }] if end == self.all => return work(x),
            _ => {}
        }
        let parts = self.runs.iter().map(|rows| x.narrow(0, rows.start, rows.len())).collect::<Result<Vec<_>, _>>()?;
        let changed = work(Tensor::cat(&parts, 0)?.force_contiguous()?)?;
        let mut done = 0;
        for rows in &self.runs {
            x.slice_set(&changed.narrow(0, done, rows.len())?, 0, rows.start)?;
            done += rows.len();
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::{HeadRange, KvFormat};

    #[test]
    fn rows_that_look_are_worked_on_apart() {
        let head = |first| HeadRange { first, count: 1, width: 2 };
        let rows = Tensor::zeros((4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        let kept = KeyValues::new(&rows, head(0), head(1), KvFormat::F32).unwrap();
        let item = Encoded::KeyValues(Arc::from([kept]));
        let look = |rows, seen, then| MediaLook { rows, item: item.clone(), seen, then };
        let looks = vec![look(1..4, 2, Then::FeedForward), look(3..6, 4, Then::Nothing), look(8..9, 1, Then::Nothing)];
        let batch = Batch { tokens: vec![0; 10], looks, ..Batch::default() };
        let looking = Looking::of(&batch).unwrap().unwrap();
        let sights: Vec<_> = looking.sights(0).unwrap().into_iter().map(|sight| (sight.rows, sight.at.len())).collect();
        assert_eq!(sights, [(0..2, 1), (2..3, 2), (3..5, 1), (5..6, 1)]);
        assert!(looking.sights(1).is_err());
        let x = Tensor::zeros((10, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let more = |x: Tensor| Ok((x + 1.0)?);
        let x = looking.rows.change(x, |x| looking.fed.change(more(x)?, more)).unwrap();
        let expected = [0f32, 2.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        assert!(Looking::of(&Batch { tokens: vec![0; 3], ..Batch::default() }).unwrap().is_none());
    }
}
