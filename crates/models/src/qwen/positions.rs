use nn::{MediaInput, Positions, Prompt};

use super::grid::Grid;

/// Seconds between steps in time, where the family counts time in them.
pub const SECONDS: &str = "second_per_grid_ts";

/// M-RoPE. Text counts on along all axes; an item's rows spread over height and width, and over time when they stand in one
/// run (runs of their own are steps that the words before them tell apart); what follows continues behind the largest position
/// so far.
pub fn arrange(prompt: &mut Prompt, merge: usize, tokens_per_second: f32) {
    if prompt.media.is_empty() {
        return;
    }
    let mut rows: Vec<[u32; 3]> = Vec::with_capacity(prompt.tokens.len());
    let mut next: u32 = 0;
    let words = |rows: &mut Vec<[u32; 3]>, end: usize, next: &mut u32| {
        while rows.len() < end {
            rows.push([*next; 3]);
            *next = next.saturating_add(1);
        }
    };
    for item in &prompt.media {
        let step = step(&item.input, tokens_per_second);
        let squares = Grid::of(&item.input).squares(merge);
        let times = squares.times / item.at.len().max(1);
        for at in &item.at {
            words(&mut rows, at.start, &mut next);
            let moment = |time: usize| (time as f32 * step) as u32;
            for time in 0..times {
                let cells = (0..squares.rows).flat_map(|y| (0..squares.columns).map(move |x| (y, x)));
                rows.extend(cells.map(|(y, x)| [moment(time), y as u32, x as u32].map(|at| next.saturating_add(at))));
            }
            let length = (moment(times.saturating_sub(1)) as usize + 1).max(squares.rows).max(squares.columns);
            next = next.saturating_add(length as u32);
        }
    }
    words(&mut rows, prompt.tokens.len(), &mut next);
    prompt.positions = Positions::Explicit { rows, next };
}

/// How far steps in time are apart.
fn step(input: &MediaInput, tokens_per_second: f32) -> f32 {
    input.arrays.get(SECONDS).and_then(|seconds| seconds.data.first()).map_or(1.0, |seconds| seconds * tokens_per_second)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nn::{Array, MediaKind, Placement};

    use super::*;

    #[test]
    fn media_spread_and_text_goes_on_behind_the_largest_position() {
        let scalar = |seconds: f32| Array { shape: vec![1], data: vec![seconds] };
        type Case = ([usize; 3], Option<f32>, &'static [(usize, usize)], [[u32; 3]; 5], u32);
        let cases: [Case; 4] = [
            ([1, 4, 2], None, &[(2, 4)], [[0; 3], [1; 3], [2, 2, 2], [2, 3, 2], [4; 3]], 5),
            ([2, 2, 2], None, &[(1, 3)], [[0; 3], [1, 1, 1], [2, 1, 1], [3; 3], [4; 3]], 5),
            ([2, 2, 2], Some(1.3), &[(1, 3)], [[0; 3], [1, 1, 1], [3, 1, 1], [4; 3], [5; 3]], 6),
            ([2, 2, 2], None, &[(1, 2), (3, 4)], [[0; 3], [1, 1, 1], [2; 3], [3, 3, 3], [4; 3]], 5),
        ];
        for ([times, rows, columns], seconds, at, expected, next) in cases {
            let grid = Grid { times, rows, columns };
            let arrays = std::iter::once(("video_grid_thw", grid.array())).chain(seconds.map(|s| (SECONDS, scalar(s))));
            let input = Arc::new(MediaInput::new(MediaKind::Video, grid.patches() / 4, arrays));
            let at = at.iter().map(|&(start, end)| start..end).collect();
            let mut prompt = Prompt { media: vec![Placement::new(input, at)], ..Prompt::text(vec![0; 5]) };
            arrange(&mut prompt, 2, 2.0);
            assert_eq!(prompt.positions, Positions::Explicit { rows: expected.to_vec(), next });
        }
    }
}
