//! The tables and every statement that touches them. No threads and no transactions: those are the parent's.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::{RunKey, Status, Timestamp, WorkflowKey};
use lru::LruCache;
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::store::{
    AttemptKey, Cause, Closing, Creation, ListCursor, Newest, Opening, Parked, PassedOver, RowUpdate, RunFilter,
    RunRow, StoreError, Stretch, Swap, Versioned,
};

/// Grows when the tables change; a file with a greater number is refused.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// `batches` has a row id of its own, so that new batches land side by side at the end of the table; only the small
/// index is in key order. Twice as fast as a table in key order. Times are milliseconds since 1970.
pub(super) const SCHEMA: &str = "
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    workflow_type TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    closed_at INTEGER,
    due INTEGER,
    parked TEXT,
    UNIQUE (namespace, workflow_id, ordinal)
);
CREATE INDEX runs_started ON runs (namespace, started_at);
CREATE INDEX runs_due ON runs (due) WHERE due IS NOT NULL;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    record BLOB NOT NULL,
    UNIQUE (run, sequence)
);
CREATE TABLE attempts (
    run INTEGER NOT NULL,
    activity INTEGER NOT NULL,
    version INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (run, activity)
);
CREATE TABLE snapshots (
    run INTEGER PRIMARY KEY,
    snapshot BLOB NOT NULL
);
";

/// Indexes that came after the tables; they are added to files that have not got them. Open runs that are parked have one
/// of their own: a look at them costs what there are of them.
pub(super) const ADDED_INDEXES: &str = "
CREATE INDEX IF NOT EXISTS runs_parked ON runs (namespace, started_at)
    WHERE parked IS NOT NULL AND closed_at IS NULL;
";

/// A page of history ends with the batch that reaches this.
const PAGE_BYTES: usize = 1 << 20;

/// SQLite's own limit is a little below 1 GB; refused here, it does not disturb a transaction.
const MAX_RECORD_BYTES: usize = 512 << 20;

/// How many runs' integer keys are remembered.
const REMEMBERED_RUNS: NonZeroUsize = NonZeroUsize::new(64 * 1024).expect("not zero");

/// Why a write was not applied.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request makes no sense; nothing was touched.
    Refused(String),
    /// A statement failed, perhaps half-way: the transaction must not be committed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(why) => Self::refused(why),
            // The transaction was rolled back, yet a full disk or a failing one may recover: not "refused again".
            Fault::Database(error) => Self::Unknown(Cause::of(error)),
        }
    }
}

/// The writer's connection, with what makes the usual write cheap.
pub(super) struct Tables {
    pub(super) connection: Connection,
    runs: LruCache<RunKey, i64>,
}

