//! The other half of the rules: what is not asked for, not addressed, or done already changes nothing.

use std::time::Duration;

use dormouse::{Activity, Failure, Payload, Status, Workflow};
use dormouse_core::{ActivityTask, Arrival, RunKey, operations};
use dormouse_engine::ApiError;
use dormouse_engine::attempts::{Claiming, Standing, claim};
use dormouse_engine::seams::{Delivery, Intent, RunMessage, Wish};
use dormouse_engine::worker::handle_task;
use dormouse_testing::World;
use dormouse_testing::world::{Process, SWEEP, Sent, drive, latest, run};
use serde_json::json;

use super::attempts::work;
use super::workflows::{PATIENT, WORD, app};

/// Two activities side by side, of which a request to stop concerns the second alone; then a word.
async fn two(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let shielded = cx.detached();
    let keep = shielded.activity(one, &()).options(PATIENT).start();
    if cx.activity(one, &()).options(PATIENT).await.is_ok() {
        return Ok(0);
    }
    shielded.signal(WORD).await?;
    keep.await
}

async fn one(_: Activity, _: ()) -> Result<u32, Failure> {
    Ok(1)
}

/// Panics whenever it is tried after the first word.
async fn unlucky(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.signal(WORD).await?;
    panic!("out of luck")
}

fn world() -> (World, Process) {
    let world = World::new(app().workflow("two", two).workflow("unlucky", unlucky).activity("one", one));
    let process = world.process();
    (world, process)
}

fn announced(run: &RunKey, arrival: Arrival, pinned: bool) -> RunMessage {
    RunMessage::Intent(Intent { run: run.clone(), wish: Wish::Take { arrival, pinned } })
}

fn word(request_id: &str) -> Arrival {
    let payload = Payload::encode(request_id).unwrap();
    Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: "word".into(), payload })
}

fn cancel(request_id: &str) -> Arrival {
    Arrival::Cancel(operations::CancelRequested { request_id: request_id.into(), reason: "enough".into() })
}

fn terminate(request_id: &str) -> Arrival {
    Arrival::Terminate(operations::Terminated { request_id: request_id.into(), reason: "enough".into(), next: None })
}

/// What was announced for this run and no other, late: it does not follow the chain. Nor does an order to end at once,
/// whoever it was for.
#[test]
fn f4_what_is_for_one_run_does_not_follow() {
    for (arrival, pinned, follows) in [
        (word("x"), true, false),
        (cancel("x"), true, false),
        (terminate("x"), true, false),
        (terminate("x"), false, false),
        (word("x"), false, true),
        (cancel("x"), false, true),
    ] {
        for another in [false, true] {
            let (world, process) = world();
            let first = process.start("chain", "w", "r1", &1);
            process.deliver();
            process.signal("w", "a", "word", &"on");
            process.deliver();
            let next = run("w", 1);
            let before = world.records(&next).len();
            let decider = if another { world.process() } else { process };
            decider.handle(announced(&first, arrival.clone(), pinned)).unwrap().unwrap();
            decider.deliver();
            assert_eq!(world.records(&next).len() > before, follows, "{arrival:?}, pinned: {pinned}");
            assert_eq!(world.row(&run("w", 2)), None);
        }
    }
}

/// The chain has ended: a message is for none of its runs, and begins none.
#[test]
fn f4_nothing_follows_a_chain_that_has_ended() {
    let (world, process) = world();
    let first = process.start("chain", "w", "r1", &1);
    process.deliver();
    process.signal("w", "a", "word", &"on");
    process.deliver();
    process.signal("w", "b", "word", &"end");
    process.deliver();
    let records = [0, 1].map(|ordinal| world.records(&run("w", ordinal)));
    for arrival in [word("x"), cancel("y"), terminate("z")] {
        process.handle(announced(&first, arrival, false)).unwrap().unwrap();
        process.deliver();
    }
    let late = drive(process.front.signal(&latest("w"), Some("v"), "word", Payload::NULL)).unwrap();
    assert!(matches!(late, Err(ApiError::Closed(_))), "{late:?}");
    assert_eq!([0, 1].map(|ordinal| world.records(&run("w", ordinal))), records);
    assert_eq!(world.row(&run("w", 2)), None);
}

/// A run that is due soon anyway is not due later for what it takes in.
#[test]
fn f5_an_input_puts_nothing_off() {
    let (world, process) = world();
    let nap = process.start("nap", "w", "r1", &10);
    process.deliver();
    let rings = world.now() + Duration::from_secs(10);
    process.signal("w", "s", "noise", &());
    assert_eq!(world.due(&nap), Some(rings), "taken in");
    process.deliver();
    assert_eq!((world.due(&nap), world.mail.alarm(&nap)), (Some(rings), Some(rings)), "decided");
    // By the sweep alone, the timer fires in its time.
    world.mail.drop_alarms();
    world.clock.set(rings);
    assert_eq!(world.sweep(), std::slice::from_ref(&nap));
    process.deliver();
    assert_eq!(world.state(&nap).status(), Status::Completed);
}

