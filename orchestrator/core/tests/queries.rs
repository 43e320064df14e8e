//! Queries, published values, and what is the same on every replay.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use common::{GO, MINUTE, NUMBER, SWEEP, World, app, double, json, run_key, secs, signal, start_request};
use dormouse_core::{CommitId, Failure, Panic, Payload, Query, QueryFailure, RunId, Timestamp, TurnFailure, Workflow};
use rand_core::Rng;

const SUM: Query<u32> = Query::new("sum");
const ABOVE: Query<bool, u32> = Query::new("above");
const BREAK: Query<u32, String> = Query::new("break");

async fn sums(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let published = cx.publish(SUM, 0);
    let sum = Rc::new(Cell::new(0));
    let handlers = Rc::clone(&sum);
    cx.answer(ABOVE, move |than| handlers.get() > than);
    loop {
        let n = cx.signal(NUMBER).await?;
        if n == 0 {
            return Ok(published.get());
        }
        sum.set(sum.get() + n);
        published.set(sum.get());
    }
}

#[test]
fn published_values_stand_in_the_history() {
    let mut world = World::run(sums, &());
    assert_eq!(world.last_commands(), ["publish sum=0"]);
    assert_eq!(world.arrive(signal("a", "number", "4")), ["publish sum=4"]);
    assert_eq!(world.state().pending.published.values["sum"], json("4"));
    assert_eq!(world.live.query("sum", &Payload::NULL), Ok(json("4")));
    assert_eq!(world.arrive(signal("b", "number", "0")), ["complete 4"]);
    assert_eq!(world.state().pending.published.values["sum"], json("4"), "after the close as well");
}

#[test]
fn handlers_answer_on_any_replica() {
    let mut world = World::run(sums, &());
    world.arrive(signal("a", "number", "4"));
    let again = world.replay().unwrap();
    for live in [&world.live, &again] {
        assert_eq!(live.query("above", &json("3")), Ok(json("true")));
        assert_eq!(live.query("above", &json("4")), Ok(json("false")));
        let Err(QueryFailure::Failed(failure)) = live.query("above", &json("\"x\"")) else { panic!("it does not fit") };
        assert_eq!(failure.type_name(), Some("Deserialization"));
        assert_eq!(live.query("none", &json("1")), Err(QueryFailure::Unknown(vec!["above".into(), "sum".into()])));
    }
}

/// A workflow whose query handler tries whatever it is told.
async fn meddled_with(cx: Workflow, _: ()) -> Result<(u32, Vec<u32>, u64), Failure> {
    let status = Rc::new(cx.publish(SUM, 1));
    let handler = (cx.clone(), Rc::clone(&status));
    cx.answer(BREAK, move |how: String| {
        let (cx, status) = &handler;
        match how.as_str() {
            "sleep" => drop(cx.sleep(secs(1))),
            "activity" => drop(cx.activity(double, &1).options(MINUTE).start()),
            "local" => drop(cx.local_activity(double, &1).start()),
            "publish" => drop(cx.publish(SUM, 7)),
            "set" => status.set(7),
            "signal" => drop(cx.signals(NUMBER).try_next()),
            "random" => drop(cx.random("dice").fraction()),
            "uuid" => drop(cx.uuid()),
            "continue" => drop(cx.continue_as_new::<_, _, ()>(meddled_with, &())),
            "answer" => cx.answer(SUM, |()| 7),
            "panic" => panic!("the handler's own"),
            _ => {}
        }
        status.get()
    });
    cx.signal(GO).await?;
    let mut numbers = cx.signals(NUMBER);
    let all = std::iter::from_fn(|| numbers.try_next()).collect();
    Ok((status.get(), all, (cx.random("dice").fraction() * 1e6) as u64))
}

#[test]
fn a_query_that_acts_is_an_error_and_changes_nothing() {
    let untouched = |meddle: bool| {
        let mut world = World::run(meddled_with, &());
        world.arrive(signal("n", "number", "5"));
        for how in
            ["sleep", "activity", "local", "publish", "set", "signal", "random", "uuid", "continue", "answer", "panic"]
        {
            if meddle {
                let answer = world.live.query("break", &Payload::encode(how).unwrap());
                let Err(QueryFailure::Failed(failure)) = answer else { panic!("{how} went through: {answer:?}") };
                let expected = if how == "panic" { "the handler's own" } else { "queries are read-only" };
                assert!(failure.message.contains(expected), "{how}: {failure}");
                world.check();
            }
        }
        assert_eq!(world.live.query("break", &json("\"\"")), Ok(json("1")));
        world.arrive(signal("g", "go", "true"))
    };
    let closing = untouched(false);
    assert!(closing[0].starts_with("complete [1,[5],"), "{closing:?}");
    assert_eq!(untouched(true), closing);
}

#[test]
fn a_value_that_cannot_be_published_parks_the_run() {
    let unprintable = |cx: Workflow, _: ()| async move {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        const MAP: Query<std::collections::BTreeMap<(u32, u32), u32>> = Query::new("map");
        let _ = cx.publish(MAP, map);
        Ok(())
    };
    let mut world = World::idle(common::app(unprintable), "test", json("null"));
    let Err(TurnFailure::Panicked { panic: Panic { message, .. }, .. }) = world.try_settle() else {
        panic!("no JSON object has such keys")
    };
    assert!(message.contains("query \"map\" cannot be published"), "{message}");
}

