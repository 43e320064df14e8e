//! Behaviours of the engine that a history depends on: which of them are in force is part of the history, so that one
//! can be changed for new runs while old ones go on as they began.
//!
//! | behaviour | what depends on it |
//! | --- | --- |
//! | 1 | The code is polled as long as something within it stirs; conditions are looked at after every stir, in the order in which they began to wait. Inputs are delivered one a turn. Cancellation reaches what is awaited in the order in which it was asked for, signals last. Streams of `random` are ChaCha8, their seeds two BLAKE3 derivations of run id and name; `uuid` draws from the stream `uuid`. |
//!
//! A history without a word of it is of behaviour 1. A run keeps the behaviours that it has and gains those that its
//! deciders know; a build that meets one that it does not know leaves the run alone until a newer one takes over. Who
//! begins a run says nothing of behaviours: it may be of a newer build than who decides it.

use minicbor::{Decode, Encode};

/// A set of behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Flags(#[n(0)] u64);

impl Flags {
    /// Behaviour 1: of histories that say nothing.
    pub const FIRST: Self = Self(1);
    /// All that this build knows.
    pub const KNOWN: Self = Self(1);

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The first behaviour among these that this build does not know, counted from 1.
    #[must_use]
    pub const fn unknown(self) -> Option<u32> {
        let unknown = self.0 & !Self::KNOWN.0;
        if unknown == 0 { None } else { Some(unknown.trailing_zeros() + 1) }
    }

    /// The behaviours, counted from 1.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |bit| self.0 >> bit & 1 == 1).map(|bit| bit + 1)
    }

    /// A set from the form in which it is stored: bit n stands for behaviour n + 1.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl Default for Flags {
    fn default() -> Self {
        Self::FIRST
    }
}
