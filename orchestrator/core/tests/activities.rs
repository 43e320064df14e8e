//! Queued and local activities: outcomes, retries, abandonment, and how many writes they cost.

mod common;

use std::time::Duration;

use common::{GO, MINUTE, World, app, completed, double, failed, halve, inputs, json, local, secs, signal};
use dormouse_core::operations;
use dormouse_core::{
    Activity, ActivityOptions, App, Arrival, Failure, FailureKind, LocalActivityOptions, Payload, Refusal,
    RemoteActivity, RetryPolicy, RetryState, Status, TimeoutKind, Timestamp, Workflow, join, select,
};

#[test]
fn steps_follow_one_another() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let n = cx.activity(double, &n).options(MINUTE).await?;
            cx.sleep(secs(10)).await?;
            cx.activity(halve, &n).options(MINUTE).await
        },
        &3,
    );
    assert_eq!(world.last_commands(), ["activity 1 double(3)"]);
    assert_eq!(world.arrive(completed(1, "6")), ["timer 2 at 11000"]);
    assert_eq!(world.alarm_at(20_000), ["activity 3 halve(6)"]);
    assert_eq!(world.arrive(completed(3, "3")), ["complete 3"]);
    assert_eq!(world.log.len(), 5);
    assert_eq!(world.status(), Status::Completed);
}

/// Another program's activity is asked for by its name, on the task queue of its workers; replay knows it by its name.
#[test]
fn activities_of_other_programs_are_called_by_name() {
    const RESIZE: RemoteActivity<String, Vec<u32>> = RemoteActivity::new("resize");
    const PYTHON: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(5)).task_queue("python");
    let mut world = World::run(
        |cx: Workflow, image: String| async move {
            let widths = cx.activity(RESIZE, &image).options(PYTHON).await?;
            let more = cx.activity(RESIZE, &image).start_to_close(secs(1)).task_queue("other").await?;
            Ok(widths.len() + more.len())
        },
        &"a.png".to_owned(),
    );
    assert_eq!(world.last_commands(), ["activity 1 resize(\"a.png\")"]);
    assert_eq!(world.state().task(1).unwrap().options.task_queue.as_deref(), Some("python"));
    assert_eq!(world.arrive(completed(1, "[1,2]")), ["activity 2 resize(\"a.png\")"]);
    assert_eq!(world.state().task(2).unwrap().options.task_queue.as_deref(), Some("other"));
    assert_eq!(world.arrive(completed(2, "[3]")), ["complete 3"]);
}

/// The answer's type is checked when it comes, as always.
#[test]
fn another_programs_answer_of_another_type_is_a_failure() {
    const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let failure = cx.activity(RESIZE, &n).start_to_close(secs(1)).await.unwrap_err();
            Ok(failure.type_name().map(str::to_owned))
        },
        &3,
    );
    assert_eq!(world.arrive(completed(1, "\"six\"")), ["complete \"Deserialization\""]);
}

#[test]
fn a_failure_carries_its_retry_state_and_its_chain() {
    for (attempt, retry_state, why) in [
        (1, RetryState::NonRetryableFailure, "the failure is not retryable"),
        (5, RetryState::MaximumAttemptsReached, "no attempts are left"),
        (2, RetryState::Timeout, "its time is up"),
        (1, RetryState::CancelRequested, "it was canceled"),
    ] {
        let mut world = World::run(
            |cx: Workflow, n: u32| async move {
                let failure = cx.activity(double, &n).options(MINUTE).await.unwrap_err();
                let FailureKind::Activity { activity_type, activity_id, attempt, retry_state } = &failure.kind else {
                    return Err(failure);
                };
                let particulars = (activity_type.clone(), *activity_id, *attempt, *retry_state);
                let cause = failure.cause.as_ref().and_then(|cause| cause.type_name().map(str::to_owned));
                Ok((particulars, cause, failure.to_string()))
            },
            &3,
        );
        let cause =
            Failure::application("declined").with_type("CardDeclined").caused_by(Failure::application("no funds"));
        let text = format!("activity double failed on attempt {attempt}: {why}: declined: no funds");
        let state = serde_json::to_string(&retry_state).unwrap();
        assert_eq!(
            world.arrive(failed(1, attempt, cause, retry_state)),
            [format!("complete [[\"double\",1,{attempt},{state}],\"CardDeclined\",\"{text}\"]")]
        );
    }
}

#[test]
fn a_failure_passed_on_fails_the_run() {
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &3);
    let closing = world.arrive(failed(1, 1, Failure::application("no"), RetryState::NonRetryableFailure));
    assert_eq!(closing, ["fail activity double failed on attempt 1: the failure is not retryable: no"]);
    assert_eq!(world.status(), Status::Failed);
}

#[test]
fn a_result_of_another_type_is_a_failure_that_code_can_handle() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let failure = cx.activity(double, &n).options(MINUTE).await.unwrap_err();
            Ok(failure.type_name().map(str::to_owned))
        },
        &3,
    );
    assert_eq!(world.arrive(completed(1, "\"six\"")), ["complete \"Deserialization\""]);
}