impl Tables {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, runs: LruCache::new(REMEMBERED_RUNS) }
    }

    pub(super) fn begin(&self) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)
    }

    pub(super) fn commit(&self) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// Takes the open transaction back, if SQLite has not done so by itself.
    pub(super) fn roll_back(&mut self) {
        // It may hold runs that were never committed; their keys will be given to others.
        self.runs.clear();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store could not roll a transaction back");
        }
    }

    /// See [`Histories::open`](crate::store::Histories::open).
    pub(super) fn open(&mut self, run: &RunKey, record: &Bytes, opening: &Opening) -> Result<Creation, Fault> {
        check_size(record)?;
        let key = self.begin_row(run, opening)?;
        self.insert(key, 0, record)
    }

    /// See [`Histories::append`](crate::store::Histories::append).
    pub(super) fn append(
        &mut self,
        run: &RunKey,
        sequence: NonZeroU64,
        record: &Bytes,
        update: &RowUpdate,
    ) -> Result<Creation, Fault> {
        check_size(record)?;
        let number = number("sequence", sequence.get())?;
        let key = self.known(run)?;
        let creation = self.insert(key, number, record)?;
        if creation != Creation::Created {
            return Ok(creation);
        }
        match (update.closing, update.due) {
            (None, None) => {}
            (None, Some(due)) => {
                self.connection
                    .prepare_cached("UPDATE runs SET due = ?2 WHERE run = ?1")?
                    .execute(params![key, clamp(due)])?;
            }
            (Some(Closing { status, closed_at }), due) => {
                self.connection
                    .prepare_cached("UPDATE runs SET status = ?2, closed_at = ?3, due = ?4 WHERE run = ?1")?
                    .execute(params![key, status.as_str(), clamp(closed_at), due.map(clamp)])?;
            }
        }
        Ok(creation)
    }

    fn insert(&self, key: i64, number: i64, record: &Bytes) -> Result<Creation, Fault> {
        let created = self
            .connection
            .prepare_cached("INSERT INTO batches (run, sequence, record) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![key, number, &record[..]])?;
        if created > 0 {
            return Ok(Creation::Created);
        }
        let found = self
            .connection
            .prepare_cached("SELECT record FROM batches WHERE run = ?1 AND sequence = ?2")?
            .query_row(params![key, number], |row| Ok(blob(row, 0)?.unwrap_or_default()))?;
        Ok(Creation::Exists(found))
    }

    /// See [`Histories::keep_snapshot`](crate::store::Histories::keep_snapshot).
    pub(super) fn keep_snapshot(&mut self, run: &RunKey, snapshot: &Bytes) -> Result<(), Fault> {
        check_size(snapshot)?;
        let key = self.known(run)?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO snapshots (run, snapshot) VALUES (?1, ?2)")?
            .execute(params![key, &snapshot[..]])?;
        Ok(())
    }

    /// See [`Attempts::swap`](crate::store::Attempts::swap).
    pub(super) fn swap(&mut self, key: &AttemptKey, expected: Option<u64>, record: &Bytes) -> Result<Swap, Fault> {
        check_size(record)?;
        let run = self.known(&key.run)?;
        let activity = number("activity", key.activity)?;
        let changed = match expected {
            None => self
                .connection
                .prepare_cached(
                    "INSERT INTO attempts (run, activity, version, record) VALUES (?1, ?2, 1, ?3)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![run, activity, &record[..]])?,
            // A version beyond what can be stored stands nowhere.
            Some(version) => match i64::try_from(version) {
                Ok(version) => self
                    .connection
                    .prepare_cached(
                        "UPDATE attempts SET version = version + 1, record = ?4
                         WHERE run = ?1 AND activity = ?2 AND version = ?3",
                    )?
                    .execute(params![run, activity, version, &record[..]])?,
                Err(_) => 0,
            },
        };
        if changed == 0 {
            return Ok(Swap::Stale(find_attempt(&self.connection, run, activity)?));
        }
        Ok(Swap::Done(expected.unwrap_or(0) + 1))
    }

    /// See [`Index::settle`](crate::store::Index::settle).
    pub(super) fn settle(&mut self, run: &RunKey) -> Result<(), Fault> {
        let key = self.known(run)?;
        self.connection
            .prepare_cached("UPDATE runs SET due = NULL WHERE run = ?1 AND closed_at IS NOT NULL")?
            .execute([key])?;
        Ok(())
    }

    /// See [`Index::park`](crate::store::Index::park).
    pub(super) fn park(&mut self, run: &RunKey, parked: Option<&Parked>) -> Result<(), Fault> {
        let key = self.known(run)?;
        let text = parked
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Fault::Refused(format!("the reason for parking {run} has no JSON form: {error}")))?;
        self.connection.prepare_cached("UPDATE runs SET parked = ?2 WHERE run = ?1")?.execute(params![key, text])?;
        Ok(())
    }

    /// The key of a run, whose row begins if it is new.
    fn begin_row(&mut self, run: &RunKey, opening: &Opening) -> Result<i64, Fault> {
        let Opening { run_id, workflow_type, started_at, due } = opening;
        if let Some(key) = self.runs.get(run) {
            return Ok(*key);
        }
        let opened = self
            .connection
            .prepare_cached(
                "INSERT INTO runs (namespace, workflow_id, ordinal, run_id, workflow_type, status, started_at, due)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                run.workflow.namespace,
                run.workflow.workflow_id,
                number("ordinal", run.ordinal)?,
                run_id.to_string(),
                workflow_type,
                Status::Running.as_str(),
                clamp(*started_at),
                clamp(*due),
            ])?;
        if opened == 0 {
            return self.known(run);
        }
        let key = self.connection.last_insert_rowid();
        self.runs.put(run.clone(), key);
        Ok(key)
    }

    /// The key of a run that has a row.
    fn known(&mut self, run: &RunKey) -> Result<i64, Fault> {
        if let Some(key) = self.runs.get(run) {
            return Ok(*key);
        }
        match find_run(&self.connection, run)? {
            Some(key) => {
                self.runs.put(run.clone(), key);
                Ok(key)
            }
            None => Err(Fault::Refused(format!("there is no run {run}"))),
        }
    }
}

