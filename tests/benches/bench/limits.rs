//! What the disk and SQLite can do at all, measured in the same run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_core::{RunId, Timestamp, WorkflowKey};
use dormouse_engine::store::{RowChange, Store};
use dormouse_engine::stores::sqlite::SqliteStore;
use futures::executor::block_on;
use serde_json::json;

use crate::Figures;
use crate::machine::quantile;

const TIME: Duration = Duration::from_secs(2);

fn log_file(dir: &tempfile::TempDir) -> File {
    OpenOptions::new().create(true).append(true).open(dir.path().join("log")).expect("a file in a fresh directory")
}

/// Appends 1 KiB and syncs, one after another.
pub fn single_fdatasync() -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut file = log_file(&dir);
    let mut samples = Vec::new();
    let began = Instant::now();
    while began.elapsed() < TIME {
        let at = Instant::now();
        file.write_all(&[7; 1024]).expect("room on the disk");
        file.sync_data().expect("a disk that syncs");
        samples.push(at.elapsed().as_secs_f64() * 1e6);
    }
    let count = samples.len();
    figures(count, began.elapsed(), samples)
}

struct Group {
    state: Mutex<GroupState>,
    changed: Condvar,
}

#[derive(Default)]
struct GroupState {
    buffer: Vec<u8>,
    waiting_for: u64,
    synced: u64,
    stop: bool,
}

/// Many writers of 128-byte records, one thread that appends and syncs whatever waits.
pub fn group_commit(writers: usize) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut file = log_file(&dir);
    let group = Arc::new(Group { state: Mutex::default(), changed: Condvar::new() });
    let flusher = {
        let group = Arc::clone(&group);
        thread::spawn(move || {
            loop {
                let mut state = group.state.lock().expect("no writer panics");
                while state.buffer.is_empty() && !state.stop {
                    state = group.changed.wait(state).expect("no writer panics");
                }
                if state.stop {
                    return;
                }
                let (buffer, batch) = (std::mem::take(&mut state.buffer), state.waiting_for);
                state.waiting_for += 1;
                drop(state);
                file.write_all(&buffer).expect("room on the disk");
                file.sync_data().expect("a disk that syncs");
                group.state.lock().expect("no writer panics").synced = batch + 1;
                group.changed.notify_all();
            }
        })
    };
    let began = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|_| {
            let group = Arc::clone(&group);
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || {
                    let mut samples = Vec::new();
                    while began.elapsed() < TIME {
                        let at = Instant::now();
                        let mut state = group.state.lock().expect("no writer panics");
                        state.buffer.extend_from_slice(&[7; 128]);
                        let mine = state.waiting_for;
                        group.changed.notify_all();
                        while state.synced <= mine {
                            state = group.changed.wait(state).expect("no writer panics");
                        }
                        samples.push(at.elapsed().as_secs_f64() * 1e6);
                    }
                    samples
                })
                .expect("a thread")
        })
        .collect();
    let samples: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no writer panics")).collect();
    let elapsed = began.elapsed();
    group.state.lock().expect("no writer panics").stop = true;
    group.changed.notify_all();
    flusher.join().expect("the flusher ends");
    figures(samples.len(), elapsed, samples)
}

/// Conditional creates of 200-byte records through our own SQLite store.
pub fn sqlite(committers: usize) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(SqliteStore::open(dir.path()).expect("a fresh store"));
    let began = Instant::now();
    let threads: Vec<_> = (0..committers)
        .map(|committer| {
            let store = Arc::clone(&store);
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || {
                    let run = WorkflowKey::new("bench", &format!("w{committer}")).expect("a good id").run(0);
                    let record = Bytes::from(vec![7; 200]);
                    let mut samples = Vec::new();
                    let open = RowChange::Open {
                        run_id: RunId::from_bytes([0; 16]),
                        workflow_type: "w".into(),
                        started_at: Timestamp::default(),
                        due: Timestamp::default(),
                    };
                    let mut change = Some(open);
                    for sequence in 0.. {
                        if began.elapsed() > TIME {
                            break;
                        }
                        let at = Instant::now();
                        block_on(store.create(&run, sequence, record.clone(), change.take())).expect("a disk that works");
                        samples.push(at.elapsed().as_secs_f64() * 1e6);
                    }
                    samples
                })
                .expect("a thread")
        })
        .collect();
    let samples: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no committer panics")).collect();
    figures(samples.len(), began.elapsed(), samples)
}

pub fn figures(count: usize, elapsed: Duration, mut samples: Vec<f64>) -> Figures {
    samples.sort_by(f64::total_cmp);
    let mut figures = Figures::new();
    figures.insert("per_second".into(), json!(count as f64 / elapsed.as_secs_f64()));
    figures.insert("p50_us".into(), json!(quantile(&samples, 0.5)));
    figures.insert("p99_us".into(), json!(quantile(&samples, 0.99)));
    figures
}
