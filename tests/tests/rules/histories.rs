//! C9: histories that were recorded once are read for ever. Each sample and pattern has one in `tests/histories`: its batches
//! as they were stored, and what people read in them. Today's code must follow the batches, and read the same.
//!
//! A new one is recorded with `DORMOUSE_RECORD_HISTORIES=1 cargo test -p dormouse-tests --test rules -- histories`: files
//! that exist are left alone. Never record one anew because it fails: a history out there would fail as well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dormouse::App;
use dormouse_core::history::{Batch, readable};
use dormouse_core::{LiveRun, RunKey, WorkflowKey};
use dormouse_engine::states::fold;
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive, latest, run};
use functions::ledger::Ledger;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::workflows::app;

const RECORD: &str = "DORMOUSE_RECORD_HISTORIES";

#[derive(Serialize, Deserialize)]
struct Recorded {
    workflow_id: String,
    ordinal: u64,
    batches: Vec<String>,
    events: Value,
    status: String,
}

/// What is done with a run until it has ended: what its activities return, and the words that it hears.
struct Pattern {
    name: &'static str,
    workflow_type: &'static str,
    input: Value,
    /// What activities return, in order; the last for all that come after.
    results: Vec<Value>,
    words: Vec<&'static str>,
    /// What an operator does in the end.
    end: Option<&'static str>,
}

fn pattern(name: &'static str, workflow_type: &'static str, input: Value) -> Pattern {
    Pattern { name, workflow_type, input, results: vec![json!(1)], words: Vec::new(), end: None }
}

fn patterns() -> Vec<Pattern> {
    vec![
        pattern("local steps", "local", json!(3)),
        pattern("queued steps", "queued", json!(3)),
        Pattern { words: vec!["a", "b"], ..pattern("signals", "words", json!(2)) },
        pattern("a timer", "nap", json!(3600)),
        pattern("a time limit that is kept", "in time", json!(null)),
        Pattern { words: vec!["go"], ..pattern("a signal, then an activity", "word, then activity", json!(1)) },
        Pattern { words: vec!["a", "b"], ..pattern("a local step beside signals", "local beside words", json!(2)) },
        Pattern { words: vec!["on", "end"], ..pattern("continue as new", "chain", json!(1)) },
        Pattern { words: vec!["a", "b"], ..pattern("activities at once", "fan out", json!([5, 2])) },
        Pattern { end: Some("cancel"), ..pattern("canceled", "queued", json!(1)) },
        Pattern { end: Some("terminate"), ..pattern("terminated", "words", json!(1)) },
        Pattern { words: vec!["a", "b"], ..pattern("time by signals", "times", json!(2)) },
        Pattern { words: vec!["a", "b"], ..pattern("patches", "changed", json!(2)) },
    ]
}

fn samples() -> Vec<Pattern> {
    let order = json!({ "order_id": "7", "amount_cents": 4200 });
    let receipt = json!({ "order_id": "7", "amount_cents": 4200 });
    let shipment = json!({ "order_id": "7", "tracking": "T-7" });
    let expense = json!({ "expense_id": "e-1", "amount_cents": 1800, "approval_timeout_ms": 604_800_000 });
    vec![
        Pattern {
            results: vec![receipt, json!(null), shipment],
            ..pattern("an order", "orderWorkflow", order.clone())
        },
        Pattern { end: Some("cancel"), ..pattern("an order that is canceled", "orderWorkflow", order) },
        Pattern {
            results: vec![json!(null)],
            ..pattern("an expense that nobody approves", "expenseApprovalWorkflow", expense)
        },
        Pattern {
            results: vec![json!(3)],
            ..pattern(
                "statements",
                "statementsWorkflow",
                json!({ "month": "2026-11", "customers": 2, "preview": false }),
            )
        },
    ]
}

