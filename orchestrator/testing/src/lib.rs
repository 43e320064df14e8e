//! What tests are made of: the conformance suite that defines a storage backend, and stores that count and fail.

pub mod conformance;
pub mod counting;
pub mod faulty;

pub use conformance::store_conformance;
pub use counting::{CountingStore, Counts};
pub use faulty::{Fault, FaultyStore, On};
