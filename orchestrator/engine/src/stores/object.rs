//! Any object store that can put conditionally: S3 and what speaks its protocol, GCS, Azure, memory.
//!
//! A batch is an object, created if absent. A run's index row is one object too, replaced if its ETag is the expected
//! one; without transactions, changes to it are written down as intents before their batch is put, and the batch
//! decides (see `object/row.rs`). An attempt record carries its version in its first eight bytes.
//!
//! **What it costs.** A batch that changes no row is one put. One that changes the row is three: intent, batch, row.
//! [`list`](Store::list) and [`due`](Store::due) read *all* rows of the namespace or of the prefix: they are for
//! thousands of runs, not for millions. [`latest`](Store::latest) reads the rows of one workflow id.
//!
//! **What it needs.** Listings and reads that see acknowledged puts (S3 and the others promise that), `If-None-Match`
//! and `If-Match` on puts. Any executor will do for memory; the S3 client runs on the tokio runtime that it is given.
//! Many processes may share a prefix; then there is no epoch. Or one owns it ([`ObjectStore::own`]), for as long as it
//! says so (see `object/owner.rs`): then the epoch grows with each owner, and who has lost it puts nothing more.

mod index;
mod keys;
mod owner;
mod probe;
mod row;

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{BatchHash, RunKey, Timestamp, WorkflowKey};
use futures::{StreamExt, TryStreamExt};
use lru::LruCache;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore as Objects, ObjectStoreExt, PutMode, UpdateVersion};

use self::keys::Keys;
pub use self::owner::{Holder, OwnError, OwnerSettings, Ownership, SHORTEST_LEASE, Waiting};
use self::row::{Intent, RowObject};
use crate::store::{
    AttemptKey, Creation, ListCursor, Parked, RowChange, RunFilter, RunRow, Store, StoreError, StoreFuture, Stretch,
    Swap, Versioned,
};

/// A page of history ends with the batch that reaches this, or at so many batches: one page of S3's listings.
const PAGE_BYTES: u64 = 1 << 20;
const PAGE_BATCHES: usize = 1_000;

/// Gets in flight at a time.
const CONCURRENT_GETS: usize = 16;

/// So many times another writer may be faster at one object; each time, that one has got on.
const RACES: usize = 1_000;

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
        Self::with(
            Inner { writes: objects, reads, owners, ownership: None, keys: Keys::new(prefix), rows: rows() },
            None,
        )
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
        let inner = Inner { writes, reads, owners, ownership: None, keys: Keys::new(prefix), rows: rows() };
        Ok(Self::with(inner, Some(runtime)))
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
        let inner = Inner {
            writes: Arc::clone(writes),
            reads: Arc::clone(reads),
            owners: Arc::clone(owners),
            ownership: Some(ownership.clone()),
            keys: keys.clone(),
            rows: rows(),
        };
        Ok((Self::with(inner, self.runtime.clone()), ownership))
    }

    /// Runs the work where the client can live. A dropped future may leave the work going on: as on any network.
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
                runtime.spawn(work(inner)).await.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
            }),
        }
    }
}

