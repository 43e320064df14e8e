//! Histories: batches that are created once and never change.

use std::num::NonZeroU64;

use bytes::Bytes;
use dormouse_core::{RunId, RunKey, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::StoreFuture;

/// Create if absent, and read back. **The promise: at each sequence of a run one batch is created, ever; whoever comes
/// later finds that one (rules C1, C4).**
///
/// It has two shapes, which cannot be mistaken for each other: a run is [opened](Self::open) by its batch 0, which
/// begins the index row; every later batch is [appended](Self::append), and may change the row. Both go with the row in
/// one transaction where the backend has one. When they answer [`Creation::Created`], batch and row are durable. When
/// they answer [`Creation::Exists`], the row is untouched (a store without transactions may leave a due time too early,
/// never too late). "Exists" is an answer, not an error, and it is not proof of having lost: the caller compares commit
/// ids.
///
/// **Another primitive.** Nothing here says that a batch is an object or an item of its own. Where a store can append to
/// an object on the condition that it has a certain length (S3 Express by offset, Azure's append blobs by position), a
/// run is one object: a sequence is then the length so far, found in a directory of sequences to offsets that the
/// reader keeps; `open` creates the object, `append` appends on the condition of the offset behind `sequence - 1`, a
/// failed condition is "exists" (the batch that stands at that offset is read), and `read` is one get from an offset.
/// That is why a sequence is given with each append, why appends to one run need not succeed out of order, and why a
/// [`Stretch`] may be of any length.
pub trait Histories: Send + Sync + 'static {
    /// Creates batch 0 if nothing is there, and with it the run's index row.
    fn open<'a>(&'a self, run: &'a RunKey, record: Bytes, opening: Opening) -> StoreFuture<'a, Creation>;

    /// Creates the batch at `sequence` if nothing is there, and makes `update` to the run's row with it.
    ///
    /// Refused when there is no such run and the row is to change. It does not check that earlier sequences exist: the
    /// hash chain does. Nor need it check, when the row does not change, that there is a run: a store that would have
    /// to read for that may put the batch, which nobody finds without its row. The engine never asks for that.
    fn append<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> StoreFuture<'a, Creation>;

    /// Reads consecutive batches from sequence `from` on; as many as fit one page. Nothing there: an empty stretch.
    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch>;

    /// Keeps what was made of the history up to some batch, for whoever reads it next: in place of what was kept
    /// before, whatever that was. The last one wins, and each may be lost, or be older than one before: it is derived,
    /// says itself of which batch, and nothing is ever wrong without it. Its bytes mean nothing to a store. It goes with
    /// its run.
    ///
    /// One write. Nor need a store check that there is a run.
    fn keep_snapshot<'a>(&'a self, run: &'a RunKey, snapshot: Bytes) -> StoreFuture<'a, ()>;

    /// What was kept last. `None` too where it was lost, or cannot be read. One read.
    fn snapshot<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<Bytes>>;
}

/// How a run's index row begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The run's identity.
    pub run_id: RunId,
    /// The workflow's wire name.
    pub workflow_type: String,
    /// Recorded time of batch 0.
    pub started_at: Timestamp,
    /// First due time.
    pub due: Timestamp,
}

/// What a batch does to the index row of its run. By default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowUpdate {
    /// When somebody must look at the run next. `None`: when it was before; but a run that closes then owes nothing.
    pub due: Option<Timestamp>,
    /// The run closes.
    pub closing: Option<Closing>,
}

impl RowUpdate {
    /// Nothing.
    pub const NONE: Self = Self { due: None, closing: None };

    /// The due time becomes this.
    #[must_use]
    pub fn due(due: Timestamp) -> Self {
        Self { due: Some(due), ..Self::NONE }
    }

    /// The run closes, and owes something until `due`, or nothing.
    #[must_use]
    pub fn close(status: Status, closed_at: Timestamp, due: Option<Timestamp>) -> Self {
        Self { due, closing: Some(Closing { status, closed_at }) }
    }

    /// Whether the row stays as it is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// As what.
    pub status: Status,
    /// Recorded time of its last batch.
    pub closed_at: Timestamp,
}

/// A batch's place, and what goes with it: one of the two shapes of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Batch 0.
    Open(Opening),
    /// A later one.
    Append(NonZeroU64, RowUpdate),
}

impl Entry {
    /// The batch's sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Open(_) => 0,
            Self::Append(sequence, _) => sequence.get(),
        }
    }

    /// Opens the run, or appends to it.
    pub fn put<'a, S: Histories + ?Sized>(
        self,
        store: &'a S,
        run: &'a RunKey,
        record: Bytes,
    ) -> StoreFuture<'a, Creation> {
        match self {
            Self::Open(opening) => store.open(run, record, opening),
            Self::Append(sequence, update) => store.append(run, sequence, record, update),
        }
    }
}

/// The answer to a conditional create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// Nothing was there; now this is, durably.
    Created,
    /// Something is there: these bytes. They may be our own, from an earlier try. Empty, as no batch is, when what is
    /// there cannot be read back: a [`read`](Histories::read) then ends before it.
    Exists(Bytes),
}

/// A stretch of a history: consecutive batches, the first at the sequence that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stretch {
    /// The batches as they were stored.
    pub records: Vec<Bytes>,
    /// Whether more may follow: ask again from behind the last.
    pub more: bool,
    /// Whether the stretch ends at a batch that is lost: others are known to stand behind it, or what stands there
    /// cannot be read back.
    pub gap: bool,
}
