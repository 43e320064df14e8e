//! The store on DynamoDB, with large records in S3.
//!
//! One table holds batches, index rows and attempt records (`store/keys.rs` says where each is, `store/item.rs` what
//! its item looks like). A batch is created by a put on the condition that nothing is there; where it changes the
//! row, both go in one transaction (rule F5). A record of more than 64 KiB is put into the bucket first, under its
//! run's prefix and named by its hash; its item says where it is and how to know it. One that is missing, truncated
//! or altered is reported as a gap, so that the run is parked and its history stays as it is.
//!
//! **Every write is sent once.** The SDK would send a put again whose answer was lost, and report that its condition
//! failed: by our own item (rule C1). So hidden retries are off for writes; reads may be retried. What surely was not
//! written and would be refused again is [`StoreError::Refused`]; a conflict with another transaction, throttling,
//! and all that nobody can know is [`StoreError::Unknown`].
//!
//! **Reads by key are consistent**, those by the indexes ([`list`](Index::list), [`due`](Index::due)) are not quite:
//! a change shows after a moment, usually well below a second. That is enough for them: the sweep looks again.
//!
//! **What it costs.** WRU and RRU are DynamoDB's write and read request units: one per KB begun, and one per 4 KB
//! begun (half when not consistent). `b` is the batch's size in KB, begun; a row is below 1 KB unless parked.
//!
//! | operation | requests | units |
//! | --- | --- | --- |
//! | `append`, as most batches | 1 PutItem | `b` WRU, lost or won |
//! | `open`, and `append` with a change of the row | 1 TransactWriteItems | 2 `b` + 2 WRU, and 2 (opening) or 3 WRU for the indexes |
//! | ... of a record over 64 KiB | 1 PUT to S3 more | `b` is 1 |
//! | `read` | 1 Query per MB | 1 RRU per 4 KB; 1 GET from S3 per large record |
//! | `newest` | 1 Query | 1 RRU |
//! | `row`, `attempt` | 1 GetItem | 1 RRU per 4 KB |
//! | `swap` | 1 PutItem | 1 WRU per KB |
//! | `keep_snapshot` | 1 PutItem; over 64 KiB 1 PUT to S3 more | 1 WRU per KB; over 64 KiB 1 |
//! | `snapshot` | 1 GetItem; 1 GET from S3 for a large one | 1 RRU per 4 KB |
//! | `settle`, `park` | 1 UpdateItem | 1 WRU, and 3 for the indexes |
//! | `list`, also of parked runs alone, `due` | 8 Queries at once, more for long answers | 0.5 RRU each per 4 KB that they pass over |
//! | `retire` | 16 Queries; per run 4 UpdateItem or DeleteItem, 1 LIST of S3, 1 BatchWriteItem per 25 batches | 1 WRU per batch, object item and attempt record, about 9 per run |
//!
//! So N local steps cost N + 1 puts and no reads; a queued step costs one put and one swap. A write that finds
//! something there asks for it with its answer, and reads nothing.
//!
//! **Attempt records in other languages.** The item's `record` is the record as JSON text (see
//! [`AttemptRecord`](dormouse_engine::attempts::AttemptRecord)), `version` a number. A worker is told `p` and `s`
//! ([`attempt_address`]), replaces the item on the condition `version = <what it read>` with `version` one more, or
//! creates it with version 1 on the condition `attribute_not_exists(p)`. Leading keys in IAM can confine it to
//! `attempt#*`.

pub(crate) mod fault;
mod index;
mod item;
mod keys;
mod read;
mod retire;
mod snapshot;
mod table;
mod write;

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};
use tokio::runtime::Handle;

pub use self::keys::attempt_address;
use crate::blobs::Blobs;
use crate::on;
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Entry, Histories, Index, ListCursor, Newest, Opening, Parked, PassedOver,
    Retirement, RowUpdate, RunFilter, RunRow, Store, StoreError, StoreFuture, Stretch, Swap, Versioned,
};

