//! F6: whatever message is lost, the sweep heals it, within two sweeps of when it was due.

use std::time::Duration;

use dormouse_core::{RunKey, Status};
use dormouse_engine::attempts::{Claiming, claim};
use dormouse_testing::world::{Process, drive, run};
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use super::attempts::work;
use super::workflows::app;

/// One look of the sweep, an interval after the last, and what comes of it.
fn look(world: &World, process: &Process) {
    world.pass_sweeps(1);
    world.sweep();
    process.deliver();
    world.ring();
    process.deliver();
}

fn heals(world: &World, run: &RunKey, process: &Process, healed: impl Fn() -> bool) {
    assert!(!healed(), "nothing is lost yet");
    for _ in 0..2 {
        look(world, process);
    }
    assert!(healed(), "two sweeps later: {:?}", world.state(run));
}

#[test]
fn f6_heals_the_message_of_a_start() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("nap", "w", "r1", &3600);
    world.mail.drop_messages();
    heals(&world, &run, &process, || !world.state(&run).pending.timers.open.is_empty());
}

#[test]
fn f6_heals_the_message_of_an_input() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &1);
    process.deliver();
    process.signal("w", "s", "word", &"hi");
    world.mail.drop_messages();
    heals(&world, &run, &process, || world.result(&run) == Some(json!(["hi"])));
}

#[test]
fn f6_heals_an_activity_task() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("queued", "w", "r1", &1);
    process.deliver();
    let lost = world.mail.take_tasks();
    look(&world, &process);
    look(&world, &process);
    let again = world.mail.take_tasks();
    assert!(!again.is_empty() && again.iter().all(|task| *task == lost[0]), "the same task: {again:?}");
    // However many there are now, one runs.
    for task in again.into_iter().chain(lost) {
        work(&world, &process, task);
        process.deliver();
    }
    assert_eq!(world.result(&run), Some(json!(1)));
}

/// The worker dies with its claim, or its news is lost: when its lease has ended, the attempt is given up.
#[test]
fn f6_heals_a_lost_completion() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("queued", "w", "r1", &1);
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    work(&world, &process, task);
    assert_eq!(world.mail.drop_messages().len(), 1, "the news");
    // The lease has ended by the first look: told to the run, which asks for the next attempt.
    for _ in 0..2 {
        look(&world, &process);
        for task in world.mail.take_tasks() {
            work(&world, &process, task);
            process.deliver();
        }
        // The retry comes after its delay.
        world.pass(Duration::from_secs(5));
        for task in world.mail.take_tasks() {
            work(&world, &process, task);
            process.deliver();
        }
    }
    assert_eq!(world.result(&run), Some(json!(2)), "the second attempt counts");
}

#[test]
fn f6_heals_an_alarm() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("nap", "w", "r1", &10);
    process.deliver();
    world.mail.drop_alarms();
    heals(&world, &run, &process, || world.state(&run).status() == Status::Completed);
}

#[test]
fn f6_heals_a_roll_forward() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &1);
    process.deliver();
    process.signal("w", "a", "word", &"on");
    process.signal("w", "b", "word", &"carried");
    let dying = world.process();
    dying.faults.plan(On::Create(Some(0)), Fault::CrashBefore);
    let messages = world.mail.drop_messages();
    assert!(messages.into_iter().any(|message| dying.handle(message).is_none()));
    world.mail.drop_messages();
    let next = run("w", 1);
    heals(&world, &first, &process, || world.records(&next).len() > 1 && world.result(&next).is_some());
}

/// The next run exists, but nobody was told of it.
#[test]
fn f6_heals_the_message_of_a_next_run() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &1);
    process.deliver();
    process.signal("w", "a", "word", &"on");
    process.signal("w", "b", "word", &"carried");
    let dying = world.process();
    dying.faults.plan(On::Create(Some(0)), Fault::CrashAfter);
    let messages = world.mail.drop_messages();
    assert!(messages.into_iter().any(|message| dying.handle(message).is_none()));
    world.mail.drop_messages();
    let next = run("w", 1);
    heals(&world, &first, &process, || world.result(&next) == Some(json!(["carried"])));
}

