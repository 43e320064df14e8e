//! Least recently used things, bounded in number and in bytes.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A cache that forgets what was used least recently, once it holds too many things or too much.
pub(crate) struct Cache<K: Hash + Eq, V> {
    things: LruCache<K, (V, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// At most so many things, which weigh about so many bytes together. One that weighs more by itself is kept until
    /// another is put.
    pub(crate) fn new(most: NonZeroUsize, most_bytes: usize) -> Self {
        Self { things: LruCache::new(most), bytes: 0, most_bytes }
    }

    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) {
        self.bytes += weight;
        if let Some((_, (_, before))) = self.things.push(key, (value, weight)) {
            self.bytes -= before;
        }
        self.shrink();
    }

    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        let (value, weight) = self.things.pop(key)?;
        self.bytes -= weight;
        Some(value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.things.contains(key)
    }

    /// Something of what is there.
    pub(crate) fn peek<T>(&self, key: &K, look: impl FnOnce(&V) -> T) -> Option<T> {
        self.things.peek(key).map(|(value, _)| look(value))
    }

    fn shrink(&mut self) {
        while self.bytes > self.most_bytes && self.things.len() > 1 {
            if let Some((_, (_, weight))) = self.things.pop_lru() {
                self.bytes -= weight;
            }
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// What is there, or what is now.
    pub(crate) fn get_or_insert_with(&mut self, key: &K, value: impl FnOnce() -> V) -> V {
        if let Some((value, _)) = self.things.get(key) {
            return value.clone();
        }
        let value = value();
        self.put(key.clone(), value.clone(), 0);
        value
    }

    /// The thing weighs something else now; `None`: there is nothing to keep.
    pub(crate) fn weigh(&mut self, key: &K, weight: Option<usize>) {
        let Some(weight) = weight else {
            self.take(key);
            return;
        };
        if let Some((_, before)) = self.things.get_mut(key) {
            self.bytes = self.bytes - *before + weight;
            *before = weight;
            self.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut cache = Cache::new(NonZeroUsize::new(3).unwrap(), 100);
        for (key, weight) in [("a", 40), ("b", 40), ("c", 20)] {
            cache.put(key, (), weight);
        }
        assert!(cache.contains(&"a"), "exactly full");
        cache.get_or_insert_with(&"a", || ());
        cache.weigh(&"c", Some(21));
        assert!(!cache.contains(&"b") && cache.contains(&"a") && cache.contains(&"c"), "one byte too much");
        cache.put("d", (), 1);
        cache.put("e", (), 1);
        assert!(!cache.contains(&"a") && cache.contains(&"c"), "a fourth thing");
        cache.put("c", (), 10);
        assert_eq!((cache.bytes, cache.things.len()), (12, 3), "what is put again is counted once");
        cache.weigh(&"c", None);
        assert_eq!((cache.take(&"d"), cache.bytes), (Some(()), 1));
        cache.put("f", (), 1000);
        assert!(cache.contains(&"f") && cache.things.len() == 1, "what is too heavy stays alone");
    }
}
