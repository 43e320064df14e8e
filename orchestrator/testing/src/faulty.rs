//! A store that fails on cue, below the caller: what a network does to a request, without one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::{
    AttemptKey, Creation, ListCursor, Newest, Parked, Retirement, RowChange, RunFilter, RunRow, Store, StoreError,
    StoreFuture, Stretch, Swap, Versioned,
};

/// Which request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The next create; with a number, the next one at this sequence.
    Create(Option<u64>),
    /// The next swap; with a number, the next one of this activity.
    Swap(Option<u64>),
    /// The next read of a history; with a number, the next one from this sequence on.
    Read(Option<u64>),
    /// The next parking or unparking.
    Park,
    /// The next read of an attempt record; with a number, the next one of this activity.
    Attempt(Option<u64>),
}

impl On {
    fn meets(self, request: On) -> bool {
        let (wanted, got) = match (self, request) {
            (On::Create(wanted), On::Create(got))
            | (On::Swap(wanted), On::Swap(got))
            | (On::Read(wanted), On::Read(got))
            | (On::Attempt(wanted), On::Attempt(got)) => (wanted, got),
            (On::Park, On::Park) => return true,
            _ => return false,
        };
        wanted.is_none() || wanted == got
    }
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives; the caller is told that the outcome is unknown.
    FailBefore,
    /// The request is carried out, and its answer is lost.
    FailAfter,
    /// The request is carried out, its answer is lost, and something below the caller sends it again: the caller sees
    /// the second answer, "exists" or "stale", with its own bytes. On a read: the second answer, too.
    RetriedHidden,
    /// The caller dies before the request is made: it never arrives, and is never answered.
    CrashBefore,
    /// The caller dies when the request is carried out: it is never answered.
    CrashAfter,
}

/// Passes requests on to another store, but for those that were told to fail. See the module's documentation.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Mutex<VecDeque<(On, Fault)>>,
    horizon: Mutex<Option<u64>>,
}

impl FaultyStore {
    /// Without faults, for now.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, script: Mutex::default(), horizon: Mutex::default() }
    }

    /// Adds a fault to the script. Each happens once, to the first request that it fits.
    pub fn plan(&self, on: On, fault: Fault) {
        self.script().push_back((on, fault));
    }

    /// The faults that have not happened yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.script().len()
    }

    /// From now on, reads show only batches before this sequence, as a reader of old data would see them;
    /// `None` shows all.
    pub fn show_only_before(&self, sequence: Option<u64>) {
        *self.horizon.lock().unwrap_or_else(PoisonError::into_inner) = sequence;
    }

    fn script(&self) -> MutexGuard<'_, VecDeque<(On, Fault)>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, request: On) -> Option<Fault> {
        let mut script = self.script();
        let at = script.iter().position(|(on, _)| on.meets(request))?;
        script.remove(at).map(|(_, fault)| fault)
    }

    /// Carries a request out as the script says.
    async fn carry_out<'a, T>(&self, on: On, request: impl Fn() -> StoreFuture<'a, T>) -> Result<T, StoreError> {
        match self.next_fault(on) {
            None => request().await,
            Some(Fault::FailBefore) => Err(StoreError::Unknown("planned: the request was lost".into())),
            Some(Fault::FailAfter) => {
                request().await?;
                Err(StoreError::Unknown("planned: the answer was lost".into()))
            }
            Some(Fault::RetriedHidden) => {
                request().await?;
                request().await
            }
            Some(Fault::CrashBefore) => std::future::pending().await,
            Some(Fault::CrashAfter) => {
                request().await?;
                std::future::pending().await
            }
        }
    }
}

impl Store for FaultyStore {
    fn create<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: u64,
        record: Bytes,
        change: Option<RowChange>,
    ) -> StoreFuture<'a, Creation> {
        Box::pin(self.carry_out(On::Create(Some(sequence)), move || {
            self.inner.create(run, sequence, record.clone(), change.clone())
        }))
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        Box::pin(async move {
            let mut stretch = self.carry_out(On::Read(Some(from)), || self.inner.read(run, from)).await?;
            let horizon = *self.horizon.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(horizon) = horizon {
                let visible = usize::try_from(horizon.saturating_sub(from)).unwrap_or(usize::MAX);
                if visible <= stretch.records.len() {
                    stretch.records.truncate(visible);
                    stretch.more = false;
                }
            }
            Ok(stretch)
        })
    }

    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest> {
        self.inner.newest(workflow)
    }

    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        self.inner.row(run)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.inner.list(namespace, filter, after, limit)
    }

    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.inner.due(by, after, limit)
    }

    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()> {
        self.inner.settle(run)
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        Box::pin(self.carry_out(On::Park, move || self.inner.park(run, parked.clone())))
    }

    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        Box::pin(self.carry_out(On::Swap(Some(key.activity)), move || self.inner.swap(key, expected, record.clone())))
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(self.carry_out(On::Attempt(Some(key.activity)), move || self.inner.attempt(key)))
    }

    fn retire<'a>(&'a self, now: Timestamp, retention: Duration, limit: usize) -> StoreFuture<'a, Retirement> {
        self.inner.retire(now, retention, limit)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}
