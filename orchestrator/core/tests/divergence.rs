//! Code that disagrees with its history, and code that breaks the rules: loud, and nothing is recorded.

#[path = "divergence/causes.rs"]
mod causes;
mod common;
#[path = "divergence/replay.rs"]
mod replay;

use std::sync::Arc;

use common::{GO, MINUTE, World, app, completed, double, halve, json, run_key, secs, signal};
use dormouse_core::{Activity, App, Failure, LiveRun, Panic, Query, TurnFailure, Workflow, WorkflowFunction, join};

/// Replays the history that `recorded` made on the code of `attempted`.
fn redeploy<A, B, F: WorkflowFunction<A>, G: WorkflowFunction<B>>(
    recorded: F,
    input: &F::Input,
    arrivals: &[dormouse_core::Arrival],
    attempted: G,
) -> Result<LiveRun, TurnFailure> {
    let mut world = World::run(recorded, input);
    arrivals.iter().for_each(|arrival| drop(world.arrive(arrival.clone())));
    LiveRun::replay(&Arc::new(app(attempted)), &run_key(0), &world.log)
}

fn divergence(replayed: Result<LiveRun, TurnFailure>) -> String {
    let failure = replayed.expect_err("the code diverges");
    assert!(matches!(failure, TurnFailure::Diverged { .. }), "{failure:?}");
    let text = failure.to_string();
    assert!(text.starts_with("the workflow's code no longer matches its history (turn "), "{text}");
    assert!(text.ends_with(
        "Deploy code that does at this point what the history holds, or let this run finish on the build that began it."
    ));
    text
}

/// The lines `recorded: ..` and `attempted: ..`, each without its line number.
fn sides(text: &str) -> [String; 2] {
    let side = |label: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(label)).expect(text).trim();
        match line.rsplit_once(':') {
            Some((rest, number)) if line.contains(" at ") => {
                assert!(number.parse::<u32>().is_ok(), "{line}");
                let (what, file) = rest.rsplit_once(" at ").unwrap();
                assert!(file.ends_with("divergence.rs"), "{file}");
                format!("{what} (placed)")
            }
            _ => line.to_owned(),
        }
    };
    [side("recorded:"), side("attempted:")]
}

#[test]
fn another_kind() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await },
        &1,
        &[],
        |cx: Workflow, n: u32| async move {
            cx.sleep(secs(1)).await?;
            Ok(n)
        },
    ));
    assert_eq!(sides(&text), ["activity \"double\" (id 1) (placed)", "timer (id 1) (placed)"]);
    assert!(text.contains("(turn 1)"), "{text}");
}

#[test]
fn another_name() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await },
        &1,
        &[],
        |cx: Workflow, n: u32| async move { cx.activity(halve, &n).options(MINUTE).await },
    ));
    assert_eq!(sides(&text), ["activity \"double\" (id 1) (placed)", "activity \"halve\" (id 1) (placed)"]);
}

#[test]
fn a_local_activity_is_not_a_queued_one() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await },
        &1,
        &[],
        |cx: Workflow, n: u32| async move { cx.local_activity(double, &n).await },
    ));
    assert_eq!(sides(&text), ["activity \"double\" (id 1) (placed)", "local activity \"double\" (id 1) (placed)"]);
}

#[test]
fn another_order() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move {
            let (a, b) = join!(cx.activity(double, &n).options(MINUTE), cx.activity(halve, &n).options(MINUTE));
            Ok((a?, b?))
        },
        &1,
        &[completed(2, "0")],
        |cx: Workflow, n: u32| async move {
            let (b, a) = join!(cx.activity(halve, &n).options(MINUTE), cx.activity(double, &n).options(MINUTE));
            Ok((a?, b?))
        },
    ));
    assert_eq!(sides(&text), ["activity \"double\" (id 1) (placed)", "activity \"halve\" (id 1) (placed)"]);
}

