//! C5, C6 and C8: runs of one workflow, one after the other, and their time.

use std::time::Duration;

use dormouse::{IdConflictPolicy, Status};
use dormouse_core::history::BatchKind;
use dormouse_engine::ApiError;
use dormouse_engine::seams::RunMessage;
use dormouse_testing::world::{Process, SWEEP, drive, run, start_body};
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use super::workflows::app;

fn replace(process: &Process, request_id: &str) -> (dormouse::RunId, bool) {
    let body = start_body("words", "w", &1, IdConflictPolicy::TerminateExisting);
    let (started, created) = drive(process.front.start(Some(request_id), body)).unwrap().unwrap();
    (started.run_id, created)
}

#[test]
fn c5_a_run_begins_only_after_the_one_before_is_closed() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("words", "w", "r1", &1);
    process.deliver();
    let body = start_body("words", "w", &1, IdConflictPolicy::Fail);
    let refused = drive(process.front.start(Some("r2"), body.clone())).unwrap().unwrap_err();
    assert!(matches!(refused, ApiError::AlreadyStarted { run_id, .. } if run_id == world.state(&first).run_id()));
    assert_eq!(world.records(&run("w", 1)).len(), 0, "nothing stands where the next run would be");

    let joined = start_body("words", "w", &1, IdConflictPolicy::UseExisting);
    let (joined, created) = drive(process.front.start(Some("r3"), joined)).unwrap().unwrap();
    assert_eq!((joined.run_id, created), (world.state(&first).run_id(), false));

    process.signal("w", "s", "word", &"done");
    process.deliver();
    let second = process.start("words", "w", "r4", &1);
    assert_eq!((second.ordinal, world.state(&first).status()), (1, Status::Completed));
    assert_ne!(world.state(&second).run_id(), world.state(&first).run_id());
}

/// Two processes start a run at the same time. One is told that it created it, the other that there is one.
#[test]
fn c5_racing_starts_make_one_run() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    one.start("local", "w", "r0", &0);
    one.deliver();
    // The other one's start is under way, and has seen the closed run, when it loses.
    other.faults.plan(On::Create(Some(0)), Fault::CrashBefore);
    let body = start_body("words", "w", &1, IdConflictPolicy::Fail);
    assert!(drive(other.front.start(Some("r1"), body)).is_none(), "it dies on the way");
    let second = one.start("words", "w", "r2", &1);
    // The intent of the dead one comes late, and finds the place taken.
    one.deliver();
    assert_eq!((second.ordinal, world.records(&run("w", 2)).len()), (1, 0));
    assert_eq!(world.state(&second).started.request_id, "r2");
}

/// The process dies right after the batch that closes the run. Whoever creates the next run, whenever, and however
/// often: it is the same, to the byte.
#[test]
fn c6_anyone_rolls_a_continued_run_forward() {
    let world = World::new(app());
    let dying = world.process();
    let first = dying.start("chain", "w", "r1", &1);
    dying.deliver();
    dying.signal("w", "s1", "word", &"go");
    dying.signal("w", "s2", "word", &"carried");
    let [_, hear_both] = &world.mail.drop_messages()[..] else { panic!("a message for each signal") };
    dying.faults.plan(On::Create(None), Fault::CrashAfter);
    assert!(dying.handle(hear_both.clone()).is_none(), "it dies over the batch that closes the run");
    drop(dying);
    let closed = world.state(&first);
    assert_eq!((closed.status(), world.row(&first).unwrap().status), (Status::ContinuedAsNew, Status::ContinuedAsNew));
    let derived = closed.next_run().unwrap().encode();
    let next = run("w", 1);
    assert_eq!(world.records(&next).len(), 0, "it died in time");
    anyone_may(&world, &first, &next, &derived);

    let heir = world.process();
    heir.deliver();
    let state = world.state(&next);
    assert_eq!(state.started.continued_from, Some(closed.run_id()));
    assert_eq!(world.result(&next), Some(json!(["carried"])), "a signal that nobody heard goes along");
}