/// Lets a run go its way, as far as it goes.
fn play(world: &World, process: &Process, pattern: &Pattern) {
    let mut results = pattern.results.iter().cycle().take(pattern.results.len());
    let last = pattern.results.last().expect("a result");
    process.start(pattern.workflow_type, "w", "r", &pattern.input);
    process.deliver();
    match pattern.end {
        Some("cancel") => drive(process.front.cancel(&latest("w"), Some("c"), "enough")).unwrap().unwrap(),
        Some(_) => drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap(),
        None => {}
    }
    process.deliver();
    let mut words = pattern.words.iter();
    for _ in 0..100 {
        for task in world.mail.take_tasks() {
            process.complete(&task, 1, results.next().unwrap_or(last));
        }
        for task in world.mail.take_locals() {
            process.complete_local(&task, results.next().unwrap_or(last));
        }
        if let Some(word) = words.next() {
            world.pass(Duration::from_secs(1));
            process.signal("w", word, "word", word);
        } else if let Some(at) = world.mail.alarm(&run("w", 0)) {
            world.clock.set(at);
            world.ring();
        }
        process.deliver();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("histories")
}

fn file(name: &str, ordinal: u64) -> PathBuf {
    folder().join(format!("{}.{ordinal}.json", name.replace(' ', "-")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(byte).collect::<Vec<_>>().into()
}

fn read(records: &[Bytes]) -> Value {
    let mut events = Vec::new();
    for (sequence, record) in (0..).zip(records) {
        let batch = Batch::decode(sequence, record).expect("a batch of today");
        events.extend(readable(&batch, events.len() as u64 + 1));
    }
    serde_json::to_value(events).expect("JSON")
}

fn record(app: fn() -> App, pattern: &Pattern) {
    let world = World::new(app());
    let process = world.process();
    play(&world, &process, pattern);
    for ordinal in (0..).take_while(|ordinal| world.row(&run("w", *ordinal)).is_some()) {
        let (run, file) = (run("w", ordinal), file(pattern.name, ordinal));
        let (records, state) = (world.records(&run), world.state(&run));
        assert!(state.closed.is_some(), "{} has not ended: {:#?}", pattern.name, state.pending);
        if !file.exists() {
            let recorded = Recorded {
                workflow_id: "w".into(),
                ordinal,
                batches: records.iter().map(|record| hex(record)).collect(),
                events: read(&records),
                status: state.status().to_string(),
            };
            std::fs::write(file, serde_json::to_string_pretty(&recorded).unwrap() + "\n").unwrap();
        }
    }
}

fn samples_app() -> App {
    functions::app(Ledger::at("unused"))
}

fn follow(app: App, name: &str) {
    let app = std::sync::Arc::new(app);
    let mut found = 0;
    for ordinal in 0.. {
        let Ok(text) = std::fs::read_to_string(file(name, ordinal)) else { break };
        let recorded: Recorded = serde_json::from_str(&text).unwrap();
        let records: Vec<_> = recorded.batches.iter().map(|batch| unhex(batch)).collect();
        let workflow = WorkflowKey { namespace: "default".into(), workflow_id: recorded.workflow_id.as_str().into() };
        let run: RunKey = workflow.run(recorded.ordinal);
        assert_eq!(read(&records), recorded.events, "{name} reads as it did");
        let state = fold(&run, &records).expect("an undamaged history").expect("a run");
        assert_eq!(state.status().to_string(), recorded.status, "{name}");
        let live = LiveRun::replay(&app, &run, &records);
        let live = live.unwrap_or_else(|failure| panic!("{name}: today's code does not follow it: {failure}"));
        assert_eq!(*live.state(), state, "{name}");
        // One bit of any batch is noticed.
        for (at, record) in records.iter().enumerate().take(records.len() - 1) {
            let mut changed = records.clone();
            let mut bytes = record.to_vec();
            *bytes.last_mut().expect("bytes") ^= 1;
            changed[at] = bytes.into();
            assert!(fold(&run, &changed).is_err(), "{name}: batch {at} was altered");
        }
        found += 1;
    }
    assert!(found > 0, "there is no recorded history of {name:?} in {}", folder().display());
}

#[test]
fn c9_recorded_histories_are_read_for_ever() {
    if std::env::var_os(RECORD).is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        patterns().iter().for_each(|pattern| record(app, pattern));
        samples().iter().for_each(|pattern| record(samples_app, pattern));
    }
    patterns().iter().for_each(|pattern| follow(app(), pattern.name));
    samples().iter().for_each(|pattern| follow(samples_app(), pattern.name));
}
