//! Why a run is parked, as data: what programs read. Its form is a promise, as that of every body of the API.

use std::sync::Arc;

use dormouse_core::api::ParkedCause;
use dormouse_core::history::Damage;
use dormouse_core::{Activity, App, Failure, Limits, LiveRun, Query, Terms, TurnFailure, Workflow, WorkflowFunction};
use serde_json::{Value, json};

use crate::common::{GO, MINUTE, World, app, double, halve, json, run_key};

/// As it is stored and shown; and read again, it is the same.
fn data(failure: &TurnFailure) -> Value {
    let cause = ParkedCause::from(failure);
    let data = serde_json::to_value(&cause).unwrap();
    assert_eq!(serde_json::from_value::<ParkedCause>(data.clone()).unwrap(), cause);
    data
}

fn breaks<A, F: WorkflowFunction<A>>(code: F) -> Value {
    data(&World::idle(app(code), "test", json("1")).try_settle().unwrap_err())
}

fn diverges<A, B, F: WorkflowFunction<A>, G: WorkflowFunction<B>>(old: F, new: G) -> Value {
    let mut world = World::idle(app(old), "test", json("1"));
    world.settle();
    data(&LiveRun::replay(&Arc::new(app(new)), &run_key(0), &world.log).map(|_| ()).unwrap_err())
}

#[test]
fn a_divergence_has_both_sides_and_each_field() {
    let calls = |cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await };
    let (begun, called) = (line!() - 1, line!() + 1);
    let other = |cx: Workflow, n: u32| async move { cx.activity(halve, &(n + 1)).options(MINUTE).await };
    let at = |line: u32| format!("{}:{line}", file!());
    let file = |line: u32| json!([at(line)]);
    assert_eq!(
        diverges(calls, other),
        json!({
            "kind": "divergence", "turn": 1,
            "recorded": { "command": "activity", "name": "double", "id": "1", "places": file(begun) },
            "attempted": { "command": "activity", "name": "halve", "id": "1", "places": file(called) },
            "differences": [
                { "field": "activity_type", "recorded": "\"double\"", "attempted": "\"halve\"" },
                { "field": "input", "recorded": "1", "attempted": "2" },
            ],
        })
    );
    let waits = line!() + 1;
    let other = |cx: Workflow, _: u32| async move { Ok(u32::from(cx.signal(GO).await?)) };
    assert_eq!(diverges(calls, other)["attempted"], json!({ "places": file(waits) }), "it asks for nothing, and waits");
    let other = |cx: Workflow, _: u32| async move {
        cx.signal(GO).await?;
        Ok(0)
    };
    let mut silent = World::idle(app(other), "test", json("1"));
    silent.settle();
    let failure = LiveRun::replay(&Arc::new(app(calls)), &run_key(0), &silent.log).map(|_| ()).unwrap_err();
    assert_eq!(data(&failure)["recorded"], json!({}), "the history holds nothing");
    let publishes = |cx: Workflow, n: u32| async move {
        cx.publish(Query::<u32>::new("status"), n);
        Ok(n)
    };
    let asks = line!() + 2;
    let other = |cx: Workflow, n: u32| async move {
        if cx.patched("p") {
            cx.signal(GO).await?;
        }
        Ok(n)
    };
    let ended = json!({ "command": "complete the workflow" });
    assert_eq!(diverges(publishes, other)["attempted"], ended, "without a name, an id, a place");
    let patch = json!({ "command": "patch", "name": "p", "places": file(asks) });
    assert_eq!(diverges(other, publishes)["recorded"], patch);
}

#[test]
fn code_that_breaks_says_how_and_where() {
    let line = line!() + 2;
    let panics = breaks(|_: Workflow, n: u32| async move {
        assert_ne!(n, 1, "one is {}", "x".repeat(5_000));
        Ok(n)
    });
    assert_eq!((&panics["kind"], &panics["turn"]), (&json!("panic"), &json!(1)));
    let place = panics["place"].as_str().unwrap();
    assert!(place.starts_with(&format!("{}:{line}:", file!())), "{place}");
    let message = panics["message"].as_str().unwrap();
    assert!(message.contains("one is xxx") && message.len() == 2_000, "{message}");

    let foreign = breaks(|_: Workflow, _: u32| async move {
        std::future::pending::<()>().await;
        Ok(())
    });
    assert_eq!(foreign, json!({ "kind": "foreign_future", "turn": 1 }));
}

