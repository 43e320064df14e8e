//! Places in failures and panics are the user's own: what the library says on behalf of his code names the line that
//! asked for it, and no line of the library.

mod common;

use common::{World, commands, completed, double, json, secs};
use dormouse_core::operations::{self, Closed, Command};
use dormouse_core::{
    Failure, LocalActivityOptions, Query, QueryFailure, RetryPolicy, RetryState, TurnFailure, Workflow,
};

const HALF: Query<u32, u32> = Query::new("half");
const BUSY: Query<()> = Query::new("busy");

/// It arose in this line of this file.
#[track_caller]
fn is_at(place: Option<&str>, line: u32) {
    let expected = format!("core/tests/places.rs:{line}");
    let place = place.unwrap_or_else(|| panic!("no place, and not {expected}"));
    assert!(place.ends_with(&expected) || place.contains(&format!("{expected}:")), "{place} is not {expected}");
}

#[track_caller]
fn is_failure_at(failure: &Failure, type_name: &str, line: u32) {
    assert_eq!(failure.type_name(), Some(type_name), "{failure:?}");
    is_at(failure.place.as_deref(), line);
}

/// How the run failed.
fn failed(world: &World) -> Failure {
    let batch = world.batch(world.log.len() - 1);
    match commands(&batch).pop() {
        Some(Command::Fail(operations::Fail { failure })) => failure,
        other => panic!("{other:?}"),
    }
}

async fn number(_: Workflow, n: u32) -> Result<u32, Failure> {
    Ok(n)
}

const DOUBLED: u32 = line!() + 2;
async fn doubled(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.activity(double, &n).start_to_close(secs(60)).await
}

const ONCE: u32 = line!() + 3;
async fn once(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let once = LocalActivityOptions::start_to_close(secs(1)).retry(RetryPolicy::max_attempts(1));
    cx.local_activity(double, &n).options(once).await
}

async fn large(_: Workflow, _: u32) -> Result<String, Failure> {
    Ok("x".repeat(3 << 20))
}

const ASKED: u32 = line!() + 2;
async fn asked(cx: Workflow, _: u32) -> Result<(), Failure> {
    cx.answer(HALF, |n| 1 / n);
    cx.answer(BUSY, {
        let cx = cx.clone();
        move |()| drop(cx.sleep(secs(1)))
    });
    cx.canceled().await;
    Ok(())
}

const RESTING: u32 = line!() + 2;
async fn resting(cx: Workflow, _: u32) -> Result<(), Failure> {
    cx.sleep(secs(60)).await?;
    Ok(())
}

const IMPATIENT: u32 = line!() + 2;
async fn impatient(cx: Workflow, n: u32) -> Result<Option<u32>, Failure> {
    cx.timeout(secs(60), cx.activity(double, &n).start_to_close(secs(60))).await
}

const PARSED: u32 = line!() + 2;
async fn parsed(_: Workflow, text: String) -> Result<u32, Failure> {
    let number: u32 = text.parse()?;
    Ok(number)
}

/// Panics in each of the ways in which the code of a workflow can.
async fn panics(cx: Workflow, how: String) -> Result<u32, Failure> {
    struct Falls;
    impl Drop for Falls {
        fn drop(&mut self) {
            panic!("falls");
        }
    }
    async fn stray(_: dormouse_core::Activity, n: u32) -> Result<u32, Failure> {
        Ok(n)
    }
    let none: Vec<u32> = Vec::new();
    match how.as_str() {
        "index" => Ok(none[3]),
        "predicate" => Ok(cx.wait_until(move || none[3] > 0).await.map(|()| 0)?),
        "drop" => Ok(Some(Falls).map_or(0, |_| 1)),
        "stray" => cx.local_activity(stray, &1).await,
        "effect" => Ok(cx.side_effect("time", || cx.clone().side_effect("again", || 1))),
        // As another crate's code does: the hook hears nothing of it.
        "unheard" => std::panic::resume_unwind(Box::new("unheard")),
        _ => Ok(std::panic::catch_unwind(|| none[3]).unwrap_or_else(|_| panic!("again"))),
    }
}

