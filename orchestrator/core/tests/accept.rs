//! What arrives, held against the history: as tables.

mod common;

use common::{
    MINUTE, SWEEP, World, cancel, completed, double, failed, halve, json, local, run_key, secs, signal, start_request,
    terminate,
};
use dormouse_core::operations;
use dormouse_core::operations::{Closed, Input};
use dormouse_core::run::request_hash;
use dormouse_core::{
    ActivityOptions, Arrival, CommitId, Failure, IdConflictPolicy, IdReusePolicy, Payload, Refusal, RetryPolicy,
    RetryState, RunId, StartRequest, StartVerdict, Status, TimeoutKind, Timestamp, Workflow, join,
};

const LIMITED: ActivityOptions = ActivityOptions::start_to_close(secs_const(10))
    .within(secs_const(60))
    .schedule_to_start(secs_const(20))
    .retry(RetryPolicy::max_attempts(3).non_retryable(&["Final"]));

const fn secs_const(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(n)
}

/// Activity 1 with limits, activity 2 without, local 3, timer 4.
async fn busy(cx: Workflow, _: ()) -> Result<(), Failure> {
    let (a, b, c, d) = join!(
        cx.activity(double, &1).options(LIMITED),
        cx.activity(halve, &2).options(MINUTE),
        cx.local_activity(halve, &3),
        cx.sleep(secs(30)),
    );
    let _ = (a?, b?, c?, d?);
    Ok(())
}

fn lost(id: u64, attempt: u32) -> Arrival {
    Arrival::AttemptLost(operations::WorkerGone {
        id,
        attempt,
        timeout: TimeoutKind::StartToClose,
        last_heartbeat: None,
    })
}

fn with_attempt(id: u64, attempt: u32) -> Arrival {
    Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt, result: json("2") })
}

#[test]
fn repeats_latecomers_and_strangers_are_refused() {
    let no = || Failure::application("no");
    let over = RetryState::NonRetryableFailure;
    // What arrived before, what arrives now, and what comes of it.
    let table: Vec<(Vec<Arrival>, Arrival, Result<usize, Refusal>)> = vec![
        (vec![], signal("s", "go", "true"), Ok(1)),
        (vec![signal("s", "go", "true")], signal("s", "go", "true"), Err(Refusal::Duplicate(0))),
        (vec![signal("s", "go", "true")], signal("s", "other", "1"), Err(Refusal::Duplicate(0))),
        (vec![signal("s", "go", "true")], signal("t", "go", "true"), Ok(1)),
        (vec![], signal("r", "go", "true"), Err(Refusal::Duplicate(0))),
        (vec![], completed(1, "2"), Ok(1)),
        (vec![], with_attempt(1, 3), Ok(1)),
        (vec![completed(1, "2")], completed(1, "2"), Err(Refusal::Superseded)),
        (vec![completed(1, "2")], failed(1, 1, no(), over), Err(Refusal::Superseded)),
        (vec![completed(1, "2")], lost(1, 1), Err(Refusal::Superseded)),
        (vec![completed(1, "2")], Arrival::NeverTaken(operations::NeverTaken { id: 1 }), Err(Refusal::Superseded)),
        (vec![failed(1, 1, no(), over)], completed(1, "2"), Err(Refusal::Superseded)),
        (vec![lost(1, 1)], completed(1, "2"), Err(Refusal::Superseded)),
        (vec![lost(1, 1)], failed(1, 1, no(), over), Err(Refusal::Superseded)),
        (vec![lost(1, 1)], lost(1, 1), Err(Refusal::Superseded)),
        (vec![lost(1, 1)], with_attempt(1, 2), Ok(1)),
        (vec![lost(1, 2)], with_attempt(1, 2), Err(Refusal::Superseded)),
        (vec![], Arrival::NeverTaken(operations::NeverTaken { id: 1 }), Ok(1)),
        (vec![], completed(7, "2"), Err(Refusal::Superseded)),
        (vec![], completed(3, "2"), Err(Refusal::Superseded)),
        (vec![], local(1, "2"), Err(Refusal::Superseded)),
        (vec![], local(3, "2"), Ok(1)),
        (vec![local(3, "2")], local(3, "2"), Err(Refusal::Superseded)),
        (vec![], Arrival::Alarm, Err(Refusal::NothingDue)),
        (vec![cancel("c")], cancel("c"), Err(Refusal::Duplicate(0))),
        (vec![], terminate("t"), Ok(1)),
        (vec![terminate("t")], terminate("t"), Err(Refusal::Duplicate(0))),
        (vec![terminate("t")], terminate("u"), Err(Refusal::Closed(Status::Terminated))),
        (vec![terminate("t")], signal("s", "go", "true"), Err(Refusal::Closed(Status::Terminated))),
        (vec![terminate("t")], completed(1, "2"), Err(Refusal::Closed(Status::Terminated))),
        (vec![terminate("t")], Arrival::Alarm, Err(Refusal::Closed(Status::Terminated))),
    ];
    for (before, now, expected) in table {
        let mut world = World::run(busy, &());
        before.iter().for_each(|arrival| drop(world.arrive(arrival.clone())));
        let found = world.state().accept(&now, world.now()).map(|inputs| inputs.len());
        assert_eq!(found, expected, "{now:?} after {before:?}");
        // The same without a decision in between: inputs are held against the history, decided or not.
        let mut world = World::run(busy, &());
        before.iter().for_each(|arrival| {
            world.merged(
                [arrival.clone()]
                    .into_iter()
                    .filter(|a| !matches!(a, Arrival::Terminate(operations::Terminated { .. }))),
            )
        });
        if !before.iter().any(|a| matches!(a, Arrival::Terminate(operations::Terminated { .. }))) {
            let found = world.state().accept(&now, world.now()).map(|inputs| inputs.len());
            assert_eq!(found, expected, "{now:?} after undecided {before:?}");
        }
        // And taken in together with what came before.
        let mut world = World::run(busy, &());
        for arrival in before.iter().chain([&now, &now]) {
            if let Ok(inputs) = world.state().accept(arrival, world.now()) {
                world.live.take_in(inputs);
            }
        }
        world.settle();
    }
}

