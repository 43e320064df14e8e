//! The embedded store: one process at a time, and nothing acknowledged is lost with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use dormouse_core::{RunKey, Timestamp};
use dormouse_engine::store::{
    AttemptKey, Creation, Entry, Histories, Index, Parked, RowUpdate, RunFilter, Store, StoreError,
};
use dormouse_engine::stores::sqlite::{OpenError, SqliteStore};
use dormouse_testing::conformance::Damage;
use dormouse_testing::later;
use futures::FutureExt;
use futures::executor::block_on;

use super::{opening, run};

/// Set for the process that is to write and to be killed: its data directory.
const WRITE_INTO: &str = "DORMOUSE_TEST_WRITE_INTO";

/// Damages the file in this directory.
pub fn damage(dir: &Path, damage: &Damage) {
    let file = rusqlite::Connection::open(dir.join("dormouse.db")).unwrap();
    let change = |set: &str, run: &RunKey, table: &str, and: &str| {
        let text = format!(
            "UPDATE {table} SET {set} WHERE {and} run = (SELECT run FROM runs WHERE workflow_id = '{}')",
            run.workflow.workflow_id
        );
        assert_eq!(file.execute(&text, []).unwrap(), 1, "{text}");
    };
    match damage {
        Damage::Row(run) => change("run_id = 'no id'", run, "runs", ""),
        Damage::Status(run, status) => change(&format!("status = '{status}'"), run, "runs", ""),
        Damage::Parking(run) => change("parked = '{'", run, "runs", ""),
        Damage::Attempt(AttemptKey { run, activity }) => {
            change("version = 'new'", run, "attempts", &format!("activity = {activity} AND"))
        }
    }
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("made/when/missing");
    let first = SqliteStore::open(&place).unwrap();
    let refused = SqliteStore::open(&place).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(first);
    SqliteStore::open(&place).unwrap();
}

#[test]
fn whoever_reads_alone_needs_no_lock_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let refused = SqliteStore::open_to_read(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made");
    let run = run("read", 0);
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(store.open(&run, "batch 0".into(), opening(2_000))).unwrap();
    let looks = |when: &str| {
        let reader = SqliteStore::open_to_read(dir.path()).unwrap();
        assert_eq!(block_on(reader.read(&run, 0)).unwrap().records, ["batch 0"], "{when}");
        let refused = block_on(reader.park(&run, None)).unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)), "{when}: {refused}");
    };
    looks("beside its owner");
    drop(store);
    looks("when nobody has it");
    assert_eq!(SqliteStore::open(dir.path()).unwrap().epoch(), 2, "nobody was there in between");
}

#[test]
fn reopening_keeps_everything_and_the_epoch_grows() {
    let dir = tempfile::tempdir().unwrap();
    let run = run("kept", 0);
    let mut row = None;
    for round in 0..4_u64 {
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.epoch(), round + 1);
        block_on(async {
            assert_eq!(store.row(&run).await.unwrap(), row);
            assert_eq!(store.read(&run, 0).await.unwrap().records.len() as u64, round);
            let entry = match round {
                0 => Entry::Open(opening(2_000)),
                _ => Entry::Append(later(round), RowUpdate::due(Timestamp::from_millis(round))),
            };
            let created = entry.put(&store, &run, vec![round as u8; 300].into()).await;
            assert_eq!(created, Ok(Creation::Created));
            row = store.row(&run).await.unwrap();
        });
    }
}

#[test]
fn dropping_the_store_finishes_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let runs: Vec<_> = (0..500).map(|i| run(&format!("waiting {i}"), 0)).collect();
    for run in &runs {
        // Polled once, so that it is under way; then nobody waits for the answer.
        let _ = store.open(run, "batch".into(), opening(2_000)).now_or_never();
    }
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    let listed = block_on(store.list("default", &RunFilter::default(), None, 1_000)).unwrap();
    assert_eq!(listed.len(), runs.len());
}

#[test]
fn one_bad_request_does_not_spoil_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (good, bad) = (run("good", 0), run("bad", u64::MAX));
    block_on(async {
        let answers = futures::future::join_all((0..200).map(|i| {
            let run = if i == 0 || i % 2 == 1 { &good } else { &bad };
            // The odd ones lose against the first, or among each other; the even ones have no such ordinal.
            store.open(run, format!("{i}").into(), opening(2_000))
        }))
        .await;
        assert_eq!(answers.iter().filter(|answer| **answer == Ok(Creation::Created)).count(), 1);
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(Creation::Exists(_)))).count(), 100);
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 99);
    });
}