#[test]
fn values_that_do_not_fit() {
    let mut world = World::idle(common::app(number), "test", json("\"x\""));
    world.settle();
    let failure = failed(&world);
    assert_eq!(failure.place, None, "nobody's line asked for it");
    assert!(failure.message.starts_with("the input of workflow type \"test\": "), "{failure}");
    assert!(failure.message.contains("expected u32"), "{failure}");

    let mut world = World::run(doubled, &7);
    world.arrive(completed(1, "[1]"));
    is_failure_at(&failed(&world), "Deserialization", DOUBLED);
    assert!(failed(&world).message.starts_with("the result of activity \"double\": "), "{}", failed(&world));

    let failure = failed(&World::run(large, &7));
    assert_eq!((failure.type_name(), failure.place.as_deref()), (Some("PayloadTooLarge"), None));
    assert!(failure.message.starts_with("the result of workflow type \"test\": "), "{failure}");
    is_failure_at(&failed(&World::run(once, &7)), "InvalidOptions", ONCE);
}

#[test]
fn what_comes_through_the_question_mark() {
    let failure = failed(&World::run(parsed, &"seven".to_owned()));
    is_at(failure.place.as_deref(), PARSED);

    let mut world = World::run(doubled, &7);
    let cause = Failure::unplaced("no").non_retryable();
    world.arrive(common::failed(1, 1, cause, RetryState::NonRetryableFailure));
    is_at(failed(&world).place.as_deref(), DOUBLED);
}

#[test]
fn cancellation_says_where_it_was_let_through() {
    let canceled = |mut world: World| {
        world.arrive(common::cancel("c"));
        match world.state().closed.clone() {
            Some(Closed::Canceled(failure)) => failure.place,
            other => panic!("{other:?}"),
        }
    };
    is_at(canceled(World::run(resting, &7)).as_deref(), RESTING);
    is_at(canceled(World::run(doubled, &7)).as_deref(), DOUBLED);
    is_at(canceled(World::run(impatient, &7)).as_deref(), IMPATIENT);
}

#[test]
fn panics_of_workflows() {
    let first = line_of("\"index\" =>");
    let expected = [
        ("index", Some(first), "index out of bounds: the len is 0 but the index is 3"),
        ("predicate", Some(first + 1), "index out of bounds"),
        ("drop", Some(line_of("panic!(\"falls\")")), "falls"),
        ("stray", Some(first + 3), "stray is not registered"),
        ("effect", Some(first + 4), "a side effect's closure tried to act"),
        ("unheard", None, "unheard"),
        ("twice", Some(line_of("panic!(\"again\")")), "again"),
    ];
    for (how, line, said) in expected {
        let mut world = World::idle(common::app(panics), "test", json(&format!("{how:?}")));
        let Err(TurnFailure::Panicked { panic, .. }) = world.try_settle() else { panic!("{how} went through") };
        assert!(panic.message.contains(said), "{how}: {panic}");
        match line {
            Some(line) => is_at(panic.place.as_deref(), line),
            None => assert_eq!(panic.place, None, "another's place is none: {how}"),
        }
    }
}

/// The first line of this file that holds this.
fn line_of(code: &str) -> u32 {
    let at = include_str!("places.rs").lines().position(|line| line.contains(code)).unwrap();
    at as u32 + 1
}

#[test]
fn queries_that_fail() {
    let world = World::run(asked, &7);
    let cases = [
        ("half", "\"x\"", "Deserialization", ASKED),
        ("half", "0", "Panic", ASKED),
        ("busy", "null", "Panic", ASKED + 3),
    ];
    for (query, argument, type_name, line) in cases {
        match world.live.query(query, &json(argument)) {
            Err(QueryFailure::Failed(failure)) => is_failure_at(&failure, type_name, line),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_the_user_raises_keeps_its_place() {
    let failure = Failure::application("no");
    is_at(failure.place.as_deref(), line!() - 1);
}
