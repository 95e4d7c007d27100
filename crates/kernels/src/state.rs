//! What sequences remember where it does not grow with them.

use std::ops::Range;

use crate::disjoint::Disjoint;

/// Rows of one sequence, and what a layer remembers of the rows before: zeros at the beginning of a sequence.
#[derive(Debug)]
pub struct StateSpan<'a> {
    /// Rows of the batch. Spans follow each other.
    pub rows: Range<usize>,
    /// Is brought up to date.
    pub state: &'a mut [f32],
}

/// A [`StateSpan`] whose state is shared out to threads.
pub(crate) struct SharedSpan<'a> {
    pub rows: Range<usize>,
    pub state: Disjoint<'a, f32>,
}

/// Checks that spans follow each other and have states of `length`. Also says how many rows there are up to the last one's end.
pub(crate) fn share<'a>(spans: &'a mut [StateSpan<'_>], length: usize) -> (Vec<SharedSpan<'a>>, usize) {
    let mut end = 0;
    let shared = spans.iter_mut().map(|span| {
        assert!(end <= span.rows.start && span.rows.start <= span.rows.end, "spans that follow each other");
        assert_eq!(span.state.len(), length, "numbers of a state");
        end = span.rows.end;
        SharedSpan { rows: span.rows.clone(), state: Disjoint::new(span.state) }
    });
    (shared.collect(), end)
}
