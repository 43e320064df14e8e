//! Stores around another store: they count, fail, slow down. One method, and the rest comes of itself.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};

use super::{
    AttemptKey, Attempts, Creation, Histories, Index, ListCursor, Newest, Opening, Parked, Retirement, RowUpdate,
    RunFilter, RunRow, Store, StoreFuture, Stretch, Swap, Versioned,
};

/// A request, as far as one who stands around a store may want to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// [`Histories::open`].
    Open {
        /// The run.
        run: &'a RunKey,
        /// The batch.
        record: Bytes,
    },
    /// [`Histories::append`].
    Append {
        /// The run.
        run: &'a RunKey,
        /// The batch's place.
        sequence: NonZeroU64,
        /// The batch.
        record: Bytes,
        /// Whether the row changes.
        changes_row: bool,
    },
    /// [`Histories::read`].
    Read {
        /// The run.
        run: &'a RunKey,
        /// The first batch.
        from: u64,
    },
    /// [`Histories::keep_snapshot`].
    KeepSnapshot(&'a RunKey),
    /// [`Histories::snapshot`].
    Snapshot(&'a RunKey),
    /// [`Index::row`].
    Row(&'a RunKey),
    /// [`Index::newest`].
    Newest(&'a WorkflowKey),
    /// [`Index::list`].
    List,
    /// [`Index::due`].
    Due,
    /// [`Index::settle`].
    Settle(&'a RunKey),
    /// [`Index::park`].
    Park(&'a RunKey),
    /// [`Index::retire`].
    Retire,
    /// [`Attempts::swap`].
    Swap {
        /// The record's place.
        key: &'a AttemptKey,
        /// The new record.
        record: Bytes,
    },
    /// [`Attempts::attempt`].
    Attempt(&'a AttemptKey),
}

/// A store around another. It is a [`Store`] by its one method.
pub trait Around: Send + Sync + 'static {
    /// The store within.
    fn inner(&self) -> &dyn Store;

    /// Does what there is to do about a request. Each call of `call` sends it to the store within.
    fn around<'a, T: Send + 'static>(
        &'a self,
        op: Op<'a>,
        call: impl Fn() -> StoreFuture<'a, T> + Send + Sync + 'a,
    ) -> StoreFuture<'a, T>;
}

impl<W: Around> Histories for W {
    fn open<'a>(&'a self, run: &'a RunKey, record: Bytes, opening: Opening) -> StoreFuture<'a, Creation> {
        let op = Op::Open { run, record: record.clone() };
        self.around(op, move || self.inner().open(run, record.clone(), opening.clone()))
    }

    fn append<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> StoreFuture<'a, Creation> {
        let op = Op::Append { run, sequence, record: record.clone(), changes_row: !update.is_none() };
        self.around(op, move || self.inner().append(run, sequence, record.clone(), update.clone()))
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        self.around(Op::Read { run, from }, move || self.inner().read(run, from))
    }

    fn keep_snapshot<'a>(&'a self, run: &'a RunKey, snapshot: Bytes) -> StoreFuture<'a, ()> {
        self.around(Op::KeepSnapshot(run), move || self.inner().keep_snapshot(run, snapshot.clone()))
    }

    fn snapshot<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<Bytes>> {
        self.around(Op::Snapshot(run), move || self.inner().snapshot(run))
    }
}

impl<W: Around> Index for W {
    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        self.around(Op::Row(run), move || self.inner().row(run))
    }

    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest> {
        self.around(Op::Newest(workflow), move || self.inner().newest(workflow))
    }

    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.around(Op::List, move || self.inner().list(namespace, filter, after, limit))
    }

    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.around(Op::Due, move || self.inner().due(by, after.clone(), limit))
    }

    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()> {
        self.around(Op::Settle(run), move || self.inner().settle(run))
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        self.around(Op::Park(run), move || self.inner().park(run, parked.clone()))
    }

    fn retire<'a>(&'a self, now: Timestamp, retention: Duration, limit: usize) -> StoreFuture<'a, Retirement> {
        self.around(Op::Retire, move || self.inner().retire(now, retention, limit))
    }
}

impl<W: Around> Attempts for W {
    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        let op = Op::Swap { key, record: record.clone() };
        self.around(op, move || self.inner().swap(key, expected, record.clone()))
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        self.around(Op::Attempt(key), move || self.inner().attempt(key))
    }
}

impl<W: Around> Store for W {
    fn epoch(&self) -> u64 {
        self.inner().epoch()
    }
}
