//! Random numbers that replay alike.

use std::convert::Infallible;

use rand_core::{Rng, TryRng};

use crate::program::Raw;

/// One named stream of random numbers. It is a `rand_core` generator, so the crate `rand` works on it.
pub struct Random {
    raw: Raw,
    name: String,
}

impl Random {
    pub(super) fn new(raw: Raw, name: &str) -> Self {
        Self { raw, name: name.to_owned() }
    }

    /// A number at least 0 and below 1.
    #[must_use]
    pub fn fraction(&mut self) -> f64 {
        // The 53 bits that a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills the bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.fill_bytes(bytes);
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.raw.draw(&self.name, |stream| stream.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.raw.draw(&self.name, |stream| stream.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.raw.draw(&self.name, |stream| stream.fill_bytes(bytes));
        Ok(())
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Random({:?})", self.name)
    }
}
