//! A1: the record of an activity's attempts. Here activities really run.

use std::time::Duration;

use dormouse::{Activity, ActivityOptions, App, Payload, Status, Workflow};
use dormouse_core::history::{Event, Input};
use dormouse_core::operations;
use dormouse_core::{ActivityTask, Arrival, Failure, RetryState};
use dormouse_engine::attempts::{AttemptRecord, AttemptState, Claiming, Standing, claim, mark_unwanted};
use dormouse_engine::seams::Delivery;
use dormouse_engine::store::{AttemptKey, Swap};
use dormouse_engine::worker::{handle_message, handle_task};
use dormouse_testing::world::{Process, drive, latest, run, start_body};
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use super::workflows::{ONCE, Ran, app_that_counts};

/// Handles one delivery of a task, as a worker does.
pub fn work(world: &World, process: &Process, task: ActivityTask) {
    world.clock.drive(handle_task(world.app(), &process.ports, task, Delivery::First, None)).expect("an end").unwrap();
}

/// A worker claims the task, and is not heard of again.
fn work_and_die(process: &Process, task: &ActivityTask) {
    let claimed = drive(claim(&process.ports, task, None)).unwrap().unwrap();
    assert!(matches!(claimed, Claiming::Claimed(_)), "{claimed:?}");
}

fn record(process: &Process, task: &ActivityTask) -> AttemptRecord {
    let key = AttemptKey { run: task.run.clone(), activity: task.id };
    let found = drive(process.ports.store.attempt(&key)).unwrap().unwrap().expect("an attempt record");
    AttemptRecord::decode(&found.record).unwrap()
}

/// A world in which activities count their executions, and one run of this workflow up to its first task.
fn begin(
    workflow_type: &str,
    input: &impl serde::Serialize,
) -> (World, Process, Ran, dormouse_core::RunKey, ActivityTask) {
    let ran = Ran::default();
    let world = World::new(app_that_counts(ran.clone()));
    let process = world.process();
    let run = process.start(workflow_type, "w", "r1", input);
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    (world, process, ran, run, task)
}

/// A task that comes twice, to the same worker or another, while the attempt runs and after it.
#[test]
fn a1_a_duplicate_task_runs_no_user_code() {
    let (world, process, ran, run, task) = begin("queued", &1);
    let other = world.process();
    work_and_die(&other, &task);
    for worker in [&process, &other] {
        work(&world, worker, task.clone());
    }
    assert_eq!((ran.times(), world.mail.messages().len()), (0, 0), "the attempt is somebody else's");
    process.complete(&task, 1, &7);
    work(&world, &process, task);
    assert_eq!(ran.times(), 0, "nor after its completion");
    assert_eq!(world.result(&run), Some(json!(7)));
}

#[test]
fn a1_an_attempt_is_claimed_by_one_write() {
    let (world, process, ran, run, task) = begin("queued", &1);
    process.count_anew();
    // The answer to the claim is lost, or lost and asked for again below: it is still ours, once.
    process.faults.plan(On::Swap(None), Fault::FailAfter);
    work(&world, &process, task);
    process.deliver();
    assert_eq!((ran.times(), world.result(&run)), (1, Some(json!(1))));
    assert_eq!((process.counts().swapped, process.counts().all_reads()), (0, 0), "it knew its own claim");
}

/// What tells of earlier attempts may be gone: a message that is older than that is not a task any more.
#[test]
fn c4_a_task_that_comes_too_late_runs_nothing() {
    let (world, process, ran, run, task) = begin("queued", &1);
    let receive = |not_after| {
        let deadline = process.ports.now() + Duration::from_secs(60);
        let handled = handle_message(world.app(), &process.ports, task.clone(), Delivery::First, not_after, deadline);
        world.clock.drive(handled).expect("an end").unwrap();
    };
    let not_after = process.ports.now() + Duration::from_hours(14 * 24);
    world.pass(Duration::from_hours(14 * 24) + Duration::from_millis(1));
    receive(not_after);
    assert_eq!((ran.times(), world.mail.messages().len()), (0, 0), "not run, and nothing reported");
    let key = AttemptKey { run: run.clone(), activity: task.id };
    assert_eq!(drive(process.ports.store.attempt(&key)).unwrap(), Ok(None), "nor claimed");
    // To the very end it is.
    receive(process.ports.now());
    process.deliver();
    assert_eq!((ran.times(), world.result(&run)), (1, Some(json!(1))));
}

