//! The seam to storage. A store sees ids, sequences and bytes, never event kinds.
//!
//! **Compare-and-set is the one idea here.** [`Histories`] makes the batch at a sequence if nothing is there;
//! [`Attempts`] replaces a record if its version is the expected one. Everything that the engine promises rests on
//! these two, so the conformance suite in `dormouse-testing` is the definition of a backend. [`Index`] is for finding
//! runs again. A backend implements the three, and [`Store`], which is all of them. Who stands around a store
//! implements [`Around`].
//!
//! **What an error means.** [`StoreError::Unknown`]: the write may have landed, now or later; only reading back tells
//! (rule C1). [`StoreError::Refused`]: nothing was written. "Exists" is an answer, not an error, and it is not proof of
//! having lost: the caller compares commit ids. A backend never retries a write by itself; [`insist`] is how callers do.

mod around;
mod attempts;
mod error;
mod histories;
mod index;
mod insist;
mod passed_over;

use futures::future::BoxFuture;

pub use self::around::{Around, Op};
pub use self::attempts::{AttemptKey, Attempts, Swap, Versioned};
pub use self::error::{Cause, StoreError};
pub use self::histories::{Closing, Creation, Entry, Histories, Opening, RowUpdate, Stretch};
pub use self::index::{
    Index, ListCursor, Newest, Parked, Retirement, RunFilter, RunRow, SHORTEST_RETENTION, check_retention,
};
pub use self::insist::{Patience, Sleep, Try, insist};
pub use self::passed_over::PassedOver;

/// What a store's methods return.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// All that the engine needs of a backend.
pub trait Store: Histories + Index + Attempts {
    /// Grows each time a process takes the store over: claims of earlier epochs belong to dead processes.
    /// Stores that many processes share answer 0.
    fn epoch(&self) -> u64;
}