/// The same command, about another of the things that were asked for.
#[test]
fn another_of_two_timers_is_given_up() {
    let text = divergence(redeploy(
        |cx: Workflow, _: ()| async move {
            let (one, other) = (cx.sleep(secs(10)), cx.sleep(secs(20)));
            drop(one);
            cx.signal(GO).await?;
            drop(other);
            Ok(())
        },
        &(),
        &[],
        |cx: Workflow, _: ()| async move {
            let (one, other) = (cx.sleep(secs(10)), cx.sleep(secs(20)));
            drop(other);
            cx.signal(GO).await?;
            drop(one);
            Ok(())
        },
    ));
    let [recorded, attempted] = sides(&text);
    assert!(recorded.contains("1") && attempted.contains("2"), "{text}");
}

/// A command that was recorded in a later turn, of the same batch even, is not this one.
#[test]
fn a_command_that_comes_a_turn_too_soon() {
    let recorded = |cx: Workflow, _: ()| async move {
        cx.signal(GO).await?;
        cx.signal(GO).await?;
        Ok(cx.sleep(secs(10)).await?)
    };
    let attempted = |cx: Workflow, _: ()| async move {
        cx.signal(GO).await?;
        let timer = cx.sleep(secs(10));
        cx.signal(GO).await?;
        Ok(timer.await?)
    };
    let mut world = World::run(recorded, &());
    world.merged([signal("s", "go", "true"), signal("t", "go", "true")]);
    world.settle();
    assert_eq!(world.last_turns(), 2);
    let text = divergence(LiveRun::replay(&Arc::new(app(attempted)), &run_key(0), &world.log));
    assert!(text.contains("(turn 2)"), "{text}");
    assert_eq!(sides(&text)[1], "timer (id 1) (placed)");
}

#[test]
fn a_missing_command() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move {
            let _status = cx.publish(Query::<u32>::new("status"), n);
            cx.signal(GO).await?;
            Ok(())
        },
        &1,
        &[signal("s", "go", "true")],
        |cx: Workflow, _: u32| async move {
            cx.signal(GO).await?;
            Ok(())
        },
    ));
    assert_eq!(sides(&text), ["publish \"status\" (placed)", "nothing more in this turn; it waits (placed)"]);
}

#[test]
fn an_extra_command() {
    let text = divergence(redeploy(
        |cx: Workflow, _: u32| async move {
            cx.sleep(secs(1)).await?;
            Ok(())
        },
        &1,
        &[],
        |cx: Workflow, n: u32| async move {
            let (slept, _) = join!(cx.sleep(secs(1)), cx.activity(double, &n).options(MINUTE));
            slept?;
            Ok(())
        },
    ));
    assert_eq!(sides(&text), ["nothing more in this turn", "activity \"double\" (id 2) (placed)"]);
}

#[test]
fn another_end() {
    let text = divergence(redeploy(
        |_: Workflow, _: u32| async move { Ok(()) },
        &1,
        &[],
        |_: Workflow, _: u32| async move { Err::<(), _>(Failure::application("no")) },
    ));
    assert_eq!(sides(&text), ["complete the workflow", "fail the workflow"]);
}

#[test]
fn a_later_turn_is_named() {
    let text = divergence(redeploy(
        |cx: Workflow, n: u32| async move {
            let n = cx.activity(double, &n).options(MINUTE).await?;
            cx.activity(double, &n).options(MINUTE).await
        },
        &1,
        &[completed(1, "2")],
        |cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await },
    ));
    assert_eq!(sides(&text), ["activity \"double\" (id 2) (placed)", "complete the workflow"]);
    assert!(text.contains("(turn 2)"), "{text}");
}

