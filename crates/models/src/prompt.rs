use std::collections::HashMap;
use std::ops::Range;

use nn::{MediaKind, Placement, Prompt};
use text::{Piece, Tokenizer};

use crate::{Marker, ModelError, Processed, Processor};

/// Puts media items in the places of their markers and tokenizes. The n-th marker of a kind belongs to the n-th item of that
/// kind. Only the template can have written a marker: [`text::Guard`] keeps users' words from being one.
///
/// # Errors
/// [`ModelError::Markers`] when markers and items differ in number.
pub fn assemble(
    rendered: &str,
    items: Vec<Processed>,
    processor: &dyn Processor,
    tokenizer: &Tokenizer,
) -> Result<Prompt, ModelError> {
    let mut queues: HashMap<MediaKind, std::vec::IntoIter<Processed>> = HashMap::new();
    let mut sorted: HashMap<MediaKind, Vec<Processed>> = HashMap::new();
    items.into_iter().for_each(|item| sorted.entry(item.input.kind).or_default().push(item));
    let mut counts: HashMap<MediaKind, (usize, usize)> = HashMap::new(); // markers, items
    for (kind, items) in sorted {
        counts.entry(kind).or_default().1 = items.len();
        queues.insert(kind, items.into_iter());
    }
    let mut pieces = Vec::new();
    let mut inputs = Vec::new(); // (input, number of its slots pieces)
    let mut rest = rendered;
    while let Some((at, marker)) = next_marker(rest, processor) {
        counts.entry(marker.kind).or_default().0 += 1;
        pieces.push(Piece::Text(rest[..at.start].to_string()));
        rest = &rest[at.end..];
        if let Some(item) = queues.get_mut(&marker.kind).and_then(Iterator::next) {
            let slots = item.pieces.iter().filter(|piece| matches!(piece, Piece::Slots { .. })).count();
            inputs.push((item.input, slots));
            pieces.extend(item.pieces);
        }
    }
    pieces.push(Piece::Text(rest.to_string()));
    if let Some((&kind, &(markers, items))) = counts.iter().find(|(_, (markers, items))| markers != items) {
        return Err(ModelError::Markers { kind, markers, items });
    }
    let encoded = tokenizer.encode(&pieces)?;
    let mut slots = encoded.slots.into_iter();
    let place = |(input, count)| Placement::new(input, slots.by_ref().take(count).collect());
    let media = inputs.into_iter().map(place).collect();
    let mut prompt = Prompt { media, ..Prompt::text(encoded.ids) };
    processor.arrange(&mut prompt);
    Ok(prompt)
}

fn next_marker<'a>(text: &str, processor: &'a dyn Processor) -> Option<(Range<usize>, &'a Marker)> {
    let found = processor.markers().iter().filter_map(|marker| Some((marker.find(text)?, marker)));
    found.min_by_key(|(at, _)| at.start)
}
