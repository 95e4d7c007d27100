//! Rows of media that were encoded before.

use std::collections::HashMap;

use nn::Tensor;

/// Encoded media by content hash, bounded by bytes; what was asked for longest ago goes first.
#[derive(Debug)]
pub(crate) struct Encodings {
    entries: HashMap<[u8; 32], Entry>,
    bytes: usize,
    bytes_max: usize,
    asked: u64,
}

#[derive(Debug)]
struct Entry {
    rows: Tensor, // [rows, width]
    asked: u64,
}

impl Encodings {
    /// Nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, asked: 0 }
    }

    /// The rows of an item, [rows, width].
    pub fn get(&mut self, hash: &[u8; 32]) -> Option<Tensor> {
        self.asked += 1;
        let entry = self.entries.get_mut(hash)?;
        entry.asked = self.asked;
        Some(entry.rows.clone())
    }

    /// Keeps the rows of an item, unless they alone are too large.
    pub fn insert(&mut self, hash: [u8; 32], rows: Tensor) {
        let bytes = bytes_of(&rows);
        if bytes > self.bytes_max {
            return;
        }
        self.remove(&hash);
        while self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.asked).map(|(hash, _)| *hash) else { break };
            self.remove(&oldest);
        }
        self.asked += 1;
        self.bytes += bytes;
        self.entries.insert(hash, Entry { rows, asked: self.asked });
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        if let Some(entry) = self.entries.remove(hash) {
            self.bytes -= bytes_of(&entry.rows);
        }
    }
}

fn bytes_of(rows: &Tensor) -> usize {
    rows.elem_count() * rows.dtype().size_in_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::{DType, Device};

    #[test]
    fn what_was_asked_for_longest_ago_goes_first() {
        let rows = |n: usize| Tensor::zeros((n, 1), DType::F32, &Device::Cpu).unwrap();
        let mut kept = Encodings::new(12);
        kept.insert([1; 32], rows(1));
        kept.insert([2; 32], rows(1));
        kept.insert([3; 32], rows(1));
        assert!(kept.get(&[1; 32]).is_some());
        kept.insert([4; 32], rows(2));
        let held: Vec<_> = (1..=4).filter(|n| kept.get(&[*n; 32]).is_some()).collect();
        assert_eq!(held, [1, 4]);
        kept.insert([5; 32], rows(4));
        assert!(kept.get(&[5; 32]).is_none() && kept.get(&[4; 32]).is_some());
        kept.insert([4; 32], rows(3));
        assert_eq!((kept.bytes, kept.entries.len()), (12, 1));
    }
}
