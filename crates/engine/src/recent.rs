use std::collections::HashMap;

/// Values by the hash of what they were made from, bounded by bytes; what was asked for longest ago goes first.
#[derive(Debug)]
pub struct Recent<V> {
    entries: HashMap<[u8; 32], Entry<V>>,
    bytes: usize,
    bytes_max: usize,
    asked: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    asked: u64,
}

impl<V: Clone> Recent<V> {
    /// Nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, asked: 0 }
    }

    /// The value that was kept under a hash.
    pub fn get(&mut self, hash: &[u8; 32]) -> Option<V> {
        self.asked += 1;
        let entry = self.entries.get_mut(hash)?;
        entry.asked = self.asked;
        Some(entry.value.clone())
    }

    /// Keeps a value of so many bytes, unless it alone is too large.
    pub fn insert(&mut self, hash: [u8; 32], value: V, bytes: usize) {
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
        self.entries.insert(hash, Entry { value, bytes, asked: self.asked });
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        self.bytes -= self.entries.remove(hash).map_or(0, |entry| entry.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_goes_first() {
        let mut kept = Recent::new(12);
        (1..=3).for_each(|n| kept.insert([n; 32], n, 4));
        assert_eq!(kept.get(&[1; 32]), Some(1));
        kept.insert([4; 32], 4, 8);
        let held: Vec<_> = (1..=4).filter(|n| kept.get(&[*n; 32]).is_some()).collect();
        assert_eq!(held, [1, 4]);
        kept.insert([5; 32], 5, 16);
        assert!(kept.get(&[5; 32]).is_none() && kept.get(&[4; 32]).is_some());
        kept.insert([4; 32], 9, 12);
        assert_eq!((kept.bytes, kept.entries.len(), kept.get(&[4; 32])), (12, 1, Some(9)));
    }
}
