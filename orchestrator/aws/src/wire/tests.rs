use dormouse_core::Call;
use dormouse_core::history::{CarriedSignal, NextRun};
use dormouse_core::operations;
use dormouse_core::{
    Arrival, Failure, FailureKind, IdConflictPolicy, IdReusePolicy, MAX_PAYLOAD_DEPTH, Payload, RecordedOptions,
    RecordedRetry, RetryState, StartRequest, TimeoutKind,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use dormouse_engine::seams::{Intent, Wish};

const TASK: &str = r#"{
  "v": 1, "kind": "activity_task", "new_in_some_later_build": {"result": [1]},
  "run": {"namespace": "default", "workflow_id": "order-1", "ordinal": 0, "tomorrow": null,
          "run_id": "0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77"},
  "activity_id": "3", "activity_type": "charge", "input": {"b": 1.0,  "a": 1e400},
  "options": {"start_to_close_ms": 60000, "heartbeat_ms": 5000,
              "retry": {"initial_interval_ms": 1000, "backoff_coefficient": 2.0, "maximum_interval_ms": 100000,
                        "maximum_attempts": 5, "non_retryable_types": ["CardDeclined"]}},
  "scheduled_at_ms": 1763820000000, "not_before_ms": 1763820000001, "not_after_ms": 1765029600000,
  "lost_attempts": 2, "reply_group": "anything"
}"#;

const RUN: &str =
    r#"{"namespace":"default","workflow_id":"order-1","ordinal":0,"run_id":"0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77"}"#;

fn arrival(body: &str) -> Arrival {
    match decode(&body.replace("RUN", RUN)) {
        Ok(Message::Run(RunMessage::Arrived { arrival, .. })) => arrival,
        other => panic!("{body}: {other:?}"),
    }
}

fn json(text: &str) -> Payload {
    Payload::from_json(text.to_owned().into())
}

/// The examples are what people copy.
#[test]
fn the_examples_of_the_documentation_are_messages() {
    let text: String = include_str!("../wire.rs").lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let examples: Vec<_> = text.split("```json").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let example = example.replace("\"run\": {}", &format!("\"run\": {RUN}"));
        let message = decode(&example).unwrap_or_else(|error| panic!("{error}: {example}"));
        if let Message::Task(task) = &message {
            assert!(example.contains(&group(&task.task.run.workflow)), "the group of an example");
        }
    }
}

