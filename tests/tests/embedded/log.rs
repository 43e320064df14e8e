//! What is told of runs: in the log, once each; and of panics and failures, with the line of the user's code.

use std::sync::Arc;
use std::time::Duration;

use dormouse_client::RawClient;
use dormouse_core::{
    Activity, App, Failure, FailureKind, LocalActivityOptions, Payload, Query, RetryPolicy, Signal, Status, Workflow,
};
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_http::Server;
use dormouse_tests::log::{lines, listen};
use serde_json::json;

use crate::{start, target};

const SECOND: Duration = Duration::from_secs(1);
const GO: Signal<bool> = Signal::new("go");
const STATUS: Query<u32> = Query::new("status");

fn twice() -> RetryPolicy {
    RetryPolicy::max_attempts(2).initial_interval(Duration::from_millis(1))
}

async fn declines(cx: Activity, _: ()) -> Result<u32, Failure> {
    if cx.attempt() == 1 { Err(Failure::application("declined:\nno money")) } else { Ok(1) }
}

async fn both(cx: Workflow, again: bool) -> Result<u32, Failure> {
    cx.activity(declines, &()).start_to_close(SECOND).retry(twice()).await?;
    cx.local_activity(declines, &()).options(LocalActivityOptions::start_to_close(SECOND).retry(twice())).await?;
    if again { cx.continue_as_new(both, &false) } else { Ok(1) }
}

async fn embedded(app: App) -> (Embedded, tempfile::TempDir) {
    listen();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    (Embedded::open(Arc::new(app), store, Settings::default()).await.unwrap(), dir)
}

