//! The embedded store: one SQLite file in a data directory, for one process at a time.
//!
//! **One writer thread** takes whatever requests are waiting, applies them in one transaction, commits it (one flush
//! of the disk) and only then answers them all: the more committers, the less each costs. **A few reader threads**
//! answer reads from snapshots; the write-ahead log lets them run beside the writer, and a read that begins after an
//! acknowledgement sees what was acknowledged. The futures need no particular executor.
//!
//! The file can be looked at with the `sqlite3` tool while it is in use; writing to it from outside is not supported.
//! Numbers (sequences, ordinals) go to 2^63 - 1, and later times are kept as that. An attempt record needs its run.

mod readers;
mod tables;

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::{RunKey, Timestamp, WorkflowKey};
use futures::channel::oneshot;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use self::readers::ReadJob;
use self::tables::{Fault, Tables};
use crate::store::{
    AttemptKey, Attempts, Cause, Creation, Histories, Index, ListCursor, Newest, Opening, Parked, PassedOver,
    Retirement, RowUpdate, RunFilter, RunRow, Store, StoreError, StoreFuture, Stretch, Swap, Versioned,
    check_retention,
};

const FILE: &str = "dormouse.db";
const LOCK_FILE: &str = "dormouse.lock";

/// The most requests that share a transaction, and the bytes after which no more are taken.
const GROUP_REQUESTS: usize = 1_000;
const GROUP_BYTES: usize = 4 << 20;

/// The write-ahead log goes back into the main file at this size. Rarely enough to cost little, often enough for
/// a reopening to take milliseconds.
const LOG_PAGES: u32 = 2_000;
const PAGE_SIZE: u32 = 4_096;

const CACHED_STATEMENTS: usize = 32;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process ({pid}); stop it or give another --data-dir", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// "pid 123", or that it is not known.
        pid: String,
    },
    /// A newer build has written it.
    #[error("{} has schema version {found}, this build knows up to {known}; use a newer build", file.display())]
    TooNew {
        /// The database file.
        file: PathBuf,
        /// The version in the file.
        found: i64,
        /// The version of this build.
        known: i64,
    },
    /// The directory or the lock file cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite cannot use the file.
    #[error("cannot open the database {}: {source}", file.display())]
    Database {
        /// The database file.
        file: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The embedded store. See the module's documentation.
///
/// Dropping it finishes the requests that are waiting and joins its threads.
pub struct SqliteStore {
    epoch: u64,
    passed_over: Arc<PassedOver>,
    // Dropped in this order: readers let go first, so that the writer's last checkpoint gets everything.
    reads: Threads<ReadJob>,
    writes: Threads<Box<dyn WriteJob>>,
    // Held until the files are closed; none by whoever only reads.
    _lock: Option<File>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store in `data_dir`, creating what is missing, and takes it over: the epoch grows.
    ///
    /// # Errors
    /// [`OpenError`]: another process has it, a newer build wrote it, or the disk does not let us.
    pub fn open(data_dir: &Path) -> Result<SqliteStore, OpenError> {
        let io = |source| OpenError::Io { path: data_dir.to_owned(), source };
        // Absolute: SQLite would take a relative name that begins with "file:" for a URI.
        let data_dir = &std::path::absolute(data_dir).map_err(io)?;
        let lock = take_lock(data_dir)?;
        let file = data_dir.join(FILE);
        let failed = |source: rusqlite::Error| OpenError::Database { file: file.clone(), source: Box::new(source) };

        let connection = Connection::open(&file).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
        let found = schema_version(&connection).map_err(failed)?;
        if let Some(found) = found.filter(|found| *found > tables::SCHEMA_VERSION) {
            return Err(OpenError::TooNew { file, found, known: tables::SCHEMA_VERSION });
        }
        let epoch = prepare(&connection, &file, found.is_none()).map_err(failed)?;
        let connections = readers::open(&file).map_err(failed)?;

        let (sender, inbox) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("dormouse-store-writer".into())
            .spawn(move || write_until_closed(Tables::new(connection), &inbox))
            .map_err(io)?;
        let writes = Threads { sender: Some(sender), handles: vec![writer] };

        let reads = readers::begin(connections).map_err(io)?;
        Ok(SqliteStore { epoch, passed_over: Arc::default(), reads, writes, _lock: Some(lock) })
    }

    /// Opens the store in `data_dir` to read alone, beside the process that has it or where none does: nothing is created,
    /// taken over or changed, and writes are refused.
    ///
    /// # Errors
    /// [`OpenError`]: there is no store, or this build cannot read it.
    pub fn open_to_read(data_dir: &Path) -> Result<SqliteStore, OpenError> {
        let io = |source| OpenError::Io { path: data_dir.to_owned(), source };
        let file = std::path::absolute(data_dir).map_err(io)?.join(FILE);
        fs::metadata(&file).map_err(|source| OpenError::Io { path: file.clone(), source })?;
        let failed = |source: rusqlite::Error| OpenError::Database { file: file.clone(), source: Box::new(source) };
        let connections = readers::open(&file).map_err(failed)?;
        let found = connections.first().map(schema_version).transpose().map_err(failed)?.flatten();
        if let Some(found) = found.filter(|found| *found > tables::SCHEMA_VERSION) {
            return Err(OpenError::TooNew { file, found, known: tables::SCHEMA_VERSION });
        }
        let reads = readers::begin(connections).map_err(io)?;
        let writes = Threads { sender: None, handles: Vec::new() };
        Ok(SqliteStore { epoch: 0, passed_over: Arc::default(), reads, writes, _lock: None })
    }

    /// Hands a write to the writer and waits until it is durable.
    async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnMut(&mut Tables) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        if !self.writes.send(Box::new(Pending { bytes, work, outcome: None, answer })) {
            return Err(StoreError::refused("the store is closed, or open to read alone"));
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::unknown("the store's writer has died")))
    }

    /// Has a reader look something up.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: ReadJob = Box::new(move |connection| {
            // An error here is nobody's: the asker has gone.
            let _ = answer.send(work(connection).map_err(StoreError::from));
        });
        if !self.reads.send(job) {
            return Err(StoreError::refused("the store is closed"));
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::unknown("the store's reader has failed")))
    }
}