/// The lease is over. Still no user code runs, until the history says that the attempt is lost.
#[test]
fn a1_only_the_history_ends_a_lease() {
    let (world, process, ran, run, task) = begin("queued", &1);
    work_and_die(&process, &task);
    world.pass(Duration::from_secs(16));
    for _ in 0..3 {
        work(&world, &process, task.clone());
    }
    assert_eq!(ran.times(), 0, "whoever finds it tells the run");
    process.deliver();
    let lost =
        |event: &Event| matches!(event, Event::Input(Input::AttemptLost(operations::AttemptLost { attempt: 1, .. })));
    let events: Vec<_> = world.batches(&run).into_iter().flat_map(|batch| batch.events).collect();
    assert_eq!(events.iter().filter(|event| lost(event)).count(), 1, "it is lost once");
    let next = world.mail.take_tasks();
    assert!(!next.is_empty() && next.iter().all(|task| task.lost == 1), "{next:?}");

    // The lost worker turns up after all.
    process.complete(&task, 1, &1000);
    assert_eq!(world.state(&run).status(), Status::Running, "it is too late");
    world.pass(Duration::from_secs(5));
    for task in next {
        work(&world, &process, task);
    }
    process.deliver();
    assert_eq!((ran.times(), world.result(&run)), (1, Some(json!(1))));
}

#[test]
fn a1_a_single_attempt_is_at_most_one() {
    let (world, process, ran, run, task) = begin("once", &());
    work_and_die(&process, &task);
    world.pass(Duration::from_secs(16));
    work(&world, &process, task.clone());
    process.deliver();
    assert_eq!(world.state(&run).status(), Status::Failed, "nobody knows whether it ran");
    let gave_up = |event: &Event| {
        let Event::Turn(turn) = event else { return false };
        matches!(
            &turn.input,
            Some(Input::ActivityFailed(operations::ActivityFailed {
                retry_state: RetryState::MaximumAttemptsReached,
                ..
            }))
        )
    };
    assert!(world.batches(&run).iter().flat_map(|batch| &batch.events).any(gave_up));
    work(&world, &process, task);
    assert_eq!((ran.times(), world.mail.take_tasks()), (0, vec![]));
}

/// An activity fails and waits for its next attempt; its run is terminated, replaced, or completes without it. No
/// further attempt begins, whatever dies in between.
#[test]
fn a1_retries_stop_when_the_run_closes() {
    for (way, crash) in [("terminate", false), ("terminate", true), ("replace", false), ("replace", true)] {
        let (world, process, ran, run, task) = begin("failing", &());
        work(&world, &process, task.clone());
        assert_eq!(ran.times(), 1);
        let retry = world.mail.take_tasks().remove(0);
        assert!(retry.not_before > world.now(), "a retry is under way");
        match way {
            "terminate" => drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap(),
            _ => {
                let body = start_body("words", "w", &1, dormouse::IdConflictPolicy::TerminateExisting);
                drive(process.front.start(Some("r2"), body)).unwrap().unwrap();
            }
        }
        if crash {
            world.mail.drop_messages();
            world.pass_sweeps(1);
            world.sweep();
        }
        process.deliver();
        world.pass(Duration::from_secs(10));
        work(&world, &process, retry);
        assert_eq!(ran.times(), 1, "{way}, crash: {crash}");
        assert_eq!(record(&process, &task).state, AttemptState::Closed);
        assert_eq!(world.state(&run).status(), Status::Terminated);
        assert_eq!(world.due(&run), None, "nothing is owed any more");
    }
}

/// A running attempt learns by a heartbeat that it is not wanted, and fails: no other follows it, in whatever order its
/// writes come.
#[test]
fn a1_what_is_not_wanted_stays_so() {
    let (world, process, ran, _, task) = begin("failing", &());
    let Claiming::Claimed(mut claim) = drive(claim(&process.ports, &task, None)).unwrap().unwrap() else { panic!() };
    let key = AttemptKey { run: task.run.clone(), activity: task.id };
    drive(mark_unwanted(&process.ports, &key)).unwrap().unwrap();
    for beat in 0..2 {
        let details = Payload::encode(&beat).unwrap();
        let standing = drive(claim.heartbeat(&process.ports, &task, world.now(), &details)).unwrap().unwrap();
        assert_eq!(standing, Standing::Unwanted);
        assert!(record(&process, &task).cancel_requested, "after heartbeat {beat}");
    }
    let failed = claim.wait(&process.ports, world.now(), Failure::application("stopped"));
    assert_eq!(drive(failed).unwrap().unwrap(), Standing::Unwanted);
    assert_eq!(record(&process, &task).state, AttemptState::Closed);
    world.pass(Duration::from_secs(60));
    work(&world, &process, task);
    assert_eq!(ran.times(), 0);
}

/// The same when the run's own code closes it, and the process dies right after the batch that does.
#[test]
fn a1_retries_stop_when_the_workflow_returns() {
    let (world, process, ran, run, task) = begin("failing, or a word", &());
    work(&world, &process, task.clone());
    let retry = world.mail.take_tasks().remove(0);
    process.signal("w", "s", "word", &"never mind");
    let dying = world.process();
    dying.faults.plan(On::Create(None), Fault::CrashAfter);
    let message = world.mail.drop_messages().remove(0);
    assert!(dying.handle(message).is_none());
    assert_eq!(world.state(&run).status(), Status::Completed);
    world.pass_sweeps(1);
    world.sweep();
    process.deliver();
    work(&world, &process, retry);
    assert_eq!((ran.times(), record(&process, &task).state), (1, AttemptState::Closed));
    assert_eq!(world.due(&run), None, "nothing is owed any more");
}

