//! Any object store that can put conditionally: S3 and what speaks its protocol, GCS, Azure, memory.
//!
//! A batch is an object, created if absent. A run's index row is one object too, replaced if its ETag is the expected
//! one; without transactions, changes to it are written down as intents before their batch is put, and the batch
//! decides (see `object/row.rs`). An attempt record carries its version in its first eight bytes.
//!
//! **What it costs.** A batch that changes no row is one put. One that changes the row is three: intent, batch, row;
//! the first of a run four, as its marker is put too. What is closed and settled is moved from the marker to a key that
//! tells the row, by the next look at the due runs: a put and a delete. So a run of N queued steps costs about 7 + 4 N
//! puts, a settled one costs nothing any more.
//!
//! | | requests, with an owner |
//! | --- | --- |
//! | `due`, each sweep | 1 LIST per 1,000 open runs, and gets for a few of their rows (see `object/index.rs`) |
//! | `due`, the first after a start | the same, and a get per open run |
//! | `list` | 1 LIST per 1,000 closed runs that it passes over; none for open ones |
//! | `newest` | 1 LIST per 1,000 runs of the workflow id, 1 get |
//! | `row`, `snapshot` | 1 get |
//! | `keep_snapshot` | 1 put |
//!
//! "Open" is every run that owes something. Without an owner nothing is remembered, and each `due` and `list` reads the
//! rows of all open runs.
//!
//! **What it needs.** Listings and reads that see acknowledged puts (S3 and the others promise that), `If-None-Match`
//! and `If-Match` on puts. Any executor will do for memory; the S3 client runs on the tokio runtime that it is given.
//! Many processes may share a prefix; then there is no epoch. Or one owns it ([`ObjectStore::own`]), for as long as it
//! says so (see `object/owner.rs`): then the epoch grows with each owner, and who has lost it puts nothing more.

mod attempts;
pub mod fault;
mod history;
mod index;
mod keys;
mod owner;
mod probe;
mod row;
mod rows;

use std::fmt;
use std::future::Future;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};
use lru::LruCache;
use object_store::path::Path;
use object_store::{Error, ObjectStore as Objects, ObjectStoreExt, PutMode, UpdateVersion};

use self::fault::{failed, is_conflict};
use self::index::Open;
use self::keys::Keys;
pub use self::owner::{Holder, OwnError, OwnerSettings, Ownership, SHORTEST_LEASE, Waiting};
use self::row::RowObject;
use crate::store::{
    AttemptKey, Attempts, Cause, Creation, Histories, Index, ListCursor, Newest, Opening, Parked, PassedOver,
    Retirement, RowUpdate, RunFilter, RunRow, Store, StoreError, StoreFuture, Stretch, Swap, Versioned,
    check_retention,
};

/// Gets in flight at a time.
const CONCURRENT_GETS: usize = 16;

/// How many runs' row objects are remembered, to change them without reading them first.
const REMEMBERED_ROWS: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// A store over the crate `object_store`. See the module's documentation.
#[derive(Clone)]
pub struct ObjectStore {
    inner: Arc<Inner>,
    runtime: Option<tokio::runtime::Handle>,
}

struct Inner {
    /// Never retries by itself: a retry of a put that landed is answered "exists" (rule C1).
    writes: Arc<dyn Objects>,
    reads: Arc<dyn Objects>,
    /// For whoever renews the ownership, on a runtime of his own.
    owners: Arc<dyn Objects>,
    ownership: Option<Ownership>,
    keys: Keys,
    rows: Mutex<LruCache<RunKey, Known>>,
    open: Mutex<Open>,
    passed_over: PassedOver,
}

/// A row object as it stood, and what to name when replacing it; `None`: it does not stand yet.
#[derive(Clone)]
struct Known {
    object: RowObject,
    version: Option<UpdateVersion>,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore").field("objects", &self.inner.writes.to_string()).finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// A store of the objects under a prefix. The object store must not retry puts by itself, and must run under the
    /// caller's executor.
    #[must_use]
    pub fn new(objects: Arc<dyn Objects>, prefix: &str) -> Self {
        let (reads, owners) = (Arc::clone(&objects), Arc::clone(&objects));
        Self::with(Inner::new(objects, reads, owners, None, Keys::new(prefix)), None)
    }

