//! Rows that cannot be read are passed over, and said.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

/// How many things that were told of are remembered. With more of them, some are told of again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// Says once of each thing that cannot be read that it is passed over: a sweep meets it every minute.
#[derive(Debug)]
pub struct PassedOver(Mutex<LruCache<String, ()>>);

impl Default for PassedOver {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl PassedOver {
    /// Tells of it, by its key in the store, unless that was done. Whether it was told.
    pub fn tell(&self, key: &str, why: impl Display) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key.to_owned(), ()).is_some();
        if !known {
            tracing::warn!(key, %why, "an index row cannot be read and is passed over; all others are seen to");
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once() {
        let passed_over = PassedOver::default();
        let told: Vec<_> = ["a", "b", "a", "a", "b"].map(|key| passed_over.tell(key, "why")).into();
        assert_eq!(told, [true, true, false, false, false]);
    }
}