#[test]
fn a_task_as_it_is_documented() {
    let Ok(Message::Task(Task { task, not_after })) = decode(TASK) else { panic!("{:?}", decode(TASK)) };
    assert_eq!(task.run, WorkflowKey::new("default", "order-1").unwrap().run(0));
    assert_eq!((task.id, task.lost, &*task.activity_type), (3, 2, "charge"));
    assert_eq!(task.input, json(r#"{"b": 1.0,  "a": 1e400}"#), "byte for byte");
    assert_eq!(task.options.retry.non_retryable_types, ["CardDeclined"]);
    assert_eq!((task.options.task_queue.as_deref(), task.options.schedule_to_close_ms), (None, None));
    let times = [task.scheduled_at, task.not_before, not_after].map(Timestamp::as_millis);
    assert_eq!(times, [1_763_820_000_000, 1_763_820_000_001, 1_765_029_600_000]);
}

/// What is written today, to the letter: whoever changes it changes what workers in other languages read.
#[test]
fn a_task_as_it_is_written() {
    let message = decode(TASK).unwrap();
    let written = encode(&message).unwrap();
    let expected = format!(r#"{{"v":1,"kind":"activity_task","run":{RUN},"activity_id":"3","activity_type":"charge","#)
        + r#""input":{"b": 1.0,  "a": 1e400},"options":{"start_to_close_ms":60000,"heartbeat_ms":5000,"retry":{"#
        + r#""initial_interval_ms":1000,"backoff_coefficient":2.0,"maximum_interval_ms":100000,"maximum_attempts":5,"#
        + r#""non_retryable_types":["CardDeclined"]}},"scheduled_at_ms":1763820000000,"not_before_ms":1763820000001,"#
        + r#""not_after_ms":1765029600000,"lost_attempts":2,"reply_group":"199833d958b78baa734e995e0da5d2b4"}"#;
    assert_eq!(written, expected);
    assert_eq!(decode(&written).unwrap(), message);
}

/// What is written today of every other kind, to the letter.
#[test]
#[expect(clippy::too_many_lines, reason = "one table, read as a whole")]
fn every_kind_as_it_is_written() {
    let run = WorkflowKey::new("default", "order-1").unwrap().run(0);
    let run_id: RunId = serde_json::from_str(r#""0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77""#).unwrap();
    let arrived = |arrival| Message::Run(RunMessage::Arrived { run: run.clone(), run_id, arrival });
    let wish = |wish| Message::Run(RunMessage::Intent(Intent { run: run.clone(), wish }));
    let failure = || Failure { place: None, ..Failure::application("no") };
    let next = NextRun {
        call: Call::new("t", json("[1,  2]")),
        request_id: Some("n".into()),
        carried: vec![CarriedSignal { name: "s".into(), payload: json("null") }],
    };
    let start = StartRequest {
        call: Call::new("t", json("{\"b\": 1.0}")),
        request_id: "r".into(),
        reuse: IdReusePolicy::RejectDuplicate,
        conflict: IdConflictPolicy::UseExisting,
    };
    let signal =
        || Arrival::Signal(operations::Signaled { request_id: "r".into(), name: "n\"".into(), payload: json("7") });
    let terminate =
        |next| Arrival::Terminate(operations::Terminated { request_id: "r".into(), reason: "w".into(), next });
    let failed = r#"{"message":"no","kind":"application","non_retryable":false}"#;
    let cases = [
        (
            wish(Wish::Start(start)),
            r#""start","run":BARE,"workflow_type":"t","input":{"b": 1.0},"request_id":"r","reuse":"RejectDuplicate","conflict":"UseExisting""#,
        ),
        (
            wish(Wish::Take { arrival: signal(), pinned: true }),
            r#""take","run":BARE,"pinned":true,"arrival":{"kind":"signal","request_id":"r","name":"n\"","payload":7}"#,
        ),
        (
            Message::Run(RunMessage::Accepted { run: run.clone(), sequence: 5, record: vec![0, 255].into() }),
            r#""accepted","run":BARE,"sequence":5,"record":"AP8=""#,
        ),
        (Message::Run(RunMessage::Sweep { run: run.clone() }), r#""sweep","run":BARE"#),
        (arrived(signal()), r#""signal","run":RUN,"request_id":"r","name":"n\"","payload":7"#),
        (
            arrived(Arrival::Cancel(operations::CancelRequested { request_id: "r".into(), reason: "w".into() })),
            r#""cancel","run":RUN,"request_id":"r","reason":"w""#,
        ),
        (arrived(terminate(None)), r#""terminate","run":RUN,"request_id":"r","reason":"w""#),
        (
            arrived(terminate(Some(Box::new(next)))),
            r#""terminate","run":RUN,"request_id":"r","reason":"w","next":{"workflow_type":"t","input":[1,  2],"request_id":"n","carried":[{"name":"s","payload":null}]}"#,
        ),
        (
            arrived(Arrival::ActivityCompleted(operations::ActivityCompleted {
                id: 3,
                attempt: 1,
                result: json("null"),
            })),
            r#""activity_completed","run":RUN,"activity_id":"3","attempt":1,"result":null"#,
        ),
        (
            arrived(Arrival::ActivityFailed(operations::ActivityFailed {
                id: 3,
                attempt: 1,
                failure: failure(),
                retry_state: RetryState::Timeout,
            })),
            r#""activity_failed","run":RUN,"activity_id":"3","attempt":1,"failure":FAILED,"retry_state":"timeout""#,
        ),
        (
            arrived(Arrival::AttemptLost(operations::WorkerGone {
                id: 3,
                attempt: 1,
                timeout: TimeoutKind::Heartbeat,
                last_heartbeat: Some(json("null")),
            })),
            r#""attempt_lost","run":RUN,"activity_id":"3","attempt":1,"timeout":"heartbeat","last_heartbeat":null"#,
        ),
        (
            arrived(Arrival::AttemptLost(operations::WorkerGone {
                id: 3,
                attempt: 1,
                timeout: TimeoutKind::StartToClose,
                last_heartbeat: None,
            })),
            r#""attempt_lost","run":RUN,"activity_id":"3","attempt":1,"timeout":"start_to_close""#,
        ),
        (
            arrived(Arrival::NeverTaken(operations::NeverTaken { id: 3 })),
            r#""never_taken","run":RUN,"activity_id":"3""#,
        ),
        (
            arrived(Arrival::LocalCompleted(operations::LocalCompleted { id: 3, attempt: 1, result: json("1") })),
            r#""local_completed","run":RUN,"activity_id":"3","attempt":1,"result":1"#,
        ),
        (
            arrived(Arrival::LocalFailed(operations::LocalFailed {
                id: 3,
                attempt: 1,
                failure: failure(),
                retry_state: RetryState::CancelRequested,
            })),
            r#""local_failed","run":RUN,"activity_id":"3","attempt":1,"failure":FAILED,"retry_state":"cancel_requested""#,
        ),
        (
            arrived(Arrival::LocalBackoff(operations::LocalBackoff {
                id: 3,
                attempt: 1,
                failure: failure(),
                retry_at: Timestamp::from_millis(9),
            })),
            r#""local_backoff","run":RUN,"activity_id":"3","attempt":1,"failure":FAILED,"retry_at_ms":9"#,
        ),
        (arrived(Arrival::Join(operations::Joined { request_id: "r".into() })), r#""join","run":RUN,"request_id":"r""#),
        (arrived(Arrival::Alarm), r#""alarm_rang","run":RUN"#),
        (
            Message::Alarm(Alarm { run: run.clone(), run_id, due: Timestamp::from_millis(9) }),
            r#""alarm","run":RUN,"due_ms":9"#,
        ),
        (
            Message::Deferred(Deferred {
                task_queue: "q".into(),
                due: Timestamp::from_millis(9),
                body: "{\"v\":  1}".into(),
            }),
            r#""deferred","task_queue":"q","due_ms":9,"body":{"v":  1}"#,
        ),
        (Message::Stored(Stored::of("x")), r#""stored","key":"KEY","bytes":1"#),
    ];
    let bare = RUN.replace(r#","run_id":"0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77""#, "");
    for (message, expected) in cases {
        let expected = format!(r#"{{"v":1,"kind":{expected}}}"#);
        let expected = expected.replace("BARE", &bare).replace("RUN", RUN).replace("FAILED", failed);
        let expected = expected.replace("KEY", &Stored::of("x").key);
        assert_eq!(encode(&message).unwrap(), expected);
        assert_eq!(decode(&expected).unwrap(), message);
    }
}

#[test]
fn outcomes_as_workers_of_other_languages_write_them() {
    let completed =
        r#"{"kind": "activity_completed", "v": 1, "run": RUN, "activity_id": 3, "attempt": 1, "result": RESULT}"#;
    for result in
        ["null", "{\"b\":[1.50, 2]}", "\"\\ud800\"", &("[".repeat(MAX_PAYLOAD_DEPTH) + &"]".repeat(MAX_PAYLOAD_DEPTH))]
    {
        let expected =
            Arrival::ActivityCompleted(operations::ActivityCompleted { id: 3, attempt: 1, result: json(result) });
        assert_eq!(arrival(&completed.replace("RESULT", result)), expected);
    }
    let short =
        r#"{"v":1,"kind":"activity_failed","run":RUN,"activity_id":"3","attempt":2,"failure":{"message":"no"}}"#;
    let Arrival::ActivityFailed(operations::ActivityFailed { failure, retry_state, .. }) = arrival(short) else {
        panic!()
    };
    assert_eq!(retry_state, RetryState::NonRetryableFailure);
    assert_eq!(failure, Failure { place: None, ..Failure::application("no") });
    let long = r#"{"v":1,"kind":"activity_failed","run":RUN,"activity_id":"3","attempt":2,"failure":{"message":"no",
        "type":"CardDeclined","non_retryable":true,"details":{"z": 1,"a" :2.50},"cause":{"message":"why","details":null}},
        "retry_state":"maximum_attempts_reached"}"#;
    let Arrival::ActivityFailed(operations::ActivityFailed { failure, retry_state, .. }) = arrival(long) else {
        panic!()
    };
    assert_eq!((retry_state, failure.type_name()), (RetryState::MaximumAttemptsReached, Some("CardDeclined")));
    let details = |failure: &Failure| match &failure.kind {
        FailureKind::Application { details, .. } => details.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(details(&failure), Some(json(r#"{"z": 1,"a" :2.50}"#)));
    assert_eq!(details(failure.cause.as_ref().unwrap()), Some(Payload::NULL));
}

/// The shape of failures is the one that the rest of the house writes.
#[test]
fn failures_look_like_everywhere_else() {
    let cause = Failure::timeout(TimeoutKind::Heartbeat, Some(json("7")));
    let failure = Failure::activity("charge", 3, 5, RetryState::MaximumAttemptsReached, cause.clone());
    let application = Failure::application("x").with_type("T").with_details(&[1]).caused_by(failure.clone());
    for failure in [cause, failure, application, Failure::terminated("because"), dormouse_core::Canceled.into()] {
        let arrival = Arrival::ActivityFailed(operations::ActivityFailed {
            id: 1,
            attempt: 1,
            failure,
            retry_state: RetryState::Timeout,
        });
        let body = encode(&arrived(arrival.clone())).unwrap();
        let Arrival::ActivityFailed(operations::ActivityFailed { failure, .. }) = &arrival else { panic!() };
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["failure"], serde_json::to_value(failure).unwrap());
        assert_eq!(decode(&body).unwrap(), arrived(arrival));
    }
}

#[test]
fn endless_chains_of_causes_are_told_in_one_sentence() {
    let mut failure = Failure::application("0");
    for n in 1..1_000 {
        let cause = Some(Box::new(failure));
        failure = Failure { cause, ..Failure::application(n.to_string()) };
    }
    let arrival = Arrival::ActivityFailed(operations::ActivityFailed {
        id: 1,
        attempt: 1,
        failure,
        retry_state: RetryState::Timeout,
    });
    let Ok(Message::Run(RunMessage::Arrived { arrival, .. })) = decode(&encode(&arrived(arrival)).unwrap()) else {
        panic!()
    };
    let Arrival::ActivityFailed(operations::ActivityFailed { failure, .. }) = arrival else { panic!() };
    assert!(failure.cause.is_none() && failure.message.starts_with("999: 998: ") && failure.message.ends_with(": 0"));
}

#[test]
fn what_is_not_known_is_not_guessed() {
    use WireError::{Kind, Malformed, Version};
    type Expected = fn(&WireError) -> bool;
    let cases: &[(&str, Expected)] = &[
        (r#"{"v":2,"kind":"sweep","run":5}"#, |e| *e == Version(2)),
        (r#"{"v":2,"kind":"what"}"#, |e| *e == Version(2)),
        (r#"{"v":1,"kind":"what","run":5}"#, |e| *e == Kind("what".into())),
        (r#"{"v":1,"kind":"ACTIVITY_TASK"}"#, |e| matches!(e, Kind(_))),
        (r#"{"v":"1","kind":"sweep"}"#, |e| matches!(e, Malformed(_))),
        (r#"{"kind":"sweep"}"#, |e| matches!(e, Malformed(_))),
        (r#"{"v":1,"kind":"sweep"}"#, |e| matches!(e, Malformed(_))),
        (r#"{"v":1,"kind":"alarm_rang","run":{"namespace":"n","workflow_id":"w","ordinal":0}}"#, |e| {
            *e == Malformed("\"alarm_rang\" without \"run.run_id\"".into())
        }),
        (r#"{"v":1,"kind":"sweep","run":{"namespace":"","workflow_id":"w","ordinal":0}}"#, |e| {
            matches!(e, Malformed(_))
        }),
        (r#"{"v":1,"kind":"sweep","run":{"namespace":"n","workflow_id":"a\u0000b","ordinal":0}}"#, |e| {
            matches!(e, Malformed(_))
        }),
        (r#"{"v":1,"kind":"sweep","run":{"namespace":"n","workflow_id":"w","ordinal":-1}}"#, |e| {
            matches!(e, Malformed(_))
        }),
        (r#"{"v":1,"kind":"stored","key":"run/other/history","bytes":1}"#, |e| matches!(e, Malformed(_))),
        (r#"{"v":1,"kind":"stored","key":"messages/../run/00000000000000000000","bytes":1}"#, |e| {
            matches!(e, Malformed(_))
        }),
        (
            r#"{"v":1,"kind":"take","run":{"namespace":"n","workflow_id":"w","ordinal":0},"pinned":true,"arrival":{"kind":"sweep"}}"#,
            |e| *e == Kind("sweep".into()),
        ),
        ("null", |e| matches!(e, Malformed(_))),
        ("", |e| matches!(e, Malformed(_))),
        ("\u{feff}{}", |e| matches!(e, Malformed(_))),
    ];
    for (body, expected) in cases {
        let error = decode(body).unwrap_err();
        assert!(expected(&error), "{body}: {error:?}");
    }
}

#[test]
fn nesting_is_no_way_in() {
    for (open, close) in [
        (r#"{"v":1,"kind":"take","arrival":"#, "}"),
        (r#"{"message":"m","cause":"#, "}"),
        ("[", "]"),
        (r#"{"v":1,"kind":"deferred","task_queue":"q","due_ms":1,"body":"#, "}"),
    ] {
        let nested = open.repeat(20_000) + "1" + &close.repeat(20_000);
        let failed = format!(
            r#"{{"v":1,"kind":"activity_failed","run":{RUN},"activity_id":"1","attempt":1,"failure":{nested}}}"#
        );
        assert!(decode(&failed).is_err());
        // A body within a body is text to us.
        assert_eq!(decode(&nested).is_ok(), open.contains("deferred"), "{open}");
    }
}

/// Workers in other languages may not know how deep values may be; what was taken in can be shown.
#[test]
fn a_result_that_is_nested_too_deeply_fails_its_activity() {
    let completed = |depth: usize| {
        let result = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        arrival(&format!(
            r#"{{"v":1,"kind":"activity_completed","run":RUN,"activity_id":"3","attempt":1,"result":{result}}}"#
        ))
    };
    assert!(matches!(completed(MAX_PAYLOAD_DEPTH), Arrival::ActivityCompleted(_)));
    let Arrival::ActivityFailed(failed) = completed(MAX_PAYLOAD_DEPTH + 1) else { panic!("it was taken in") };
    assert_eq!(failed.failure.type_name(), Some("PayloadTooDeep"));
    assert_eq!(failed.retry_state, RetryState::NonRetryableFailure);
}

#[test]
fn groups_are_the_same_in_every_build() {
    let group = |namespace, id| group(&WorkflowKey::new(namespace, id).unwrap());
    assert_eq!(group("default", "order-1"), "199833d958b78baa734e995e0da5d2b4");
    assert_ne!(group("a", "bc"), group("ab", "c"));
}

fn arrived(arrival: Arrival) -> Message {
    let run = WorkflowKey::new("default", "w").unwrap().run(0);
    Message::Run(RunMessage::Arrived { run, run_id: RunId::from_bytes([7; 16]), arrival })
}

fn id_text() -> impl Strategy<Value = String> {
    let hostile = prop_oneof![
        Just("../../etc/passwd".to_owned()),
        Just("<aws.scheduler.execution-id>".to_owned()),
        Just("\u{fffe}\u{ffff}\u{202e}\"\\{}\u{1F980}".to_owned()),
        Just("a#b/c:d%00\u{200b}".to_owned()),
    ];
    prop_oneof![
        hostile,
        any::<String>().prop_map(|text| {
            let mut text: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
            if text.is_empty() {
                text.push('x');
            }
            text
        })
    ]
}

fn payloads() -> impl Strategy<Value = Payload> {
    let odd = prop_oneof![
        Just("null".to_owned()),
        Just("{\"b\": 1,\n\t\"a\":1.0, \"b\":2}".to_owned()),
        Just("123456789012345678901234567890.10e-7".to_owned()),
        Just("\"\\u0041\\ud83e\\udd80 \u{fffe} \u{7f} <aws.scheduler.execution-id>\"".to_owned()),
        Just("[".repeat(MAX_PAYLOAD_DEPTH) + &"]".repeat(MAX_PAYLOAD_DEPTH)),
    ];
    prop_oneof![odd.prop_map(|text| json(&text)), any::<String>().prop_map(|text| Payload::encode(&text).unwrap())]
}

fn failures() -> impl Strategy<Value = Failure> {
    let kind = prop_oneof![
        (option::of(any::<String>()), any::<bool>(), option::of(payloads()), option::of(any::<u64>())).prop_map(
            |(name, non_retryable, details, next_retry_delay_ms)| FailureKind::Application {
                r#type: name.map(String::into_boxed_str),
                non_retryable,
                details,
                next_retry_delay_ms,
            }
        ),
        (timeouts(), option::of(payloads()))
            .prop_map(|(timeout, last_heartbeat)| FailureKind::Timeout { timeout, last_heartbeat }),
        Just(FailureKind::Canceled {}),
        Just(FailureKind::Terminated {}),
        (any::<String>(), any::<u64>(), any::<u32>(), retry_states()).prop_map(
            |(activity_type, activity_id, attempt, retry_state)| FailureKind::Activity {
                activity_type,
                activity_id,
                attempt,
                retry_state,
            }
        ),
    ];
    let one = (any::<String>(), kind, option::of(any::<String>())).prop_map(|(message, kind, place)| Failure {
        message,
        kind,
        place: place.map(String::into_boxed_str),
        cause: None,
    });
    vec(one, 1..5).prop_map(|chain| {
        let link = |cause: Option<Box<Failure>>, failure: Failure| Some(Box::new(Failure { cause, ..failure }));
        *chain.into_iter().fold(None, link).unwrap()
    })
}

fn timeouts() -> impl Strategy<Value = TimeoutKind> {
    use TimeoutKind::*;
    prop_oneof![Just(StartToClose), Just(ScheduleToClose), Just(ScheduleToStart), Just(Heartbeat)]
}

fn retry_states() -> impl Strategy<Value = RetryState> {
    use RetryState::*;
    prop_oneof![Just(NonRetryableFailure), Just(MaximumAttemptsReached), Just(Timeout), Just(CancelRequested)]
}

fn arrivals() -> impl Strategy<Value = Arrival> {
    let (text, id, attempt) = (any::<String>, any::<u64>, any::<u32>);
    let carried = vec((text(), payloads()), 0..3);
    let next =
        (text(), payloads(), option::of(text()), carried).prop_map(|(workflow_type, input, request_id, carried)| {
            let carried = carried.into_iter().map(|(name, payload)| CarriedSignal { name, payload }).collect();
            Box::new(NextRun { call: Call::new(workflow_type, input), request_id, carried })
        });
    prop_oneof![
        (text(), text(), payloads()).prop_map(|(request_id, name, payload)| Arrival::Signal(operations::Signaled {
            request_id,
            name,
            payload
        })),
        (text(), text())
            .prop_map(|(request_id, reason)| Arrival::Cancel(operations::CancelRequested { request_id, reason })),
        (text(), text(), option::of(next)).prop_map(|(request_id, reason, next)| Arrival::Terminate(
            operations::Terminated { request_id, reason, next }
        )),
        (id(), attempt(), payloads()).prop_map(|(id, attempt, result)| Arrival::ActivityCompleted(
            operations::ActivityCompleted { id, attempt, result }
        )),
        (id(), attempt(), failures(), retry_states()).prop_map(|(id, attempt, failure, retry_state)| {
            Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state })
        }),
        (id(), attempt(), timeouts(), option::of(payloads())).prop_map(|(id, attempt, timeout, last_heartbeat)| {
            Arrival::AttemptLost(operations::WorkerGone { id, attempt, timeout, last_heartbeat })
        }),
        id().prop_map(|id| Arrival::NeverTaken(operations::NeverTaken { id })),
        (id(), attempt(), payloads()).prop_map(|(id, attempt, result)| Arrival::LocalCompleted(
            operations::LocalCompleted { id, attempt, result }
        )),
        (id(), attempt(), failures(), retry_states()).prop_map(|(id, attempt, failure, retry_state)| {
            Arrival::LocalFailed(operations::LocalFailed { id, attempt, failure, retry_state })
        }),
        (id(), attempt(), failures(), any::<u64>()).prop_map(|(id, attempt, failure, at)| {
            Arrival::LocalBackoff(operations::LocalBackoff {
                id,
                attempt,
                failure,
                retry_at: Timestamp::from_millis(at),
            })
        }),
        text().prop_map(|request_id| Arrival::Join(operations::Joined { request_id })),
        Just(Arrival::Alarm),
    ]
}

fn runs() -> impl Strategy<Value = RunKey> {
    (id_text(), id_text(), any::<u64>())
        .prop_map(|(namespace, id, ordinal)| WorkflowKey::new(&namespace, &id).unwrap().run(ordinal))
}

fn run_ids() -> impl Strategy<Value = RunId> {
    any::<[u8; 16]>().prop_map(RunId::from_bytes)
}

fn tasks() -> impl Strategy<Value = Task> {
    let ms = || option::of(any::<u64>());
    let retry =
        (any::<(u64, u64, u32)>(), vec(any::<String>(), 0..3), 1.0..9.0).prop_map(|(n, types, growth)| RecordedRetry {
            initial_interval_ms: n.0,
            backoff_coefficient: f64::from(growth as f32),
            maximum_interval_ms: n.1,
            maximum_attempts: n.2,
            non_retryable_types: types,
        });
    let options = (ms(), ms(), ms(), ms(), retry, option::of(any::<String>())).prop_map(
        |(start_to_close_ms, schedule_to_close_ms, schedule_to_start_ms, heartbeat_ms, retry, task_queue)| {
            RecordedOptions {
                start_to_close_ms,
                schedule_to_close_ms,
                schedule_to_start_ms,
                heartbeat_ms,
                retry,
                task_queue,
            }
        },
    );
    let times = any::<(u64, u64, u64, u32, u64)>();
    (runs(), run_ids(), any::<String>(), payloads(), options, times).prop_map(
        |(run, run_id, activity_type, input, options, (scheduled, before, after, lost, id))| {
            let [scheduled_at, not_before, not_after] = [scheduled, before, after].map(Timestamp::from_millis);
            let task = ActivityTask { run, run_id, id, activity_type, input, options, scheduled_at, lost, not_before };
            Task { task, not_after }
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    let reuse = prop_oneof![
        Just(IdReusePolicy::AllowDuplicate),
        Just(IdReusePolicy::AllowDuplicateFailedOnly),
        Just(IdReusePolicy::RejectDuplicate)
    ];
    let conflict = prop_oneof![
        Just(IdConflictPolicy::Fail),
        Just(IdConflictPolicy::UseExisting),
        Just(IdConflictPolicy::TerminateExisting)
    ];
    let start = (any::<String>(), payloads(), any::<String>(), reuse, conflict).prop_map(
        |(workflow_type, input, request_id, reuse, conflict)| {
            Wish::Start(StartRequest { call: Call::new(workflow_type, input), request_id, reuse, conflict })
        },
    );
    let take = (arrivals(), any::<bool>()).prop_map(|(arrival, pinned)| Wish::Take { arrival, pinned });
    prop_oneof![
        (runs(), prop_oneof![start, take])
            .prop_map(|(run, wish)| Message::Run(RunMessage::Intent(Intent { run, wish }))),
        (runs(), run_ids(), arrivals()).prop_map(|(run, run_id, arrival)| Message::Run(RunMessage::Arrived {
            run,
            run_id,
            arrival
        })),
        (runs(), any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(run, sequence, record)| {
            Message::Run(RunMessage::Accepted { run, sequence, record: record.into() })
        }),
        runs().prop_map(|run| Message::Run(RunMessage::Sweep { run })),
        tasks().prop_map(Message::Task),
        (runs(), run_ids(), any::<u64>()).prop_map(|(run, run_id, due)| Message::Alarm(Alarm {
            run,
            run_id,
            due: Timestamp::from_millis(due)
        })),
        (any::<String>(), any::<u64>(), tasks()).prop_map(|(task_queue, due, task)| {
            let (due, body) = (Timestamp::from_millis(due), encode(&Message::Task(task)).unwrap());
            Message::Deferred(Deferred { task_queue, due, body })
        }),
        any::<String>().prop_map(|body| Message::Stored(Stored::of(&body))),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in messages()) {
        let body = encode(&message).unwrap();
        prop_assert_eq!(decode(&body).unwrap(), message);
    }

    #[test]
    fn fields_of_later_builds_are_passed_over(message in messages(), value in payloads()) {
        let body = encode(&message).unwrap();
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let later = format!(r#"{{"later": {value}, "and \" later": [{value}],{}"#, body.strip_prefix('{').unwrap());
        prop_assert_eq!(decode(&later).unwrap(), message);
    }

    #[test]
    fn garbage_is_an_error(text in any::<String>()) {
        prop_assert!(decode(&text).is_err());
    }

    #[test]
    fn damage_never_panics(message in messages(), at in any::<prop::sample::Index>(), with in any::<char>(), cut in any::<bool>()) {
        let body = encode(&message).unwrap();
        let mut chars: Vec<char> = body.chars().collect();
        let at = at.index(chars.len());
        if cut { chars.truncate(at) } else { chars[at] = with }
        let damaged: String = chars.into_iter().collect();
        // Read as something or refused; what is read can be written again.
        if let Ok(message) = decode(&damaged) {
            let again = encode(&message).unwrap();
            prop_assert_eq!(decode(&again).unwrap(), message);
        }
    }
}
