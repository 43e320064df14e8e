//! Places in failures are the user's own: what the library says on behalf of his code names no line of the library.

mod common;

use common::{World, commands, completed, double, json, secs};
use dormouse_core::history::Command;
use dormouse_core::operations;
use dormouse_core::{Failure, LocalActivityOptions, Query, QueryFailure, RetryPolicy, Workflow};

const HALF: Query<u32, u32> = Query::new("half");

fn is_placeless(failure: &Failure, type_name: &str) {
    assert_eq!(failure.type_name(), Some(type_name), "{failure:?}");
    assert_eq!(failure.place, None, "{failure:?}");
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

async fn doubled(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.activity(double, &n).start_to_close(secs(60)).await
}

async fn once(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let once = LocalActivityOptions::start_to_close(secs(1)).retry(RetryPolicy::max_attempts(1));
    cx.local_activity(double, &n).options(once).await
}

async fn large(_: Workflow, _: u32) -> Result<String, Failure> {
    Ok("x".repeat(3 << 20))
}

async fn asked(cx: Workflow, _: u32) -> Result<(), Failure> {
    cx.answer(HALF, |n| 1 / n);
    cx.canceled().await;
    Ok(())
}

#[test]
fn values_that_do_not_fit() {
    let mut world = World::idle(common::app(number), "test", json("\"x\""));
    world.settle();
    is_placeless(&failed(&world), "Deserialization");
    assert!(failed(&world).message.contains("expected u32"));

    let mut world = World::run(doubled, &7);
    world.arrive(completed(1, "[1]"));
    is_placeless(&failed(&world), "Deserialization");

    is_placeless(&failed(&World::run(large, &7)), "PayloadTooLarge");
    is_placeless(&failed(&World::run(once, &7)), "InvalidOptions");
}

#[test]
fn queries_that_fail() {
    let world = World::run(asked, &7);
    for (argument, type_name) in [("\"x\"", "Deserialization"), ("0", "Panic")] {
        match world.live.query("half", &json(argument)) {
            Err(QueryFailure::Failed(failure)) => is_placeless(&failure, type_name),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_the_user_raises_keeps_its_place() {
    let failure = Failure::application("no");
    assert!(failure.place.unwrap().contains("places.rs"));
}
