//! Golden bytes: every kind of record, each optional field set and unset, as hexadecimal. A number that changes, a field
//! that moves or a type that is written otherwise turns this red, whatever reads and writes it back.
//!
//! A new kind or field adds lines. To write the file anew, which is allowed only while nothing is deployed or for lines
//! that are new: `DORMOUSE_WRITE_GOLDEN=1 cargo test -p dormouse-core --test golden`, and read the difference.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use dormouse_core::history::{Batch, BatchKind, ChangedArguments, DecidedBy, Event, Flags, Turn};
use dormouse_core::operations::{
    ActivityCompleted, ActivityFailed, AttemptLost, Call, Cancel, CancelActivity, CancelLocal, CancelRequested,
    CancelTimer, CarriedSignal, Command, Complete, ContinueAsNew, EarlierRequest, Fail, Input, Joined, LocalBackoff,
    LocalCompleted, LocalFailed, NextRun, Parent, Publish, RecordMarker, RecordPatch, ScheduleActivity, ScheduleLocal,
    Signaled, StartTimer, Started, Terminated, TimeLimits, TimerFired,
};
use dormouse_core::{
    BatchHash, CommitId, Failure, FailureKind, Payload, RecordedOptions, RecordedRetry, RetryState, RunId, RunState,
    TimeoutKind, Timestamp, WorkflowKey,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/records.txt");

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn json(text: &str) -> Payload {
    Payload::from_json(Bytes::copy_from_slice(text.as_bytes()))
}

fn retry() -> RecordedRetry {
    RecordedRetry {
        initial_interval_ms: 1_000,
        backoff_coefficient: 2.5,
        maximum_interval_ms: 100_000,
        maximum_attempts: 5,
        non_retryable_types: vec!["CardDeclined".into()],
    }
}

fn failures() -> Vec<(&'static str, Failure)> {
    let plain = |kind| Failure { message: "m".into(), kind, place: None, cause: None };
    let application = FailureKind::Application {
        r#type: Some("T".into()),
        non_retryable: true,
        details: Some(json("[1]")),
        next_retry_delay_ms: Some(7),
    };
    let bare =
        FailureKind::Application { r#type: None, non_retryable: false, details: None, next_retry_delay_ms: None };
    let timeout = |timeout, last_heartbeat| plain(FailureKind::Timeout { timeout, last_heartbeat });
    let activity = |retry_state| {
        plain(FailureKind::Activity { activity_type: "a".into(), activity_id: 3, attempt: 2, retry_state })
    };
    let mut cases = vec![
        ("application", plain(application.clone())),
        ("application, bare", plain(bare.clone())),
        ("with its place", Failure { place: Some("src/a.rs:1".into()), ..plain(bare.clone()) }),
        ("with its cause", Failure { cause: Some(Box::new(plain(application))), ..plain(bare) }),
        ("canceled", plain(FailureKind::Canceled {})),
        ("terminated", plain(FailureKind::Terminated {})),
        ("start-to-close", timeout(TimeoutKind::StartToClose, None)),
        ("schedule-to-close", timeout(TimeoutKind::ScheduleToClose, None)),
        ("schedule-to-start", timeout(TimeoutKind::ScheduleToStart, None)),
        ("heartbeat", timeout(TimeoutKind::Heartbeat, Some(json("9")))),
    ];
    cases.extend([
        ("activity, not retryable", activity(RetryState::NonRetryableFailure)),
        ("activity, no attempts left", activity(RetryState::MaximumAttemptsReached)),
        ("activity, no time left", activity(RetryState::Timeout)),
        ("activity, canceled", activity(RetryState::CancelRequested)),
    ]);
    cases
}

fn calls() -> Vec<(&'static str, Call)> {
    let bare = Call::new("w", json("{}"));
    let named = || Some(BTreeMap::from([("k".to_owned(), json("1"))]));
    let parent = Parent { workflow_id: "p".into(), ordinal: 2, run_id: RunId::from_bytes([7; 16]), command: 4 };
    let limits = |execution_ms, run_ms, turn_ms| Some(TimeLimits { execution_ms, run_ms, turn_ms });
    vec![
        ("bare", bare.clone()),
        ("parent", Call { parent: Some(parent), ..bare.clone() }),
        ("memo", Call { memo: named(), ..bare.clone() }),
        ("search attributes", Call { search_attributes: named(), ..bare.clone() }),
        ("limits", Call { limits: limits(Some(1), Some(2), Some(3)), ..bare.clone() }),
        ("limit of a turn", Call { limits: limits(None, None, Some(3)), ..bare.clone() }),
        ("retry", Call { retry: Some(retry()), ..bare.clone() }),
        ("not before", Call { not_before: Some(at(5)), ..bare.clone() }),
        ("another encoding", Call { input: Payload::encoded("zstd", b"\x01\x02"), ..bare }),
    ]
}

fn next_run(call: Call) -> Box<NextRun> {
    let carried = vec![CarriedSignal { name: "go".into(), payload: json("true") }];
    Box::new(NextRun { call, request_id: None, carried })
}

fn inputs() -> Vec<(String, Input)> {
    let (id, attempt, result) = (3, 2, json("[2]"));
    let started = |call| Started {
        run_id: RunId::from_bytes([1; 16]),
        call,
        request_id: "r".into(),
        continued_from: None,
        carried: Vec::new(),
        earlier: Vec::new(),
    };
    let mut cases: Vec<(String, Input)> = calls()
        .into_iter()
        .map(|(name, call)| (format!("started, {name}"), Input::Started(Box::new(started(call)))))
        .collect();
    let full = Started {
        continued_from: Some(RunId::from_bytes([2; 16])),
        carried: next_run(Call::new("w", json("1"))).carried,
        earlier: vec![EarlierRequest { hash: 1 << 40, ordinal: 1, at: at(9) }],
        ..started(Call::new("w", json("1")))
    };
    let mut add = |name: &str, input: Input| cases.push((name.to_owned(), input));
    add("started, continued", Input::Started(Box::new(full)));
    add("joined", Joined { request_id: "r".into() }.into());
    add("signaled", Signaled { request_id: "r".into(), name: "n".into(), payload: json("1") }.into());
    add("cancel requested", CancelRequested { request_id: "r".into(), reason: "why".into() }.into());
    let terminated = |next| Terminated { request_id: "r".into(), reason: "why".into(), next };
    add("terminated", terminated(None).into());
    let replaced =
        NextRun { request_id: Some("s".into()), carried: Vec::new(), ..*next_run(Call::new("w", json("1"))) };
    add("terminated, replaced", terminated(Some(Box::new(replaced))).into());
    add("activity completed", ActivityCompleted { id, attempt, result: result.clone() }.into());
    add("attempt lost", AttemptLost { id, attempt, retry_at: at(8) }.into());
    add("timer fired", TimerFired { id }.into());
    add("local completed", LocalCompleted { id, attempt, result }.into());
    for (name, failure) in failures() {
        let retry_state = RetryState::MaximumAttemptsReached;
        add(
            &format!("activity failed, {name}"),
            ActivityFailed { id, attempt, failure: failure.clone(), retry_state }.into(),
        );
    }
    let failure = failures().swap_remove(1).1;
    let retry_state = RetryState::Timeout;
    add("local failed", LocalFailed { id, attempt, failure: failure.clone(), retry_state }.into());
    add("local backoff", LocalBackoff { id, attempt, failure, retry_at: at(8) }.into());
    cases
}

fn commands() -> Vec<(String, Command)> {
    let place = || "src/a.rs:1".to_owned();
    let bare = RecordedOptions {
        start_to_close_ms: None,
        schedule_to_close_ms: None,
        schedule_to_start_ms: None,
        heartbeat_ms: None,
        retry: retry(),
        task_queue: None,
    };
    let options = [
        ("start-to-close", RecordedOptions { start_to_close_ms: Some(1), ..bare.clone() }),
        ("schedule-to-close", RecordedOptions { schedule_to_close_ms: Some(1), ..bare.clone() }),
        ("schedule-to-start", RecordedOptions { schedule_to_start_ms: Some(1), ..bare.clone() }),
        ("heartbeat", RecordedOptions { heartbeat_ms: Some(1), ..bare.clone() }),
        ("task queue", RecordedOptions { task_queue: Some("gpu".into()), ..bare }),
    ];
    let mut cases: Vec<(String, Command)> = options
        .into_iter()
        .map(|(name, options)| {
            let command =
                ScheduleActivity { id: 3, activity_type: "a".into(), input: json("1"), options, place: place() };
            (format!("schedule activity, {name}"), command.into())
        })
        .collect();
    let mut add = |name: &str, command: Command| cases.push((name.to_owned(), command));
    add("cancel activity", CancelActivity { id: 3 }.into());
    add(
        "schedule local",
        ScheduleLocal { id: 3, activity_type: "a".into(), fingerprint: 1 << 40, place: place() }.into(),
    );
    add("cancel local", CancelLocal { id: 3 }.into());
    add("start timer", StartTimer { id: 3, fire_at: at(8), place: place() }.into());
    add("cancel timer", CancelTimer { id: 3 }.into());
    add("publish", Publish { name: "q".into(), value: json("1"), place: place() }.into());
    add("record marker", RecordMarker { name: "m".into(), value: json("1"), place: place() }.into());
    for (name, deprecated) in [("record patch", false), ("record patch, deprecated", true)] {
        add(name, RecordPatch { id: "p".into(), deprecated, place: place() }.into());
    }
    add("complete", Complete { result: json("1") }.into());
    add("fail", Fail { failure: failures().swap_remove(1).1 }.into());
    add("cancel", Cancel { failure: failures().swap_remove(4).1 }.into());
    for (name, call) in calls() {
        add(&format!("continue as new, {name}"), ContinueAsNew { next: next_run(call) }.into());
    }
    cases
}

/// Every case as a batch of its own, so that what frames it is held too.
fn turns() -> [(&'static str, Turn); 4] {
    let turn = |at_offset_ms, taken, input| Turn { at_offset_ms, taken, input, behind_ms: None, read: None };
    let read = Some([("go".to_owned(), 2), ("word".to_owned(), 1)].into());
    [
        ("turn", turn(-5, 2, None)),
        ("turn with its input", turn(0, 0, Some(TimerFired { id: 1 }.into()))),
        ("turn by a clock that is behind", Turn { behind_ms: Some(3_600_000), ..turn(0, 1, None) }),
        ("turn that took signals", Turn { read, ..turn(0, 3, None) }),
    ]
}

fn cases() -> Vec<(String, Batch)> {
    let batch = |kind, events, due: Option<u64>| Batch {
        commit_id: CommitId::from_bytes([5; 16]),
        previous: BatchHash::from_bytes([6; 16]),
        time: at(1_000),
        kind,
        events,
        due: due.map(at),
    };
    let mut cases = vec![
        ("swept".to_owned(), batch(BatchKind::Swept, Vec::new(), Some(9_000))),
        ("nothing".to_owned(), batch(BatchKind::Accepted, Vec::new(), None)),
        (
            "decided by".to_owned(),
            batch(
                BatchKind::Decided,
                vec![Event::DecidedBy(DecidedBy { build: "b1".into(), flags: Flags::KNOWN, changed: None })],
                Some(2_000),
            ),
        ),
        (
            "decided by other arguments".to_owned(),
            batch(
                BatchKind::Decided,
                vec![Event::DecidedBy(DecidedBy {
                    build: "b1".into(),
                    flags: Flags::KNOWN,
                    changed: Some(ChangedArguments { commands: 2, first: "one".into() }),
                })],
                Some(2_000),
            ),
        ),
    ];
    let turns = turns().into_iter();
    cases.extend(turns.map(|(name, turn)| (name.to_owned(), batch(BatchKind::Decided, vec![Event::Turn(turn)], None))));
    cases.extend(
        inputs().into_iter().map(|(name, input)| (name, batch(BatchKind::Accepted, vec![Event::Input(input)], None))),
    );
    cases.extend(
        commands()
            .into_iter()
            .map(|(name, command)| (name, batch(BatchKind::Decided, vec![Event::Command(command)], None))),
    );
    cases
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn stored_forms_are_what_they_were() {
    let cases = cases();
    if std::env::var_os("DORMOUSE_WRITE_GOLDEN").is_some() {
        let lines: String = cases.iter().map(|(name, batch)| format!("{name}: {}\n", hex(&batch.encode()))).collect();
        std::fs::write(FILE, lines).unwrap();
    }
    let golden = std::fs::read_to_string(FILE).unwrap();
    let golden: BTreeMap<&str, &str> = golden.lines().filter_map(|line| line.rsplit_once(": ")).collect();
    assert_eq!(golden.len(), cases.len(), "every case has its line, and every line its case");
    for (name, batch) in &cases {
        let Some(stored) = golden.get(name.as_str()) else {
            panic!("{name} has no golden bytes; see this file's head")
        };
        assert_eq!(hex(&batch.encode()), *stored, "{name} is written otherwise than before");
        assert_eq!(Batch::decode(0, &unhex(stored)).as_ref(), Ok(batch), "{name} is read otherwise than before");
    }
}

/// What is not set takes no room, or a byte.
#[test]
fn unset_fields_cost_nothing() {
    let size = |call: Call| minicbor::to_vec(&call).unwrap().len();
    let bare = Call::new("w", json("{}"));
    assert_eq!(size(bare.clone()), 1 + 2 + 3);
    assert_eq!(size(Call { not_before: Some(at(5)), ..bare }), 1 + 2 + 3 + 5 + 1, "a byte for each field before it");
}

#[test]
fn what_is_given_up_is_named_by_its_id() {
    let commands: [Command; 3] =
        [CancelActivity { id: 3 }.into(), CancelLocal { id: 4 }.into(), CancelTimer { id: 5 }.into()];
    assert_eq!(commands.map(|command| command.id()), [Some(3), Some(4), Some(5)]);
}

/// Builds that run side by side derive the same next run (rule C6): all of its first batch, to the bit.
#[test]
fn the_next_run_is_derived_as_ever() {
    let run = WorkflowKey::new("default", "golden").unwrap().run(7);
    let started = inputs().into_iter().find_map(|(_, input)| match input {
        Input::Started(started) => Some(started),
        _ => None,
    });
    let first = Batch {
        commit_id: CommitId::from_bytes([5; 16]),
        previous: BatchHash::origin(&run),
        time: at(1_000),
        kind: BatchKind::Accepted,
        events: vec![Event::Input(Input::Started(started.unwrap()))],
        due: Some(at(61_000)),
    };
    let (mut state, _) = RunState::begin(run, &first.encode()).unwrap();
    let terminated =
        Terminated { request_id: "r9".into(), reason: "room".into(), next: Some(next_run(calls().remove(0).1)) };
    let last = Batch {
        commit_id: CommitId::from_bytes([6; 16]),
        previous: state.head,
        time: at(2_000),
        kind: BatchKind::Accepted,
        events: vec![Event::Input(Input::Terminated(terminated))],
        due: Some(at(2_500)),
    };
    state.append(&last.encode()).unwrap();
    assert_eq!(hex(&state.next_run().unwrap().encode()), NEXT_RUN);
}

const NEXT_RUN: &str = "0286501638baae14cb4a35cdec63b2c76a716850b6502b7f37fe54336518e54285ae877a1907d0008182008182008650c271\
    666b29d0fb5fe3d5056400000008826177427b7d782e636f6e74696e7565643a30313031303130312d303130312d30313031\
    2d303130312d3031303130313031303130315001010101010101010101010101010101818262676f447472756582831b02eb\
    56845a26772a071903e8831b2a776987c7f05f51071907d01909c4";
