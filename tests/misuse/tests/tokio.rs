//! Workflow code that reaches for tokio is told what to use instead.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{
    App, CommitId, Failure, LiveRun, Payload, RunId, StartRequest, Timestamp, TurnFailure, Workflow, WorkflowFunction,
    WorkflowKey,
};

fn first_turn<A, F: WorkflowFunction<A>>(workflow: F) -> TurnFailure {
    let app = Arc::new(App::new().workflow("test", workflow));
    let run = WorkflowKey::new("default", "w").unwrap().run(0);
    let request = StartRequest {
        call: dormouse_core::Call::new("test", Payload::NULL),
        request_id: "r".into(),
        reuse: Default::default(),
        conflict: Default::default(),
    };
    let (clock, sweep) = (Timestamp::from_millis(1_000), Duration::from_secs(60));
    let first =
        request.first_batch(&run, RunId::from_bytes([1; 16]), CommitId::from_bytes([0; 16]), clock, None, sweep);
    let mut live = LiveRun::replay(&app, &run, &[first.encode()]).unwrap();
    live.decide(clock).unwrap_err()
}

fn assert_told(failure: &TurnFailure) {
    assert!(matches!(failure, TurnFailure::Panicked { turn: 1, .. }), "{failure:?}");
    assert!(failure.to_string().contains("use cx.sleep for time, and activities for I/O and tasks"), "{failure}");
}

async fn sleeps(cx: Workflow, _: ()) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(cx.sleep(Duration::from_secs(1)).await?)
}

async fn spawns(_: Workflow, _: ()) -> Result<(), Failure> {
    tokio::spawn(async {}).await?;
    Ok(())
}

async fn listens(_: Workflow, _: ()) -> Result<(), Failure> {
    tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(())
}

#[test]
fn tokio_in_a_workflow_is_reported_as_such() {
    assert_told(&first_turn(sleeps));
    assert_told(&first_turn(spawns));
    assert_told(&first_turn(listens));
}

async fn waits_on_a_channel(_: Workflow, _: ()) -> Result<(), Failure> {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    // Another thread may answer some day; no history would know.
    std::mem::forget(tell);
    Ok(told.await?)
}

#[test]
fn a_channel_from_elsewhere_is_a_foreign_future() {
    assert_eq!(first_turn(waits_on_a_channel), TurnFailure::ForeignFuture { turn: 1 });
}
