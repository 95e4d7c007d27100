use nn::Tensor;

use crate::Recent;

/// Rows of media that were encoded before, [rows, width], by content hash.
#[derive(Debug)]
pub(crate) struct Encodings(Recent<Tensor>);

impl Encodings {
    /// Nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self(Recent::new(bytes_max))
    }

    /// The rows of an item.
    pub fn get(&mut self, hash: &[u8; 32]) -> Option<Tensor> {
        self.0.get(hash)
    }

    /// Keeps the rows of an item.
    pub fn insert(&mut self, hash: [u8; 32], rows: Tensor) {
        let bytes = rows.elem_count() * rows.dtype().size_in_bytes();
        self.0.insert(hash, rows, bytes);
    }
}