    fn with(inner: Inner, runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { inner: Arc::new(inner), runtime }
    }

    /// A bucket of S3, or of what speaks its protocol, found by the standard environment: `AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on. Its requests run on `runtime`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the settings do not make a client.
    #[cfg(feature = "s3")]
    pub fn s3(bucket: &str, prefix: &str, runtime: tokio::runtime::Handle) -> Result<Self, StoreError> {
        Self::over_s3(s3_client(bucket), prefix, runtime)
    }

    /// The same at this endpoint, whatever the environment says of endpoints.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the settings do not make a client.
    #[cfg(feature = "s3")]
    pub fn s3_at(
        endpoint: &str,
        bucket: &str,
        prefix: &str,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, StoreError> {
        use object_store::aws::AmazonS3ConfigKey::S3Endpoint;

        let builder = s3_client(bucket).with_config(S3Endpoint, endpoint);
        Self::over_s3(builder.with_allow_http(endpoint.starts_with("http://")), prefix, runtime)
    }

    #[cfg(feature = "s3")]
    fn over_s3(
        builder: object_store::aws::AmazonS3Builder,
        prefix: &str,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, StoreError> {
        let never = object_store::RetryConfig { max_retries: 0, ..object_store::RetryConfig::default() };
        let writes = Arc::new(builder.clone().with_retry(never.clone()).build().map_err(failed)?);
        // Connections belong to the runtime that opened them.
        let owners = Arc::new(builder.clone().with_retry(never).build().map_err(failed)?);
        let reads = Arc::new(builder.build().map_err(failed)?);
        Ok(Self::with(Inner::new(writes, reads, owners, None, Keys::new(prefix)), Some(runtime)))
    }

    /// Takes the prefix over for this process alone, once nobody else is known to live there: the epoch grows, and
    /// what this process remembered is forgotten. Messages name the store as `place`. `waiting` is called at first
    /// sight of an owner that may be dead, and every few seconds while that is to be seen. Dropping the future gives up.
    ///
    /// The ownership lasts while the store lives and renews it; see [`Ownership`] for its end.
    ///
    /// # Errors
    /// [`OwnError`]: a living process owns it, or the object store ignores the conditions of puts, or does not answer.
    pub async fn own(
        &self,
        place: &str,
        settings: OwnerSettings,
        waiting: impl FnMut(Waiting) + Send + 'static,
    ) -> Result<(Self, Ownership), OwnError> {
        let Inner { writes, reads, owners, keys, .. } = &*self.inner;
        let scratch = keys.scratch(&owner::fresh_name())?;
        let ownership =
            owner::own(Arc::clone(owners), place.to_owned(), keys.owner()?, scratch, settings, waiting).await?;
        let inner = Inner::new(
            Arc::clone(writes),
            Arc::clone(reads),
            Arc::clone(owners),
            Some(ownership.clone()),
            keys.clone(),
        );
        Ok((Self::with(inner, self.runtime.clone()), ownership))
    }

    /// Runs the work where the client can live. A dropped future may leave the work going on: as on any network.
    #[expect(
        clippy::disallowed_methods,
        reason = "a request runs where its client lives, whatever host the engine has"
    )]
    fn run<T, F, W>(&self, work: W) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Inner>) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        match self.runtime.clone() {
            None => Box::pin(async move { work(inner).await }),
            Some(runtime) => Box::pin(async move {
                runtime.spawn(work(inner)).await.unwrap_or_else(|error| Err(StoreError::Unknown(Cause::of(error))))
            }),
        }
    }
}

/// A client of a bucket of S3, or of what speaks its protocol, by the standard environment (`AWS_REGION`,
/// `AWS_ENDPOINT_URL` and so on). An endpoint that is plain HTTP is asked as such.
#[cfg(feature = "s3")]
#[must_use]
pub fn s3_client(bucket: &str) -> object_store::aws::AmazonS3Builder {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};

    let builder =
        AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    // Whoever names such an endpoint means it.
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    if plain { builder.with_allow_http(true) } else { builder }
}

