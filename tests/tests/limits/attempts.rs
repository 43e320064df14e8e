//! The time limits of attempts, as workers keep them: when an attempt is over, when its worker counts as dead, and what
//! a limit that has passed no longer concerns. The limits here are longer than what clocks are allowed to differ.

use std::time::Duration;

use dormouse::{FailureKind, Payload, RetryState, Status, TimeoutKind};
use dormouse_core::Arrival;
use dormouse_core::operations;
use dormouse_engine::seams::Delivery;
use dormouse_engine::worker::handle_task;
use dormouse_testing::world::{drive, latest};
use dormouse_testing::{Fault, On};

use super::clockwork::{Bench, Came, Limits, Step, bench, details, in_time, secs, sleep, timeout};

const HANG: &[&[Step]] = &[&[Step::Hang]];
const MS: Duration = Duration::from_millis(1);
/// How much longer than its limits a claim is believed to live.
const SKEW: Duration = secs(5);

/// Which limit a final failure names, the last heartbeat that it tells of, and why no attempt follows.
fn timed_out(came: Came) -> (TimeoutKind, Option<Payload>, RetryState) {
    let Came::Told(Arrival::ActivityFailed(operations::ActivityFailed { failure, retry_state, .. })) = came else {
        panic!("{came:?}")
    };
    let FailureKind::Timeout { timeout, last_heartbeat } = failure.kind else { panic!("{failure:?}") };
    (timeout, last_heartbeat, retry_state)
}

/// Each attempt has its start-to-close limit, all of them together have what is left of schedule-to-close.
#[test]
fn an_attempt_ends_at_the_nearest_of_its_limits() {
    // Start-to-close, schedule-to-close, when the attempt begins; when it ends, and by which limit.
    for (start, schedule, begins, ends, kind) in [
        (Some(10), None, 0, 10, TimeoutKind::StartToClose),
        (Some(10), None, 100, 110, TimeoutKind::StartToClose),
        (Some(10), Some(60), 0, 10, TimeoutKind::StartToClose),
        (None, Some(60), 0, 60, TimeoutKind::ScheduleToClose),
        (None, Some(60), 45, 60, TimeoutKind::ScheduleToClose),
        (Some(20), Some(60), 39, 59, TimeoutKind::StartToClose),
        (Some(20), Some(60), 41, 60, TimeoutKind::ScheduleToClose),
        (Some(90), Some(60), 0, 60, TimeoutKind::ScheduleToClose),
    ] {
        let limits = Limits { start_to_close: start, schedule_to_close: schedule, attempts: 1, ..Limits::default() };
        let bench = bench(limits, HANG);
        bench.at(secs(begins));
        let (by, _, why) = timed_out(bench.work(&bench.task));
        assert_eq!((by, bench.passed()), (kind, secs(ends)), "{limits:?}, begun at {begins}");
        let last = kind == TimeoutKind::StartToClose;
        assert_eq!(why, if last { RetryState::MaximumAttemptsReached } else { RetryState::Timeout });
    }
}

/// An attempt that succeeds just in time is not cut off.
#[test]
fn an_attempt_has_all_of_its_time() {
    let limits = Limits { start_to_close: Some(20), schedule_to_close: Some(60), ..Limits::default() };
    let bench = bench(limits, &[&[Step::Sleep(19_900)]]);
    bench.at(secs(40));
    let Came::Told(Arrival::ActivityCompleted(operations::ActivityCompleted { attempt: 1, .. })) =
        bench.work(&bench.task)
    else {
        panic!()
    };
    assert_eq!(bench.passed(), Duration::from_millis(59_900));
}