fn count(lines: &[String], parts: &[&str]) -> usize {
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failing_attempt_and_each_start_and_close_is_a_line() {
    let app = || App::new().workflow("both", both).activity("declines", declines);
    let (engine, dir) = embedded(app()).await;
    let front = engine.front();
    front.start(None, start("both", "log-both", json!(true))).await.unwrap();
    // The second run, which the first continues as.
    while front.describe(&target("log-both")).await.unwrap().ordinal == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let result = front.result(&target("log-both"), Duration::from_secs(20)).await.unwrap();
    assert_eq!(result.status, Status::Completed, "{result:?}");
    drop(front);
    engine.shutdown(SECOND).await;
    // What is picked up or swept again tells nothing again.
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    Embedded::open(Arc::new(app()), store, Settings::default()).await.unwrap().shutdown(SECOND).await;

    let lines = lines("log-both");
    for run in ["log-both#0", "log-both#1"] {
        assert_eq!(count(&lines, &[run, "INFO", "a run has started", "workflow_type=\"both\"", "run_id="]), 1);
        let failed = ["WARN", run, "activity_type=\"declines\"", "attempt=1", "declined: no money", "next_attempt_at="];
        assert_eq!(count(&lines, &failed), 2, "queued and local: {lines:#?}");
    }
    assert_eq!(count(&lines, &["log-both#0", "a run has closed", "status=ContinuedAsNew"]), 1, "{lines:#?}");
    assert_eq!(count(&lines, &["log-both#1", "a run has closed", "status=Completed"]), 1, "{lines:#?}");
    assert_eq!(lines.len(), 8, "nothing of what went well: {lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_that_fails_for_good_and_a_terminated_run_are_lines() {
    async fn refuses(_: Activity, _: ()) -> Result<(), Failure> {
        Err(Failure::application("never").non_retryable())
    }
    async fn refused(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.activity(refuses, &()).start_to_close(SECOND).await
    }
    async fn waits(cx: Workflow, _: ()) -> Result<bool, Failure> {
        Ok(cx.signal(GO).await?)
    }
    let (engine, _dir) =
        embedded(App::new().workflow("refused", refused).workflow("waits", waits).activity("refuses", refuses)).await;
    let front = engine.front();
    front.start(None, start("refused", "log-refused", json!(null))).await.unwrap();
    front.result(&target("log-refused"), Duration::from_secs(20)).await.unwrap();
    front.start(None, start("waits", "log-ended", json!(null))).await.unwrap();
    front.terminate(&target("log-ended"), Some("t"), "enough\nof it").await.unwrap();
    front.terminate(&target("log-ended"), Some("t"), "enough\nof it").await.unwrap();
    engine.shutdown(SECOND).await;

    let refused = lines("log-refused");
    assert_eq!(
        count(&refused, &["WARN", "attempt=1", "never", "place=", "log.rs:", "no further one"]),
        1,
        "{refused:#?}"
    );
    assert_eq!(count(&refused, &["INFO", "a run has closed", "status=Failed", "activity refuses failed"]), 1);
    let ended = lines("log-ended");
    assert_eq!(count(&ended, &["a run has closed", "status=Terminated", "enough of it"]), 1, "{ended:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_writes_is_a_line_with_its_workflow() {
    async fn waits(cx: Workflow, _: ()) -> Result<bool, Failure> {
        Ok(cx.signal(GO).await?)
    }
    listen();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let app = Arc::new(App::new().workflow("waits", waits));
    let server = Server::start(app, store, Settings::default(), "127.0.0.1:0").await.unwrap();
    let client = RawClient::new(&server.url()).unwrap();
    client.start(&start("waits", "log/request", json!(null)), None).await.unwrap();
    let handle = client.workflow("log/request", None);
    handle.describe().await.unwrap();
    handle.signal("go", &Payload::from(json!(true)), None).await.unwrap();
    server.stop(SECOND).await;

    let requests: Vec<_> = lines("answered").into_iter().filter(|line| line.contains("log/request")).collect();
    assert_eq!(count(&requests, &["INFO", "method=POST", "workflow=\"log/request\"", "status=20"]), 2, "{requests:#?}");
    assert_eq!(requests.len(), 2, "looks are no news: {requests:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_does_not_fit_is_a_line_however_often_its_run_is_replayed() {
    async fn waits(cx: Workflow, _: ()) -> Result<bool, Failure> {
        Ok(cx.signal(GO).await?)
    }
    listen();
    let dir = tempfile::tempdir().unwrap();
    let open = || async {
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        Embedded::open(Arc::new(App::new().workflow("waits", waits)), store, Settings::default()).await.unwrap()
    };
    for round in 0..3 {
        let engine = open().await;
        let front = engine.front();
        if round == 0 {
            front.start(None, start("waits", "log-misfit", json!(null))).await.unwrap();
        }
        // The first does not fit; the others have no name that anybody reads, and bring the run into memory.
        let name = if round == 0 { "go" } else { "noise" };
        front.signal(&target("log-misfit"), None, name, Payload::from(json!(7))).await.unwrap();
        // Asked when all of it is decided.
        let _ = front.query(&target("log-misfit"), "none", Payload::NULL).await;
        drop(front);
        engine.shutdown(SECOND).await;
    }
    let told = lines("log-misfit");
    let misfits = count(&told, &["WARN", "signal=\"go\"", "expected a boolean", "embedded/log.rs:"]);
    assert_eq!(misfits, 1, "{told:#?}");
}

async fn doubles(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(2 * n)
}

async fn before(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let doubled = cx.activity(doubles, &n).start_to_close(SECOND).start();
    cx.signal(GO).await?;
    doubled.await
}

async fn after(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let doubled = cx.activity(doubles, &(n + 1)).start_to_close(SECOND).start();
    cx.signal(GO).await?;
    cx.sleep(60 * SECOND).await?;
    doubled.await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_arguments_are_described_and_park_a_strict_workflow() {
    listen();
    let dir = tempfile::tempdir().unwrap();
    let open = |app: App| async {
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        Embedded::open(Arc::new(app.activity("doubles", doubles)), store, Settings::default()).await.unwrap()
    };
    let engine = open(App::new().workflow("doubling", before)).await;
    engine.front().start(None, start("doubling", "log-changed", json!(1))).await.unwrap();
    // Asked when the first turn is decided.
    let _ = engine.front().query(&target("log-changed"), "none", Payload::NULL).await;
    assert_eq!(engine.front().describe(&target("log-changed")).await.unwrap().changed_arguments, None);
    engine.shutdown(SECOND).await;

    let strict = open(App::new().workflow("doubling", after).strict()).await;
    strict.front().signal(&target("log-changed"), None, "noise", Payload::NULL).await.unwrap();
    let reason = loop {
        match strict.front().describe(&target("log-changed")).await.unwrap().run.parked {
            Some(parked) => break parked.reason,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(reason.contains("no longer matches") && reason.matches("embedded/log.rs:").count() == 2, "{reason}");
    assert!(reason.contains("input: recorded 1, attempted 2"), "{reason}");
    strict.shutdown(SECOND).await;

    let engine = open(App::new().workflow("doubling", after)).await;
    engine.front().signal(&target("log-changed"), None, "go", Payload::from(json!(true))).await.unwrap();
    let changed = loop {
        match engine.front().describe(&target("log-changed")).await.unwrap().changed_arguments {
            Some(changed) => break changed,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(changed.commands, 1);
    assert!(changed.first.contains("input: recorded 1, attempted 2"), "{changed:?}");
    engine.shutdown(SECOND).await;
    let told = lines("log-changed");
    assert_eq!(count(&told, &["WARN", "repeated with other arguments", "recorded 1, attempted 2"]), 1, "{told:#?}");
}

const PANIC: u32 = line!() + 3;
async fn panics(_: Activity, _: ()) -> Result<u32, Failure> {
    let none: Vec<u32> = Vec::new();
    Ok(none[3])
}

const BLOCKING: u32 = line!() + 3;
fn panics_blocking(_: Activity, _: ()) -> Result<u32, Failure> {
    let text = "many";
    Ok(text.parse().expect("a number"))
}

async fn panicking(cx: Workflow, how: String) -> Result<u32, Failure> {
    let once = RetryPolicy::max_attempts(1);
    match how.as_str() {
        "queued" => cx.activity(panics, &()).start_to_close(SECOND).retry(once).await,
        "blocking" => cx.activity(panics_blocking, &()).start_to_close(SECOND).retry(once).await,
        "local" => {
            let twice = LocalActivityOptions::start_to_close(SECOND).retry(twice());
            cx.local_activity(panics, &()).options(twice).await
        }
        _ => {
            let _status = cx.publish(STATUS, 1);
            cx.wait_until(|| how.len() > 99 || panics_now()).await?;
            Ok(0)
        }
    }
}

const PREDICATE: u32 = line!() + 2;
fn panics_now() -> bool {
    panic!("look here")
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_are_told_with_the_line_of_the_users_code() {
    let app = App::new()
        .workflow("panicking", panicking)
        .activity("panics", panics)
        .blocking_activity("panicsBlocking", panics_blocking);
    let (engine, _dir) = embedded(app).await;
    let front = engine.front();
    for (how, line) in [("queued", PANIC), ("blocking", BLOCKING), ("local", PANIC)] {
        let id = format!("log-panic-{how}");
        front.start(None, start("panicking", &id, json!(how))).await.unwrap();
        let failure = front.result(&target(&id), Duration::from_secs(20)).await.unwrap().failure.unwrap();
        assert!(matches!(failure.kind, FailureKind::Activity { .. }), "{failure:?}");
        assert!(failure.place.as_deref().unwrap().contains("embedded/log.rs:"), "where it was called: {failure:?}");
        let cause = failure.cause.unwrap();
        assert_eq!(cause.type_name(), Some("Panic"), "{cause:?}");
        let place = format!("embedded/log.rs:{line}:");
        assert!(cause.place.as_deref().unwrap().contains(&place), "{how}: {cause:?}");
        assert!(count(&lines(&id), &["WARN", &place, "panicked"]) > 0, "{how}: {:#?}", lines(&id));
    }
    front.start(None, start("panicking", "log-panic-turn", json!("predicate"))).await.unwrap();
    let parked = loop {
        match front.describe(&target("log-panic-turn")).await.unwrap().run.parked {
            Some(parked) => break parked,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(parked.reason.contains(&format!("look here, at tests/tests/embedded/log.rs:{PREDICATE}:")), "{parked:?}");
    engine.shutdown(SECOND).await;
}
