//! O1: an operator's word needs no user code. Whatever the code does, or whether it is there at all: a run can be
//! terminated, replaced, described, and taken back to another build.

use std::time::Duration;

use dormouse::{App, IdConflictPolicy, Payload, Status};
use dormouse_core::{Arrival, ParkedCause, RunKey, operations};
use dormouse_engine::attempts::{AttemptRecord, AttemptState, Claiming, claim};
use dormouse_engine::parking::{StandingStill, standing_still};
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::{AttemptKey, RunFilter};
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive, latest, run, start_body};

use super::attempts::work;
use super::workflows::{FOLLOWS, app, words};

/// A run with an activity that waits for its next attempt, and whose code has since gone another way: parked, by the
/// process that comes back.
fn diverged(world: &World, process: &Process) -> (RunKey, dormouse_core::ActivityTask, Process) {
    FOLLOWS.set(true);
    let run = process.start("fragile", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    work(world, process, task);
    let retry = world.mail.take_tasks().remove(0);
    FOLLOWS.set(false);
    let other = world.process();
    other.signal("w", "a", "word", &"a");
    world.pass_sweeps(1);
    other.deliver();
    let parked = world.row(&run).unwrap().parked.expect("it is parked");
    assert!(parked.reason.contains("no longer matches"), "{}", parked.reason);
    assert!(matches!(parked.cause, Some(ParkedCause::Divergence { .. })), "{:?}", parked.cause);
    (run, retry, other)
}

fn record(process: &Process, run: &RunKey, activity: u64) -> AttemptRecord {
    let found = drive(process.ports.store.attempt(&AttemptKey { run: run.clone(), activity })).unwrap().unwrap();
    AttemptRecord::decode(&found.expect("an attempt record").record).unwrap()
}

/// Closed up in the first pass that hears of it, by the process that parked it or another: nothing is due any more, and
/// no attempt begins.
fn assert_ended(world: &World, process: &Process, run: &RunKey, retry: &dormouse_core::ActivityTask) {
    assert_eq!(world.state(run).status(), Status::Terminated);
    assert_eq!(world.due(run), None, "nothing is owed");
    assert_eq!(world.row(run).unwrap().parked, None, "nor does it stand still");
    assert_eq!(record(process, run, retry.id).state, AttemptState::Closed);
    world.pass(Duration::from_hours(1));
    assert!(
        matches!(drive(claim(&process.ports, retry, None)), Some(Ok(Claiming::Nothing))),
        "refused at the next claim"
    );
}

#[test]
fn o1_a_diverged_run_is_terminated() {
    for which in 0..3 {
        let world = World::new(app());
        let unaware = world.process();
        let (run, retry, parked) = diverged(&world, &unaware);
        let process = [unaware, parked, world.process()].into_iter().nth(which).unwrap();
        drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap();
        let [message] = &world.mail.drop_messages()[..] else { panic!("one message") };
        process.handle(message.clone()).unwrap().unwrap();
        assert_ended(&world, &process, &run, &retry);
    }
}

/// The message of the termination is lost: the sweep does it.
#[test]
fn o1_a_diverged_run_that_was_terminated_is_closed_up_by_the_sweep() {
    let world = World::new(app());
    let process = world.process();
    let (run, retry, _) = diverged(&world, &process);
    drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap();
    world.mail.drop_messages();
    world.pass_sweeps(1);
    assert_eq!(world.sweep(), std::slice::from_ref(&run));
    world.process().deliver();
    assert_ended(&world, &process, &run, &retry);
}

/// The build that the operator has now does not know the workflow's type any more.
#[test]
fn o1_a_run_whose_code_is_gone_is_terminated() {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    let world = World::over(app(), objects.clone());
    let process = world.process();
    FOLLOWS.set(true);
    let run = process.start("fragile", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    work(&world, &process, task);
    let retry = world.mail.take_tasks().remove(0);

    let without = World::over(App::new().workflow("words", words), objects);
    without.clock.set(world.now());
    let process = without.process();
    process.signal("w", "a", "word", &"a");
    process.deliver();
    assert!(without.row(&run).unwrap().parked.unwrap().reason.contains("no workflow"));
    drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap();
    process.deliver();
    assert_ended(&without, &process, &run, &retry);
}

/// A start that replaces a diverged run: its caller dies after the intent, and the new run begins all the same.
#[test]
fn o1_a_diverged_run_is_replaced_whoever_dies() {
    use dormouse_testing::{Fault, On};
    for fault in [None, Some((On::Create(None), Fault::CrashBefore)), Some((On::Create(Some(0)), Fault::CrashBefore))] {
        let world = World::new(app());
        let (old, retry, _) = diverged(&world, &world.process());
        let process = world.process();
        let caller = world.process();
        let dies = fault.is_some();
        if let Some((on, fault)) = fault {
            caller.faults.plan(on, fault);
        }
        let body = start_body("words", "w", &1, IdConflictPolicy::TerminateExisting);
        assert_eq!(drive(caller.front.start(Some("r2"), body)).is_none(), dies, "{fault:?}");
        process.deliver();
        for _ in 0..2 {
            world.pass_sweeps(1);
            world.sweep();
            process.deliver();
        }
        let new = run("w", 1);
        assert_eq!(world.state(&new).started.request_id, "r2", "{fault:?}");
        assert!(world.batches(&new).len() > 1, "and has had its first turn");
        assert_ended(&world, &process, &old, &retry);
    }
}

/// Describe, list and history say how things stand while the code diverges; a build that fits goes on at once.
#[test]
fn o1_a_diverged_run_is_described_and_taken_back() {
    let world = World::new(app());
    let process = world.process();
    let (run, _, _) = diverged(&world, &process);
    let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
    assert_eq!(described.pending_activities.len(), 1);
    assert!(described.run.parked.is_some());
    let (listed, _) = drive(process.front.list(&RunFilter::default(), None, 10)).unwrap().unwrap();
    assert!(listed.workflows[0].parked.is_some());
    let history = drive(process.front.history(&latest("w"), 0, 100)).unwrap().unwrap();
    assert!(history.events.len() >= 3, "{:?}", history.events);
    drive(process.front.cancel(&latest("w"), Some("c"), "enough")).unwrap().unwrap();
    process.deliver();
    assert!(world.state(&run).pending.cancellation.requested, "recorded, for the code to hear when it is mended");
    FOLLOWS.set(true);
    let mut mended = world.process();
    mended.ports.choices.build = "before".into();
    world.clock.set(world.row(&run).unwrap().parked.unwrap().retry_at);
    world.ring();
    mended.deliver();
    assert_eq!(world.state(&run).status(), Status::Completed, "{:?}", world.row(&run));
}

/// A run that stands still takes in what is meant for it, and nothing that is meant for another run of its place.
#[test]
fn o1_a_parked_run_takes_in_what_is_meant_for_it() {
    let world = World::new(app());
    let (run, task, process) = diverged(&world, &world.process());
    let before = world.batches(&run).len();
    let stranger = dormouse::RunId::from_bytes([7; 16]);
    let payload = Payload::encode("a").unwrap();
    for arrival in [
        Arrival::ActivityCompleted(operations::ActivityCompleted {
            id: task.id,
            attempt: 2,
            result: Payload::encode(&7).unwrap(),
        }),
        Arrival::Signal(operations::Signaled { request_id: "s".into(), name: "word".into(), payload }),
        Arrival::Terminate(operations::Terminated {
            request_id: "t".into(),
            reason: "not this one".into(),
            next: None,
        }),
    ] {
        let message = RunMessage::Arrived { run: run.clone(), run_id: stranger, arrival };
        process.handle(message).unwrap().unwrap();
    }
    assert_eq!(world.batches(&run).len(), before);
    assert_eq!(world.state(&run).status(), Status::Running);
}

/// Whoever asks what stands still is told how many runs, and since when: tries in between do not count as going on.
#[test]
fn o1_parked_runs_are_counted_and_since_when_they_stand_still() {
    let world = World::new(app());
    let process = world.process();
    let counted = |process: &Process| drive(standing_still(&process.ports)).unwrap().unwrap();
    assert_eq!(counted(&process), StandingStill { count: 0, since: None, first: vec![] });
    let (run, _, parked) = diverged(&world, &process);
    let since = world.now();
    process.start("words", "sound", "r", &1);
    assert_eq!(counted(&process), StandingStill { count: 1, since: Some(since), first: vec![run.clone()] });
    for _ in 0..3 {
        world.pass(Duration::from_hours(1));
        parked.handle(RunMessage::Sweep { run: run.clone() }).unwrap().unwrap();
    }
    assert!(world.row(&run).unwrap().parked.unwrap().attempts > 1, "it was tried again");
    assert_eq!(counted(&world.process()).since, Some(since));

    let only = RunFilter { parked: true, ..RunFilter::default() };
    let (listed, _) = drive(process.front.list(&only, None, 10)).unwrap().unwrap();
    let [summary] = &listed.workflows[..] else { panic!("{listed:?}") };
    assert_eq!((summary.workflow_id.as_str(), summary.parked.as_ref().unwrap().since), ("w", Some(since)));

    FOLLOWS.set(true);
    world.pass(Duration::from_hours(1));
    parked.handle(RunMessage::Sweep { run: run.clone() }).unwrap().unwrap();
    assert_eq!(world.row(&run).unwrap().parked, None, "its code goes on");
    assert_eq!(counted(&process).count, 0);
}
