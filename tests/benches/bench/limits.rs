//! What the disk and SQLite can do at all, measured in the same run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_core::{RunId, Timestamp, WorkflowKey};
use dormouse_engine::store::{Entry, Opening, RowUpdate};
use dormouse_engine::stores::sqlite::SqliteStore;
use futures::channel::oneshot;
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

/// Many writers of 128-byte records, one thread that appends and syncs whatever waits. The writers are tasks, so that
/// waking them costs as little as it can.
pub fn group_commit(writers: usize) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut file = log_file(&dir);
    let (sender, receiver) = std::sync::mpsc::channel::<oneshot::Sender<()>>();
    let flusher = thread::spawn(move || {
        let mut buffer = Vec::new();
        while let Ok(first) = receiver.recv() {
            let waiting: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
            buffer.clear();
            buffer.resize(waiting.len() * 128, 7);
            file.write_all(&buffer).expect("room on the disk");
            file.sync_data().expect("a disk that syncs");
            for writer in waiting {
                let _ = writer.send(());
            }
        }
    });
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let samples = runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut samples = Vec::new();
                    while began.elapsed() < TIME {
                        let at = Instant::now();
                        let (done, synced) = oneshot::channel();
                        sender.send(done).expect("the flusher lives");
                        synced.await.expect("the flusher lives");
                        samples.push(at.elapsed().as_secs_f64() * 1e6);
                    }
                    samples
                })
            })
            .collect();
        let mut samples = Vec::new();
        for task in tasks {
            samples.extend(task.await.expect("no writer panics"));
        }
        samples
    });
    let elapsed = began.elapsed();
    drop(sender);
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
                    let open = Opening {
                        run_id: RunId::from_bytes([0; 16]),
                        workflow_type: "w".into(),
                        started_at: Timestamp::default(),
                        due: Timestamp::default(),
                    };
                    let mut entry = Entry::Open(open);
                    for sequence in 1_u64.. {
                        if began.elapsed() > TIME {
                            break;
                        }
                        let at = Instant::now();
                        block_on(entry.put(&*store, &run, record.clone())).expect("a disk that works");
                        samples.push(at.elapsed().as_secs_f64() * 1e6);
                        entry = Entry::Append(NonZeroU64::MIN.saturating_add(sequence - 1), RowUpdate::NONE);
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
