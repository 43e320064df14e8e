//! The backends, one file each, each behind its feature.

#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(feature = "object-store")]
pub mod object;