/// See [`Histories::read`](crate::store::Histories::read).
pub(super) fn read(connection: &Connection, run: &RunKey, from: u64) -> Result<Stretch, rusqlite::Error> {
    let mut stretch = Stretch::default();
    let (Some(key), Ok(from)) = (find_run(connection, run)?, i64::try_from(from)) else {
        return Ok(stretch);
    };
    let mut statement = connection
        .prepare_cached("SELECT sequence, record FROM batches WHERE run = ?1 AND sequence >= ?2 ORDER BY sequence")?;
    let mut rows = statement.query(params![key, from])?;
    let (mut expected, mut bytes) = (from, 0);
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? != expected {
            stretch.gap = true;
            break;
        }
        if bytes >= PAGE_BYTES {
            stretch.more = true;
            break;
        }
        let Some(record) = blob(row, 1)? else {
            stretch.gap = true;
            break;
        };
        bytes += record.len();
        expected += 1;
        stretch.records.push(record);
    }
    Ok(stretch)
}

/// See [`Histories::snapshot`](crate::store::Histories::snapshot).
pub(super) fn snapshot(connection: &Connection, run: &RunKey) -> Result<Option<Bytes>, Fault> {
    let Ok(ordinal) = i64::try_from(run.ordinal) else { return Ok(None) };
    let found = connection
        .prepare_cached(
            "SELECT snapshot FROM snapshots WHERE run =
             (SELECT run FROM runs WHERE namespace = ?1 AND workflow_id = ?2 AND ordinal = ?3)",
        )?
        .query_row(params![run.workflow.namespace, run.workflow.workflow_id, ordinal], |row| blob(row, 0))
        .optional()?;
    Ok(found.flatten())
}

/// See [`Index::newest`](crate::store::Index::newest). Nothing is ever retired here.
pub(super) fn newest(connection: &Connection, workflow: &WorkflowKey) -> Result<Newest, Fault> {
    let found = connection
        .prepare_cached(&select("WHERE namespace = ?1 AND workflow_id = ?2 ORDER BY ordinal DESC LIMIT 1"))?
        .query_row(params![workflow.namespace, workflow.workflow_id], |row| Ok(run_row(row)))
        .optional()?;
    Ok(found.transpose()?.map_or(Newest::Nothing, |row| Newest::Run(Box::new(row))))
}

/// See [`Index::row`](crate::store::Index::row).
pub(super) fn row(connection: &Connection, run: &RunKey) -> Result<Option<RunRow>, Fault> {
    let Ok(ordinal) = i64::try_from(run.ordinal) else { return Ok(None) };
    let found = connection
        .prepare_cached(&select("WHERE namespace = ?1 AND workflow_id = ?2 AND ordinal = ?3"))?
        .query_row(params![run.workflow.namespace, run.workflow.workflow_id, ordinal], |row| Ok(run_row(row)))
        .optional()?;
    Ok(found.transpose()?)
}

