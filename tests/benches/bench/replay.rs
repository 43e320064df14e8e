//! The replay gate over many open runs, by the command line, in a process of its own: on one thread, from SQLite. One of
//! the runs was recorded by other code.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dormouse::{App, Failure, Workflow};
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_tests::written::{Written, app};
use futures::executor::block_on;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{Figures, machine};

const RUNS: usize = 10_000;
/// Each is two events; with the start and the step that is under way, a hundred.
const STEPS: u32 = 49;
/// Runs that are written at a time.
const TOGETHER: usize = 100;

/// Sleeps where `walk` walks.
async fn rest(cx: Workflow, _: u32) -> Result<u32, Failure> {
    cx.sleep(Duration::from_hours(1)).await?;
    Ok(0)
}

/// The process that replays, and says what it took.
pub fn child(dir: &str) -> ExitCode {
    let line = ["bench", "replay", "--data-dir", dir, "--threads", "1", "--output", "json"];
    let ended = dormouse::cli(app()).main_from(line);
    eprintln!("{}", json!({ "cpu_s": machine::cpu_seconds(), "peak_mib": machine::peak_memory_mib() }));
    ended
}

pub fn many_runs() -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path());
    let program = std::env::current_exe().expect("this program");
    let began = Instant::now();
    let output = Command::new(program).arg("--replay").arg(dir.path()).output().expect("a process");
    let took = began.elapsed().as_secs_f64();
    let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("JSON") };
    let (told, cost) = (read(&output.stdout), read(&output.stderr));
    let stray = &told["do_not_fit"][0];
    assert_eq!((&told["runs"], &told["fit"]), (&json!(RUNS), &json!(RUNS - 1)), "{told}");
    assert_eq!((&stray["recorded"]["kind"], &stray["attempted"]["kind"]), (&json!("timer"), &json!("local activity")));
    let events = told["events"].as_f64().expect("a number");
    let mut figures = Figures::new();
    figures.insert("events".into(), told["events"].clone());
    figures.insert("per_second".into(), json!(events / took));
    figures.insert("per_cpu_second".into(), json!(events / cost["cpu_s"].as_f64().expect("a number")));
    figures.insert("replay_peak_mib".into(), cost["peak_mib"].clone());
    figures
}

fn write(dir: &Path) {
    let store = SqliteStore::open(dir).expect("a fresh store");
    let other = App::new().workflow("walk", rest);
    let ids: Vec<_> = (0..RUNS).map(|n| format!("w-{n}")).collect();
    for ids in ids.chunks(TOGETHER) {
        let written: Vec<_> = ids
            .iter()
            .map(|id| match id.as_str() {
                "w-7777" => Written::walked_on(other.clone(), id, 0),
                id => Written::walked_on(app(), id, STEPS),
            })
            .collect();
        block_on(join_all(written.iter().map(|written| written.copy(&store))));
    }
}