impl Inner {
    fn new(
        writes: Arc<dyn Objects>,
        reads: Arc<dyn Objects>,
        owners: Arc<dyn Objects>,
        ownership: Option<Ownership>,
        keys: Keys,
    ) -> Self {
        Self {
            writes,
            reads,
            owners,
            ownership,
            keys,
            rows: Mutex::new(LruCache::new(REMEMBERED_ROWS)),
            open: Mutex::default(),
            passed_over: PassedOver::default(),
        }
    }

    /// Every put goes through here. `None`: its condition did not hold, or it met another put.
    async fn put(&self, key: &Path, bytes: Bytes, mode: PutMode) -> Result<Option<UpdateVersion>, StoreError> {
        if let Some(ownership) = &self.ownership {
            ownership.check()?;
        }
        let put = match self.writes.put_opts(key, bytes.into(), mode.into()).await {
            Ok(put) => put,
            Err(error) if is_conflict(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if let Some(Err(ended)) = self.ownership.as_ref().map(Ownership::check) {
            // It stands, but nothing may be begun on the strength of it: the next owner knows nothing of us.
            return Err(StoreError::Unknown(Cause::told(format!("{key} was put too late: {ended}"), ended)));
        }
        Ok(Some(put.into()))
    }

    async fn get(&self, key: &Path) -> Result<Option<(Bytes, UpdateVersion)>, StoreError> {
        let found = match self.reads.get(key).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok(Some((found.bytes().await.map_err(failed)?, version)))
    }

    fn rows(&self) -> MutexGuard<'_, LruCache<RunKey, Known>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, run: &RunKey) -> Option<Known> {
        self.rows().get(run).cloned()
    }

    fn remember(&self, run: &RunKey, known: &Known) {
        self.rows().put(run.clone(), known.clone());
    }
}

impl Histories for ObjectStore {
    fn open<'a>(&'a self, run: &'a RunKey, record: Bytes, opening: Opening) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        self.run(async move |inner| inner.open(&run, record, opening).await)
    }

    fn append<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        self.run(async move |inner| inner.append(&run, sequence, record, update).await)
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        let run = run.clone();
        self.run(async move |inner| inner.read(&run, from).await)
    }

    fn keep_snapshot<'a>(&'a self, run: &'a RunKey, snapshot: Bytes) -> StoreFuture<'a, ()> {
        let run = run.clone();
        self.run(async move |inner| {
            inner.put(&inner.keys.snapshot(&run)?, snapshot, PutMode::Overwrite).await.map(drop)
        })
    }

    fn snapshot<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<Bytes>> {
        let run = run.clone();
        self.run(async move |inner| Ok(inner.get(&inner.keys.snapshot(&run)?).await?.map(|(snapshot, _)| snapshot)))
    }
}

impl Index for ObjectStore {
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
        self.run(async move |inner| {
            inner
                .amend(&run, |row| {
                    if row.closed_at.is_some() {
                        row.due = None
                    }
                })
                .await
        })
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        let run = run.clone();
        self.run(async move |inner| inner.amend(&run, |row| row.parked.clone_from(&parked)).await)
    }

    /// Everything is kept.
    fn retire<'a>(&'a self, _now: Timestamp, retention: Duration, _limit: usize) -> StoreFuture<'a, Retirement> {
        Box::pin(std::future::ready(check_retention(retention).map(|()| Retirement::default())))
    }
}

impl Attempts for ObjectStore {
    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        let key = key.clone();
        self.run(async move |inner| inner.swap(&key, expected, record).await)
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        let key = key.clone();
        self.run(async move |inner| {
            let path = inner.keys.attempt(&key.run, key.activity)?;
            Ok(inner.attempt(&path).await?.map(|(standing, _)| standing))
        })
    }
}

impl Store for ObjectStore {
    fn epoch(&self) -> u64 {
        self.inner.ownership.as_ref().map_or(0, Ownership::epoch)
    }
}
