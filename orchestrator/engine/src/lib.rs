//! The shell around the core.

pub mod store;
pub mod stores;

pub mod embedded;
mod error;
pub mod front;
pub use error::ApiError;
