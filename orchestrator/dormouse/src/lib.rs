//! Durable workflows that sleep for free: the one crate that users depend on.

pub use dormouse_core::*;