/// Locks the directory for this process.
fn take_lock(data_dir: &Path) -> Result<File, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    fs::create_dir_all(data_dir).map_err(io(data_dir))?;
    let path = data_dir.join(LOCK_FILE);
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        // The holder's pid stands in it.
        .truncate(false)
        .open(&path)
        .map_err(io(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = match lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok()) {
                Some(pid) => format!("pid {pid}"),
                None => "its pid is not known".into(),
            };
            return Err(OpenError::InUse { dir: data_dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io(&path)(source)),
    }
    lock.set_len(0).map_err(io(&path))?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io(&path))?;
    // A new directory must outlast a power failure before anything in it is acknowledged.
    if let Some(parent) = data_dir.canonicalize().ok().as_deref().and_then(Path::parent)
        && let Ok(parent) = File::open(parent)
    {
        let _ = parent.sync_all();
    }
    Ok(lock)
}

/// The schema version that the file has; `None` for a new file.
fn schema_version(connection: &Connection) -> Result<Option<i64>, rusqlite::Error> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(None);
    }
    connection.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |row| row.get(0)).optional()
}

/// Makes the file ready and takes it over; answers the new epoch.
fn prepare(connection: &Connection, file: &Path, new: bool) -> Result<u64, rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    configure(connection)?;
    if let Err(error) = grow_log(connection, file) {
        // It is only slower without.
        tracing::warn!(%error, "the store's log could not be grown beforehand");
    }

    connection.execute_batch("BEGIN IMMEDIATE")?;
    if new {
        connection.execute_batch(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             INSERT INTO meta VALUES ('epoch', 0);",
        )?;
        connection.execute("INSERT INTO meta VALUES ('schema', ?1)", [tables::SCHEMA_VERSION])?;
        connection.execute_batch(tables::SCHEMA)?;
    }
    connection.execute_batch(tables::ADDED_INDEXES)?;
    let epoch: i64 =
        connection
            .query_row("UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value", [], |row| row.get(0))?;
    connection.execute_batch("COMMIT")?;
    Ok(epoch.unsigned_abs())
}