/// How long one request may take, unless the client's configuration says otherwise. DynamoDB answers within
/// milliseconds; a caller that waits longer than this had better ask again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read may take with its retries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// The store on DynamoDB. Cloning is cheap. See the module's documentation.
#[derive(Clone)]
pub struct DynamoStore {
    inner: Arc<Inner>,
    runtime: Handle,
}

struct Inner {
    client: Client,
    table: String,
    blobs: Blobs,
    passed_over: PassedOver,
}

impl fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoStore").field("table", &self.inner.table).finish_non_exhaustive()
    }
}

impl DynamoStore {
    /// A store over this table and bucket. The client's retries are kept for reads and switched off for writes; its
    /// time-outs are kept, and set where it has none. Requests run on `runtime`.
    #[must_use]
    pub fn new(client: Client, table: &str, blobs: Blobs, runtime: Handle) -> Self {
        let ours =
            TimeoutConfig::builder().operation_attempt_timeout(REQUEST_TIMEOUT).operation_timeout(OPERATION_TIMEOUT);
        let given = client.config().timeout_config().map(TimeoutConfig::to_builder).unwrap_or_default();
        let timeouts = given.take_unset_from(ours).build();
        let client = Client::from_conf(client.config().to_builder().timeout_config(timeouts).build());
        let inner = Inner { client, table: table.to_owned(), blobs, passed_over: PassedOver::default() };
        Self { inner: Arc::new(inner), runtime }
    }

    /// Makes the table if it is not there, and waits until it can be used: for tests and emulators. Call it inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be made, or does not become active within a minute.
    pub async fn create_table(client: &Client, table: &str) -> Result<(), StoreError> {
        table::create(client, table).await
    }

    fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        on(&self.runtime, work(Arc::clone(&self.inner)))
    }
}

impl Inner {
    /// The configuration of a write: sent once, whatever happens.
    fn once(&self) -> Builder {
        Builder::default().retry_config(RetryConfig::disabled())
    }
}

impl Histories for DynamoStore {
    fn open<'a>(&'a self, run: &'a RunKey, record: Bytes, opening: Opening) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        self.run(async move |inner| inner.create(&run, record, Entry::Open(opening)).await)
    }

    fn append<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        self.run(async move |inner| inner.create(&run, record, Entry::Append(sequence, update)).await)
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        let run = run.clone();
        self.run(async move |inner| inner.read(&run, from).await)
    }

    fn keep_snapshot<'a>(&'a self, run: &'a RunKey, snapshot: Bytes) -> StoreFuture<'a, ()> {
        let run = run.clone();
        self.run(async move |inner| inner.keep_snapshot(&run, snapshot).await)
    }

    fn snapshot<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<Bytes>> {
        let run = run.clone();
        self.run(async move |inner| inner.snapshot(&run).await)
    }
}

impl Index for DynamoStore {
    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        let run = run.clone();
        self.run(async move |inner| inner.row(&run).await)
    }

    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest> {
        let workflow = workflow.clone();
        self.run(async move |inner| inner.newest(&workflow).await)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        let (namespace, filter, after) = (namespace.to_owned(), filter.clone(), after.cloned());
        self.run(async move |inner| inner.list(&namespace, &filter, after.as_ref(), limit).await)
    }

    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        self.run(async move |inner| inner.due(by, after, limit).await)
    }

    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()> {
        let run = run.clone();
        self.run(async move |inner| inner.settle(&run).await)
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        let run = run.clone();
        self.run(async move |inner| inner.park(&run, parked).await)
    }

    fn retire<'a>(&'a self, now: Timestamp, retention: Duration, limit: usize) -> StoreFuture<'a, Retirement> {
        self.run(async move |inner| inner.retire(now, retention, limit).await)
    }
}

impl Attempts for DynamoStore {
    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        let key = key.clone();
        self.run(async move |inner| inner.swap(&key, expected, record).await)
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        let key = key.clone();
        self.run(async move |inner| inner.attempt(&key).await)
    }
}

impl Store for DynamoStore {
    /// Many processes share the table.
    fn epoch(&self) -> u64 {
        0
    }
}