/// Nor does a decision: that a run is due later is for the sweep to say.
#[test]
fn f5_a_decision_puts_nothing_off() {
    let (world, process) = world();
    let (nap, words) = (process.start("nap", "w", "r1", &3_600), process.start("words", "v", "r1", &2));
    let first_look = world.now() + SWEEP;
    process.deliver();
    world.pass(SWEEP / 2);
    process.signal("v", "s", "word", &"on");
    process.deliver();
    for run in [&nap, &words] {
        assert_eq!((world.due(run), world.state(run).is_undecided()), (Some(first_look), false), "{run}");
    }
    world.clock.set(first_look);
    assert_eq!(world.sweep().len(), 2);
    process.deliver();
    for run in [&nap, &words] {
        assert!(world.due(run) > Some(first_look + SWEEP), "{run}");
    }
}

/// Who waits for people, for time or for nothing is told nothing when it is looked at, and sends nothing; but for an
/// alarm that is lost.
#[test]
fn f6_a_sweep_of_what_waits_for_nothing_sends_nothing() {
    let (world, process) = world();
    let waits = process.start("words", "w", "r1", &1);
    let closed = process.start("local", "v", "r1", &0);
    let naps = process.start("nap", "u", "r1", &3600);
    process.deliver();
    for process in [process, world.process()] {
        world.mail.drop_alarms();
        for run in [&waits, &closed, &naps] {
            let (before, records) = (world.mail.sent(), world.records(run).len());
            process.handle(RunMessage::Sweep { run: run.clone() }).unwrap().unwrap();
            let Sent { messages, tasks, .. } = world.mail.sent();
            assert_eq!((messages, tasks), (before.messages, before.tasks), "{run}");
            assert_eq!(world.records(run).len(), records, "{run}: not due, and nothing to say");
            assert_eq!(world.mail.take_locals().len(), 0);
        }
        assert_eq!(world.mail.alarm(&naps), Some(world.now() + Duration::from_hours(1)));
    }
}

/// The sweep grows patient, up to 64 times its interval, and looks again after that, for ever.
#[test]
fn f5_patience_has_an_end() {
    let (world, process) = world();
    let run = process.start("queued", "w", "r1", &1);
    process.deliver();
    for look in 0..40 {
        let due = world.due(&run).expect("it is open");
        let waited = due.since(world.now());
        assert_eq!(waited, SWEEP * 2u32.pow(u32::min(look, 7).saturating_sub(1)), "look {look}");
        world.clock.set(due);
        world.sweep();
        process.deliver();
        world.mail.take_tasks();
    }
    // Something happens: it begins anew.
    process.signal("w", "s", "noise", &());
    process.deliver();
    for patience in [1, 1, 2, 4] {
        let due = world.due(&run).expect("it is open");
        assert_eq!(due.since(world.now()), SWEEP * patience);
        world.clock.set(due);
        world.sweep();
        process.deliver();
    }
    // Looks are events, as people count them.
    let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
    let history = drive(process.front.history(&latest("w"), 0, 1_000)).unwrap().unwrap();
    assert_eq!(described.history_events, history.events.len() as u64);
}

