//! Dead letters: each has a reason, and a worker that died tells the run.

use std::time::Duration;

use dormouse_aws::dead_letters::{examine, judge};
use dormouse_aws::queues::ReceiveError;
use dormouse_aws::wire::{Alarm, Deferred, Message, Task, WireError};
use dormouse_core::history::{Event, Input};
use dormouse_core::operations;
use dormouse_core::{
    ActivityOptions, ActivityTask, App, Arrival, CommitId, Failure, Payload, RunId, TimeoutKind, Timestamp, Workflow,
    WorkflowKey,
};
use dormouse_engine::attempts::{AttemptRecord, AttemptState, Claiming, claim};
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::StoreError;
use dormouse_testing::delivery::plain_task;
use dormouse_testing::world::{Process, drive};
use dormouse_testing::{Fault, On, World};

async fn work(_: dormouse_core::Activity, _: ()) -> Result<(), Failure> {
    panic!("nobody works here")
}

async fn queued(cx: Workflow, _: ()) -> Result<(), Failure> {
    let options = ActivityOptions::start_to_close(Duration::from_secs(10)).heartbeat(Duration::from_secs(5));
    cx.activity(work, &()).options(options).await
}

/// A run whose activity waits for a worker.
fn begin() -> (World, Process, ActivityTask) {
    let world = World::new(App::new().workflow("queued", queued).activity("work", work));
    let process = world.process();
    process.start("queued", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    (world, process, task)
}

fn letter(task: &ActivityTask) -> Result<Message, ReceiveError> {
    Ok(Message::Task(Task { task: task.clone(), not_after: Timestamp::from_millis(u64::MAX) }))
}

#[test]
fn a_worker_that_died_is_reported_and_the_next_attempt_begins() {
    let (world, process, task) = begin();
    let claimed = drive(claim(&process.ports, &task, None)).unwrap().unwrap();
    assert!(matches!(claimed, Claiming::Claimed(_)), "{claimed:?}");

    let alive = drive(examine(&process.ports, &letter(&task))).unwrap().unwrap();
    assert_eq!((alive.report, world.mail.messages().len()), (None, 0), "its lease is not over");

    world.pass(Duration::from_secs(16));
    process.count_anew();
    let swaps = process.counts().swaps;
    // Twice: whoever quarantines it may die before he acknowledges it.
    for _ in 0..2 {
        let dead = drive(examine(&process.ports, &letter(&task))).unwrap().unwrap();
        assert_eq!(dead.run.as_ref(), Some(&task.run));
        assert!(dead.reason.contains("the worker of attempt 1 is gone"), "{}", dead.reason);
        let lost = Arrival::AttemptLost(operations::WorkerGone {
            id: task.id,
            attempt: 1,
            timeout: TimeoutKind::Heartbeat,
            last_heartbeat: None,
        });
        let told = RunMessage::Arrived { run: task.run.clone(), run_id: task.run_id, arrival: lost };
        assert_eq!(dead.report, Some(told.clone()));
        assert_eq!(world.mail.messages().last(), Some(&told));
    }
    assert_eq!(process.counts().swaps, swaps, "nothing is claimed here");
    process.deliver();
    let next = world.mail.take_tasks();
    assert!(!next.is_empty() && next.iter().all(|task| task.lost == 1), "{next:?}");
    let lost =
        |event: &Event| matches!(event, Event::Input(Input::AttemptLost(operations::AttemptLost { attempt: 1, .. })));
    let events: Vec<_> = world.batches(&task.run).into_iter().flat_map(|batch| batch.events).collect();
    assert_eq!(events.iter().filter(|event| lost(event)).count(), 1, "told twice, recorded once");
    let known = drive(examine(&process.ports, &letter(&next[0]))).unwrap().unwrap();
    assert_eq!(known.report, None, "the history knows");
}

/// Neither the store nor the bucket answers, or the queue does not take the report: the letter comes again.
#[test]
fn what_cannot_be_examined_is_not_quarantined() {
    let (world, process, task) = begin();
    process.faults.plan(On::Attempt(None), Fault::FailBefore);
    assert!(drive(examine(&process.ports, &letter(&task))).unwrap().is_err());
    let bucket = Err(ReceiveError::Store(StoreError::Unknown("planned".into())));
    assert!(drive(examine(&process.ports, &bucket)).unwrap().is_err());
    assert_eq!(world.mail.messages(), []);
}

#[test]
fn every_letter_has_a_reason() {
    let now = Timestamp::from_millis(1_000_000);
    let run = WorkflowKey::new("default", "w").unwrap().run(0);
    let run_id = RunId::from_bytes([7; 16]);
    let task = ActivityTask { lost: 1, ..plain_task(&run, run_id, 3, now) };
    let record = |attempt, state| AttemptRecord {
        attempt,
        state,
        last_failure: None,
        heartbeat: Some(Payload::NULL),
        cancel_requested: false,
    };
    let claimed =
        |epoch, lease_until_ms| AttemptState::Claimed { claim: CommitId::from_bytes([1; 16]), epoch, lease_until_ms };
    let waiting = AttemptState::Waiting { retry_at_ms: 5, epoch: 0 };
    let cases = [
        // The record, the store's epoch; what is said, which attempt is reported lost.
        (None, 0, "no worker began", None),
        (Some(record(0, AttemptState::Closed)), 0, "over", None),
        (Some(record(2, waiting.clone())), 0, "failed, and the next did not begin", None),
        (Some(record(2, claimed(0, 1_000_000))), 0, "believed to run", None),
        (Some(record(2, claimed(0, 999_999))), 0, "is gone", Some(2)),
        (Some(record(2, claimed(4, 2_000_000))), 5, "is gone", Some(2)),
        (Some(record(1, claimed(0, 999_999))), 0, "known to be lost", None),
        (Some(record(1, waiting)), 0, "known to be lost", None),
    ];
    for (record, epoch, said, lost) in cases {
        let dead = judge(&letter(&task), record.as_ref(), epoch, now);
        assert!(dead.reason.contains(said), "{record:?}: {}", dead.reason);
        let attempt = dead.report.map(|report| match report {
            RunMessage::Arrived {
                arrival: Arrival::AttemptLost(operations::WorkerGone { id: 3, attempt, last_heartbeat, .. }),
                ..
            } => {
                assert_eq!(last_heartbeat, Some(Payload::NULL));
                attempt
            }
            other => panic!("{other:?}"),
        });
        assert_eq!((attempt, dead.run.as_ref()), (lost, Some(&run)), "{record:?}");
    }
    let late = Ok(Message::Task(Task { task: task.clone(), not_after: Timestamp::from_millis(999_999) }));
    assert!(judge(&late, None, 0, now).reason.contains("too late"));

    let others = [
        (Ok(Message::Run(RunMessage::Sweep { run: run.clone() })), true, "decider"),
        (Ok(Message::Alarm(Alarm { run: run.clone(), run_id, due: now })), true, "alarm"),
        (Ok(Message::Deferred(Deferred { task_queue: "q".into(), due: now, body: "{}".into() })), false, "later"),
        (Err(ReceiveError::Wire(WireError::Version(9))), false, "version 9"),
        (Err(ReceiveError::Wire(WireError::Kind("odd".into()))), false, "odd"),
    ];
    for (letter, named, said) in others {
        let dead = judge(&letter, None, 0, now);
        assert!(dead.reason.contains(said), "{letter:?}: {}", dead.reason);
        assert_eq!((dead.run.is_some(), dead.report), (named, None), "{letter:?}");
    }
}
