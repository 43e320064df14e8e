//! What tests are made of: the conformance suites that define a storage backend, queues and alarms, stores that count
//! and fail, a host whose time passes by hand, and a world for the engine that is driven by hand.

pub mod clock;
pub mod conformance;
pub mod counting;
pub mod delivery;
pub mod faulty;
pub mod kit;
pub mod world;

pub use clock::Clock;
pub use conformance::{later, store_conformance};
pub use counting::{CountingStore, Counts};
pub use delivery::{Bench, Delivery, Pace, alarm_conformance, queue_conformance};
pub use faulty::{Fault, FaultyStore, On};
pub use world::World;
