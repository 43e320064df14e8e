//! Any JSON text comes back byte for byte through a worker in Python, in messages as the engine writes and reads them.

use std::io::Write;
use std::process::{Command, Stdio};

use dormouse_aws::store::attempt_address;
use dormouse_aws::wire::{Message, Task, decode, encode};
use dormouse_core::{Arrival, Failure, FailureKind, MAX_PAYLOAD_DEPTH, Payload, RunId, Timestamp, WorkflowKey};
use dormouse_engine::attempts::{AttemptRecord, AttemptState};
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::AttemptKey;
use dormouse_testing::delivery::plain_task;
use dormouse_tests::dice::Dice;
use dormouse_tests::tell;
use dormouse_tests::texts::text;
use serde_json::json;

use super::folder;

const TEXTS: u64 = 10_000;

/// What the front door refuses, but an activity may well be given: half of a pair, more digits than Python reads, a number
/// that no `f64` holds. And what is as deep as it may be.
fn odd() -> Vec<String> {
    let (open, close) = ("[{\"a\":".repeat(MAX_PAYLOAD_DEPTH / 2), "}]".repeat(MAX_PAYLOAD_DEPTH / 2));
    vec!["\"\\ud83d\"".into(), "7".repeat(5_000), "[-0, 1e999]".into(), format!("{open}1.10{close}")]
}

/// What one text is in: a task's message, its input; and the record of the task, the details of its heartbeat.
fn given(key: &AttemptKey, text: &str) -> (String, String) {
    let text = Payload::from_json(text.to_owned().into());
    let mut task = plain_task(&key.run, RunId::from_bytes([7; 16]), key.activity, Timestamp::from_millis(0));
    (task.activity_type, task.lost, task.input) = ("echo".into(), 0, text.clone());
    let message = encode(&Message::Task(Task { task, not_after: Timestamp::from_millis(u64::MAX) })).unwrap();
    let record = AttemptRecord {
        attempt: 1,
        state: AttemptState::Waiting { retry_at_ms: 0, epoch: 0 },
        last_failure: Some(Failure::application("not yet").with_details(&text)),
        heartbeat: Some(text),
        cancel_requested: false,
    };
    (message, serde_json::to_string(&record).unwrap())
}

/// The record after the claim and what the run is told, for each text; none without Python.
fn played(texts: &[String]) -> Option<Vec<(String, String)>> {
    let key = AttemptKey { run: WorkflowKey::new("default", "order-1").unwrap().run(0), activity: 3 };
    let found: Vec<_> = texts.iter().map(|text| given(&key, text)).collect();
    let (p, s) = attempt_address(&key);
    let mut python = Command::new("python3");
    python.args(["-B", "echo.py"]).current_dir(folder()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().ok()?;
    // It reads all before it writes anything.
    python.stdin.take().unwrap().write_all(json!({"p": p, "s": s, "found": found}).to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn texts_come_back_byte_for_byte() {
    let mut dice = Dice::cast("texts");
    let any = |_| {
        let depth = dice.within(0..MAX_PAYLOAD_DEPTH as u64 + 1) as usize;
        text(&mut dice, depth)
    };
    let texts: Vec<String> = (0..TEXTS).map(any).chain(odd()).collect();
    let Some(answers) = played(&texts) else {
        tell!("SKIPPED: texts through the Python worker need python3");
        return;
    };
    assert_eq!(answers.len(), texts.len());
    for (text, (record, told)) in texts.iter().zip(answers) {
        let record = AttemptRecord::decode(record.as_bytes()).unwrap();
        assert!(matches!(record.state, AttemptState::Claimed { .. }));
        assert_eq!(record.heartbeat.unwrap_or(Payload::NULL).to_string(), *text, "details of a heartbeat");
        match record.last_failure.map(|failure| failure.kind) {
            Some(FailureKind::Application { details, .. }) => {
                assert_eq!(details.unwrap_or(Payload::NULL).to_string(), *text, "details of a failure");
            }
            other => panic!("{text}: {other:?}"),
        }
        match decode(&told) {
            Ok(Message::Run(RunMessage::Arrived { arrival: Arrival::ActivityCompleted(done), .. })) => {
                assert_eq!((done.attempt, done.result.to_string()), (2, text.clone()));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}