#[test]
fn started_first_and_joined_in_another_order() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let one = cx.activity(double, &1).options(MINUTE).start();
            let two = cx.activity(double, &2).options(MINUTE).start();
            let three = cx.local_activity(halve, &3).start();
            let (three, two) = (three.await?, two.await?);
            Ok((one.await?, two, three))
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["activity 1 double(1)", "activity 2 double(2)", "local 3 halve"]);
    world.arrive(completed(2, "4"));
    world.arrive(completed(1, "2"));
    assert_eq!(world.arrive(local(3, "1")), ["complete [2,4,1]"]);
}

#[test]
fn join_begins_every_arm_in_order() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (one, two, three) = join!(
                cx.activity(double, &1).options(MINUTE),
                cx.sleep(secs(5)),
                cx.activity(halve, &8).options(MINUTE),
            );
            two?;
            Ok((one?, three?))
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["activity 1 double(1)", "timer 2 at 6000", "activity 3 halve(8)"]);
    world.arrive(completed(3, "4"));
    world.alarm_at(6_000);
    assert_eq!(world.arrive(completed(1, "2")), ["complete [2,4]"]);
}

#[test]
fn select_prefers_the_arm_written_first() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let one = cx.activity(double, &1).options(MINUTE).start();
            let two = cx.activity(double, &2).options(MINUTE).start();
            cx.signal(GO).await?;
            select! {
                two = two => Ok((2, two?)),
                one = one => Ok((1, one?)),
            }
        },
        &(),
    );
    world.arrive(completed(1, "2"));
    world.arrive(completed(2, "4"));
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete [2,4]"]);
}

#[test]
fn an_abandoned_activity_goes_on_and_its_outcome_goes_nowhere() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            drop(cx.activity(double, &1).options(MINUTE).start());
            cx.signal(GO).await?;
            cx.signal(GO).await?;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["activity 1 double(1)"]);
    assert!(world.state().task(1).is_some());
    world.arrive(signal("s", "go", "true"));
    assert_eq!(world.arrive(completed(1, "2")), [""; 0]);
    assert!(world.state().task(1).is_none());
    assert_eq!(world.arrive(signal("t", "go", "true")), ["complete null"]);
}

#[test]
fn an_outcome_that_nobody_asked_for_yet_is_kept() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let pending = cx.activity(double, &1).options(MINUTE).start();
            cx.signal(GO).await?;
            pending.await
        },
        &(),
    );
    world.arrive(completed(1, "2"));
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete 2"]);
}

#[test]
fn closing_gives_up_what_still_runs() {
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            drop(cx.activity(double, &1).options(MINUTE).start());
            drop(cx.local_activity(double, &1).start());
            Ok(())
        },
        &(),
    );
    assert!(world.state().pending.activities.open.is_empty() && world.state().pending.locals.open.is_empty());
    assert!(world.state().pending.activities.unwanted.contains(&1));
    // The record of what is not wanted any more is yet to be closed.
    assert!(world.state().owes());
    assert_eq!(world.state().due_after(world.now(), common::SWEEP), Some(world.now() + common::SWEEP));
}

async fn local_steps(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let mut value = 1;
    for _ in 0..n {
        value = cx.local_activity(double, &value).await?;
    }
    Ok(value)
}

#[test]
fn n_local_steps_are_n_and_one_writes() {
    for n in 0..5 {
        let mut world = World::run(local_steps, &n);
        for id in 1..=u64::from(n) {
            let calls = world.live.local_calls(world.now());
            assert_eq!(calls.len(), 1, "only what is not yet done");
            assert_eq!((calls[0].0, calls[0].1), (id, 1));
            let result = calls[0].2.input.decode::<u32>().unwrap() * 2;
            world.arrive(local(id, &result.to_string()));
        }
        assert_eq!(world.status(), Status::Completed);
        assert_eq!(world.log.len(), n.max(1) as usize + 1, "{n} local steps");
    }
}

#[test]
fn local_steps_that_finish_together_share_a_write() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (a, b) = join!(cx.local_activity(double, &1), cx.local_activity(double, &2));
            Ok(a? + b?)
        },
        &(),
    );
    let together = [local(2, "4"), local(1, "2")];
    let inputs: Vec<_> = together.iter().flat_map(|a| world.state().accept(a, world.now()).unwrap()).collect();
    world.live.take_in(inputs);
    assert_eq!(world.settle(), ["local 1 double", "local 2 double", "complete 6"]);
    assert_eq!(world.log.len(), 2);
}

#[test]
fn a_queued_activity_beside_a_local_one_is_written_at_once() {
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            let (a, b) = join!(cx.local_activity(double, &1), cx.activity(double, &2).options(MINUTE));
            Ok(a? + b?)
        },
        &(),
    );
    assert_eq!(world.log.len(), 2);
}

