//! What a block of the cache holds, as a number to find it by.

use std::collections::BTreeSet;
use std::ops::Range;

use nn::{Mode, Prompt, Reach, Then};

/// Tokens from one copy of a state to the next: as often as a copy is small beside the keys and values in between.
const MARK_EVERY: usize = 1024;

/// BLAKE3 over all that the keys and values of a full block depend on, from the first token of the sequence on: tokens,
/// positions, media, who sees whom, adapters and frequencies, and the salt that keeps users apart.
pub(crate) type BlockHash = [u8; 32];

/// Appends the hashes of full blocks that are lacking. `tokens` are the prompt's and those drawn since.
pub(crate) fn extend(hashes: &mut Vec<BlockHash>, prompt: &Prompt, tokens: &[u32], block_size: usize, salt: Option<&str>) {
    while (hashes.len() + 1) * block_size <= tokens.len() {
        let start = hashes.len() * block_size;
        let end = start + block_size;
        // Tokens of an island see all of it, so that a block which ends in one depends on the whole. Its rest can be computed by
        // itself all the same: it sees what the block holds.
        let seen = start..prompt.islands.iter().find(|island| crosses(island, end)).map_or(end, |island| island.end);
        let before = hashes.last().copied().unwrap_or_else(|| beginning(prompt.mode, salt));
        let mut hasher = blake3::Hasher::new_keyed(&before);
        let mut numbers = Vec::with_capacity(seen.len() * 16);
        for i in seen.clone() {
            let [t, h, w] = prompt.positions.at(i);
            numbers.extend([tokens[i], t, h, w].into_iter().flat_map(u32::to_le_bytes));
        }
        hasher.update(&numbers);
        for island in prompt.islands.iter().filter(|island| overlap(island, &seen)) {
            place(&mut hasher, b"island", &[island.start, island.end]);
        }
        for item in &prompt.media {
            let mut row = 0;
            for at in &item.at {
                if overlap(at, &seen) {
                    place(&mut hasher, &item.input.hash, &[at.start, at.end, row]);
                }
                row += at.len();
            }
            for look in item.looks_of(seen.clone()) {
                let follows = usize::from(look.then == Then::FeedForward);
                place(&mut hasher, &item.input.hash, &[look.tokens.start, look.tokens.end, look.rows, follows]);
            }
        }
        hashes.push(hasher.finalize().into());
    }
}

/// What all blocks of a sequence depend on.
fn beginning(mode: Mode, salt: Option<&str>) -> BlockHash {
    let mut hasher = blake3::Hasher::new();
    let Mode { adapter, reach } = mode;
    place(&mut hasher, b"mode", &[adapter.map_or(0, |number| number + 1), usize::from(reach == Reach::Far)]);
    hasher.update(salt.unwrap_or_default().as_bytes());
    hasher.finalize().into()
}

/// Tokens of a prompt behind which the state is worth a copy: where media end, since questions differ from there on; at the
/// prompt's end; and now and then. At ends of blocks, and never within an island.
pub(crate) fn marks(prompt: &Prompt, block_size: usize) -> Vec<usize> {
    let often = MARK_EVERY.next_multiple_of(block_size);
    // The last token is not among them: its logits are wanted.
    let last = (prompt.tokens.len().saturating_sub(1)) / block_size * block_size;
    let media = prompt.media.iter().filter_map(|item| item.at.last()).map(|at| at.end.next_multiple_of(block_size));
    let marks: BTreeSet<usize> = (often..).step_by(often).take_while(|mark| *mark < last).chain(media).chain([last]).collect();
    let cut = |mark: usize| prompt.islands.iter().any(|island| crosses(island, mark));
    marks.into_iter().filter(|mark| (1..=last).contains(mark) && !cut(*mark)).collect()
}