/// No attempt is made that would begin when all time is over.
#[test]
fn the_last_retry_begins_before_schedule_to_close() {
    for (fails_at, another) in [(8_000, true), (8_990, true), (9_000, false), (9_500, false)] {
        let limits = Limits { schedule_to_close: Some(10), ..Limits::default() };
        let bench = bench(limits, &[&[Step::Sleep(fails_at), Step::Fail], &[Step::Hang]]);
        match bench.work(&bench.task) {
            Came::Again(task) => {
                assert!(another, "after {fails_at} ms");
                assert_eq!(task.not_before.since(bench.begun), Duration::from_millis(fails_at + 1_000));
                // It is made, for the little while that is left.
                bench.world.clock.set(task.not_before);
                assert_eq!(timed_out(bench.work(&task)).0, TimeoutKind::ScheduleToClose);
                assert_eq!((bench.passed(), bench.seen.attempts().len()), (secs(10), 2));
            }
            Came::Told(Arrival::ActivityFailed(operations::ActivityFailed {
                retry_state: RetryState::Timeout,
                failure,
                ..
            })) => {
                assert!(!another && failure.message == "as planned", "after {fails_at} ms: {failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A process that ends at a known time ends its attempt before, as one that was too slow.
#[test]
fn an_attempt_ends_with_its_process() {
    let bench = bench(Limits { start_to_close: Some(60), heartbeat: Some(50), ..Limits::default() }, HANG);
    let deadline = bench.begun + secs(7);
    let handled =
        handle_task(bench.world.app(), &bench.process.ports, bench.task.clone(), Delivery::First, Some(deadline));
    in_time(&bench.world, handled).unwrap();
    let Came::Again(task) = bench.came() else { panic!("another attempt") };
    assert_eq!((bench.passed(), task.not_before), (secs(7), bench.begun + secs(8)));

    // And if it does not come to that, it is believed alive no longer than it can have lived.
    bench.at(secs(8));
    let deadline = bench.world.now() + secs(7);
    let dying = handle_task(bench.world.app(), &bench.process.ports, task.clone(), Delivery::First, Some(deadline));
    assert!(in_time(&bench.world, async { timeout(&bench.world, secs(1), dying).await }).is_none());
    bench.world.clock.set(deadline + SKEW);
    assert!(matches!(bench.work_again(&task), Came::Again(_)));
    bench.world.clock.set(deadline + SKEW + MS);
    assert!(matches!(bench.work(&task), Came::Told(Arrival::AttemptLost(operations::WorkerGone { attempt: 2, .. }))));
}

/// A worker dies. Whoever meets its attempt believes in it until the last of its time, and a little longer since clocks
/// differ; then it is lost, to the limit that tells of silence.
#[test]
fn an_attempt_is_believed_in_as_long_as_its_limits_last() {
    use TimeoutKind::{Heartbeat, StartToClose};
    for (start, schedule, heartbeat, begins, until, kind) in [
        (Some(30), None, None, 0, 30, StartToClose),
        (Some(30), None, None, 100, 130, StartToClose),
        (None, Some(60), None, 0, 60, StartToClose),
        (None, Some(60), None, 50, 60, StartToClose),
        (Some(30), Some(60), None, 10, 40, StartToClose),
        (Some(30), Some(60), None, 50, 60, StartToClose),
        (Some(30), None, Some(10), 20, 30, Heartbeat),
        (Some(8), None, Some(10), 20, 28, Heartbeat),
    ] {
        let limits = Limits { start_to_close: start, schedule_to_close: schedule, heartbeat, ..Limits::default() };
        let bench = bench(limits, HANG);
        bench.at(secs(begins));
        bench.work_and_die(&bench.task, MS);
        for passed in [secs(begins + 1), secs(until), secs(until) + SKEW] {
            bench.at(passed);
            let Came::Again(task) = bench.work_again(&bench.task) else { panic!("{limits:?}: given up at {passed:?}") };
            let look_again = task.not_before.since(bench.begun);
            assert_eq!(look_again, secs(until) + SKEW + MS, "{limits:?}: found out as soon as it can be");
        }
        bench.at(secs(until) + SKEW + MS);
        let came = bench.work(&bench.task);
        let Came::Told(Arrival::AttemptLost(operations::WorkerGone {
            attempt: 1, timeout, last_heartbeat: None, ..
        })) = came
        else {
            panic!("{limits:?}: {came:?}")
        };
        assert_eq!(timeout, kind, "{limits:?}");
        assert_eq!(bench.seen.attempts().len(), 1);
    }
}

/// A limit of silence is kept by each sign of life, and what is heard regularly is believed in, however long it takes.
#[test]
fn regular_heartbeats_keep_an_attempt() {
    let limits = Limits { start_to_close: Some(600), heartbeat: Some(10), ..Limits::default() };
    let beat_slowly: Vec<_> = (0..20).flat_map(|beat| [Step::Beat(beat), Step::Sleep(9_500)]).collect();
    let scripts: [&[Step]; 2] = [&[Step::Beats(120)], &beat_slowly];
    for script in scripts {
        let bench = bench(limits, &[script]);
        in_time(&bench.world, async {
            let duplicates = async {
                for _ in 0..16 {
                    sleep(&bench.world, secs(7)).await;
                    bench.deliver(&bench.task).await;
                    assert_eq!(bench.world.mail.messages(), [], "after {:?}", bench.passed());
                    assert_eq!(
                        bench.world.mail.take_tasks(),
                        [],
                        "a copy of a task whose attempt runs comes to its end"
                    );
                }
            };
            futures::join!(bench.deliver(&bench.task), duplicates)
        });
        assert!(
            matches!(
                bench.came(),
                Came::Told(Arrival::ActivityCompleted(operations::ActivityCompleted { attempt: 1, .. }))
            ),
            "{script:?}"
        );
        assert!(bench.passed() >= secs(120));
    }
}

/// Heartbeats prolong nothing but the patience with silence.
#[test]
fn heartbeats_do_not_prolong_an_attempt() {
    let limits = Limits { start_to_close: Some(30), heartbeat: Some(10), attempts: 1, ..Limits::default() };
    let bench = bench(limits, &[&[Step::Beats(100)]]);
    let (by, last, _) = timed_out(bench.work(&bench.task));
    assert_eq!((by, bench.passed()), (TimeoutKind::StartToClose, secs(30)));
    assert!(last == details(29) || last == details(30), "{last:?}");
    // Nor do they when the worker dies: at 25 s it is believed in until 35.
    let bench = self::bench(limits, &[&[Step::Beats(100)]]);
    bench.work_and_die(&bench.task, secs(25));
    bench.at(secs(30) + SKEW);
    assert!(matches!(bench.work_again(&bench.task), Came::Again(_)));
    bench.at(secs(30) + SKEW + MS);
    assert!(matches!(bench.work(&bench.task), Came::Told(Arrival::AttemptLost(operations::WorkerGone { .. }))));
}

/// Silence counts from the last sign of life, and from the beginning when there was none.
#[test]
fn silence_ends_an_attempt() {
    let limits = Limits { start_to_close: Some(600), heartbeat: Some(10), attempts: 1, ..Limits::default() };
    for (script, ends, last) in [
        (&[Step::Hang][..], 10, None),
        (&[Step::Beat(7), Step::Sleep(9_000), Step::Beat(8), Step::Hang], 19, details(8)),
        (&[Step::Sleep(9_000), Step::Beat(7), Step::Sleep(9_000), Step::Beat(8), Step::Hang], 28, details(8)),
    ] {
        let bench = bench(limits, &[script]);
        let found = timed_out(bench.work(&bench.task));
        assert_eq!(found, (TimeoutKind::Heartbeat, last, RetryState::MaximumAttemptsReached), "{script:?}");
        assert_eq!(bench.passed(), secs(ends), "{script:?}");
    }
}

// --- schedule-to-start: a limit that outlives what it concerns ---

const PROMPT: Limits = Limits {
    start_to_close: Some(60),
    schedule_to_start: Some(10),
    schedule_to_close: None,
    heartbeat: None,
    attempts: 3,
};

fn ring(bench: &Bench) {
    bench.world.ring();
    bench.process.deliver();
}

/// It was taken up in time, and runs, waits for its next attempt, or is lost. That it was not taken up sooner than it
/// was is nobody's concern any more, whoever looks.
#[test]
fn schedule_to_start_is_over_when_the_activity_is_taken_up() {
    let scripts: &[&[Step]] = &[&[Step::Sleep(20_000)], &[Step::Fail], &[Step::Hang]];
    for script in scripts {
        let bench = bench(PROMPT, &[script, &[Step::Hang]]);
        assert_eq!(bench.world.mail.alarm(&bench.run), Some(bench.begun + secs(10)));
        bench.at(secs(9));
        // It ends, or is cut off.
        in_time(&bench.world, async {
            let _ = timeout(&bench.world, Duration::from_millis(500), bench.deliver(&bench.task)).await;
        });
        drop(bench.came());
        for (looks, passed) in [10, 11, 30].into_iter().enumerate() {
            bench.at(secs(passed));
            ring(&bench);
            assert_eq!(bench.world.mail.alarm(&bench.run), None, "it rings once");
            bench.world.mail.put(dormouse_engine::seams::RunMessage::Sweep { run: bench.run.clone() });
            bench.process.deliver();
            bench.world.mail.take_tasks();
            let described = drive(bench.process.front.describe(&latest("w"))).expect("an answer").unwrap();
            assert_eq!(described.pending_activities.len(), 1, "{script:?}, look {looks}");
        }
        // And it ends as if there had been no such limit.
        bench.tell(Arrival::ActivityCompleted(operations::ActivityCompleted {
            id: 1,
            attempt: 1,
            result: Payload::encode(&"late").unwrap(),
        }));
        assert_eq!(bench.world.result(&bench.run), Some("late".into()));
    }
}

/// Nobody took it up: given up when the limit has passed and not before, and then nobody may.
#[test]
fn schedule_to_start_ends_what_nobody_took_up() {
    for dies in [false, true] {
        let bench = bench(PROMPT, HANG);
        bench.at(secs(10) - MS);
        bench.tell(Arrival::Alarm);
        assert_eq!(bench.world.state(&bench.run).status(), Status::Running, "not before its time");
        bench.at(secs(10));
        if dies {
            // Right after nobody may take it up any more, and before the run knows.
            let dying = bench.world.process();
            dying.faults.plan(On::Swap(None), Fault::CrashAfter);
            bench.world.ring();
            assert!(dying.handle(bench.world.mail.take_message(0)).is_none());
            assert_eq!(bench.world.state(&bench.run).status(), Status::Running);
            bench.world.pass_sweeps(1);
            bench.world.sweep();
            bench.process.deliver();
        } else {
            ring(&bench);
        }
        let outcome = in_time(&bench.world, bench.process.front.result(&latest("w"), Duration::ZERO)).unwrap();
        assert_eq!(outcome.status, Status::Failed, "dies: {dies}");
        let failure = outcome.failure.expect("why");
        let cause = failure.chain().last().expect("a cause");
        assert!(matches!(cause.kind, FailureKind::Timeout { timeout: TimeoutKind::ScheduleToStart, .. }), "{failure}");
        bench.world.mail.take_tasks();
        assert!(matches!(bench.work(&bench.task), Came::Nothing));
        assert_eq!(bench.seen.attempts(), [], "a latecomer runs nothing");
    }
}

// --- attempts that are not the latest any more ---

/// The run has ended the attempt and another one is under way when the first worker is heard of again: it learns by
/// its next heartbeat, stops, and says nothing.
#[test]
fn a_late_attempt_gives_way() {
    let limits = Limits { start_to_close: Some(300), heartbeat: Some(10), ..Limits::default() };
    let bench = bench(limits, &[&[Step::Beats(100)], &[Step::Sleep(100_000)]]);
    in_time(&bench.world, async {
        let meanwhile = async {
            sleep(&bench.world, Duration::from_millis(3_500)).await;
            let lost = TimeoutKind::Heartbeat;
            bench.tell(Arrival::AttemptLost(operations::WorkerGone {
                id: 1,
                attempt: 1,
                timeout: lost,
                last_heartbeat: None,
            }));
            let next = bench.world.mail.take_tasks().remove(0);
            sleep(&bench.world, next.not_before.since(bench.world.now())).await;
            let other = bench.world.process();
            let second = handle_task(bench.world.app(), &other.ports, next, Delivery::First, None);
            assert!(timeout(&bench.world, secs(9), second).await.is_none(), "it is at work");
        };
        let first = async {
            bench.deliver(&bench.task).await;
            assert_eq!(bench.passed(), secs(8), "the heartbeat that is written next");
        };
        futures::join!(first, meanwhile)
    });
    assert!(matches!(bench.came(), Came::Nothing));
    assert_eq!(bench.seen.attempts().iter().map(|seen| seen.0).collect::<Vec<_>>(), [1, 2]);
}

/// The run has closed: the attempt learns by a heartbeat that it is not wanted, and what it then says changes nothing.
#[test]
fn an_attempt_learns_that_its_run_has_closed() {
    let limits = Limits { start_to_close: Some(300), heartbeat: Some(10), ..Limits::default() };
    for script in [&[Step::BeatUntilCanceled][..], &[Step::BeatUntilCanceled, Step::Fail]] {
        let bench = bench(limits, &[script]);
        in_time(&bench.world, async {
            let meanwhile = async {
                sleep(&bench.world, Duration::from_millis(3_500)).await;
                drive(bench.process.front.terminate(&latest("w"), Some("t"), "enough")).expect("an answer").unwrap();
                bench.process.deliver();
            };
            futures::join!(bench.deliver(&bench.task), meanwhile)
        });
        assert!(bench.passed() >= secs(8) && bench.passed() <= secs(9), "told with the heartbeat at 8 s: {script:?}");
        assert_eq!(bench.world.mail.take_tasks(), [], "no attempt follows: {script:?}");
        bench.process.deliver();
        assert_eq!(bench.world.state(&bench.run).status(), Status::Terminated);
    }
}
