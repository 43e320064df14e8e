//! R1: what is delivered again, late, or for nothing sends nothing but what is provably lost. What is sent is counted.

use std::time::Duration;

use dormouse::{Payload, Status};
use dormouse_core::{ActivityTask, Arrival, RunKey, operations};
use dormouse_engine::attempts::{Claiming, claim};
use dormouse_engine::seams::{Delivery, Intent, RunMessage, Wish};
use dormouse_engine::store::AttemptKey;
use dormouse_engine::worker::handle_task;
use dormouse_testing::world::{Process, drive, latest};
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use super::workflows::app;

const WIDE: u32 = 10;

/// A run with activities under way, each claimed by a worker or not yet.
fn fan_out(world: &World, process: &Process, words: usize, claimed: bool) -> (RunKey, Vec<ActivityTask>) {
    let run = process.start("fan out", "w", "r1", &(WIDE, words));
    process.deliver();
    let tasks = world.mail.take_tasks();
    assert_eq!(tasks.len(), WIDE as usize);
    for task in tasks.iter().filter(|_| claimed) {
        assert!(matches!(drive(claim(&process.ports, task, None)), Some(Ok(Claiming::Claimed(_)))));
    }
    (run, tasks)
}

fn word(run: &RunKey, request_id: &str) -> RunMessage {
    let payload = Payload::encode(request_id).unwrap();
    let arrival = Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: "word".into(), payload });
    RunMessage::Intent(Intent { run: run.clone(), wish: Wish::Take { arrival, pinned: false } })
}

/// Receives a task; what it answers to the worker.
fn receive(world: &World, process: &Process, task: &ActivityTask, delivery: Delivery) {
    let handled = handle_task(world.app(), &process.ports, task.clone(), delivery, None);
    world.clock.drive(handled).expect("an end").unwrap();
}

/// A signal that its caller has recorded, and whose intent comes in the usual order; then both once more.
#[test]
fn r1_a_signal_beside_activities_sends_no_task() {
    for shared in [false, true] {
        let world = if shared { World::new(app()).shared() } else { World::new(app()) };
        let process = world.process();
        let (run, _) = fan_out(&world, &process, 3, false);
        let before = world.mail.sent().tasks;
        process.signal("w", "a", "word", &"a");
        let copies = world.mail.messages();
        process.deliver();
        for message in copies.into_iter().chain([word(&run, "a"), word(&run, "b"), word(&run, "b")]) {
            process.handle(message).unwrap().unwrap();
        }
        assert_eq!(world.mail.sent().tasks, before, "shared: {shared}");
        // To another process, that has to read the run first.
        let other = world.process();
        other.handle(word(&run, "a")).unwrap().unwrap();
        assert_eq!(world.mail.sent().tasks, before, "shared: {shared}");
    }
}

/// Alarms of timers that are not needed any more ring for nothing. They send no task, and are not set again.
#[test]
fn r1_a_stale_alarm_sends_nothing() {
    let world = World::new(app());
    let process = world.process();
    let (run, _) = fan_out(&world, &process, 3, false);
    process.signal("w", "a", "word", &"a");
    process.deliver();
    let run_id = world.state(&run).run_id();
    let before = world.mail.sent();
    for _ in 0..5 {
        world.mail.arrive(&run, run_id, Arrival::Alarm);
        process.deliver();
    }
    assert_eq!((world.mail.sent().tasks, world.mail.sent().alarms), (before.tasks, before.alarms));
    // One that rings a moment too early, by another host's clock, is set again.
    world.clock.set(world.mail.alarm(&run).unwrap());
    world.clock.set(dormouse::Timestamp::from_millis(world.now().as_millis() - 1));
    world.mail.drop_alarms();
    world.mail.arrive(&run, run_id, Arrival::Alarm);
    process.deliver();
    assert!(world.mail.alarm(&run).is_some(), "or its timer would wait for the sweep");
}

/// A copy of a task whose attempt runs comes to its end; only the worker's own message, come again, looks after it.
#[test]
fn r1_a_doubled_task_dies_out() {
    let world = World::new(app());
    let process = world.process();
    let (_, tasks) = fan_out(&world, &process, 1, true);
    process.count_anew();
    let before = world.mail.sent();
    receive(&world, &process, &tasks[0], Delivery::First);
    assert_eq!((world.mail.sent(), process.counts().swapped), (before, 0), "it ends without a write");
    receive(&world, &process, &tasks[0], Delivery::Again);
    let [watch] = &world.mail.take_tasks()[..] else { panic!("one looks again") };
    assert_eq!(
        watch.not_before,
        world.now() + Duration::from_secs(605) + Duration::from_millis(1),
        "when its lease ends"
    );
    world.clock.set(watch.not_before);
    receive(&world, &process, watch, Delivery::First);
    assert_eq!(world.mail.messages().len(), 1, "the run is told that its worker is gone");
}

