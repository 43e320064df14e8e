//! Random numbers that a failed test can ask for again.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

/// A small generator (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `DORMOUSE_SEED`, or from a seed that nobody chose; either way it is printed.
    #[must_use]
    pub fn cast(test: &str) -> Self {
        let given = std::env::var("DORMOUSE_SEED").ok().map(|seed| match seed.parse() {
            Ok(seed) => seed,
            Err(_) => panic!("DORMOUSE_SEED must be a number, not {seed:?}"),
        });
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()) >> 32);
        crate::tell!("{test}: DORMOUSE_SEED={seed} repeats these choices");
        Self(seed)
    }

    /// From this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in this range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.roll() % (range.end - range.start)
    }

    /// So many milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}
