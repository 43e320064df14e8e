//! What tests are made of: the conformance suite that defines a storage backend, stores that count and fail, and a
//! world for the engine that is driven by hand.

pub mod conformance;
pub mod counting;
pub mod faulty;
pub mod world;

pub use conformance::store_conformance;
pub use counting::{CountingStore, Counts};
pub use faulty::{Fault, FaultyStore, On};
pub use world::World;