/// Grows the write-ahead log to its working size, once in the life of a data directory: a commit that need not extend
/// the file flushes faster. A transaction too large for its cache spills into the log; rolled back, it leaves only the
/// space behind.
fn grow_log(connection: &Connection, file: &Path) -> Result<(), rusqlite::Error> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let size = fs::metadata(log).map_or(0, |metadata| metadata.len());
    if size >= u64::from(LOG_PAGES * PAGE_SIZE) {
        return Ok(());
    }
    let cache: i64 = connection.pragma_query_value(None, "cache_size", |row| row.get(0))?;
    connection.pragma_update(None, "cache_size", 16)?;
    // A few pages more than that, since a checkpoint begins only behind the threshold.
    let grown = connection
        .execute_batch("BEGIN IMMEDIATE; CREATE TABLE growth (filler BLOB);")
        .and_then(|()| connection.execute("INSERT INTO growth VALUES (zeroblob(?1))", [(LOG_PAGES + 100) * PAGE_SIZE]));
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    connection.pragma_update(None, "cache_size", cache)?;
    grown.map(drop)
}

/// What both kinds of connection are told.
fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // A statement is planned once, whatever is bound to it: SQLite would plan some of them anew at each use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Closing would delete the log, and the next process would have to grow it again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Threads that serve one channel.
struct Threads<J> {
    sender: Option<mpsc::Sender<J>>,
    handles: Vec<JoinHandle<()>>,
}

impl<J> Threads<J> {
    /// Whether anybody will see to the job.
    fn send(&self, job: J) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.send(job).is_ok())
    }
}