fn crosses(island: &Range<usize>, boundary: usize) -> bool {
    island.start < boundary && boundary < island.end
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn place(hasher: &mut blake3::Hasher, what: &[u8], numbers: &[usize]) {
    hasher.update(what);
    numbers.iter().for_each(|n| {
        hasher.update(&(*n as u64).to_le_bytes());
    });
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use std::sync::Arc;

    use nn::{Array, Look, MediaInput, MediaKind, Placement, Positions};

    use super::*;

    /// Nine tokens, four of them a picture.
    fn prompt(picture: f32) -> Prompt {
        let array = Array { shape: vec![1], data: vec![picture] };
        let input = Arc::new(MediaInput::new(MediaKind::Image, 4, [("value", array)]));
        let media = vec![Placement::new(input, vec![3..7])];
        Prompt { media, ..Prompt::text((0..9).collect()) }
    }

    fn hashes(prompt: &Prompt, salt: Option<&str>) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        extend(&mut hashes, prompt, &prompt.tokens, 2, salt);
        hashes
    }

    #[test]
    fn states_are_kept_where_prompts_part() {
        let long = Prompt { tokens: vec![0; 3000], ..Prompt::text(vec![]) };
        let picture = |islands: Vec<Range<usize>>| Prompt { islands, ..prompt(1.0) };
        // Prompt, block size: marks. The picture takes tokens 3 to 7 of 9.
        let cases: [(Prompt, usize, &[usize]); 6] = [
            (long, 32, &[1024, 2048, 2976]),
            (prompt(1.0), 2, &[8]),
            (prompt(1.0), 1, &[7, 8]),
            (prompt(1.0), 4, &[8]),
            (prompt(1.0), 16, &[]),
            (picture(vec![6..9]), 1, &[]),
        ];
        for (prompt, block_size, expected) in cases {
            assert_eq!(marks(&prompt, block_size), expected);
        }
    }

    #[test]
    fn a_hash_says_what_its_block_depends_on() {
        let base = hashes(&prompt(1.0), None);
        assert_eq!(base.len(), 4);
        let tokens = |at: usize| {
            let mut changed = prompt(1.0);
            changed.tokens[at] = 99;
            changed
        };
        let moved = Positions::Explicit { rows: (0..9).map(|i| [i, i, i + u32::from(i > 4)]).collect(), next: 10 };
        let island = |range: Range<usize>| Prompt { islands: vec![range], ..prompt(1.0) };
        let look = |start: usize, rows: usize, then: Then| {
            let mut changed = prompt(1.0);
            changed.media[0].looks = vec![Look { tokens: start..usize::MAX, rows, then }];
            changed
        };
        // What differs, and how many blocks it leaves alone.
        let cases = [
            (prompt(1.0), None, 4),
            (prompt(2.0), None, 1),
            (tokens(8), None, 4),
            (tokens(7), None, 3),
            (tokens(0), None, 0),
            (prompt(1.0), Some("a"), 0),
            (Prompt { positions: moved, ..prompt(1.0) }, None, 2),
            (Prompt { mode: Mode { adapter: Some(0), ..Mode::default() }, ..prompt(1.0) }, None, 0),
            (Prompt { mode: Mode { reach: Reach::Far, ..Mode::default() }, ..prompt(1.0) }, None, 0),
            (island(3..7), None, 1),
            (island(4..6), None, 2),
            (look(5, 4, Then::FeedForward), None, 2),
            (look(0, 4, Then::FeedForward), None, 0),
        ];
        for (changed, salt, same) in cases {
            let changed = hashes(&changed, salt);
            assert_eq!(base.iter().zip(&changed).take_while(|(a, b)| a == b).count(), same);
        }
        // Within an island, what comes behind a block counts too.
        let with = |at: usize| Prompt { islands: vec![1..5], ..tokens(at) };
        assert_ne!(hashes(&with(4), None)[0], hashes(&with(5), None)[0]);
        assert_eq!(hashes(&with(5), None)[1], hashes(&with(6), None)[1]);
        assert_ne!(hashes(&prompt(1.0), Some("a")), hashes(&prompt(1.0), Some("b")));
        let looks = [look(0, 4, Then::FeedForward), look(0, 3, Then::FeedForward), look(0, 4, Then::Nothing)];
        let looks = looks.map(|look| hashes(&look, None)[0]);
        assert!(looks[0] != looks[1] && looks[0] != looks[2]);
    }
}
