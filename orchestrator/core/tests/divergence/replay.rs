//! The replay gate: what is said of a history and today's code, nothing being decided or written.

use std::sync::Arc;

use crate::common::{GO, MINUTE, NUMBER, World, app, completed, double, halve, json, run_key, signal};
use dormouse_core::history::{HistoryFile, InvalidHistoryFile};
use dormouse_core::{
    Activity, App, Failure, Query, Replay, ReplayVerdict, Replayed, Status, StoredKind, TurnFailure, Workflow,
    WorkflowFunction,
};
use serde::{Deserialize, Serialize};

const STATUS: Query<String> = Query::new("status");

async fn doubling(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let status = cx.publish(STATUS, "begun".to_owned());
    let doubled = cx.activity(double, &n).options(MINUTE).await?;
    status.set("doubled".to_owned());
    cx.signal(GO).await?;
    Ok(doubled)
}

/// The same workflow with one more of its activities.
async fn halving(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let status = cx.publish(STATUS, "begun".to_owned());
    let doubled = cx.activity(halve, &n).options(MINUTE).await?;
    status.set("doubled".to_owned());
    cx.signal(GO).await?;
    Ok(doubled)
}

fn log(arrivals: &[dormouse_core::Arrival]) -> Vec<bytes::Bytes> {
    let mut world = World::run(doubling, &21);
    arrivals.iter().for_each(|arrival| drop(world.arrive(arrival.clone())));
    world.log
}

fn replay(app: App, log: &[bytes::Bytes]) -> Replayed {
    app.check().unwrap();
    Replay::whole(&Arc::new(app), &run_key(0), log)
}

fn on<A, F: WorkflowFunction<A>>(workflow: F, log: &[bytes::Bytes]) -> Replayed {
    replay(app(workflow), log)
}

#[test]
fn unchanged_code_fits_at_every_point() {
    let log = log(&[completed(1, "42"), signal("1", "go", "true")]);
    for end in 1..=log.len() {
        let replayed = on(doubling, &log[..end]);
        replayed.assert_fits();
        let closed = end == log.len();
        assert_eq!(replayed.status, Some(if closed { Status::Completed } else { Status::Running }));
        assert_eq!(replayed.workflow_type.as_deref(), Some("test"));
    }
    assert_eq!(on(doubling, &log).events, 7);
}