#[test]
fn what_is_not_registered_is_named_by_what_it_is() {
    async fn stray(_: Activity, n: u32) -> Result<u32, Failure> {
        Ok(n)
    }
    async fn astray(_: Workflow, n: u32) -> Result<u32, Failure> {
        Ok(n)
    }
    let line = line!() + 2;
    let cases = [
        breaks(|cx: Workflow, n: u32| async move { cx.activity(stray, &n).options(MINUTE).await }),
        breaks(|cx: Workflow, n: u32| async move { cx.local_activity(stray, &n).await }),
        breaks(|cx: Workflow, n: u32| async move { cx.continue_as_new::<_, _, ()>(astray, &n) }),
    ];
    for ((at, cause), what) in cases.iter().enumerate().zip(["activity", "activity", "workflow"]) {
        assert_eq!((&cause["kind"], &cause["what"]), (&json!("not_registered"), &json!(what)));
        assert!(cause["name"].as_str().unwrap().contains("stray"), "{cause}");
        let place = cause["place"].as_str().unwrap();
        assert!(place.starts_with(&format!("{}:{}:", file!(), line as usize + at)), "{place}");
    }
    // What panics afterwards is not taken for it.
    let caught = breaks(|cx: Workflow, n: u32| async move {
        let call = std::panic::AssertUnwindSafe(|| drop(cx.local_activity(stray, &n)));
        assert!(std::panic::catch_unwind(call).is_ok(), "another one");
        Ok(n)
    });
    assert_eq!(caught["kind"], "panic", "{caught}");

    let gone = World::idle(App::new(), "gone", json("1")).try_settle().unwrap_err();
    assert_eq!(data(&gone), json!({ "kind": "not_registered", "what": "workflow", "name": "gone" }));
}

#[test]
fn limits_stores_and_histories_have_their_kinds() {
    let world = World::idle(app(|_: Workflow, n: u32| async move { Ok(n) }), "test", json("1"));
    let limits = Limits { turn_events: 0, ..Limits::DEFAULT };
    let mut live =
        LiveRun::replay_under(&world.app, &run_key(0), &world.log, &Terms { limits, ..Terms::default() }).unwrap();
    let failure = live.decide(world.now()).map(|_| ()).unwrap_err();
    assert_eq!(data(&failure), json!({ "kind": "limit_reached", "turn": 1, "limit": "turn_events", "at_most": 0 }));
    assert_eq!(data(&TurnFailure::Endless { limit_ms: 10_000 }), json!({ "kind": "endless_turn", "limit_ms": 10_000 }));
    let refused = TurnFailure::NotStored { reason: "too much".into() };
    assert_eq!(data(&refused), json!({ "kind": "not_stored", "problem": "too much" }));
    for (damage, kind) in [
        (Damage::UnknownVersion { sequence: 3, version: 9 }, "unknown_version"),
        (Damage::UnknownBehaviour { sequence: 3, behaviour: 2 }, "unknown_behaviour"),
        (Damage::Undecodable { sequence: 3, problem: "p".into() }, "undecodable"),
        (Damage::BrokenChain { sequence: 3 }, "broken_chain"),
        (Damage::Contradiction { sequence: 3, problem: "p".into() }, "contradiction"),
    ] {
        let problem = damage.to_string();
        let expected = json!({ "kind": "damaged_history", "damage": kind, "batch": 3, "problem": problem });
        assert_eq!(data(&damage.into()), expected);
    }
}

#[test]
fn a_cause_of_a_later_build_is_read_as_unknown() {
    let later = json!({ "kind": "out_of_tea", "cups": 7 });
    assert_eq!(serde_json::from_value::<ParkedCause>(later).unwrap(), ParkedCause::Unknown);
    let more = json!({ "kind": "foreign_future", "turn": 1, "place": "a.rs:1" });
    assert_eq!(serde_json::from_value::<ParkedCause>(more).unwrap(), ParkedCause::ForeignFuture { turn: 1 });
}
