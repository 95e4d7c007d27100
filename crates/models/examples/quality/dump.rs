//! Everything that another program needs to read the same, as JSON and raw little-endian f32.

use std::path::PathBuf;

use nn::NnError;
use serde_json::json;

use crate::Result;
use crate::cases::Case;

/// A folder.
pub struct Dump(PathBuf);

impl Dump {
    pub fn new(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// `cases.json`, and in `media.bin` the rows of all pictures, in order.
    pub fn cases(&self, cases: &[Case]) -> Result<()> {
        let describe = |case: &Case| {
            let tokens = &case.prompt.tokens;
            let positions: Vec<[u32; 3]> = (0..tokens.len()).map(|i| case.prompt.positions.at(i)).collect();
            let media: Vec<[usize; 2]> =
                case.prompt.media.iter().flat_map(|item| &item.at).map(|at| [at.start, at.end]).collect();
            json!({"tokens": tokens, "positions": positions, "media": media, "counted": [case.counted.start, case.counted.end]})
        };
        let all: Vec<_> = cases.iter().map(describe).collect();
        std::fs::write(self.0.join("cases.json"), serde_json::to_string(&all)?)?;
        let media = cases.iter().flat_map(|case| case.prompt.media.iter().zip(&case.media));
        let placed = media.filter(|(placement, _)| !placement.at.is_empty());
        let rows = placed
            .map(|(placement, item)| Ok::<_, NnError>(item.narrow(0, placement.input.rows)?.flatten_all()?.to_vec1::<f32>()?));
        self.numbers("media", rows.collect::<std::result::Result<Vec<_>, _>>()?.iter())
    }

    /// `NAME.bin`
    pub fn logits(&self, name: &str, logits: &[Vec<f32>]) -> Result<()> {
        self.numbers(name, logits.iter())
    }

    fn numbers<'a>(&self, name: &str, rows: impl Iterator<Item = &'a Vec<f32>>) -> Result<()> {
        let bytes: Vec<u8> = rows.flatten().flat_map(|v| v.to_le_bytes()).collect();
        Ok(std::fs::write(self.0.join(format!("{name}.bin")), bytes)?)
    }
}