fn claimed(process: &Process, task: &ActivityTask) -> dormouse_engine::attempts::Claim {
    match drive(claim(&process.ports, task, None)).unwrap().unwrap() {
        Claiming::Claimed(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

/// One of two activities is not wanted any more: the other one is.
#[test]
fn a1_what_is_still_wanted_goes_on() {
    let (world, process) = world();
    let run = process.start("two", "w", "r1", &());
    process.deliver();
    let [keep, give_up] = &world.mail.take_tasks()[..] else { panic!("two tasks") };
    let (mut kept, mut given_up) = (claimed(&process, keep), claimed(&process, give_up));
    drive(process.front.cancel(&latest("w"), Some("c"), "enough")).unwrap().unwrap();
    process.deliver();
    let beat = |claim: &mut dormouse_engine::attempts::Claim, task| {
        drive(claim.heartbeat(&process.ports, task, world.now(), &Payload::NULL)).unwrap().unwrap()
    };
    assert_eq!((beat(&mut kept, keep), beat(&mut given_up, give_up)), (Standing::Held, Standing::Unwanted));
    // What comes again waits for the worker of what is wanted, in case that it dies. Of what is not, it does not.
    for (task, looks_again) in [(keep, 1), (give_up, 0)] {
        let again = handle_task(world.app(), &process.ports, task.clone(), Delivery::Again, None);
        world.in_time(again).unwrap();
        assert_eq!((world.mail.messages().len(), world.mail.take_tasks().len()), (0, looks_again));
    }
    // Its result comes too late, that of the other one does not.
    process.complete(give_up, 1, &7);
    process.complete(keep, 1, &8);
    process.signal("w", "s", "word", &"end");
    process.deliver();
    assert_eq!(world.result(&run), Some(json!(8)));
    assert_eq!(world.due(&run), None);
}

/// A queue that does not wait: a pause before the next attempt is kept all the same.
#[test]
fn a1_no_attempt_is_claimed_before_its_time() {
    let (world, process) = world();
    process.start("two", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    drop(claimed(&process, &task));
    world.mail.arrive(
        &task.run,
        task.run_id,
        Arrival::AttemptLost(operations::WorkerGone {
            id: task.id,
            attempt: 1,
            timeout: dormouse_core::TimeoutKind::StartToClose,
            last_heartbeat: None,
        }),
    );
    process.deliver();
    let next = world.mail.take_tasks().remove(0);
    assert!(next.not_before > world.now());
    let early = drive(claim(&process.ports, &next, None)).unwrap().unwrap();
    assert!(matches!(early, Claiming::NotYet(at) if at == next.not_before), "{early:?}");
    world.clock.set(next.not_before);
    drop(claimed(&process, &next));
}

/// Nobody took it up before it was not wanted: whoever comes then runs nothing, though the run goes on.
#[test]
fn a1_what_is_not_wanted_is_not_taken_up() {
    let (world, process) = world();
    process.start("two", "w", "r1", &());
    process.deliver();
    let [keep, give_up] = &world.mail.take_tasks()[..] else { panic!("two tasks") };
    drive(process.front.cancel(&latest("w"), Some("c"), "enough")).unwrap().unwrap();
    process.deliver();
    for _ in 0..2 {
        work(&world, &process, give_up.clone());
        assert_eq!((world.mail.messages().len(), world.mail.take_tasks().len()), (0, 0));
    }
    work(&world, &process, keep.clone());
    assert_eq!(world.mail.messages().len(), 1, "the other one is at work");
}

/// How an activity stands, as people see it.
#[test]
fn a1_describe_tells_how_an_attempt_stands() {
    let (world, process) = world();
    process.start("failing", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    let stands = || {
        let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
        let [activity] = &described.pending_activities[..] else { panic!("{described:?}") };
        let heard = activity.last_heartbeat.clone();
        (activity.state.clone(), activity.attempt, activity.next_attempt_at, heard)
    };
    assert_eq!(stands(), ("scheduled".into(), 0, None, None));
    let mut first = claimed(&process, &task);
    assert_eq!(stands(), ("running".into(), 1, None, None));
    let details = Payload::encode(&41).unwrap();
    drive(first.heartbeat(&process.ports, &task, world.now(), &details)).unwrap().unwrap();
    assert_eq!(stands(), ("running".into(), 1, None, Some(json!(41).into())));
    world.pass(Duration::from_secs(16));
    work(&world, &process, task);
    process.deliver();
    let next = world.mail.take_tasks().remove(0);
    let retry = world.now() + Duration::from_secs(1);
    assert_eq!(stands(), ("backing_off".into(), 1, Some(retry), Some(json!(41).into())));
    world.clock.set(retry);
    let mut second = claimed(&process, &next);
    assert_eq!(stands(), ("running".into(), 2, None, Some(json!(41).into())));
    let retry = world.now() + Duration::from_secs(2);
    drive(second.wait(&process.ports, retry, Failure::application("no"))).unwrap().unwrap();
    assert_eq!(stands(), ("backing_off".into(), 2, Some(retry), Some(json!(41).into())));
}

/// Code that cannot go on is left alone until its time: neither an alarm nor the sweep tries it sooner, and each pause is
/// twice as long as the one before. News tries it at once.
#[test]
fn f1_a_parked_run_is_left_alone_until_its_time() {
    let (world, process) = world();
    let run = process.start("unlucky", "w", "r1", &());
    process.deliver();
    process.signal("w", "s", "word", &"on");
    process.deliver();
    let run_id = world.state(&run).run_id();
    let parked = || world.row(&run).unwrap().parked.expect("it is parked");
    for pause in [1, 2, 4, 8] {
        let retry_at = world.now() + Duration::from_secs(pause);
        assert_eq!((parked().retry_at, world.mail.alarm(&run)), (retry_at, Some(retry_at)));
        world.clock.set(retry_at - Duration::from_millis(1));
        let before = parked();
        for message in [
            RunMessage::Sweep { run: run.clone() },
            RunMessage::Arrived { run: run.clone(), run_id, arrival: Arrival::Alarm },
        ] {
            process.handle(message).unwrap().unwrap();
            assert_eq!(parked(), before, "after {pause} s less a moment");
        }
        world.clock.set(retry_at);
        world.ring();
        process.deliver();
    }
    let attempts = parked().attempts;
    process.signal("w", "news", "word", &"?");
    process.deliver();
    assert_eq!(parked().attempts, attempts + 1);
    assert!(parked().retry_at > world.now() + SWEEP / 4);
}