#[test]
fn other_arguments_only_warn_and_the_recorded_ones_stand() {
    let live = redeploy(
        |cx: Workflow, n: u32| async move {
            let _status = cx.publish(Query::<u32>::new("status"), n);
            let (a, b, c) =
                join!(cx.activity(double, &n).options(MINUTE), cx.local_activity(halve, &n), cx.sleep(secs(5)));
            c?;
            Ok(a? + b?)
        },
        &1,
        &[],
        |cx: Workflow, n: u32| async move {
            let n = n + 1;
            let _status = cx.publish(Query::<u32>::new("status"), n);
            let (a, b, c) = join!(
                cx.activity(double, &n).start_to_close(secs(7)),
                cx.local_activity(halve, &n),
                cx.sleep(secs(50))
            );
            c?;
            Ok(a? + b?)
        },
    )
    .unwrap();
    let state = live.state();
    assert_eq!(state.pending.activities.open[&1].input, json("1"));
    assert_eq!(state.pending.activities.open[&1].options.start_to_close_ms, Some(60_000));
    assert_eq!(state.pending.timers.open[&3].as_millis(), 6_000);
    assert_eq!(state.pending.published.values["status"], json("1"));
}

/// Lets a turn fail and gives the failure; the history must be untouched by it.
fn broken(mut world: World) -> TurnFailure {
    let before = world.log.clone();
    let failure = world.try_settle().unwrap_err();
    assert_eq!(world.log, before);
    assert_eq!(world.replay().map(|_| ()), Ok(()), "the history is as good as before");
    failure
}

fn idle<A, F: WorkflowFunction<A>>(workflow: F) -> World {
    World::idle(app(workflow), "test", json("1"))
}

#[test]
fn a_future_that_is_not_ours() {
    let failure = broken(idle(|cx: Workflow, n: u32| async move {
        let _running = cx.activity(double, &n).options(MINUTE).start();
        std::future::pending::<()>().await;
        Ok(())
    }));
    assert_eq!(failure, TurnFailure::ForeignFuture { turn: 1 });
    assert!(failure.to_string().contains("Use cx.sleep, cx.activity, cx.signal"), "{failure}");
}

#[test]
fn a_panic() {
    let failure = broken(idle(|cx: Workflow, n: u32| async move {
        let _running = cx.activity(double, &n).options(MINUTE).start();
        assert_eq!(n, 2, "two were expected");
        Ok(())
    }));
    let TurnFailure::Panicked { turn: 1, panic: Panic { message, place, .. }, hint: "" } = &failure else {
        panic!("{failure:?}")
    };
    assert!(message.contains("two were expected"), "{message}");
    let place = place.as_deref().unwrap();
    assert!(place.contains(&format!("divergence.rs:{}:", line!() - 8)), "{place}");
    assert!(failure.to_string().ends_with(&format!(", at {place}")), "{failure}");
}

#[test]
fn a_workflow_that_this_build_does_not_have() {
    let failure = broken(World::idle(App::new(), "gone", json("1")));
    assert_eq!(failure, TurnFailure::UnknownWorkflow { workflow_type: "gone".into() });
    assert!(failure.to_string().contains("add `.workflow(\"gone\", ...)` to the App"), "{failure}");
}

#[test]
fn an_activity_that_was_not_registered() {
    async fn stray(_: Activity, n: u32) -> Result<u32, Failure> {
        Ok(n)
    }
    for local in [false, true] {
        let mut world = World::idle(
            app(|cx: Workflow, local: bool| async move {
                if local { cx.local_activity(stray, &1).await } else { cx.activity(stray, &1).options(MINUTE).await }
            }),
            "test",
            json(if local { "true" } else { "false" }),
        );
        let TurnFailure::Panicked { panic: Panic { message, .. }, .. } = world.try_settle().unwrap_err() else {
            panic!("it is not registered")
        };
        assert!(message.contains("stray is not registered; add `.activity(\"...\", ...)` to the App"), "{message}");
    }
}

#[test]
fn an_activity_awaited_again() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let mut pending = cx.activity(double, &n).options(MINUTE).start();
            (&mut pending).await?;
            (&mut pending).await
        },
        &1,
    );
    let inputs = world.state().accept(&completed(1, "2"), world.now()).unwrap();
    world.live.take_in(inputs);
    let TurnFailure::Panicked { turn: 2, panic: Panic { message, .. }, .. } = world.try_settle().unwrap_err() else {
        panic!("it has ended")
    };
    assert!(message.contains("awaited again after it had ended"), "{message}");
}