/// The sweep finds workers at work: it sends nothing. When their leases are over, each is lost once.
#[test]
fn r1_the_sweep_sends_what_nobody_has() {
    let world = World::new(app());
    let process = world.process();
    let (run, tasks) = fan_out(&world, &process, 1, true);
    let before = world.mail.sent().tasks;
    for _ in 0..3 {
        world.clock.set(world.due(&run).unwrap() + Duration::from_secs(1));
        world.sweep();
        process.deliver();
        if world.now().since(tasks[0].scheduled_at) < Duration::from_mins(10) {
            assert_eq!(world.mail.sent().tasks, before, "at {}", world.now());
        }
    }
    world.pass(Duration::from_hours(1));
    world.sweep();
    process.deliver();
    let again = world.mail.take_tasks();
    assert_eq!(again.len(), tasks.len(), "each that its worker has lost, once");
    assert!(again.iter().all(|task| task.lost == 1), "{again:?}");
    // Nobody has those: now they may be lost, and are sent at each look, which come ever later.
    world.pass(Duration::from_hours(2));
    world.sweep();
    process.deliver();
    assert_eq!(world.mail.take_tasks().len(), tasks.len());
}

/// One attempt record is of a build that this one cannot read: the sweep sees to the others all the same.
#[test]
fn r1_the_sweep_passes_over_what_it_cannot_read() {
    let world = World::new(app());
    let process = world.process();
    let (run, tasks) = fan_out(&world, &process, 1, false);
    let key = AttemptKey { run: run.clone(), activity: tasks[0].id };
    drive(process.ports.store.swap(&key, None, "of another build".into())).unwrap().unwrap();
    world.pass_sweeps(1);
    world.sweep();
    process.deliver();
    let sent: Vec<_> = world.mail.take_tasks().into_iter().map(|task| task.id).collect();
    assert_eq!(sent, tasks[1..].iter().map(|task| task.id).collect::<Vec<_>>());
    assert!(world.due(&run).unwrap() > world.now(), "and looks again later");
}

/// A process dies between its commit and its dispatch: its message comes again, and hands out the tasks of that commit
/// which no worker has, and no others.
#[test]
fn r1_a_redelivered_batch_sends_what_its_commit_left() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("fan out", "w", "r1", &(WIDE, 1));
    let start = world.mail.take_message(0);
    let dying = world.process();
    dying.faults.plan(On::Create(Some(1)), Fault::CrashAfter);
    assert!(dying.handle(start.clone()).is_none());
    assert_eq!(world.mail.take_tasks(), []);
    process.handle_again(start.clone()).unwrap().unwrap();
    let tasks = world.mail.take_tasks();
    assert_eq!(tasks.len(), WIDE as usize);
    for task in tasks.iter().take(7) {
        assert!(matches!(drive(claim(&process.ports, task, None)), Some(Ok(Claiming::Claimed(_)))));
    }
    process.handle_again(start.clone()).unwrap().unwrap();
    assert_eq!(world.mail.take_tasks().len(), 3, "seven have a worker");
    // A later commit was made by somebody who came to an end: the former one's tasks are not suspected any more.
    process.signal("w", "a", "word", &"a");
    process.deliver();
    process.handle_again(start).unwrap().unwrap();
    assert_eq!(world.mail.take_tasks(), []);
    assert!(!world.state(&run).pending.activities.open.is_empty());
}

/// Late messages for a run that has ended: one read each, no code, nothing sent.
#[test]
fn r1_a_late_message_to_a_closed_run_costs_one_read() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &1);
    let start = world.mail.messages();
    process.signal("w", "a", "word", &"a");
    process.deliver();
    assert_eq!(world.result(&run), Some(json!(["a"])));
    let run_id = world.state(&run).run_id();
    let arrived = |arrival| RunMessage::Arrived { run: run.clone(), run_id, arrival };
    let late = [
        arrived(Arrival::Alarm),
        arrived(Arrival::ActivityCompleted(operations::ActivityCompleted { id: 1, attempt: 1, result: Payload::NULL })),
        word(&run, "a"),
        word(&run, "late"),
        RunMessage::Sweep { run: run.clone() },
    ];
    world.pass(Duration::from_hours(1));
    for message in late.into_iter().chain(start) {
        for process in [&process, &world.process()] {
            process.count_anew();
            let before = world.mail.sent();
            process.handle(message.clone()).unwrap().unwrap();
            let counts = process.counts();
            assert_eq!((counts.all_reads(), counts.creates + counts.exists), (1, 0), "{message:?}");
            assert_eq!(world.mail.sent(), before, "{message:?}");
        }
    }
}

/// The same for a run that continued as new, and has nothing to do with what comes after it any more.
#[test]
fn r1_a_late_alarm_to_a_run_that_continued_sends_nothing() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &1);
    process.signal("w", "a", "word", &"on");
    process.deliver();
    assert_eq!(world.state(&first).status(), Status::ContinuedAsNew);
    let run_id = world.state(&first).run_id();
    let before = world.mail.sent();
    for message in [
        Arrival::Alarm,
        Arrival::LocalCompleted(operations::LocalCompleted { id: 1, attempt: 1, result: Payload::NULL }),
    ] {
        process.count_anew();
        process.handle(RunMessage::Arrived { run: first.clone(), run_id, arrival: message }).unwrap().unwrap();
        let counts = process.counts();
        assert_eq!((counts.all_reads(), counts.creates + counts.exists), (1, 0));
    }
    assert_eq!(world.mail.sent(), before);
    assert!(drive(process.front.describe(&latest("w"))).unwrap().is_ok());
}
