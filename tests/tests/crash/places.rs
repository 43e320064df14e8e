//! Where the servers keep what they know: one file, or objects. Everything else of the soaks is the same for both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::CommandId;
use dormouse_core::{RunKey, WorkflowKey};
use dormouse_engine::attempts::{AttemptRecord, AttemptState};
use dormouse_engine::store::Store;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_tests::server::{dev, functions};
use functions::ledger::Entry;
use rusqlite::{Connection, OpenFlags};

use crate::checks::Told;
#[cfg(feature = "s3")]
use crate::objects::Objects;

/// A place to keep things in.
pub enum Place {
    /// The data directory, below the soak's own.
    Directory(PathBuf),
    /// A prefix of an object store.
    #[cfg(feature = "s3")]
    Objects(Objects),
}

/// What a kill has hit.
#[derive(Default, Clone, Copy)]
pub struct Hit {
    /// Attempts that the dead process had claimed and whose activities have no outcome in the history.
    pub claimed: usize,
    /// Those of them that had written to the ledger: the outside world knows, the history does not.
    pub in_ledger: usize,
}

impl Place {
    /// The data directory of a soak.
    pub fn directory(dir: &Path) -> Self {
        Self::Directory(dir.join("data"))
    }

    /// `dev` of the sample application over it, with its ledger and its log in this directory.
    pub fn dev(&self, dir: &Path) -> Command {
        match self {
            Self::Directory(_) => dev(functions(), dir),
            #[cfg(feature = "s3")]
            Self::Objects(objects) => objects.dev(dir),
        }
    }

    /// How long a server that is up may take to get on by one step.
    pub fn step(&self) -> Duration {
        match self {
            Self::Directory(_) => Duration::from_millis(500),
            #[cfg(feature = "s3")]
            Self::Objects(_) => Duration::from_secs(2),
        }
    }

    /// The store, when no server is there.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Directory(data) => Arc::new(SqliteStore::open(data).unwrap()),
            #[cfg(feature = "s3")]
            Self::Objects(objects) => Arc::new(objects.store()),
        }
    }

    /// Looks at what a process that has just died has left.
    pub async fn hit(&self, ledger: &[Entry]) -> Hit {
        let done: HashSet<_> =
            ledger.iter().map(|entry| (entry.run_id.as_str(), entry.activity_id.as_str(), entry.attempt)).collect();
        let mut hit = Hit::default();
        let mut look = |state: &RunState, activity: CommandId, record: &AttemptRecord| {
            let open =
                state.pending.activities.open.get(&activity).is_some_and(|pending| record.attempt > pending.lost);
            hit.claimed += usize::from(open);
            let (run_id, activity) = (state.run_id().to_string(), activity.to_string());
            let in_ledger = done.contains(&(run_id.as_str(), activity.as_str(), record.attempt));
            hit.in_ledger += usize::from(open && in_ledger);
        };
        match self {
            Self::Directory(data) => hit_directory(data, &mut look),
            #[cfg(feature = "s3")]
            Self::Objects(objects) => {
                for (state, activity, record) in objects.claimed().await {
                    look(&state, activity, &record);
                }
            }
        }
        hit
    }

    /// What lies there, looked at without our own reading: sound, and no batch beyond a gap, where that would not find it.
    pub async fn check(&self, runs: &HashMap<String, Told>) {
        let histories = match self {
            Self::Directory(data) => histories_in_file(data),
            #[cfg(feature = "s3")]
            Self::Objects(objects) => objects.histories().await,
        };
        for (id, (count, last)) in &histories {
            assert_eq!((*count, *last), (runs[id].state.next_sequence, count - 1), "{id}: a gap");
        }
        assert_eq!(histories.len(), runs.len());
    }
}

/// Whether this attempt is claimed by a process of this epoch.
pub fn is_claimed(record: &AttemptRecord, now: u64) -> bool {
    matches!(record.state, AttemptState::Claimed { epoch, .. } if epoch == now)
}

fn look(data: &Path) -> Connection {
    Connection::open_with_flags(data.join("dormouse.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn hit_directory(data: &Path, mut hit: impl FnMut(&RunState, CommandId, &AttemptRecord)) {
    let db = look(data);
    let epoch: u32 = db.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).unwrap();
    let mut attempts = db
        .prepare("SELECT namespace, workflow_id, ordinal, run, activity, record FROM attempts JOIN runs USING (run)")
        .unwrap();
    let mut histories = db.prepare("SELECT record FROM batches WHERE run = ?1 ORDER BY sequence").unwrap();
    let mut rows = attempts.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let record = AttemptRecord::decode(&row.get::<_, Vec<u8>>(5).unwrap()).unwrap();
        if !is_claimed(&record, epoch.into()) {
            continue;
        }
        let workflow = WorkflowKey::new(&row.get::<_, String>(0).unwrap(), &row.get::<_, String>(1).unwrap()).unwrap();
        let run = workflow.run(row.get::<_, u32>(2).unwrap().into());
        let records = histories.query_map([row.get::<_, i64>(3).unwrap()], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        let state = fold(run, &records.map(|record| record.unwrap().into()).collect::<Vec<_>>());
        hit(&state, CommandId::from(row.get::<_, u32>(4).unwrap()), &record);
    }
}

fn fold(run: RunKey, records: &[Bytes]) -> RunState {
    let (mut state, _) = RunState::begin(run, &records[0]).unwrap();
    records[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
    state
}

/// By workflow id: how many batches, and the highest sequence.
fn histories_in_file(data: &Path) -> BTreeMap<String, (u64, u64)> {
    let db = look(data);
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let mut statement = db
        .prepare("SELECT workflow_id, count(*), max(sequence) FROM batches JOIN runs USING (run) GROUP BY run")
        .unwrap();
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, (row.get::<_, u32>(1)?.into(), row.get::<_, u32>(2)?.into()))));
    rows.unwrap().map(Result::unwrap).collect()
}