fn rows() -> Mutex<LruCache<RunKey, Known>> {
    Mutex::new(LruCache::new(REMEMBERED_ROWS))
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
    async fn create(
        &self,
        run: &RunKey,
        sequence: u64,
        record: Bytes,
        change: Option<RowChange>,
    ) -> Result<Creation, StoreError> {
        match (sequence, &change) {
            (0, Some(RowChange::Open { .. })) => {}
            (0, _) => return Err(StoreError::Refused(format!("batch 0 of {run} must open its row"))),
            (_, Some(RowChange::Open { .. })) => {
                return Err(StoreError::Refused(format!("batch {sequence} of {run} cannot open a row")));
            }
            _ => {}
        }
        let Some(change) = change else {
            self.check_exists(run).await?;
            return self.put_batch(run, sequence, record).await;
        };
        let hash = BatchHash::of(&record);
        let mut known = self.intend(run, &Intent { sequence, hash, change }).await?;
        let creation = self.put_batch(run, sequence, record).await?;
        let standing = match &creation {
            Creation::Created => hash,
            Creation::Exists(found) => BatchHash::of(found),
        };
        // The batch has decided, and every reader can tell: this only spares them the work.
        if let Err(error) = self.tidy(run, &mut known, sequence, standing).await {
            tracing::debug!(%run, sequence, %error, "the index row still waits for its batch");
        }
        Ok(creation)
    }

    async fn put_batch(&self, run: &RunKey, sequence: u64, record: Bytes) -> Result<Creation, StoreError> {
        let key = self.keys.batch(run, sequence)?;
        if self.put(&key, record, PutMode::Create).await?.is_some() {
            return Ok(Creation::Created);
        }
        match self.get(&key).await? {
            Some((found, _)) => Ok(Creation::Exists(found)),
            // A conflict between two puts of which neither may have won.
            None => Err(StoreError::Unknown(format!("{key} is in conflict, and nothing is there"))),
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
            return Err(StoreError::Unknown(format!("{key} was put too late: {ended}")));
        }
        Ok(Some(put.into()))
    }

    /// A batch behind the first needs a run.
    async fn check_exists(&self, run: &RunKey) -> Result<(), StoreError> {
        if self.remembered(run).is_some_and(|known| known.object.is_open_or_closed()) {
            return Ok(());
        }
        match self.resolved(run).await? {
            Some(known) if known.object.is_open_or_closed() => {
                self.remember(run, &known);
                Ok(())
            }
            _ => Err(StoreError::Refused(format!("there is no run {run}"))),
        }
    }

    async fn read(&self, run: &RunKey, from: u64) -> Result<Stretch, StoreError> {
        let log = self.keys.log(run)?;
        let listing = match from.checked_sub(1) {
            None => self.reads.list(Some(&log)),
            Some(last) => self.reads.list_with_offset(Some(&log), &self.keys.batch(run, last)?),
        };
        let mut listed: Vec<(u64, ObjectMeta)> = listing
            .take(PAGE_BATCHES)
            .try_filter_map(async |meta| Ok(keys::last_number(&meta.location).map(|sequence| (sequence, meta))))
            .try_collect()
            .await
            .map_err(failed)?;
        listed.sort_unstable_by_key(|(sequence, _)| *sequence);
        let listed_all = listed.len() < PAGE_BATCHES;

        let mut stretch = Stretch::default();
        let (mut next, mut bytes) = (from, 0);
        let mut listed = listed.into_iter().peekable();
        while bytes < PAGE_BYTES {
            // As many as follow each other and fit the page, together.
            let mut together = Vec::new();
            while let Some((_, meta)) = listed.next_if(|(sequence, _)| *sequence == next && bytes < PAGE_BYTES) {
                next += 1;
                bytes += meta.size;
                together.push(meta.location);
            }
            if together.is_empty() {
                // The listing has a gap here, or ends: it may be older than the log (rule C4). A look at the place
                // itself tells.
                if listed.peek().is_none() && !listed_all {
                    break;
                }
                if planted(Bug::C4NoReread) {
                    return Ok(stretch);
                }
                let Some((found, _)) = self.get(&self.keys.batch(run, next)?).await? else {
                    stretch.gap = listed.peek().is_some();
                    return Ok(stretch);
                };
                next += 1;
                bytes += found.len() as u64;
                stretch.records.push(found);
                continue;
            }
            let mut gets =
                futures::stream::iter(together).map(async |key| self.get(&key).await).buffered(CONCURRENT_GETS);
            while let Some(found) = gets.next().await {
                match found? {
                    Some((record, _)) => stretch.records.push(record),
                    // Listed, and gone.
                    None => {
                        stretch.gap = true;
                        return Ok(stretch);
                    }
                }
            }
        }
        stretch.more = true;
        Ok(stretch)
    }

    async fn swap(&self, key: &AttemptKey, expected: Option<u64>, record: Bytes) -> Result<Swap, StoreError> {
        let path = self.keys.attempt(&key.run, key.activity)?;
        let (mode, version) = match expected {
            None => (PutMode::Create, 1),
            Some(expected) => match self.attempt(&path).await? {
                Some((standing, etag)) if standing.version == expected => (PutMode::Update(etag), expected + 1),
                standing => return Ok(Swap::Stale(standing.map(|(standing, _)| standing))),
            },
        };
        let bytes = [&version.to_le_bytes()[..], &record].concat();
        if self.put(&path, bytes.into(), mode).await?.is_some() {
            return Ok(Swap::Done(version));
        }
        match self.attempt(&path).await? {
            Some((standing, _)) if Some(standing.version) != expected => Ok(Swap::Stale(Some(standing))),
            // A conflict between two puts of which neither may have won.
            _ => Err(StoreError::Unknown(format!("{path} is in conflict, and nothing new is there"))),
        }
    }

    async fn attempt(&self, key: &Path) -> Result<Option<(Versioned, UpdateVersion)>, StoreError> {
        let Some((bytes, etag)) = self.get(key).await? else { return Ok(None) };
        let Some((version, _)) = bytes.split_first_chunk() else {
            return Err(StoreError::Unknown(format!("the attempt record {key} is damaged: it is too short")));
        };
        Ok(Some((Versioned { version: u64::from_le_bytes(*version), record: bytes.slice(8..) }, etag)))
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

/// Whether a conditional put found another state than it asked for. A 409, where nothing was written, looks the same.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. })
}

/// What an object store's error means. Refused is only what stays refused however often it is sent: a path that is none,
/// something that the store or its client cannot do. A 401 or 403 is unknown, as time-outs and throttling are: rights,
/// tokens and clocks are mended without the request's changing, and a finished result must not be given up for that.
#[must_use]
pub fn failed(error: Error) -> StoreError {
    match error {
        Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. }
        | Error::UnknownConfigurationKey { .. } => StoreError::Refused(error.to_string()),
        _ => StoreError::Unknown(error.to_string()),
    }
}

impl Store for ObjectStore {
    fn create<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: u64,
        record: Bytes,
        change: Option<RowChange>,
    ) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        self.run(async move |inner| inner.create(&run, sequence, record, change).await)
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        let run = run.clone();
        self.run(async move |inner| inner.read(&run, from).await)
    }

    fn latest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Option<RunRow>> {
        let workflow = workflow.clone();
        self.run(async move |inner| inner.latest(&workflow).await)
    }

    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        let run = run.clone();
        self.run(async move |inner| inner.row(&run).await)
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
                    if row.status.is_closed() {
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

    fn epoch(&self) -> u64 {
        self.inner.ownership.as_ref().map_or(0, Ownership::epoch)
    }
}
