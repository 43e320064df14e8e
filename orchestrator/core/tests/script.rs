//! A turn's recorded commands are compared as they are asked for; recorded values are given back; logs appear once.

mod common;
#[path = "script/patches.rs"]
mod patches;

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Once};

use common::{GO, MINUTE, World, app, completed, double, halve, json, run_key, secs, signal};
use dormouse_core::history::readable;
use dormouse_core::{Asked, Failure, LiveRun, Query, TurnFailure, Workflow, WorkflowFunction};

/// Replays a world's history on other code.
fn on_other_code<A, F: WorkflowFunction<A>>(world: &World, other: F) -> TurnFailure {
    LiveRun::replay(&Arc::new(app(other)), &run_key(0), &world.log).map(|_| ()).unwrap_err()
}

fn doubles() -> World {
    World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1)
}

#[test]
fn what_diverges_first_is_told_whatever_the_code_does_then() {
    let world = doubles();
    let failures = [
        on_other_code(&world, |cx: Workflow, n: u32| async move {
            let other = cx.activity(halve, &n).options(MINUTE).start();
            assert_eq!(n, 2, "the code goes on for a while, and breaks");
            other.await
        }),
        on_other_code(&world, |cx: Workflow, n: u32| async move {
            let _other = cx.activity(halve, &n).options(MINUTE).start();
            cx.activity(double, &n).options(MINUTE).await
        }),
        on_other_code(&world, |cx: Workflow, n: u32| async move {
            let _other = cx.activity(halve, &n).options(MINUTE).start();
            std::future::pending::<()>().await;
            Ok(n)
        }),
        on_other_code(&world, |cx: Workflow, n: u32| async move {
            let _other = cx.activity(halve, &n).options(MINUTE).start();
            Ok(n)
        }),
    ];
    for failure in failures {
        let TurnFailure::Diverged { turn: 1, recorded, attempted, differences } = &failure else {
            panic!("{failure:?}")
        };
        let Asked::For { command: recorded, place: Some(_) } = recorded else { panic!("{failure:?}") };
        let Asked::For { command: attempted, place: Some(_) } = attempted else { panic!("{failure:?}") };
        assert_eq!((recorded.name(), attempted.name()), (Some("double"), Some("halve")));
        assert_eq!(differences.len(), 1, "{differences:?}");
    }
}

#[test]
fn both_lines_and_every_field_that_differs_are_named() {
    let world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    let recorded = line!() - 1;
    let failure =
        on_other_code(&world, |cx: Workflow, n: u32| async move { cx.activity(halve, &(n + 1)).options(MINUTE).await });
    let attempted = line!() - 1;
    let text = failure.to_string();
    let expected = format!(
        "the workflow's code no longer matches its history (turn 1):
  recorded:  activity \"double\" (id 1) at {file}:{recorded}
  attempted: activity \"halve\" (id 1) at {file}:{attempted}
  differs in activity_type: recorded \"double\", attempted \"halve\"
  differs in input: recorded 1, attempted 2
Deploy code that does at this point what the history holds, or let this run finish on the build that began it.",
        file = file!(),
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_canceled_is_told_by_where_it_began() {
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            let timer = cx.sleep(secs(9));
            cx.signal(GO).await?;
            timer.await?;
            Ok(())
        },
        &(),
    );
    let mut world = world;
    world.arrive(signal("s", "go", "true"));
    let begun = line!() + 2;
    let failure = on_other_code(&world, |cx: Workflow, _: ()| async move {
        let timer = cx.sleep(secs(9));
        cx.signal(GO).await?;
        drop(timer);
        cx.signal(GO).await?;
        Ok(())
    });
    let text = failure.to_string();
    assert!(text.contains("recorded:  nothing more in this turn\n"), "{text}");
    assert!(text.contains(&format!("attempted: cancel timer (id 1) at {}:{begun}\n", file!())), "{text}");
}

