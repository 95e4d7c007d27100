//! Things that are kept for a while, by an id, within a number of bytes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Keeps what was put there last. No lock is held while anybody waits.
pub struct Shelf<T> {
    bytes_max: usize,
    kept_for: Duration,
    places: Mutex<Places<T>>,
}

struct Places<T> {
    by_id: HashMap<String, Place<T>>,
    bytes: usize,
}

struct Place<T> {
    thing: T,
    bytes: usize,
    since: Instant,
}

impl<T: Clone> Shelf<T> {
    pub fn new(bytes_max: usize, kept_for: Duration) -> Self {
        Self { bytes_max, kept_for, places: Mutex::new(Places { by_id: HashMap::new(), bytes: 0 }) }
    }

    /// Puts a thing there, for which older ones may have to go; false when it is larger than the shelf.
    pub fn put(&self, id: String, thing: T, bytes: usize) -> bool {
        // A lock that a panic has poisoned is a shelf that is lost, no more.
        let Ok(mut places) = self.places.lock() else { return false };
        if bytes > self.bytes_max {
            return false;
        }
        let now = Instant::now();
        places.forget(|place| now.duration_since(place.since) >= self.kept_for);
        while places.bytes + bytes > self.bytes_max {
            let Some(oldest) = places.by_id.values().map(|place| place.since).min() else { break };
            places.forget(|place| place.since == oldest);
        }
        places.forget_id(&id);
        places.bytes += bytes;
        places.by_id.insert(id, Place { thing, bytes, since: now });
        true
    }

    pub fn get(&self, id: &str) -> Option<T> {
        let places = self.places.lock().ok()?;
        let place = places.by_id.get(id).filter(|place| place.since.elapsed() < self.kept_for)?;
        Some(place.thing.clone())
    }

    /// Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        self.places.lock().is_ok_and(|mut places| places.forget_id(id))
    }
}

impl<T> Places<T> {
    fn forget(&mut self, which: impl Fn(&Place<T>) -> bool) {
        let bytes = &mut self.bytes;
        self.by_id.retain(|_, place| {
            let stays = !which(place);
            *bytes -= if stays { 0 } else { place.bytes };
            stays
        });
    }

    fn forget_id(&mut self, id: &str) -> bool {
        let place = self.by_id.remove(id);
        self.bytes -= place.as_ref().map_or(0, |place| place.bytes);
        place.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let shelf = Shelf::new(10, Duration::from_secs(1000));
        for (id, bytes, kept) in [("a", 4, true), ("b", 4, true), ("b", 5, true), ("c", 4, true), ("d", 11, false)] {
            assert_eq!(shelf.put(id.into(), id, bytes), kept, "{id} of {bytes}");
        }
        assert_eq!((shelf.get("a"), shelf.get("b"), shelf.get("c"), shelf.get("d")), (None, Some("b"), Some("c"), None));
        assert!(shelf.remove("b") && !shelf.remove("b"));
        assert!(shelf.put("e".into(), "e", 6) && shelf.get("c").is_some());
        let nothing = Shelf::new(10, Duration::ZERO);
        assert!(nothing.put("a".into(), 1, 10) && nothing.get("a").is_none());
        assert!(nothing.put("b".into(), 1, 10), "what is too old makes room");
    }
}