/// The process dies with a local activity that nobody has written down.
#[test]
fn f6_heals_a_local_activity() {
    let world = World::new(app());
    let dying = world.process();
    let run = dying.start("local", "w", "r1", &2);
    dying.deliver();
    let first = world.mail.take_locals().remove(0);
    dying.complete_local(&first, &1);
    drop(dying);
    world.mail.take_locals();
    let process = world.process();
    look(&world, &process);
    let [second] = &world.mail.take_locals()[..] else { panic!("the step that is not recorded, and no other") };
    process.complete_local(second, &2);
    assert_eq!(world.result(&run), Some(json!(3)));
}

/// A local activity that waits for its next attempt, and the alarm for that is lost.
#[test]
fn f6_heals_the_alarm_of_a_local_activity() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("local", "w", "r1", &1);
    process.deliver();
    let task = world.mail.take_locals().remove(0);
    process.put_off_local(&task, world.now() + Duration::from_secs(30));
    assert_eq!(world.mail.alarm(&run), Some(world.now() + Duration::from_secs(30)));
    assert_eq!(world.mail.take_locals().len(), 0, "not before its time");
    world.mail.drop_alarms();
    look(&world, &process);
    let [task] = &world.mail.take_locals()[..] else { panic!("the next attempt") };
    assert_eq!(task.attempt, 2);
    process.complete_local(task, &2);
    assert_eq!(world.result(&run), Some(json!(2)));
}

/// The result of a local activity comes when its run has left memory, or has been read afresh.
#[test]
fn f6_a_local_result_finds_a_run_that_was_read_afresh() {
    let world = World::new(app());
    for fresh_process in [false, true] {
        let id = format!("w{fresh_process}");
        let process = world.process();
        let run = process.start("local", &id, "r1", &2);
        process.deliver();
        let first = world.mail.take_locals().remove(0);
        process.complete_local(&first, &1);
        let second = world.mail.take_locals().remove(0);
        look(&world, &process);
        assert_eq!(world.mail.take_locals().len(), 0, "it is under way, and not begun again");
        if fresh_process {
            world.process().complete_local(&second, &2)
        } else {
            process.complete_local(&second, &2)
        };
        assert_eq!(world.result(&run), Some(json!(3)));
    }
}

/// A first batch whose message comes again when all is over: no recorded step runs again.
#[test]
fn f6_a_late_copy_of_a_start_repeats_nothing() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("local", "w", "r1", &2);
    let copies = world.mail.messages();
    process.deliver();
    for _ in 0..2 {
        let task = world.mail.take_locals().remove(0);
        process.complete_local(&task, &1);
    }
    world.pass(Duration::from_hours(24 * 4));
    for message in copies {
        world.process().handle(message).unwrap().unwrap();
    }
    assert_eq!(world.mail.take_locals().len(), 0);
    assert_eq!(world.result(&run), Some(json!(2)));
}

/// All at once: nothing that is ever sent arrives, but by the sweep.
#[test]
fn f6_a_run_goes_its_way_by_sweeps_alone() {
    let world = World::new(app());
    let begun = world.now();
    let run = world.process().start("in time", "w", "r1", &());
    world.mail.drop_messages();
    for _ in 0..400 {
        // Each look finds a process that has just begun.
        let process = world.process();
        world.clock.set(world.due(&run).unwrap_or(world.now()) + Duration::from_secs(1));
        world.sweep();
        process.deliver();
        world.ring();
        process.deliver();
        world.mail.drop_alarms();
        for task in world.mail.take_tasks() {
            if matches!(drive(claim(&process.ports, &task, None)), Some(Ok(Claiming::Claimed(_))))
                && task.activity_type == "late"
            {
                process.complete(&task, 1, &());
            }
        }
        if world.state(&run).closed.is_some() {
            assert_eq!(world.result(&run), Some(json!("late")), "after {:?}", world.now().since(begun));
            return;
        }
    }
    panic!("it has not come to an end: {:#?}", world.state(&run));
}