#[test]
fn what_the_code_does_not_ask_for_is_told_by_where_it_waits() {
    let world = doubles();
    let waits = line!() + 2;
    let failure = on_other_code(&world, |cx: Workflow, n: u32| async move {
        cx.signal(GO).await?;
        Ok(n)
    });
    let text = failure.to_string();
    let expected = format!("attempted: nothing more in this turn; it waits at {}:{waits}\n", file!());
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_side_effect_runs_once_for_its_history() {
    thread_local!(static RUNS: Cell<u32> = const { Cell::new(0) });
    RUNS.set(0);
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let first: u32 = cx.side_effect("count", || {
                RUNS.set(RUNS.get() + 1);
                RUNS.get()
            });
            cx.signal(GO).await?;
            let second: u32 = cx.side_effect("count", || {
                RUNS.set(RUNS.get() + 1);
                RUNS.get()
            });
            Ok((first, second))
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["marker count=1"]);
    for _ in 0..3 {
        world.reload();
    }
    assert_eq!(world.arrive(signal("s", "go", "true")), ["marker count=2", "complete [1,2]"]);
    assert_eq!(RUNS.get(), 2, "replays do not run it");
}

#[test]
fn a_side_effect_that_the_history_does_not_know_is_divergence() {
    let world = doubles();
    let failure = on_other_code(&world, |cx: Workflow, _: u32| async move {
        let n: u32 = cx.side_effect("draw", || panic!("it must not run"));
        cx.activity(double, &n).options(MINUTE).await
    });
    assert!(failure.to_string().contains("attempted: marker \"draw\" at "), "{failure}");
    let world = World::run(|cx: Workflow, _: ()| async move { Ok::<u32, Failure>(cx.side_effect("draw", || 3)) }, &());
    let failure = on_other_code(&world, |cx: Workflow, _: ()| async move {
        Ok::<u32, Failure>(cx.side_effect("lot", || panic!("it must not run")))
    });
    assert!(failure.to_string().contains("differs in name: recorded \"draw\", attempted \"lot\""), "{failure}");
}

#[test]
fn a_side_effect_may_not_act_and_a_query_may_have_none() {
    let mut world = World::idle(
        app(|cx: Workflow, _: ()| async move {
            let inner = cx.clone();
            let _: () = cx.side_effect("greedy", || drop(inner.sleep(secs(1))));
            Ok(())
        }),
        "test",
        json("null"),
    );
    let failure = world.try_settle().unwrap_err();
    assert!(failure.to_string().contains("a side effect's closure tried to act (timer)"), "{failure}");
    const DRAW: Query<u32> = Query::new("draw");
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            let inner = cx.clone();
            cx.answer(DRAW, move |()| inner.side_effect("draw", || 1));
            Ok(cx.signal(GO).await?)
        },
        &(),
    );
    let refused = world.live.query("draw", &json("null")).unwrap_err();
    assert!(format!("{refused:?}").contains("queries are read-only"), "{refused:?}");
}

#[test]
fn recorded_turns_know_that_they_are() {
    thread_local!(static SEEN: Cell<Vec<bool>> = const { Cell::new(Vec::new()) });
    let see = |cx: &Workflow| {
        let mut seen = SEEN.take();
        seen.push(cx.is_replaying());
        SEEN.set(seen);
    };
    SEEN.take();
    let mut world = World::run(
        move |cx: Workflow, n: u32| async move {
            see(&cx);
            let n = cx.activity(double, &n).options(MINUTE).await?;
            see(&cx);
            cx.signal(GO).await?;
            see(&cx);
            Ok(n)
        },
        &1,
    );
    assert_eq!(SEEN.take(), [false, true], "decided, then replayed by the test's check");
    world.reload();
    SEEN.take();
    world.live.take_in(world.live.state().accept(&completed(1, "2"), world.now()).unwrap());
    world.live.decide(world.now()).unwrap();
    assert_eq!(SEEN.take(), [false]);
}

async fn asks_for_one(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let (first, second) =
        (cx.activity(double, &n).options(MINUTE).start(), cx.activity(halve, &n).options(MINUTE).start());
    cx.signal(GO).await?;
    Ok(first.await? + second.await?)
}

async fn asks_for_more(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let (first, second) =
        (cx.activity(double, &(n + 1)).options(MINUTE).start(), cx.activity(halve, &(n + 1)).options(MINUTE).start());
    cx.signal(GO).await?;
    Ok(first.await? + second.await?)
}

/// The events that people read, by type.
fn readable_types(world: &World) -> Vec<String> {
    let batches = (0..world.log.len()).map(|sequence| world.batch(sequence));
    batches.flat_map(|batch| readable(&batch, 1)).map(|event| event.event_type).collect()
}