/// See [`Index::list`](crate::store::Index::list).
pub(super) fn list(
    connection: &Connection,
    namespace: &str,
    filter: &RunFilter,
    after: Option<&ListCursor>,
    limit: usize,
    passed_over: &PassedOver,
) -> Result<Vec<RunRow>, Fault> {
    // Two statements rather than "cursor IS NULL OR": so the index is entered at the cursor.
    let begin = "namespace = ?1 AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR workflow_type = ?3)
        AND (?4 IS NULL OR substr(workflow_id, 1, length(?4)) = ?4)";
    let begin = if filter.parked {
        format!("INDEXED BY runs_parked WHERE parked IS NOT NULL AND closed_at IS NULL AND {begin}")
    } else {
        format!("WHERE {begin}")
    };
    let order = "ORDER BY started_at DESC, workflow_id DESC, ordinal DESC";
    let status = filter.status.as_ref().map(Status::as_str);
    match after {
        None => readable(
            connection,
            &format!("{begin} {order}"),
            params![namespace, status, filter.workflow_type, filter.id_prefix],
            limit,
            passed_over,
        ),
        Some(after) => readable(
            connection,
            &format!("{begin} AND (started_at, workflow_id, ordinal) < (?5, ?6, ?7) {order}"),
            params![
                namespace,
                status,
                filter.workflow_type,
                filter.id_prefix,
                clamp(after.started_at),
                after.workflow_id,
                i64::try_from(after.ordinal).unwrap_or(i64::MAX),
            ],
            limit,
            passed_over,
        ),
    }
}

/// See [`Index::due`](crate::store::Index::due).
pub(super) fn due(
    connection: &Connection,
    by: Timestamp,
    after: Option<&(Timestamp, RunKey)>,
    limit: usize,
    passed_over: &PassedOver,
) -> Result<Vec<RunRow>, Fault> {
    let order = "ORDER BY due, namespace, workflow_id, ordinal";
    match after {
        None => readable(connection, &format!("WHERE due <= ?1 {order}"), [clamp(by)], limit, passed_over),
        Some((at, run)) => readable(
            connection,
            &format!("WHERE due <= ?1 AND (due, namespace, workflow_id, ordinal) > (?2, ?3, ?4, ?5) {order}"),
            params![
                clamp(by),
                clamp(*at),
                run.workflow.namespace,
                run.workflow.workflow_id,
                i64::try_from(run.ordinal).unwrap_or(i64::MAX),
            ],
            limit,
            passed_over,
        ),
    }
}

/// Up to `limit` rows that can be read. The limit is not SQLite's, which would count the others: it is asked for one
/// row after the other, and no more of them than that takes.
fn readable(
    connection: &Connection,
    behind: &str,
    params: impl Params,
    limit: usize,
    passed_over: &PassedOver,
) -> Result<Vec<RunRow>, Fault> {
    let mut statement = connection.prepare_cached(&select(behind))?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        match run_row(row) {
            Ok(row) => found.push(row),
            Err(Unreadable { key, why }) => drop(passed_over.tell(&key, why)),
        }
    }
    Ok(found)
}

/// See [`Attempts::attempt`](crate::store::Attempts::attempt).
pub(super) fn attempt(connection: &Connection, key: &AttemptKey) -> Result<Option<Versioned>, Fault> {
    match (find_run(connection, &key.run)?, i64::try_from(key.activity)) {
        (Some(run), Ok(activity)) => find_attempt(connection, run, activity),
        _ => Ok(None),
    }
}