/// A record that this build cannot read is no reason to keep its run from its end.
#[test]
fn a1_an_unreadable_record_ends_with_its_run() {
    let (world, process, ran, run, task) = begin("failing, or a word", &());
    work(&world, &process, task.clone());
    let retry = world.mail.take_tasks().remove(0);
    let key = AttemptKey { run: run.clone(), activity: task.id };
    let store = &process.ports.store;
    let version = drive(store.attempt(&key)).unwrap().unwrap().unwrap().version;
    let swap = drive(store.swap(&key, Some(version), "{\"state\": \"hibernating\"}".into())).unwrap().unwrap();
    assert!(matches!(swap, Swap::Done(_)), "{swap:?}");
    process.signal("w", "s", "word", &"never mind");
    process.deliver();
    assert_eq!((world.state(&run).status(), world.due(&run)), (Status::Completed, None));
    work(&world, &process, retry);
    assert_eq!((ran.times(), record(&process, &task).state), (1, AttemptState::Closed));
}

/// Retries that a live worker reports stay in the record; the history gets the outcome alone.
#[test]
fn a1_retries_leave_the_history_alone() {
    let (world, process, ran, run, task) = begin("failing", &());
    let mut task = task;
    for attempt in 1..=5 {
        assert_eq!(world.records(&run).len(), 2, "before attempt {attempt}");
        world.clock.set(task.not_before);
        work(&world, &process, task.clone());
        if attempt < 5 {
            assert_eq!(record(&process, &task).attempt, attempt);
            assert!(record(&process, &task).last_failure.is_some(), "describe shows why");
            let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
            let pending = &described.pending_activities[0];
            assert_eq!((pending.attempt, &*pending.state), (attempt, "backing_off"));
            task = world.mail.take_tasks().remove(0);
            // Not before its time.
            work(&world, &process, task.clone());
            task = world.mail.take_tasks().remove(0);
        }
    }
    process.deliver();
    assert_eq!((ran.times(), world.state(&run).status()), (5, Status::Failed));
    let late =
        Arrival::ActivityCompleted(operations::ActivityCompleted { id: task.id, attempt: 5, result: Payload::NULL });
    world.mail.arrive(&run, task.run_id, late);
    process.deliver();
    assert_eq!(world.records(&run).len(), 3);
}

const ON_GPUS: ActivityOptions = ONCE.task_queue("gpuu").schedule_to_start(Duration::from_hours(6));

async fn elsewhere(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(answer, &()).options(ON_GPUS).await
}

async fn answer(_: Activity, _: ()) -> Result<u32, Failure> {
    Ok(42)
}

/// Its task is for a queue that is not there. Nothing is counted against it: no attempt has begun.
#[test]
fn a1_a_task_that_no_queue_takes_is_known_and_tried_again() {
    let begin = || {
        let world = World::new(App::new().workflow("elsewhere", elsewhere).activity("answer", answer));
        world.mail.only_queue("gpu");
        let process = world.process();
        process.start("elsewhere", "w", "r1", &());
        process.deliver();
        assert_eq!(world.mail.take_tasks(), []);
        (world, process)
    };
    let pending = |process: &Process| {
        let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
        described.pending_activities.into_iter().next().expect("an activity")
    };
    let assert_known = |process: &Process| {
        let pending = pending(process);
        let failure = pending.last_failure.expect("it is known why");
        assert_eq!(failure.message, "there is no task queue \"gpuu\"; there are: default, gpu");
        assert!(serde_json::to_string(&failure).unwrap().contains("\"NoSuchTaskQueue\""), "{failure:?}");
        assert_eq!((pending.attempt, pending.state.as_str()), (0, "scheduled"));
    };
    let (world, process) = begin();
    assert_known(&process);
    for _ in 0..2 {
        world.pass_sweeps(4);
        world.sweep();
        process.deliver();
        assert_eq!(world.mail.take_tasks(), []);
        assert_known(&process);
    }
    // The queue is there at last: the next sweep hands the task out, and it is attempt 1 that runs.
    world.mail.only_queue("gpuu");
    world.pass_sweeps(16);
    world.sweep();
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    work(&world, &process, task);
    process.deliver();
    assert_eq!(world.result(&run("w", 0)), Some(json!(42)));

    // It never is: the limit holds, and no worker can begin afterwards.
    let (world, process) = begin();
    let id = pending(&process).activity_id.parse().unwrap();
    let task = world.state(&run("w", 0)).task(id).expect("a task");
    world.pass(Duration::from_hours(6) + Duration::from_secs(1));
    world.ring();
    process.deliver();
    let failure = drive(process.front.result(&latest("w"), Duration::ZERO)).unwrap().unwrap().failure.expect("failed");
    let failure = serde_json::to_string(&failure).unwrap();
    assert!(failure.contains("schedule_to_start"), "{failure}");
    let claimed = drive(claim(&process.ports, &task, None)).unwrap().unwrap();
    assert!(matches!(claimed, Claiming::Nothing), "{claimed:?}");
}