/// The same for a start that terminates the open run.
#[test]
fn c6_anyone_rolls_a_replaced_run_forward() {
    let world = World::new(app());
    let dying = world.process();
    let first = dying.start("words", "w", "r1", &1);
    dying.deliver();
    dying.faults.plan(On::Create(None), Fault::CrashAfter);
    let body = start_body("words", "w", &1, IdConflictPolicy::TerminateExisting);
    assert!(drive(dying.front.start(Some("r2"), body)).is_none(), "it dies on the way");
    drop(dying);
    world.mail.drop_messages();
    let closed = world.state(&first);
    assert_eq!(closed.status(), Status::Terminated);
    let next = run("w", 1);
    assert_eq!(world.records(&next).len(), 0, "it died in time");
    // The id is not free for anyone else.
    let body = start_body("chain", "w", &1, IdConflictPolicy::Fail);
    let stranger = drive(world.process().front.start(Some("stranger"), body)).unwrap();
    assert!(matches!(stranger, Err(ApiError::AlreadyStarted { .. })), "{stranger:?}");
    world.mail.drop_messages();
    assert_eq!(world.state(&next).started.request_id, "r2");
    assert_eq!(world.records(&next), [closed.next_run().unwrap().encode()]);
    // Whoever asked asks again, and gets his run.
    assert_eq!(replace(&world.process(), "r2"), (world.state(&next).run_id(), false));
}

/// Without accidents, who asks is told that the run is his.
#[test]
fn c6_a_start_that_replaces_a_run_has_created_its_own() {
    let world = World::new(app());
    let process = world.process();
    process.start("words", "w", "r1", &1);
    process.deliver();
    let (run_id, created) = replace(&process, "r2");
    assert_eq!((world.state(&run("w", 1)).run_id(), true), (run_id, created));
    process.deliver();
    assert_eq!(replace(&process, "r2"), (run_id, false), "and the next time, that it was there");
    process.signal("w", "s", "word", &"done");
    process.deliver();
    assert_eq!(world.result(&run("w", 1)), Some(json!(["done"])));
}

fn anyone_may(world: &World, closed: &dormouse_core::RunKey, next: &dormouse_core::RunKey, derived: &[u8]) {
    for minute in 0..3 {
        // Another time, another process.
        world.pass(Duration::from_mins(minute));
        let process = world.process();
        let dies = minute < 2;
        if dies {
            process.faults.plan(On::Create(Some(0)), Fault::CrashAfter);
        }
        assert_eq!(process.handle(RunMessage::Sweep { run: closed.clone() }).is_none(), dies);
        assert_eq!(world.records(next), [derived], "derived, to the byte");
    }
    assert_eq!(world.row(closed).unwrap().due, None, "nothing is owed any more");
}

/// A clock that is an hour behind, or jumps: recorded time stands still until it has caught up.
#[test]
fn c8_recorded_time_never_goes_back() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("times", "w", "r1", &4);
    process.deliver();
    let noon = world.now();
    for (signal, time) in [
        ("a", noon + Duration::from_secs(10)),
        ("b", noon - Duration::from_hours(1)),
        ("c", noon - Duration::from_mins(1)),
        ("d", noon + Duration::from_secs(20)),
    ] {
        world.clock.set(time);
        process.signal("w", signal, "word", &signal);
        // Every other word finds a process that has just begun.
        if signal == "b" {
            world.process().deliver()
        } else {
            process.deliver()
        };
    }
    let times: Vec<dormouse::Timestamp> = serde_json::from_value(world.result(&first).expect("times")).unwrap();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times.last(), Some(&(noon + Duration::from_secs(20))));
    assert!(world.batches(&first).is_sorted_by_key(|batch| batch.time), "the batches too");

    // The next run does not begin before the last one ended.
    world.clock.set(noon - Duration::from_hours(1));
    let second = process.start("times", "w", "r2", &1);
    assert!(world.state(&second).started_at >= noon + Duration::from_secs(20));
}

/// A timer does not fire before its time, and fires once, whatever the clock says in between.
#[test]
fn c8_a_timer_fires_once_and_not_early() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("nap", "w", "r1", &10);
    process.deliver();
    let begun = world.now();
    let run_id = world.state(&first).run_id();
    for time in [begun + Duration::from_secs(9), begun - Duration::from_mins(5), begun + Duration::from_secs(10)] {
        assert_eq!(world.state(&first).status(), Status::Running, "not early");
        world.clock.set(time);
        for _ in 0..2 {
            world.mail.arrive(&first, run_id, dormouse_core::Arrival::Alarm);
        }
        process.deliver();
    }
    assert_eq!(world.state(&first).status(), Status::Completed);
    let decided = world.batches(&first).iter().filter(|batch| batch.kind == BatchKind::Decided).count();
    assert_eq!(decided, 2, "it fired once");
    assert!(world.now() < begun + SWEEP);
}
