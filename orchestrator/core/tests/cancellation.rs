//! A request to stop: what ends, in which order, and what is shielded.

mod common;

use common::{GO, MINUTE, NUMBER, World, cancel, completed, double, halve, local, secs, signal, terminate};
use dormouse_core::{Arrival, Canceled, Failure, Query, Refusal, Status, Workflow, join, select};

#[test]
fn everything_awaited_ends_and_commands_are_canceled_in_order() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let abandoned = cx.activity(double, &0).options(MINUTE).start();
            drop(abandoned);
            let (timer, queued, local, signal, condition, limited) = join!(
                cx.sleep(secs(60)),
                cx.activity(double, &1).options(MINUTE),
                cx.local_activity(halve, &1),
                cx.signal(GO),
                cx.wait_until(|| false),
                cx.timeout(secs(90), cx.signal(NUMBER)),
            );
            let all = [
                timer.is_err(),
                queued.unwrap_err().is_canceled(),
                local.unwrap_err().is_canceled(),
                signal.is_err(),
                condition.is_err(),
                limited.is_err(),
            ];
            cx.publish(Query::<[bool; 6]>::new("all"), all);
            cx.sleep(secs(1)).await?;
            Ok(())
        },
        &(),
    );
    assert_eq!(
        world.arrive(cancel("c")),
        [
            "cancel activity 1",
            "cancel timer 2",
            "cancel activity 3",
            "cancel local 4",
            "cancel timer 5",
            "publish all=[true,true,true,true,true,true]",
            "close canceled"
        ]
    );
    assert_eq!(world.status(), Status::Canceled);
    assert_eq!(world.refused(completed(3, "2")), Refusal::Closed(Status::Canceled));
}

#[test]
fn code_that_handles_the_request_closes_as_it_likes() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            match cx.activity(double, &1).options(MINUTE).await {
                Err(failure) if failure.is_canceled() => Ok(0),
                other => other,
            }
        },
        &(),
    );
    assert_eq!(world.arrive(cancel("c")), ["cancel activity 1", "complete 0"]);
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn a_failure_of_ones_own_is_no_cancellation() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.sleep(secs(60)).await.map_err(|_| Failure::application("gave up"))?;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.arrive(cancel("c")), ["cancel timer 1", "fail gave up"]);
    assert_eq!(world.status(), Status::Failed);
}

async fn cleans_up(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let stopped = cx.sleep(secs(60)).await;
    if stopped.is_err() {
        // In the canceled scope nothing begins.
        assert!(cx.activity(double, &9).options(MINUTE).await.unwrap_err().is_canceled());
        assert!(cx.local_activity(double, &9).await.unwrap_err().is_canceled());
        assert!(cx.sleep(secs(9)).await.is_err());
        assert!(cx.signal(GO).await.is_err());
        let clean = cx.detached();
        clean.activity(halve, &4).options(MINUTE).await?;
        clean.sleep(secs(5)).await?;
        clean.local_activity(halve, &2).await?;
        clean.timeout(secs(5), clean.signal(GO)).await?;
    }
    stopped?;
    Ok(1)
}

#[test]
fn cleaning_up_is_shielded() {
    let mut world = World::run(cleans_up, &());
    assert_eq!(world.arrive(cancel("c")), ["cancel timer 1", "activity 2 halve(4)"]);
    // A second request, under another id, reaches nothing more.
    assert_eq!(world.arrive(cancel("again")), [""; 0]);
    assert_eq!(world.refused(cancel("c")), Refusal::Duplicate(0));
    assert_eq!(world.arrive(completed(2, "2")), ["timer 3 at 6000"]);
    assert_eq!(world.alarm_at(6_000), ["local 4 halve"]);
    assert_eq!(world.arrive(local(4, "1")), ["timer 5 at 11000"]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["cancel timer 5", "close canceled"]);
    assert_eq!(world.status(), Status::Canceled);
}

#[test]
fn a_canceled_local_activity_is_not_pending_any_more() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let stopped = cx.local_activity(double, &1).await.unwrap_err();
            cx.detached().signal(GO).await?;
            Err::<(), _>(stopped)
        },
        &(),
    );
    assert_eq!(world.arrive(cancel("c")), ["local 1 double", "cancel local 1"]);
    assert!(world.state().pending.locals.open.is_empty() && world.live.local_calls(world.now()).is_empty());
    assert_eq!(world.refused(local(1, "2")), Refusal::Superseded);
    assert_eq!(world.state().due_after(world.now(), common::SWEEP), None);
    // And later turns do not wait for it.
    world.merged([signal("n", "number", "1")]);
    let before = world.log.len();
    world.settle();
    assert_eq!(world.log.len(), before + 1);
    assert_eq!(world.arrive(signal("g", "go", "true")), ["close canceled"]);
}

#[test]
fn waiting_for_the_request_itself() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            select! {
                () = cx.canceled() => Ok("asked".to_owned()),
                rest = cx.detached().sleep(secs(60)) => { rest?; Ok("rested".to_owned()) },
            }
        },
        &(),
    );
    assert_eq!(world.arrive(cancel("c")), ["cancel timer 1", "complete \"asked\""]);
}

#[test]
fn a_request_before_the_first_turn() {
    let mut world = World::idle(common::app(cleans_up), "test", common::json("null"));
    world.merged([cancel("c")]);
    assert_eq!(world.settle(), ["timer 1 at 61000", "cancel timer 1", "activity 2 halve(4)"]);
    assert_eq!(world.last_turns(), 2);
}

#[test]
fn buffered_signals_are_still_there_after_the_request() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let stopped = cx.sleep(secs(60)).await;
            let kept = cx.signal(NUMBER).await?;
            assert!(cx.signal(NUMBER).await.is_err());
            assert!(stopped.is_err());
            Ok(kept)
        },
        &(),
    );
    world.arrive(signal("n", "number", "3"));
    assert_eq!(world.arrive(cancel("c")), ["cancel timer 1", "complete 3"]);
}

#[test]
fn an_outcome_that_came_first_is_not_canceled() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let activity = cx.activity(double, &1).options(MINUTE).start();
            cx.detached().signal(GO).await?;
            activity.await
        },
        &(),
    );
    world.arrive(completed(1, "2"));
    assert_eq!(world.arrive(cancel("c")), [""; 0]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete 2"]);
}

#[test]
fn termination_runs_no_code() {
    let mut world = World::run(cleans_up, &());
    assert_eq!(world.arrive(terminate("t")), [""; 0]);
    assert_eq!((world.status(), world.last_turns()), (Status::Terminated, 0));
    assert_eq!(world.refused(terminate("t")), Refusal::Duplicate(0));
    assert_eq!(world.refused(Arrival::Alarm), Refusal::Closed(Status::Terminated));
    assert_eq!(world.settle(), [""; 0]);
}

/// Nobody asked the run to stop: what calls itself canceled has failed.
#[test]
fn a_cancellation_that_nobody_asked_for_is_a_failure() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.signal(GO).await?;
            Err::<(), _>(Failure::from(Canceled))
        },
        &(),
    );
    world.arrive(signal("s", "go", "true"));
    assert_eq!(world.status(), Status::Failed);
}