#[test]
fn a_local_backoff_is_recorded_and_waited_for() {
    let mut world = World::run(local_steps, &1);
    let retry_at = Timestamp::from_millis(31_000);
    let backoff = Arrival::LocalBackoff(operations::LocalBackoff {
        id: 1,
        attempt: 1,
        failure: Failure::application("busy"),
        retry_at,
    });
    // Two copies come together, and count once.
    for _ in 0..2 {
        let inputs = world.state().accept(&backoff, world.now()).unwrap();
        world.live.take_in(inputs);
    }
    assert_eq!(world.settle(), ["local 1 double"]);
    assert_eq!(inputs(&world.batch(world.log.len() - 1)).len(), 1);
    assert_eq!(world.refused(backoff), Refusal::Superseded);
    assert_eq!(world.refused(local(1, "2")), Refusal::Superseded, "that attempt has failed");
    assert!(world.live.local_calls(world.now()).is_empty());
    assert_eq!(world.state().alarm(world.now()), Some(retry_at));
    // While it waits, other turns are not held back.
    assert!(world.arrive(signal("s", "go", "true")).is_empty());
    world.merged([signal("t", "go", "true")]);
    let before = world.log.len();
    world.settle();
    assert_eq!(world.log.len(), before + 1, "the turn is written although a local activity is open");
    world.clock = 31_000;
    world.reload();
    let calls = world.live.local_calls(world.now());
    assert_eq!((calls[0].0, calls[0].1), (1, 2));
    assert_eq!(
        world.arrive(Arrival::LocalCompleted(operations::LocalCompleted { id: 1, attempt: 2, result: json("2") })),
        ["complete 2"]
    );
}

#[test]
fn a_local_failure_names_its_activity() {
    let mut world = World::run(local_steps, &1);
    let arrival = Arrival::LocalFailed(operations::LocalFailed {
        id: 1,
        attempt: 3,
        failure: Failure::timeout(TimeoutKind::StartToClose, None),
        retry_state: RetryState::MaximumAttemptsReached,
    });
    assert_eq!(
        world.arrive(arrival),
        [
            "local 1 double",
            "fail activity double failed on attempt 3: no attempts are left: the start-to-close time limit passed"
        ]
    );
}

#[test]
fn local_options_that_cannot_be_kept_are_refused_without_a_command() {
    for options in [
        LocalActivityOptions::default().retry(RetryPolicy::max_attempts(1)),
        LocalActivityOptions::start_to_close(secs(301)),
    ] {
        let workflow = |cx: Workflow, one: bool| async move {
            let options = if one {
                LocalActivityOptions::default().retry(RetryPolicy::max_attempts(1))
            } else {
                LocalActivityOptions::start_to_close(secs(301))
            };
            let failure = cx.local_activity(double, &1).options(options).await.unwrap_err();
            Ok(failure.type_name().map(str::to_owned))
        };
        let world =
            World::run(workflow, &(options == LocalActivityOptions::default().retry(RetryPolicy::max_attempts(1))));
        assert_eq!(world.last_commands(), ["complete \"InvalidOptions\""]);
    }
}

#[test]
fn an_input_that_does_not_fit_fails_the_run() {
    let mut world = World::idle(app(local_steps), "test", json("\"many\""));
    let closing = world.settle();
    assert!(closing[0].starts_with("fail the input of workflow type \"test\": the JSON does not fit"), "{closing:?}");
}

#[test]
fn the_schedule_to_close_limit_ends_an_activity_and_its_late_result() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            cx.activity(double, &n).options(ActivityOptions::schedule_to_close(secs(30))).await
        },
        &3,
    );
    assert_eq!(world.state().alarm(world.now()), Some(Timestamp::from_millis(31_000)));
    let closing = world.alarm_at(31_000);
    assert!(closing[0].contains("its time is up: the schedule-to-close time limit passed"), "{closing:?}");
    assert_eq!(world.refused(completed(1, "6")), Refusal::Closed(Status::Failed));
}

async fn length(_: Activity, text: String) -> Result<usize, Failure> {
    Ok(text.len())
}

#[test]
fn what_is_too_large_is_refused_without_a_command() {
    let long = |extra: usize| "x".repeat(dormouse_core::MAX_PAYLOAD_BYTES - 2 + extra);
    // As an argument: the two quotes and the text just fit, one byte more does not.
    let asks = |cx: Workflow, extra: usize| async move {
        let text = "x".repeat(dormouse_core::MAX_PAYLOAD_BYTES - 2 + extra);
        let failure = cx.activity(length, &text).options(MINUTE).await.unwrap_err();
        Ok(failure.type_name().map(str::to_owned))
    };
    let app = || App::new().activity("length", length);
    let mut world = World::idle(app().workflow("test", asks), "test", json("1"));
    assert_eq!(world.settle(), ["complete \"PayloadTooLarge\""]);
    let mut world = World::idle(app().workflow("test", asks), "test", json("0"));
    assert!(world.settle()[0].starts_with("activity 1 length"));
    // As a result.
    let returns =
        |_: Workflow, extra: usize| async move { Ok("x".repeat(dormouse_core::MAX_PAYLOAD_BYTES - 2 + extra)) };
    let mut world = World::idle(App::new().workflow("test", returns), "test", json("1"));
    assert!(world.settle()[0].starts_with("fail the result of workflow type \"test\": the value is 2097153 bytes"));
    assert_eq!(Payload::encode(&long(0)).unwrap().len(), dormouse_core::MAX_PAYLOAD_BYTES);
}