#[test]
fn a_divergence_is_told_with_both_places() {
    let replayed = on(halving, &log(&[completed(1, "42")]));
    assert_eq!(replayed.verdict(), ReplayVerdict::Diverges);
    let text = replayed.to_string();
    assert!(text.starts_with("test \"w\", run 0: diverges\n"), "{text}");
    for part in ["recorded:  activity \"double\" (id 1) at ", "attempted: activity \"halve\" (id 1) at ", "replay.rs:"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(matches!(replayed.failure, Some(TurnFailure::Diverged { turn: 1, .. })));
}

#[test]
fn panics_and_unknown_workflows_and_damage_have_words_of_their_own() {
    let log = log(&[completed(1, "42")]);
    async fn panicking(cx: Workflow, n: u32) -> Result<u32, Failure> {
        let _status = cx.publish(STATUS, "begun".to_owned());
        let doubled = cx.activity(double, &n).options(MINUTE).await?;
        panic!("no {doubled}")
    }
    let panicked = on(panicking, &log);
    assert_eq!(panicked.verdict(), ReplayVerdict::Panics);
    assert!(panicked.to_string().contains("no 42"), "{panicked}");
    async fn foreign(_: Workflow, _: u32) -> Result<u32, Failure> {
        std::future::pending().await
    }
    // It asks for nothing where something is recorded: that comes first.
    assert_eq!(on(foreign, &log).verdict(), ReplayVerdict::ForeignFuture);
    assert_eq!(replay(App::new(), &log).verdict(), ReplayVerdict::UnknownWorkflow);
    assert_eq!(replay(App::new(), &log[..1]).verdict(), ReplayVerdict::UnknownWorkflow, "before the first turn too");
    let mut damaged = log.clone();
    let mut bytes = damaged[1].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged[1] = bytes.into();
    assert_eq!(on(doubling, &damaged).verdict(), ReplayVerdict::Damaged);
    let nothing = on(doubling, &[]);
    assert_eq!((nothing.verdict(), nothing.run_id), (ReplayVerdict::Damaged, None));
}

/// Today's argument has a field more than the recorded one.
#[test]
fn other_arguments_are_counted_and_fail_where_that_is_strict() {
    async fn other(cx: Workflow, n: u32) -> Result<u32, Failure> {
        let _status = cx.publish(STATUS, "begun".to_owned());
        cx.activity(double, &(n + 1)).options(MINUTE).await
    }
    let world = World::run(doubling, &21);
    let replayed = on(other, &world.log);
    replayed.assert_fits();
    let changed = replayed.changed.as_ref().unwrap();
    assert_eq!(changed.commands, 1);
    assert!(changed.first.contains("input: recorded 21, attempted 22"), "{changed:?}");
    let strict = replay(app(other).strict(), &world.log);
    assert_eq!(strict.verdict(), ReplayVerdict::Diverges);
    assert!(strict.to_string().contains("differs in input: recorded 21, attempted 22"), "{strict}");
}

#[derive(Debug, Serialize, Deserialize)]
struct Wrapped {
    value: String,
}

fn found(replayed: &Replayed, kind: StoredKind) -> String {
    assert_eq!(replayed.verdict(), ReplayVerdict::DoesNotFit, "{replayed}");
    let found = replayed.misfits.iter().find(|found| found.kind == kind);
    found.unwrap_or_else(|| panic!("{kind:?} in {replayed}")).to_string()
}

#[test]
fn an_input_that_no_longer_fits_is_named_by_its_field() {
    async fn wrapped(_: Workflow, _: Vec<Wrapped>) -> Result<u32, Failure> {
        Ok(1)
    }
    let idle = World::idle(
        app(|_: Workflow, _: serde_json::Value| async { Ok(1) }),
        "test",
        json(r#"[{"value": "x"}, {"value": 7}]"#),
    );
    let said = found(&on(wrapped, &idle.log), StoredKind::Input);
    assert!(said.contains("input of workflow type \"test\" does not fit today's type at /1/value"), "{said}");
}

#[test]
fn a_result_that_no_longer_fits_is_named_read_or_not() {
    async fn wrap(_: Activity, n: u32) -> Result<Wrapped, Failure> {
        Ok(Wrapped { value: n.to_string() })
    }
    async fn wrapping(cx: Workflow, n: u32) -> Result<u32, Failure> {
        let status = cx.publish(STATUS, "begun".to_owned());
        // The failure is swallowed: no command tells of it.
        let _ = cx.activity(wrap, &n).options(MINUTE).await;
        status.set("doubled".to_owned());
        cx.signal(GO).await?;
        Ok(0)
    }
    let today = || App::new().workflow("test", wrapping).activity("double", wrap);
    let said = found(&replay(today(), &log(&[completed(1, "42")])), StoredKind::Result);
    assert!(said.contains("result of activity \"double\"") && said.contains("replay.rs:"), "{said}");
    // Taken in, and no turn has seen it.
    let mut world = World::run(doubling, &21);
    world.elsewhere([completed(1, r#"{"value": 7}"#)]);
    let said = found(&replay(today(), &world.log), StoredKind::Result);
    assert!(said.contains("at /value") && !said.contains("replay.rs"), "{said}");
}

#[test]
fn a_result_that_waits_to_be_read_is_looked_at() {
    async fn patient<O: Serialize + serde::de::DeserializeOwned + 'static>(
        cx: Workflow,
        activity: impl dormouse_core::ActivityFunction<(u32,), Input = u32, Output = O>,
    ) -> Result<u32, Failure> {
        let call = cx.activity(activity, &1).options(MINUTE).start();
        cx.signal(GO).await?;
        call.await.map(|_| 1)
    }
    async fn wrap(_: Activity, n: u32) -> Result<Wrapped, Failure> {
        Ok(Wrapped { value: n.to_string() })
    }
    let mut world = World::run(|cx: Workflow, _: ()| patient(cx, double), &());
    world.arrive(completed(1, "2"));
    let today = App::new().workflow("test", |cx: Workflow, _: ()| patient(cx, wrap)).activity("double", wrap);
    found(&replay(today, &world.log), StoredKind::Result);
}

#[test]
fn signals_that_no_longer_fit_are_named_where_they_are_declared() {
    let unread = log(&[completed(1, "42"), signal("1", "number", "\"many\"")]);
    on(doubling, &unread).assert_fits();
    let said = found(&replay(app(doubling).signal(NUMBER), &unread), StoredKind::Signal);
    assert!(said.contains("signal \"number\" does not fit today's type: invalid type: string"), "{said}");
    // Passed over when it came, passed over now: nobody declares what it is.
    let passed = log(&[completed(1, "42"), signal("1", "go", "7")]);
    let replayed = on(doubling, &passed);
    replayed.assert_fits();
    assert_eq!((replayed.misfits.len(), replayed.misfits[0].declared), (1, false));
    found(&replay(app(doubling).signal(GO), &passed), StoredKind::Signal);
    found(&replay(app(doubling).strict(), &passed), StoredKind::Signal);
    let mut waiting = World::run(doubling, &21);
    waiting.elsewhere([signal("1", "number", "\"many\"")]);
    found(&replay(app(doubling).signal(NUMBER), &waiting.log), StoredKind::Signal);
}

#[test]
fn what_was_published_is_still_read() {
    let log = log(&[]);
    replay(app(doubling).query(STATUS), &log).assert_fits();
    let said = found(&replay(app(doubling).query(Query::<Wrapped>::new("status")), &log), StoredKind::Published);
    assert!(said.contains("query \"status\" does not fit today's type: "), "{said}");
}

#[test]
fn a_history_is_a_file() {
    let records = log(&[completed(1, "42"), signal("1", "number", "1.50"), signal("2", "go", "true")]);
    let file = HistoryFile { run: run_key(0), records };
    let text = file.to_json();
    assert_eq!(HistoryFile::from_json(text.as_bytes()).unwrap(), file);
    for part in ["\"dormouse_history\": 1", "\"workflow_type\": \"test\"", "\"payload\": 1.50", "\"SignalReceived\""] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let refused = |text: &str| HistoryFile::from_json(text.as_bytes()).unwrap_err();
    assert!(matches!(refused(&text.replace("history\": 1", "history\": 2")), InvalidHistoryFile::TooNew(2)));
    assert!(matches!(refused(r#"{"events": []}"#), InvalidHistoryFile::EventsAlone));
    assert!(matches!(refused("[]"), InvalidHistoryFile::NotAHistory(_)));
    assert!(refused("{}").to_string().contains("workflow export"));
    let torn = r#"{"dormouse_history":1,"namespace":"d","workflow_id":"w","ordinal":0,"batches":[{"record":"?"}]}"#;
    assert!(refused(torn).to_string().contains("a record is no base64"));
    // One character of a record is noticed, one of an event is not.
    let told = text.replace("\"type\": \"SignalReceived\"", "\"type\": \"Nothing\"");
    let read = HistoryFile::from_json(told.as_bytes()).unwrap();
    Replay::whole(&Arc::new(app(doubling)), &read.run, &read.records).assert_fits();
}
