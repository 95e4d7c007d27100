use nn::Encoded;

use crate::Recent;

/// Media that were encoded before, by content hash.
#[derive(Debug)]
pub(crate) struct Encodings(Recent<Encoded>);

impl Encodings {
    /// Nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self(Recent::new(bytes_max))
    }

    /// What became of an item.
    pub fn get(&mut self, hash: &[u8; 32]) -> Option<Encoded> {
        self.0.get(hash)
    }

    /// Keeps what became of an item.
    pub fn insert(&mut self, hash: [u8; 32], encoded: Encoded) {
        let bytes = encoded.bytes();
        self.0.insert(hash, encoded, bytes);
    }
}
