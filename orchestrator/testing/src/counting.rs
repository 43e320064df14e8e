//! A store that counts requests: what a step costs is a promise, so tests assert it to the digit.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_engine::store::{Around, Creation, Op, Store, StoreFuture, Swap};

/// How often each request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Conditional creates, however they ended.
    pub creates: u64,
    /// ... that created.
    pub created: u64,
    /// ... that found something there.
    pub exists: u64,
    /// Creates that brought a change to the index row.
    pub row_changes: u64,
    /// Pages of history.
    pub reads: u64,
    /// Newest runs of workflows.
    pub newest: u64,
    /// Index rows by run.
    pub rows: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Pages of due runs.
    pub dues: u64,
    /// Snapshots read.
    pub snapshots: u64,
    /// Snapshots kept.
    pub kept: u64,
    /// Due times taken away.
    pub settles: u64,
    /// Parkings and unparkings.
    pub parks: u64,
    /// Conditional replacements of attempt records, however they ended.
    pub swaps: u64,
    /// ... that replaced.
    pub swapped: u64,
    /// ... that found another version.
    pub stale: u64,
    /// Calls of retention.
    pub retires: u64,
    /// Attempt records read.
    pub attempts: u64,
    /// Requests of any kind that ended with an error.
    pub errors: u64,
    /// Bytes of the records that were created or replaced.
    pub bytes_written: u64,
}

impl Counts {
    /// Counts a request as it begins.
    fn begun(&mut self, op: &Op<'_>) {
        let count = match op {
            Op::Open { .. } => {
                self.row_changes += 1;
                &mut self.creates
            }
            Op::Append { changes_row, .. } => {
                self.row_changes += u64::from(*changes_row);
                &mut self.creates
            }
            Op::Read { .. } => &mut self.reads,
            Op::KeepSnapshot(_) => &mut self.kept,
            Op::Snapshot(_) => &mut self.snapshots,
            Op::Row(_) => &mut self.rows,
            Op::Newest(_) => &mut self.newest,
            Op::List => &mut self.lists,
            Op::Due => &mut self.dues,
            Op::Settle(_) => &mut self.settles,
            Op::Park(_) => &mut self.parks,
            Op::Retire => &mut self.retires,
            Op::Swap { .. } => &mut self.swaps,
            Op::Attempt(_) => &mut self.attempts,
        };
        *count += 1;
    }

    /// Counts what came of a write of so many bytes.
    fn answered(&mut self, answer: &dyn Any, bytes: u64) {
        let (count, wrote) = match (answer.downcast_ref(), answer.downcast_ref()) {
            (Some(Creation::Created), _) => (&mut self.created, true),
            (Some(Creation::Exists(_)), _) => (&mut self.exists, false),
            (_, Some(Swap::Done(_))) => (&mut self.swapped, true),
            (_, Some(Swap::Stale(_))) => (&mut self.stale, false),
            (None, None) => return,
        };
        *count += 1;
        self.bytes_written += if wrote { bytes } else { 0 };
    }

    /// All requests that read and write nothing.
    #[must_use]
    pub fn all_reads(&self) -> u64 {
        self.reads + self.newest + self.rows + self.lists + self.dues + self.attempts + self.snapshots
    }

    /// All requests that write, or try to.
    #[must_use]
    pub fn all_writes(&self) -> u64 {
        self.creates + self.swaps + self.settles + self.parks + self.kept
    }
}

/// Counts what passes through to another store. See the module's documentation.
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counts: Mutex<Counts>,
}

impl CountingStore {
    /// Counts the requests to this store.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counts: Mutex::default() }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Begins at zero again; answers the counts up to now.
    pub fn reset(&self) -> Counts {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of the record that a request brings.
fn bytes(op: &Op<'_>) -> u64 {
    match op {
        Op::Open { record, .. } | Op::Append { record, .. } | Op::Swap { record, .. } => record.len() as u64,
        _ => 0,
    }
}

impl Around for CountingStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn around<'a, T: Send + 'static>(
        &'a self,
        op: Op<'a>,
        call: impl Fn() -> StoreFuture<'a, T> + Send + Sync + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.lock().begun(&op);
            let answer = call().await;
            match &answer {
                Ok(answer) => self.lock().answered(answer, bytes(&op)),
                Err(_) => self.lock().errors += 1,
            }
            answer
        })
    }
}