fn find_run(connection: &Connection, run: &RunKey) -> Result<Option<i64>, rusqlite::Error> {
    let Ok(ordinal) = i64::try_from(run.ordinal) else { return Ok(None) };
    connection
        .prepare_cached("SELECT run FROM runs WHERE namespace = ?1 AND workflow_id = ?2 AND ordinal = ?3")?
        .query_row(params![run.workflow.namespace, run.workflow.workflow_id, ordinal], |row| row.get(0))
        .optional()
}

fn find_attempt(connection: &Connection, run: i64, activity: i64) -> Result<Option<Versioned>, Fault> {
    let found = connection
        .prepare_cached("SELECT version, record FROM attempts WHERE run = ?1 AND activity = ?2")?
        .query_row(params![run, activity], |row| Ok((row.get::<_, Value>(0)?, blob(row, 1)?)))
        .optional()?;
    match found {
        None => Ok(None),
        Some((Value::Integer(version), Some(record))) => {
            Ok(Some(Versioned { version: version.unsigned_abs(), record }))
        }
        Some(_) => Err(Fault::Refused(format!(
            "the attempt record of activity {activity} in row {run} of the table runs is damaged: it needs a number \
             and a blob"
        ))),
    }
}

/// A record's bytes; `None` when something else stands there.
fn blob(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, rusqlite::Error> {
    Ok(row.get_ref(column)?.as_blob().ok().map(Bytes::copy_from_slice))
}

/// A query for whole rows; the text behind it is one of this file's own, never a caller's.
fn select(behind: &str) -> String {
    format!(
        "SELECT namespace, workflow_id, ordinal, run_id, workflow_type, status, started_at, closed_at, due, parked
         FROM runs {behind}"
    )
}

/// A row that makes no sense to this build.
struct Unreadable {
    key: String,
    why: rusqlite::Error,
}

impl From<Unreadable> for Fault {
    fn from(Unreadable { key, why }: Unreadable) -> Self {
        Self::Refused(format!("the index row {key} cannot be read: {why}"))
    }
}

fn run_row(row: &Row<'_>) -> Result<RunRow, Unreadable> {
    read_row(row).map_err(|why| {
        let text = |column| match row.get::<_, Value>(column) {
            Ok(Value::Text(text)) => text,
            other => format!("{other:?}"),
        };
        let ordinal = row.get::<_, i64>(2).map_or_else(|_| text(2), |ordinal| ordinal.to_string());
        Unreadable { key: format!("{}/{}/{ordinal}", text(0), text(1)), why }
    })
}

fn read_row(row: &Row<'_>) -> Result<RunRow, rusqlite::Error> {
    let time = |millis: i64| Timestamp::from_millis(millis.unsigned_abs());
    let workflow = WorkflowKey { namespace: row.get::<_, Arc<str>>(0)?, workflow_id: row.get::<_, Arc<str>>(1)? };
    let run_id = row.get_ref(3)?.as_str()?.parse();
    let parked: Option<String> = row.get(9)?;
    Ok(RunRow {
        run: workflow.run(row.get::<_, i64>(2)?.unsigned_abs()),
        run_id: run_id.map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(error)))?,
        workflow_type: row.get(4)?,
        status: Status::stored(row.get_ref(5)?.as_str()?),
        started_at: time(row.get(6)?),
        closed_at: row.get::<_, Option<i64>>(7)?.map(time),
        due: row.get::<_, Option<i64>>(8)?.map(time),
        parked: parked.as_deref().map(Parked::stored),
    })
}

fn check_size(record: &Bytes) -> Result<(), Fault> {
    if record.len() > MAX_RECORD_BYTES {
        return Err(Fault::Refused(format!("a record of {} bytes; the limit is {MAX_RECORD_BYTES}", record.len())));
    }
    Ok(())
}

/// SQLite's integers are signed.
fn number(what: &str, value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| Fault::Refused(format!("{what} {value} is greater than {}", i64::MAX)))
}

/// A time in milliseconds. What lies beyond the range (300 million years) is as good as its end.
fn clamp(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