#[test]
fn a_lost_attempt_is_repeated_or_given_up() {
    let table = [
        // Attempt, time, what is recorded.
        (1, 11_000, "retry at 12000"),
        (2, 11_000, "retry at 13000"),
        (3, 11_000, "MaximumAttemptsReached"),
        (1, 60_500, "Timeout"),
        (1, 59_900, "retry at 60900"),
    ];
    for (attempt, clock, expected) in table {
        let mut world = World::run(busy, &());
        world.clock = clock;
        let recorded = match &world.state().accept(&lost(1, attempt), world.now()).unwrap()[..] {
            [Input::AttemptLost(operations::AttemptLost { retry_at, .. })] => {
                format!("retry at {}", retry_at.as_millis())
            }
            [Input::ActivityFailed(operations::ActivityFailed { retry_state, attempt: last, .. })] => {
                assert_eq!(*last, attempt);
                format!("{retry_state:?}")
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(recorded, expected, "attempt {attempt} at {clock}");
    }
}

#[test]
fn a_lost_attempt_gives_a_task_for_the_next() {
    let mut world = World::run(busy, &());
    let first = world.state().task(2).unwrap();
    assert_eq!((first.lost, first.not_before), (0, Timestamp::default()));
    world.clock = 3_000;
    assert_eq!(world.arrive(lost(2, 1)), [""; 0], "the workflow is not told");
    assert_eq!(world.last_turns(), 0);
    let task = world.state().task(2).unwrap();
    assert_eq!((task.lost, task.not_before), (1, Timestamp::from_millis(4_000)));
    assert_eq!(task.scheduled_at, Timestamp::from_millis(1_000));
    assert_eq!(world.state().task(3), None, "local");
}

#[test]
fn the_heartbeat_of_the_last_attempt_is_in_its_failure() {
    let world = World::run(busy, &());
    let arrival = Arrival::AttemptLost(operations::WorkerGone {
        id: 1,
        attempt: 3,
        timeout: TimeoutKind::Heartbeat,
        last_heartbeat: Some(json("[40]")),
    });
    let inputs = world.state().accept(&arrival, world.now()).unwrap();
    let [Input::ActivityFailed(operations::ActivityFailed { failure, .. })] = &inputs[..] else { panic!("{inputs:?}") };
    assert_eq!(*failure, Failure::timeout(TimeoutKind::Heartbeat, Some(json("[40]"))));
}

#[test]
fn an_alarm_brings_all_that_is_due_in_order() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let timers = [5, 3, 9].map(|n| cx.sleep(secs(n)));
            let limited = cx.activity(double, &1).options(ActivityOptions::schedule_to_close(secs(4))).start();
            let patient = cx.activity(double, &1).options(LIMITED).start();
            let all = futures::future::join_all(timers).await;
            drop((all, limited, patient));
            Ok(())
        },
        &(),
    );
    let due = |world: &World, clock| {
        let inputs = world.state().accept(&Arrival::Alarm, Timestamp::from_millis(clock)).unwrap_or_default();
        let ids = inputs.into_iter().map(|input| match input {
            Input::TimerFired(operations::TimerFired { id }) => id,
            Input::ActivityFailed(operations::ActivityFailed {
                id,
                attempt: 0,
                retry_state: RetryState::Timeout,
                failure,
            }) => {
                assert_eq!(failure, Failure::timeout(TimeoutKind::ScheduleToClose, None));
                id
            }
            other => panic!("{other:?}"),
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(world.state().alarm(world.now()), Some(Timestamp::from_millis(4_000)));
    assert_eq!(due(&world, 3_999), [0; 0]);
    assert_eq!(due(&world, 4_000), [2]);
    assert_eq!(due(&world, 5_500), [2, 4]);
    assert_eq!(due(&world, 70_000), [2, 4, 1, 3, 5]);
    assert_eq!(world.alarm_at(5_500), [""; 0]);
    assert_eq!(world.refused(Arrival::Alarm), Refusal::NothingDue);
    assert_eq!(world.alarm_at(70_000), ["complete null"]);
}

#[test]
fn an_activity_that_nobody_took_up() {
    let mut world = World::run(busy, &());
    let passed =
        |world: &World, clock| world.state().start_deadlines_passed(Timestamp::from_millis(clock)).collect::<Vec<_>>();
    assert_eq!(passed(&world, 20_999), [0; 0]);
    assert_eq!(passed(&world, 21_000), [1]);
    // The limit alone proves nothing: the alarm brings no outcome, for a worker may have taken it up.
    world.clock = 21_000;
    assert_eq!(world.refused(Arrival::Alarm), Refusal::NothingDue);
    // The row's due time moves on, although the limit stays passed.
    assert_eq!(world.state().due_after(world.now(), SWEEP), Some(Timestamp::from_millis(31_000)));
    let inputs = world.state().accept(&Arrival::NeverTaken(operations::NeverTaken { id: 1 }), world.now()).unwrap();
    let [Input::ActivityFailed(operations::ActivityFailed { failure, retry_state: RetryState::Timeout, .. })] =
        &inputs[..]
    else {
        panic!("{inputs:?}")
    };
    assert_eq!(*failure, Failure::timeout(TimeoutKind::ScheduleToStart, None));
}

#[test]
fn start_policies() {
    use IdConflictPolicy::{Fail, TerminateExisting, UseExisting};
    use IdReusePolicy::{AllowDuplicate, AllowDuplicateFailedOnly, RejectDuplicate};
    async fn ends(cx: Workflow, how: String) -> Result<(), Failure> {
        match how.as_str() {
            "completed" => Ok(()),
            "failed" => Err(Failure::application("no")),
            "continued" => cx.continue_as_new(ends, &"open".to_owned()),
            _ => Ok(cx.sleep(secs(60)).await?),
        }
    }
    let latest = |how: &str| {
        let mut world = World::run(ends, &how.to_owned());
        match how {
            "canceled" => drop(world.arrive(cancel("c"))),
            "terminated" => drop(world.arrive(terminate("t"))),
            _ => {}
        }
        world
    };
    let table = [
        ("open", AllowDuplicate, Fail, "open already"),
        ("open", AllowDuplicate, UseExisting, "join"),
        ("open", AllowDuplicate, TerminateExisting, "replace"),
        ("open", RejectDuplicate, TerminateExisting, "replace"),
        ("completed", AllowDuplicate, Fail, "create 1"),
        ("completed", AllowDuplicateFailedOnly, Fail, "not reusable"),
        ("completed", RejectDuplicate, UseExisting, "not reusable"),
        ("failed", AllowDuplicateFailedOnly, Fail, "create 1"),
        ("failed", RejectDuplicate, Fail, "not reusable"),
        ("canceled", AllowDuplicateFailedOnly, Fail, "create 1"),
        ("terminated", AllowDuplicateFailedOnly, Fail, "create 1"),
        ("terminated", AllowDuplicate, Fail, "create 1"),
        ("continued", AllowDuplicate, Fail, "roll forward"),
        ("continued", RejectDuplicate, TerminateExisting, "roll forward"),
    ];
    for (how, reuse, conflict, expected) in table {
        let world = latest(how);
        let verdict = |request_id: &str| {
            let request = StartRequest {
                request_id: request_id.into(),
                reuse,
                conflict,
                ..start_request("test", json("\"open\""))
            };
            match request.against(Some(world.state())) {
                StartVerdict::Create(n) => format!("create {n}"),
                StartVerdict::Existing(n) => format!("existing {n}"),
                StartVerdict::Join(_) => "join".into(),
                StartVerdict::Replace(_) => "replace".into(),
                StartVerdict::RollForward => "roll forward".into(),
                StartVerdict::AlreadyOpen => "open already".into(),
                StartVerdict::NotReusable => "not reusable".into(),
            }
        };
        assert_eq!(verdict("new"), expected, "{how}, {reuse:?}, {conflict:?}");
        assert_eq!(verdict("r"), "existing 0", "the request that began it, whatever the policies: {how}");
    }
    assert_eq!(start_request("test", json("1")).against(None), StartVerdict::Create(0));
}

#[test]
fn a_start_that_replaces_an_open_run() {
    let mut world = World::run(busy, &());
    let request = StartRequest {
        request_id: "second".into(),
        conflict: IdConflictPolicy::TerminateExisting,
        ..start_request("test", json("null"))
    };
    let StartVerdict::Replace(order) = request.against(Some(world.state())) else { panic!("the run is open") };
    world.arrive(*order.clone());
    assert_eq!(world.status(), Status::Terminated);
    assert_eq!(world.refused(*order), Refusal::Duplicate(0));
    assert_eq!(world.refused(signal("s", "go", "true")), Refusal::Closed(Status::Terminated));
    let next = world.state().next_run().unwrap();
    let second = World::of(world.app.clone(), run_key(1), vec![next.encode()]);
    assert_eq!(second.state().started.continued_from, None);
    assert_eq!(request.against(Some(second.state())), StartVerdict::Existing(1));
    assert_eq!(start_request("test", json("null")).against(Some(second.state())), StartVerdict::Existing(0));
}

/// Golden: builds of different age derive the same next run, and know the same requests again.
#[test]
fn the_next_run_and_what_it_remembers_never_change() {
    async fn onward(cx: Workflow, left: u32) -> Result<(), Failure> {
        cx.continue_as_new(onward, &(left - 1))
    }
    let mut world = World::run(onward, &7);
    let mut derived = Vec::new();
    for ordinal in 1..=2 {
        let next = world.state().next_run().unwrap();
        let request_id = format!("continued:{}", world.state().run_id());
        world = World::of(world.app.clone(), run_key(ordinal), vec![next.encode()]);
        assert_eq!(world.state().started.request_id, request_id);
        derived.push((world.state().run_id().to_string(), next.commit_id.to_string()));
        world.settle();
    }
    let golden = [
        ("79fb9057-025f-acce-2c91-925800000001", "a2f44e2f-b7e6-ae94-6ec5-4ce029d0d8c5"),
        ("f01a464f-3e68-6ed2-cfc9-dbfd00000002", "973c6695-b9e8-71fd-1365-3cd1884173d4"),
    ];
    assert_eq!(derived, golden.map(|(run_id, commit_id)| (run_id.to_owned(), commit_id.to_owned())));
    let hashes = [request_hash("r"), request_hash(&"k".repeat(255))];
    assert_eq!(hashes.map(|hash| format!("{hash:016x}")), ["02eb56845a26772a", "6fbfaef816e61984"]);
}

#[test]
fn a_run_knows_which_one_it_continues() {
    async fn knows(cx: Workflow, left: u32) -> Result<Option<RunId>, Failure> {
        if left > 0 { cx.continue_as_new(knows, &(left - 1)) } else { Ok(cx.info().continued_from) }
    }
    let first = World::run(knows, &1);
    let next = first.state().next_run().unwrap();
    let mut second = World::of(first.app.clone(), run_key(1), vec![next.encode()]);
    second.settle();
    let told = Closed::Completed(Payload::encode(&Some(first.state().run_id())).unwrap());
    assert_eq!(second.state().closed, Some(told));
    let alone = World::run(knows, &0);
    assert_eq!(alone.state().closed, Some(Closed::Completed(Payload::NULL)));
}

#[test]
fn requests_are_remembered_within_bounds() {
    let mut world = World::run(busy, &());
    for n in 0..300 {
        world.arrive(signal(&format!("s{n}"), "go", "true"));
    }
    world.clock += 1_000;
    world.arrive(terminate("t"));
    let request = StartRequest { request_id: "second".into(), ..start_request("test", json("null")) };
    let begin = |clock: u64| {
        let run_id = RunId::from_bytes([2; 16]);
        let clock = Timestamp::from_millis(clock);
        let first =
            request.first_batch(&run_key(1), run_id, CommitId::from_bytes([3; 16]), clock, Some(world.state()), SWEEP);
        World::of(world.app.clone(), run_key(1), vec![first.encode()])
    };
    let next = begin(5_000);
    assert_eq!(next.refused(signal("s299", "go", "true")), Refusal::Duplicate(0));
    assert_eq!(next.refused(terminate("t")), Refusal::Duplicate(0));
    assert!(
        next.state().accept(&signal("s0", "go", "true"), next.now()).is_ok(),
        "beyond the number that is remembered"
    );
    let weeks = begin(5_000 + 15 * 24 * 3_600_000);
    assert!(weeks.state().accept(&signal("s299", "go", "true"), weeks.now()).is_ok(), "beyond the time");
    // A host whose clock is behind: recorded time goes on from the run before.
    assert_eq!(begin(1).state().time, world.state().time);
}

/// A start that was content with the open run is answered with that run for ever, like the one that began it.
#[test]
fn a_start_that_joined_is_remembered() {
    let mut world = World::run(busy, &());
    let request = StartRequest {
        request_id: "second".into(),
        conflict: IdConflictPolicy::UseExisting,
        ..start_request("test", json("null"))
    };
    let StartVerdict::Join(join) = request.against(Some(world.state())) else { panic!("the run is open") };
    // Taken in by anyone; the code is not told.
    world.merged([*join.clone()]);
    assert_eq!(world.settle(), [""; 0]);
    assert!(!world.state().is_undecided());
    assert_eq!(world.refused(*join), Refusal::Duplicate(0));
    assert_eq!(request.against(Some(world.state())), StartVerdict::Existing(0));
    world.arrive(terminate("t"));
    assert_eq!(request.against(Some(world.state())), StartVerdict::Existing(0), "also when it is closed");
    let other = StartRequest { request_id: "third".into(), ..start_request("test", json("null")) };
    let run_id = RunId::from_bytes([2; 16]);
    let first =
        other.first_batch(&run_key(1), run_id, CommitId::from_bytes([3; 16]), world.now(), Some(world.state()), SWEEP);
    let next = World::of(world.app.clone(), run_key(1), vec![first.encode()]);
    assert_eq!(request.against(Some(next.state())), StartVerdict::Existing(0), "and when another run has begun");
}
