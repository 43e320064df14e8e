//! Attempt records: one small record per queued activity, beside the history (rule A1).

use bytes::Bytes;
use dormouse_core::RunKey;

use super::StoreFuture;

/// Swap if version. **The promise: of all who would replace the same version of a record, one does.**
///
/// A record that cannot be read is refused by its name, and concerns its activity alone.
pub trait Attempts: Send + Sync + 'static {
    /// Replaces an attempt record if its version is `expected`; `None` expects that there is none. It needs its run.
    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap>;

    /// Reads an attempt record.
    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>>;
}

/// Names an attempt record: one small record per queued activity, beside the history (rule A1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// The run.
    pub run: RunKey,
    /// The activity's id within the run.
    pub activity: u64,
}

/// The answer to a conditional replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// Done; the record now has this version.
    Done(u64),
    /// The version was another: this is what stands there. `None` when nothing does.
    Stale(Option<Versioned>),
}

/// A record with the version to name when replacing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Grows with each replacement.
    pub version: u64,
    /// The record.
    pub record: Bytes,
}