#[test]
fn handlers_that_hold_timers_and_the_context_are_let_go() {
    struct Told(Rc<Cell<bool>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    thread_local! {
        static GONE: Rc<Cell<bool>> = Rc::default();
    }
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let held = RefCell::new(Some((cx.sleep(secs(60)), cx.clone())));
            cx.answer(SUM, move |()| u32::from(held.borrow().is_some()));
            cx.signal(GO).await?;
            // The former handler goes, and its timer with it.
            let told = Told(GONE.with(Rc::clone));
            let held = (cx.sleep(secs(90)), cx.clone(), told);
            cx.answer(SUM, move |()| u32::from(held.2.0.get()));
            cx.signal(GO).await?;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["timer 1 at 61000"]);
    assert_eq!(world.arrive(signal("a", "go", "true")), ["timer 2 at 91000", "cancel timer 1"]);
    GONE.with(|gone| gone.set(false));
    drop(world);
    assert!(GONE.with(|gone| gone.get()), "unloading lets handlers go, though they hold the context");
}

#[test]
fn code_that_panics_while_it_leaves_memory_harms_nobody() {
    struct Touchy;
    impl Drop for Touchy {
        fn drop(&mut self) {
            assert!(!std::thread::panicking());
            panic!("not like this");
        }
    }
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            let touchy = Touchy;
            cx.signal(GO).await?;
            std::mem::forget(touchy);
            Ok(())
        },
        &(),
    );
    drop(world);
}

#[test]
fn time_and_chance_are_the_same_on_every_replay() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (mut dice, mut coins) = (cx.random("dice"), cx.random("coins"));
                let drawn = (dice.fraction(), coins.fraction());
                seen.push(format!("{} {:?} {}", cx.now().as_millis(), drawn, cx.uuid()));
                let published = cx.publish(Query::<String>::new("seen"), seen.join(";"));
                cx.signal(GO).await?;
                drop(published);
            }
            Ok(seen)
        },
        &(),
    );
    let mut last = String::new();
    for (n, id) in ["a", "b", "c"].iter().enumerate() {
        world.clock += 1_000;
        let again = world.replay().unwrap();
        assert_eq!(again.state().pending.published.values, world.state().pending.published.values);
        // Every other turn is taken by a process that has just replayed.
        if n % 2 == 1 {
            world.reload();
        }
        last = world.arrive(signal(id, "go", "true")).remove(0);
    }
    let seen: Vec<String> = serde_json::from_str(last.strip_prefix("complete ").unwrap()).unwrap();
    assert!(seen[0].starts_with("1000 ") && seen[1].starts_with("2000 ") && seen[2].starts_with("3000 "), "{seen:?}");
    let uuids: std::collections::BTreeSet<_> = seen.iter().map(|s| s.rsplit(' ').next().unwrap()).collect();
    assert_eq!(uuids.len(), 3);
}

#[test]
fn random_streams_do_not_disturb_one_another() {
    let draws = |cx: Workflow, disturb: bool| async move {
        let mut dice = cx.random("dice");
        let first = dice.fraction();
        if disturb {
            let _ = (cx.random("coins").fraction(), cx.uuid());
        }
        // A second handle goes on where the first stopped.
        Ok([first, cx.random("dice").fraction(), dice.fraction()].map(f64::to_bits))
    };
    let result = |disturb| World::run(draws, &disturb).last_commands();
    assert_eq!(result(true), result(false));
    let drawn: [u64; 3] = serde_json::from_str(result(true)[0].strip_prefix("complete ").unwrap()).unwrap();
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2]);
}

/// Golden: whoever replays the history of an earlier build draws what that build drew.
#[test]
fn what_a_run_draws_never_changes() {
    let draws = |cx: Workflow, _: ()| async move {
        let (mut dice, mut coins) = (cx.random("dice"), cx.random("coins"));
        let mut bytes = [0; 5];
        dice.fill(&mut bytes);
        let drawn = (dice.next_u32(), dice.next_u64(), dice.fraction().to_bits(), coins.next_u64());
        Ok((bytes, drawn, [cx.uuid(), cx.uuid()].map(|uuid| uuid.to_string())))
    };
    let drawn = [1, 2].map(|run_id| {
        let request = start_request("test", Payload::NULL);
        let (run, commit_id) = (run_key(0), CommitId::from_bytes([0; 16]));
        let clock = Timestamp::from_millis(1_000);
        let first = request.first_batch(&run, RunId::from_bytes([run_id; 16]), commit_id, clock, None, SWEEP);
        World::of(Arc::new(app(draws)), run, vec![first.encode()]).settle().remove(0)
    });
    let golden = [
        r#"complete [[165,183,116,166,4],[3094238137,6790213313322494526,4598717436614239168,4109317111551250505],["60806206-6f31-4e65-9c79-adcc1ee675df","6309bb57-1033-42e6-8fd2-7f7a5f50700c"]]"#,
        r#"complete [[80,101,68,16,129],[336532306,3164959781770255983,4595731960500861332,8212089397831882340],["1f5461ee-0bcb-47f4-b92e-a1bf58f88b16","da06ca1d-faa9-4ba1-94a8-9317c6820665"]]"#,
    ];
    assert_eq!(drawn, golden);
}

#[test]
fn time_never_runs_backwards() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut times = vec![cx.now()];
            for _ in 0..2 {
                cx.signal(GO).await?;
                times.push(cx.now());
            }
            Ok(times.iter().map(|at| at.as_millis()).collect::<Vec<_>>())
        },
        &(),
    );
    world.clock = 9_000;
    world.arrive(signal("a", "go", "true"));
    // Another host, whose clock is behind.
    world.clock = 500;
    assert_eq!(world.arrive(signal("b", "go", "true")), ["complete [1000,9000,9000]"]);
}