#[test]
fn other_arguments_are_told_with_the_next_decision_and_no_more_than_once() {
    let before = World::run(asks_for_one, &1);
    let mut world = World::of(Arc::new(app(asks_for_more)), run_key(0), before.log.clone());
    assert_eq!(world.state().decided_by.changed, None, "looking writes nothing");
    world.arrive(signal("s", "go", "true"));
    let changed = world.state().decided_by.changed.clone().unwrap();
    assert_eq!(changed.commands, 2);
    let first = &changed.first;
    assert_eq!(first.matches("script.rs:").count(), 2, "both places: {first}");
    assert!(first.contains("\"double\" (id 1)") && first.contains("input: recorded 1, attempted 2"), "{first}");
    let told = |world: &World| readable_types(world).iter().filter(|name| *name == "ArgumentsChanged").count();
    assert_eq!(told(&world), 1);
    world.reload();
    world.arrive(completed(1, "4"));
    assert_eq!(told(&world), 1, "it is known");
    assert_eq!(readable_types(&world).len() as u64, world.state().events, "what is counted is what is shown");
    // The recorded ones stand.
    assert_eq!(world.arrive(completed(2, "0")), ["complete 4"]);
}

#[test]
fn strict_workflows_diverge_by_arguments_too() {
    let world = World::run(asks_for_one, &1);
    for app in [app(asks_for_more).strict(), app(asks_for_more).strict_workflow("test")] {
        app.check().unwrap();
        let failure = LiveRun::replay(&Arc::new(app), &run_key(0), &world.log).map(|_| ()).unwrap_err();
        let TurnFailure::Diverged { turn: 1, recorded, attempted, differences } = &failure else {
            panic!("{failure:?}")
        };
        for side in [recorded, attempted] {
            assert!(matches!(side, Asked::For { place: Some(place), .. } if place.contains("script.rs:")), "{side:?}");
        }
        assert_eq!(differences.iter().map(|difference| &*difference.field).collect::<Vec<_>>(), ["input"]);
    }
    // The same code is no divergence, and others are not strict.
    LiveRun::replay(&Arc::new(app(asks_for_one).strict()), &run_key(0), &world.log).unwrap();
    let other = app(asks_for_more).workflow("other", asks_for_one).strict_workflow("other");
    LiveRun::replay(&Arc::new(other), &run_key(0), &world.log).unwrap();
    let mistake = app(asks_for_one).strict_workflow("tset").check().unwrap_err().to_string();
    assert!(mistake.contains("no workflow \"tset\" is registered, which is to be strict"), "{mistake}");
}

/// Keeps what is logged by tests, and as a warning, by thread.
struct Counter;
thread_local! {
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn listen() {
    static LISTEN: Once = Once::new();
    // For the whole process, as programs have it.
    LISTEN.call_once(|| tracing::subscriber::set_global_default(Counter).unwrap());
}

/// What an event says, in one line.
struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl tracing::Subscriber for Counter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "of the workflow" || *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LOGGED.with_borrow_mut(|lines| lines.push(line.0));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn what_the_code_logs_appears_once() {
    listen();
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            tracing::info!(target: "of the workflow", "begun");
            let n = cx.activity(double, &n).options(MINUTE).await?;
            tracing::info!(target: "of the workflow", "doubled");
            Ok(n)
        },
        &1,
    );
    world.reload();
    assert_eq!(LOGGED.take().len(), 1);
    world.arrive(completed(1, "2"));
    world.reload();
    assert_eq!(LOGGED.take().len(), 1);
}

#[test]
fn a_signal_that_does_not_fit_is_told_once_with_the_line_that_waits() {
    listen();
    let line = line!() + 2;
    let waits = |cx: Workflow, n: u32| async move {
        cx.signal(GO).await?;
        cx.activity(double, &n).options(MINUTE).await
    };
    let mut world = World::run(waits, &1);
    world.arrive(signal("a", "go", "7"));
    world.reload();
    world.arrive(signal("b", "go", "true"));
    world.reload();
    world.merged([signal("c", "go", "8")]);
    world.reload();
    let told = LOGGED.take();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("signal=\"go\"") && told[0].contains("expected a boolean"), "{told:?}");
    assert!(told[0].contains(&format!("core/tests/script.rs:{line}")), "{told:?}");
}
