//! The shell around the core.

pub mod store;
pub mod stores;
