use nn::{Array, MediaInput, MediaKind};

/// Patches of a picture or clip: steps in time, rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub times: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Grid {
    /// The grid that a processed item was cut by.
    pub fn of(input: &MediaInput) -> Self {
        let data = input.arrays.get(array_names(input.kind).grid).map_or(&[][..], |array| &array.data);
        let [times, rows, columns] = std::array::from_fn(|i| data.get(i).copied().unwrap_or_default() as usize);
        Self { times, rows, columns }
    }

    /// As the reference's processor writes it, [1, 3].
    pub fn array(self) -> Array {
        Array { shape: vec![1, 3], data: vec![self.times as f32, self.rows as f32, self.columns as f32] }
    }

    /// Number of patches.
    pub fn patches(self) -> usize {
        self.times * self.rows * self.columns
    }

    /// The grid of squares of `merge` x `merge` patches.
    pub fn squares(self, merge: usize) -> Self {
        Self { rows: self.rows / merge, columns: self.columns / merge, ..self }
    }

    /// Row and column of every patch of a step in time, square by square.
    pub fn places(self, merge: usize) -> Vec<(usize, usize)> {
        let squares = self.squares(merge);
        let corners = (0..squares.rows).flat_map(|row| (0..squares.columns).map(move |column| (row * merge, column * merge)));
        let cells = |(top, left)| (0..merge * merge).map(move |cell| (top + cell / merge, left + cell % merge));
        corners.flat_map(cells).collect()
    }
}

/// What the reference's processor calls the arrays of an item.
pub struct ArrayNames {
    pub pixels: &'static str,
    pub grid: &'static str,
}

pub fn array_names(kind: MediaKind) -> ArrayNames {
    match kind {
        MediaKind::Video => ArrayNames { pixels: "pixel_values_videos", grid: "video_grid_thw" },
        _ => ArrayNames { pixels: "pixel_values", grid: "image_grid_thw" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_square_by_square() {
        let grid = Grid { times: 1, rows: 2, columns: 4 };
        assert_eq!(grid.places(2), [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }
}
