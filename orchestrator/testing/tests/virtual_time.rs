//! Workers, and callers who wait, in time that the test lets pass: on one thread, without a runtime.

use std::sync::Mutex;
use std::time::Duration;

use dormouse_core::history::Closed;
use dormouse_core::{
    Activity, ActivityOptions, App, Failure, FailureKind, LocalActivityOptions, RetryPolicy, RunKey, Signal, Status,
    TimeoutKind, Workflow,
};
use dormouse_engine::seams::{Delivery, Host};
use dormouse_engine::worker::{handle_task, run_local};
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive, latest};
use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);
const ONCE: RetryPolicy = RetryPolicy::max_attempts(1);
const GO: Signal<()> = Signal::new("go");

async fn never(_: Activity, _: ()) -> Result<(), Failure> {
    std::future::pending().await
}

async fn slow(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.activity(never, &()).options(ActivityOptions::start_to_close(LIMIT).retry(ONCE)).await
}

/// Tells that it lives whenever the test says so.
struct Beats(Mutex<mpsc::UnboundedReceiver<()>>);

async fn beating(cx: Activity, _: ()) -> Result<(), Failure> {
    let beats = &cx.get::<Beats>().0;
    while std::future::poll_fn(|context| beats.lock().unwrap().poll_next_unpin(context)).await.is_some() {
        cx.heartbeat(&())?;
    }
    Ok(())
}

async fn silent(cx: Workflow, _: ()) -> Result<(), Failure> {
    let options = ActivityOptions::start_to_close(LIMIT * 100).heartbeat(LIMIT).retry(ONCE);
    cx.activity(beating, &()).options(options).await
}

async fn patient(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    Ok(5)
}

/// A run of this type, its task taken up by a worker.
fn at_work(world: &World, workflow_type: &str) -> (Process, RunKey) {
    let process = world.process();
    let run = process.start(workflow_type, "w", "r", &());
    process.deliver();
    let tasks = world.mail.take_tasks();
    assert_eq!(tasks.len(), 1);
    for task in tasks {
        let (app, ports) = (world.app().clone(), process.ports.clone());
        world.clock.spawn(async move { handle_task(&app, &ports, task, Delivery::First, None).await.unwrap() }.boxed());
    }
    (process, run)
}

fn timed_out(world: &World, run: &RunKey) -> Option<TimeoutKind> {
    let Some(Closed::Failed(failure)) = world.state(run).closed else { return None };
    failure.chain().find_map(|failure| match failure.kind {
        FailureKind::Timeout { timeout, .. } => Some(timeout),
        _ => None,
    })
}

#[test]
fn an_attempt_lasts_as_long_as_its_limit() {
    let world = World::new(App::new().workflow("slow", slow).activity("never", never));
    let (process, run) = at_work(&world, "slow");
    world.pass(LIMIT - SECOND);
    process.deliver();
    assert_eq!(timed_out(&world, &run), None);
    world.pass(SECOND);
    process.deliver();
    assert_eq!(timed_out(&world, &run), Some(TimeoutKind::StartToClose));
}

#[test]
fn an_attempt_that_beats_in_time_goes_on_and_one_that_falls_silent_ends() {
    let (beat, beats) = mpsc::unbounded();
    let beats = Beats(Mutex::new(beats));
    let world = World::new(App::new().workflow("silent", silent).activity("beating", beating).provide(beats));
    let (process, run) = at_work(&world, "silent");
    for _ in 0..5 {
        beat.unbounded_send(()).unwrap();
        world.pass(LIMIT - SECOND);
    }
    process.deliver();
    assert_eq!(timed_out(&world, &run), None);
    world.pass(SECOND);
    process.deliver();
    assert_eq!(timed_out(&world, &run), Some(TimeoutKind::Heartbeat));
}

#[test]
fn a_clock_that_is_set_ends_no_attempt() {
    let world = World::new(App::new().workflow("slow", slow).activity("never", never));
    let (process, run) = at_work(&world, "slow");
    world.pass(SECOND);
    world.clock.set(world.now() + LIMIT);
    world.pass(SECOND);
    process.deliver();
    assert_eq!(timed_out(&world, &run), None);
}

#[test]
fn a_local_activity_has_its_limit_too() {
    async fn local(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.local_activity(never, &()).options(LocalActivityOptions::start_to_close(LIMIT)).await
    }
    let world = World::new(App::new().workflow("local", local).activity("never", never));
    let process = world.process();
    process.start("local", "w", "r", &());
    process.deliver();
    let local = world.mail.take_locals().remove(0);
    let mut ran = Box::pin(run_local(world.app(), &process.ports, local, None));
    assert!(drive(&mut ran).is_none());
    // Each attempt lasts as long, and the pause before the second is waited out.
    world.pass(LIMIT * 2);
    let again = drive(&mut ran);
    assert!(again.is_none(), "{again:?}");
    drop(ran);
    world.pass(SECOND);
    assert_eq!(world.clock.next_wake(), None, "what nobody waits for has ended");
}

#[test]
fn who_waits_for_a_result_looks_now_and_then() {
    let world = World::new(App::new().workflow("patient", patient));
    let process = world.process();
    process.start("patient", "w", "r", &());
    process.deliver();
    let target = latest("w");
    let mut waiting = Box::pin(process.front.result(&target, LIMIT));
    let mut gives_up = Box::pin(process.front.result(&target, SECOND * 3));
    assert!(drive(&mut waiting).is_none() && drive(&mut gives_up).is_none());
    for _ in 0..3 {
        world.pass(SECOND);
        assert!(drive(&mut waiting).is_none());
    }
    let open = drive(&mut gives_up).expect("an answer in time").unwrap();
    assert_eq!(open.status, Status::Running);
    process.signal("w", "s", "go", &());
    process.deliver();
    world.pass(SECOND * 2);
    let closed = drive(&mut waiting).expect("an answer").unwrap();
    assert_eq!(closed.status, Status::Completed);
}

mod kit {
    //! Histories as files, in tests.

    use dormouse_testing::kit::{TestEnv, TestRun, replay_dir, replay_file};

    use super::*;

    async fn napping(cx: Workflow, seconds: u64) -> Result<(), Failure> {
        Ok(cx.sleep(Duration::from_secs(seconds)).await?)
    }

    async fn hurried(_: Workflow, _: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn napping_app() -> App {
        App::new().workflow("nap", napping)
    }

    fn nap() -> TestRun<()> {
        TestEnv::new(napping_app()).start(napping, &60)
    }

    #[test]
    fn a_run_of_a_test_is_a_history_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run = nap();
        run.export(dir.path().join("open.json"));
        assert_eq!(run.exported(), std::fs::read_to_string(dir.path().join("open.json")).unwrap());
        assert_eq!(run.exported(), nap().exported(), "the same test writes the same file");
        run.result().unwrap();
        run.export(dir.path().join("closed.json"));
        std::fs::write(dir.path().join("notes.md"), "no history").unwrap();
        let report = replay_dir(napping_app(), dir.path());
        report.assert_fit();
        assert_eq!(report.replayed.len(), 2);
        let hurry = || App::new().workflow("nap", hurried);
        let report = replay_dir(hurry(), dir.path());
        let said = std::panic::catch_unwind(|| report.assert_fit()).unwrap_err();
        let said = said.downcast_ref::<String>().unwrap();
        for part in ["2 of 2 histories do not fit", "closed.json: nap \"run-1\", run 0: diverges", "recorded:  timer"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        assert!(!replay_file(hurry(), dir.path().join("open.json")).fits());
    }
}