#[test]
fn one_failing_statement_does_not_fail_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    // It fails late: the run's row has been inserted by then, and must not stay.
    rusqlite::Connection::open(dir.path().join("dormouse.db"))
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER planned BEFORE INSERT ON batches WHEN NEW.record = CAST('bad' AS BLOB)
             BEGIN SELECT RAISE(ABORT, 'planned'); END",
        )
        .unwrap();
    let runs: Vec<_> = (0..200).map(|i| run(&format!("grouped {i}"), 0)).collect();
    block_on(async {
        let answers = futures::future::join_all(runs.iter().enumerate().map(|(i, run)| {
            let record = if i == 100 { "bad" } else { "good" };
            store.open(run, record.into(), opening(2_000))
        }))
        .await;
        for (i, (run, answer)) in runs.iter().zip(answers).enumerate() {
            let row = store.row(run).await.unwrap();
            if i == 100 {
                assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
                assert_eq!(row, None);
                let refused = store.append(run, later(1), "next".into(), RowUpdate::NONE).await;
                assert!(matches!(refused, Err(StoreError::Refused(_))), "it was never there: {refused:?}");
            } else {
                assert_eq!(answer, Ok(Creation::Created));
                assert_eq!(row.map(|row| row.run).as_ref(), Some(run));
                assert_eq!(store.read(run, 0).await.unwrap().records, ["good"]);
            }
        }
    });
}

#[test]
fn the_log_has_its_working_size_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let store = SqliteStore::open(dir.path()).unwrap();
    let grown = size("dormouse.db-wal");
    assert!(grown >= 2_000 * 4_096, "{grown}");
    drop(store);
    assert_eq!(size("dormouse.db-wal"), grown, "and keeps it for the next");
    assert!(size("dormouse.db") < 1 << 20, "the file itself has not grown");
}

#[test]
fn a_newer_schema_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let file = rusqlite::Connection::open(dir.path().join("dormouse.db")).unwrap();
    file.execute("UPDATE meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    let epoch = |file: &rusqlite::Connection| -> i64 {
        file.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).unwrap()
    };
    let before = epoch(&file);
    let refused = SqliteStore::open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 99, .. }), "{refused}");
    assert_eq!(epoch(&file), before);
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for epoch in 1..=3 {
        let (mut child, mut answers) = writer(dir.path());
        for _ in 0..200 {
            acknowledged = next_number(&mut answers);
        }
        let refused = SqliteStore::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by another process (pid {})", child.id())), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died, too.
        while let Some(number) = try_next_number(&mut answers) {
            acknowledged = number;
        }
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.epoch(), 2 * epoch, "each opening counts");
        let log = block_on(store.read(&run("killed", 0), 0)).unwrap().records;
        assert!(log.len() as u64 > acknowledged, "{} batches of {acknowledged}", log.len());
        for (sequence, record) in log.iter().enumerate() {
            assert_eq!(*record, format!("batch {sequence}"));
        }
        let row = block_on(store.row(&run("killed", 0))).unwrap().expect("a row");
        assert_eq!(row.due, Some(Timestamp::from_millis(10_000 + log.len() as u64 - 1)), "it goes with the batch");
    }
}

/// This test binary again, writing until it is killed.
fn writer(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::writes_until_killed", "--ignored", "--nocapture"])
        .env(WRITE_INTO, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let answers = BufReader::new(child.stdout.take().unwrap());
    (child, answers)
}

fn next_number(answers: &mut BufReader<ChildStdout>) -> u64 {
    try_next_number(answers).expect("the writer goes on")
}

fn try_next_number(answers: &mut BufReader<ChildStdout>) -> Option<u64> {
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        // A line that was cut short by the kill is no acknowledgement.
        if let Some(number) = line.strip_prefix("acknowledged ").and_then(|rest| rest.strip_suffix(" .\n")) {
            return Some(number.parse().unwrap());
        }
    }
}

#[test]
#[ignore = "the other half of what_was_acknowledged_survives_kill"]
fn writes_until_killed() {
    let Some(dir) = std::env::var_os(WRITE_INTO) else { return };
    let store = SqliteStore::open(Path::new(&dir)).unwrap();
    let run = run("killed", 0);
    block_on(async {
        let mut sequence = store.read(&run, 0).await.unwrap().records.len() as u64;
        loop {
            let entry = match sequence {
                0 => Entry::Open(opening(10_000)),
                _ => Entry::Append(later(sequence), RowUpdate::due(Timestamp::from_millis(10_000 + sequence))),
            };
            let created = entry.put(&store, &run, format!("batch {sequence}").into()).await;
            assert_eq!(created, Ok(Creation::Created));
            println!("acknowledged {sequence} .");
            sequence += 1;
        }
    });
}

/// A file that an earlier build made has no index of parked runs; it has one when it is opened.
#[test]
fn an_older_file_lists_what_is_parked_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = run("w", 0);
    let parked = Parked {
        reason: "why".into(),
        cause: None,
        build: "b".into(),
        sequence: 1,
        attempts: 1,
        retry_at: Timestamp::from_millis(5),
        ends_process: false,
        since: None,
    };
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(store.open(&run, "batch 0".into(), opening(2_000))).unwrap();
    block_on(store.park(&run, Some(parked))).unwrap();
    drop(store);
    rusqlite::Connection::open(dir.path().join("dormouse.db")).unwrap().execute("DROP INDEX runs_parked", []).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let only = RunFilter { parked: true, ..RunFilter::default() };
    let listed = block_on(store.list(&run.workflow.namespace, &only, None, 9)).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}
