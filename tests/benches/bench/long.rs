//! Long histories, by a process that meets them for the first time; all in memory or on this disk, reads included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::{LiveRun, Timestamp};
use dormouse_engine::states::{States, read_history, read_state};
use dormouse_engine::store::Store;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::Clock;
use dormouse_tests::written::{Written, app};
use futures::executor::block_on;
use object_store::memory::InMemory;
use serde_json::json;

use crate::Figures;

/// Each is two events: asked for, and done.
const STEPS: u32 = 5_000;
const TIMES: usize = 11;

/// The middle one of several times, in microseconds.
fn median(mut what: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            what();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[TIMES / 2].as_secs_f64() * 1e6
}

/// The state of a run that nobody remembers: by its snapshot and what stands behind it, as describe and accept have it;
/// folded from its whole history; and the code, run again from that.
fn cold(store: Arc<dyn Store>) -> Figures {
    let written = Written::walked(STEPS);
    block_on(written.copy(&*store));
    let (run, app) = (&written.run, Arc::new(app()));
    let snapshot = median(|| {
        let host = Arc::new(Clock::at(Timestamp::from_millis(1)));
        let state = block_on(States::new(Arc::clone(&store), host).fresh(run)).expect("an undamaged history");
        assert!(state.expect("a run").events >= u64::from(STEPS) * 2);
    });
    let fold = median(|| drop(block_on(read_state(&*store, run)).expect("an undamaged history").expect("a run")));
    let replay = median(|| {
        let records = block_on(read_history(&*store, run)).expect("an undamaged history");
        drop(LiveRun::replay(&app, run, &records).expect("code that follows it"));
    });
    let mut figures = Figures::new();
    figures.insert("snapshot_us".into(), json!(snapshot));
    figures.insert("fold_us".into(), json!(fold));
    figures.insert("replay_us".into(), json!(replay));
    figures.insert("fold_over_snapshot".into(), json!(fold / snapshot));
    figures.insert("replay_over_snapshot".into(), json!(replay / snapshot));
    figures
}

pub fn cold_sqlite() -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    cold(Arc::new(SqliteStore::open(dir.path()).expect("a fresh store")))
}

pub fn cold_objects() -> Figures {
    cold(Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "bench")))
}

/// How the time to replay a run grows with the signals that wait in it.
pub fn waiting_signals() -> Figures {
    let app = Arc::new(app());
    let replay = |signals| {
        let written = Written::new("wait", signals);
        median(|| drop(LiveRun::replay(&app, &written.run, &written.records).expect("code that follows it")))
    };
    let (few, many) = (replay(1_000), replay(8_000));
    let mut figures = Figures::new();
    figures.insert("few_us".into(), json!(few));
    figures.insert("many_us".into(), json!(many));
    figures.insert("many_over_few".into(), json!(many / few));
    figures
}
