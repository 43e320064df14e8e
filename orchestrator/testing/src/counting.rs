//! A store that counts requests: what a step costs is a promise, so tests assert it to the digit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::{
    AttemptKey, Creation, ListCursor, Newest, Parked, Retirement, RowChange, RunFilter, RunRow, Store, StoreFuture,
    Stretch, Swap, Versioned,
};

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
    /// Attempt records read.
    pub attempts: u64,
    /// Requests of any kind that ended with an error.
    pub errors: u64,
    /// Bytes of the records that were created or replaced.
    pub bytes_written: u64,
}

impl Counts {
    /// All requests that read and write nothing.
    #[must_use]
    pub fn all_reads(&self) -> u64 {
        self.reads + self.newest + self.rows + self.lists + self.dues + self.attempts
    }

    /// All requests that write, or try to.
    #[must_use]
    pub fn all_writes(&self) -> u64 {
        self.creates + self.swaps + self.settles + self.parks
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

    /// Counts a request as it begins, and what came of it.
    fn counted<'a, T: Send + 'a>(
        &'a self,
        request: StoreFuture<'a, T>,
        begun: impl FnOnce(&mut Counts) + Send + 'a,
        ended: impl FnOnce(&mut Counts, &T) + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            begun(&mut self.lock());
            let answer = request.await;
            match &answer {
                Ok(answer) => ended(&mut self.lock(), answer),
                Err(_) => self.lock().errors += 1,
            }
            answer
        })
    }
}

impl Store for CountingStore {
    fn create<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: u64,
        record: Bytes,
        change: Option<RowChange>,
    ) -> StoreFuture<'a, Creation> {
        let (bytes, changes) = (record.len() as u64, u64::from(change.is_some()));
        self.counted(
            self.inner.create(run, sequence, record, change),
            move |counts| {
                counts.creates += 1;
                counts.row_changes += changes;
            },
            move |counts, creation| match creation {
                Creation::Created => {
                    counts.created += 1;
                    counts.bytes_written += bytes;
                }
                Creation::Exists(_) => counts.exists += 1,
            },
        )
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        self.counted(self.inner.read(run, from), |counts| counts.reads += 1, |_, _| ())
    }

    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest> {
        self.counted(self.inner.newest(workflow), |counts| counts.newest += 1, |_, _| ())
    }

    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        self.counted(self.inner.row(run), |counts| counts.rows += 1, |_, _| ())
    }

    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.counted(self.inner.list(namespace, filter, after, limit), |counts| counts.lists += 1, |_, _| ())
    }

    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.counted(self.inner.due(by, after, limit), |counts| counts.dues += 1, |_, _| ())
    }

    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()> {
        self.counted(self.inner.settle(run), |counts| counts.settles += 1, |_, ()| ())
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        self.counted(self.inner.park(run, parked), |counts| counts.parks += 1, |_, ()| ())
    }

    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        let bytes = record.len() as u64;
        self.counted(
            self.inner.swap(key, expected, record),
            |counts| counts.swaps += 1,
            move |counts, swap| match swap {
                Swap::Done(_) => {
                    counts.swapped += 1;
                    counts.bytes_written += bytes;
                }
                Swap::Stale(_) => counts.stale += 1,
            },
        )
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        self.counted(self.inner.attempt(key), |counts| counts.attempts += 1, |_, _| ())
    }

    fn retire<'a>(&'a self, now: Timestamp, retention: Duration, limit: usize) -> StoreFuture<'a, Retirement> {
        self.inner.retire(now, retention, limit)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}