impl<J> Drop for Threads<J> {
    fn drop(&mut self) {
        // Without a sender, the threads finish what is in the channel and end.
        self.sender = None;
        for handle in self.handles.drain(..) {
            // The last owner may be a task that one of these threads just woke: none can wait for itself.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

/// A write that waits for its transaction.
trait WriteJob: Send {
    /// About how much it adds to the log.
    fn bytes(&self) -> usize;
    /// Applies it inside the open transaction; may be called again after a roll-back. An error: a statement has
    /// failed, and the transaction must not be committed.
    fn apply(&mut self, tables: &mut Tables) -> Result<(), Fault>;
    /// Tells the asker what `apply` found, now that it is durable.
    fn answer(self: Box<Self>);
    /// Tells the asker that it did not work.
    fn fail(self: Box<Self>, error: StoreError);
}

struct Pending<T, W> {
    bytes: usize,
    work: W,
    outcome: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: FnMut(&mut Tables) -> Result<T, Fault> + Send> WriteJob for Pending<T, W> {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn apply(&mut self, tables: &mut Tables) -> Result<(), Fault> {
        self.outcome = Some(match (self.work)(tables) {
            Ok(done) => Ok(done),
            // Nothing was touched: the others need not suffer.
            Err(Fault::Refused(why)) => Err(StoreError::refused(why)),
            Err(fault @ Fault::Database(_)) => return Err(fault),
        });
        Ok(())
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or_else(|| Err(StoreError::unknown("the write was not applied")));
        // An asker that has gone is no reason to stop: what was written stays written.
        let _ = self.answer.send(outcome);
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}

fn write_until_closed(mut tables: Tables, inbox: &mpsc::Receiver<Box<dyn WriteJob>>) {
    let mut group = Vec::new();
    while let Ok(first) = inbox.recv() {
        let mut bytes = first.bytes();
        group.push(first);
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            let Ok(next) = inbox.try_recv() else { break };
            bytes += next.bytes();
            group.push(next);
        }
        commit_group(&mut tables, &mut group);
    }
    // All into the main file, and the log back to its beginning: the next opening finds next to nothing to recover.
    // The file stays as large as it is, for the next process to use. What it still holds is void only once the next
    // write has begun it anew, so here is one.
    let tidied = tables
        .connection
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
        .and_then(|()| tables.connection.execute("UPDATE meta SET value = value WHERE key = 'epoch'", []));
    if let Err(error) = tidied {
        tracing::warn!(%error, "the store could not tidy up; the next opening will");
    }
}

/// Commits a group, and empties it by answering.
fn commit_group(tables: &mut Tables, group: &mut Vec<Box<dyn WriteJob>>) {
    match try_group(tables, group) {
        Ok(()) => group.drain(..).for_each(|job| job.answer()),
        Err(error @ Failure::NotBegun(_) | error @ Failure::NotCommitted(_)) => {
            tables.roll_back();
            let error = StoreError::Unknown(Cause::of(error));
            group.drain(..).for_each(|job| job.fail(error.clone()));
        }
        Err(Failure::Statement(fault)) => {
            tables.roll_back();
            if group.len() == 1 {
                let error = StoreError::from(fault);
                group.drain(..).for_each(|job| job.fail(error.clone()));
                return;
            }
            // One of them fails: each gets a transaction of its own, so that only that one does. Rare enough that
            // the usual path need not pay for savepoints.
            for job in std::mem::take(group) {
                commit_group(tables, &mut vec![job]);
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no transaction could begin: {0}")]
    NotBegun(rusqlite::Error),
    #[error("a statement failed: {0:?}")]
    Statement(Fault),
    #[error("the commit failed: {0}")]
    NotCommitted(rusqlite::Error),
}

fn try_group(tables: &mut Tables, group: &mut [Box<dyn WriteJob>]) -> Result<(), Failure> {
    tables.begin().map_err(Failure::NotBegun)?;
    for job in group {
        job.apply(tables).map_err(Failure::Statement)?;
    }
    tables.commit().map_err(Failure::NotCommitted)
}

impl Histories for SqliteStore {
    fn open<'a>(&'a self, run: &'a RunKey, record: Bytes, opening: Opening) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        Box::pin(self.write(record.len(), move |tables| tables.open(&run, &record, &opening)))
    }

    fn append<'a>(
        &'a self,
        run: &'a RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> StoreFuture<'a, Creation> {
        let run = run.clone();
        Box::pin(self.write(record.len(), move |tables| tables.append(&run, sequence, &record, &update)))
    }

    fn read<'a>(&'a self, run: &'a RunKey, from: u64) -> StoreFuture<'a, Stretch> {
        let run = run.clone();
        Box::pin(self.look(move |connection| Ok(tables::read(connection, &run, from)?)))
    }

    fn keep_snapshot<'a>(&'a self, run: &'a RunKey, snapshot: Bytes) -> StoreFuture<'a, ()> {
        let run = run.clone();
        Box::pin(self.write(snapshot.len(), move |tables| tables.keep_snapshot(&run, &snapshot)))
    }

    fn snapshot<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<Bytes>> {
        let run = run.clone();
        Box::pin(self.look(move |connection| tables::snapshot(connection, &run)))
    }
}

impl Index for SqliteStore {
    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>> {
        let run = run.clone();
        Box::pin(self.look(move |connection| tables::row(connection, &run)))
    }

    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest> {
        let workflow = workflow.clone();
        Box::pin(self.look(move |connection| tables::newest(connection, &workflow)))
    }

    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        let (namespace, filter, after) = (namespace.to_owned(), filter.clone(), after.cloned());
        let passed_over = Arc::clone(&self.passed_over);
        Box::pin(
            self.look(move |connection| {
                tables::list(connection, &namespace, &filter, after.as_ref(), limit, &passed_over)
            }),
        )
    }

    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>> {
        let passed_over = Arc::clone(&self.passed_over);
        Box::pin(self.look(move |connection| tables::due(connection, by, after.as_ref(), limit, &passed_over)))
    }

    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()> {
        let run = run.clone();
        Box::pin(self.write(0, move |tables| tables.settle(&run)))
    }

    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()> {
        let run = run.clone();
        Box::pin(self.write(0, move |tables| tables.park(&run, parked.as_ref())))
    }

    /// Everything is kept.
    fn retire<'a>(&'a self, _now: Timestamp, retention: Duration, _limit: usize) -> StoreFuture<'a, Retirement> {
        Box::pin(std::future::ready(check_retention(retention).map(|()| Retirement::default())))
    }
}

impl Attempts for SqliteStore {
    fn swap<'a>(&'a self, key: &'a AttemptKey, expected: Option<u64>, record: Bytes) -> StoreFuture<'a, Swap> {
        let key = key.clone();
        Box::pin(self.write(record.len(), move |tables| tables.swap(&key, expected, &record)))
    }

    fn attempt<'a>(&'a self, key: &'a AttemptKey) -> StoreFuture<'a, Option<Versioned>> {
        let key = key.clone();
        Box::pin(self.look(move |connection| tables::attempt(connection, &key)))
    }
}

impl Store for SqliteStore {
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_planned_once_whatever_is_bound_to_it() {
        let dir = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(dir.path()).unwrap());
        let reader = readers::open(&dir.path().join(FILE)).unwrap().pop().unwrap();
        for bound in 1..=3 {
            let mut statement = reader
                .prepare_cached("SELECT record FROM batches WHERE run = ?1 AND sequence >= ?2 ORDER BY sequence")
                .unwrap();
            assert!(!statement.exists([bound, bound]).unwrap());
            assert_eq!(statement.get_status(StatementStatus::Run), bound, "the same statement");
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
