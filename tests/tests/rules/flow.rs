//! F1 to F5: the way of an event.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse::{Payload, Status};
use dormouse_core::api::SignaledBody;
use dormouse_core::history::{BatchKind, Event};
use dormouse_core::operations;
use dormouse_core::{Arrival, TurnFailure};
use dormouse_engine::ApiError;
use dormouse_engine::front::Target;
use dormouse_engine::parking::park;
use dormouse_engine::seams::{Intent, RunMessage, Wish};
use dormouse_engine::store::RunFilter;
use dormouse_testing::world::{SWEEP, drive, latest, run, start_body};
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use super::workflows::{BROKEN, app};

fn word(request_id: &str) -> Arrival {
    let payload = Payload::encode(request_id).unwrap();
    Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: "word".into(), payload })
}

/// The front door takes in, and decides nothing: every batch of its own holds inputs alone.
#[test]
fn f1_only_the_consumer_of_the_run_queue_decides() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &2);
    process.signal("w", "a", "word", &"a");
    drive(process.front.cancel(&latest("w"), Some("c"), "enough")).unwrap().unwrap();
    let batches = world.batches(&run);
    assert_eq!(batches.len(), 3);
    for batch in batches {
        assert_eq!(batch.kind, BatchKind::Accepted);
        assert!(batch.events.iter().all(|event| matches!(event, Event::Input(_))), "{batch:?}");
    }
    assert!(world.state(&run).is_undecided());
    process.deliver();
    assert!(!world.state(&run).is_undecided());
    assert_eq!(world.state(&run).status(), Status::Canceled);
}

/// The message with the news is lost. The sweep, or the message of another input, brings the first one up too.
#[test]
fn f1_an_accepted_input_is_decided_when_anything_comes_again() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &2);
    process.signal("w", "a", "word", &"a");
    world.mail.drop_messages();
    world.pass_sweeps(1);
    assert_eq!(world.sweep(), std::slice::from_ref(&run));
    process.deliver();
    assert!(!world.state(&run).is_undecided(), "the sweep has brought it up");

    process.signal("w", "b", "word", &"b");
    world.mail.drop_messages();
    // The same request again, as an intent: a duplicate whose input is not decided yet.
    let wish = Wish::Take { arrival: word("b"), pinned: false };
    world.mail.put(RunMessage::Intent(Intent { run: run.clone(), wish }));
    world.process().deliver();
    assert_eq!(world.result(&run), Some(json!(["a", "b"])));
}

/// What follows from a message is in the history, but was not handed out. So the message is not acknowledged, and when
/// it comes again, a duplicate now, what is outstanding is handed out.
#[test]
fn f1_a_message_that_comes_again_hands_out_what_is_outstanding() {
    for another_process in [false, true] {
        let world = World::new(app());
        let process = world.process();
        let other = world.process();
        let again = if another_process { &other } else { &process };
        let try_twice = |message: RunMessage| {
            world.mail.fail_tasks(1);
            process.handle(message.clone()).unwrap().unwrap_err();
            assert_eq!(world.mail.take_tasks(), [], "the queue does not answer");
            again.handle_again(message).unwrap().unwrap();
            world.mail.take_tasks().pop().expect("the task")
        };
        // After a start, a completion, a signal, and an alarm.
        let run = process.start("queued", "w", "r1", &2);
        let first = try_twice(world.mail.take_message(0));
        let result = Payload::encode(&7).unwrap();
        let arrival = Arrival::ActivityCompleted(operations::ActivityCompleted { id: first.id, attempt: 1, result });
        let second = try_twice(RunMessage::Arrived { run: run.clone(), run_id: first.run_id, arrival });
        assert_eq!(second.id, 2);
        process.complete(&second, 1, &7);
        assert_eq!(world.result(&run), Some(json!(14)));

        process.start("word, then activity", "u", "r1", &1);
        process.deliver();
        process.signal("u", "s", "word", &"go");
        try_twice(world.mail.take_message(0));

        let run = process.start("in time", "v", "r1", &());
        process.deliver();
        world.mail.take_tasks();
        world.pass(Duration::from_secs(30));
        let run_id = world.state(&run).run_id();
        let late = try_twice(RunMessage::Arrived { run, run_id, arrival: Arrival::Alarm });
        assert_eq!(late.activity_type, "late");
    }
}

/// Code that cannot go on stops its run, not the taking in. When it is mended, everything is there.
#[test]
fn f1_a_parked_run_takes_inputs_in() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("brittle", "w", "r1", &());
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    BROKEN.store(true, Ordering::SeqCst);
    process.signal("w", "a", "word", &"a");
    process.deliver();
    let parked = world.row(&run).unwrap().parked.expect("it is parked");
    assert!(parked.reason.contains("broken"), "{}", parked.reason);
    assert_eq!(world.mail.alarm(&run), Some(parked.retry_at));

    // A result, a signal, and alarms, while it stands still and at the next try.
    process.complete(&task, 1, &7);
    process.signal("w", "b", "word", &"b");
    process.deliver();
    world.pass_sweeps(1);
    world.ring();
    world.sweep();
    process.deliver();
    let again = world.row(&run).unwrap().parked.expect("it is still parked");
    assert!(again.attempts > parked.attempts && again.retry_at > world.now(), "tried again, less often: {again:?}");
    assert!(!world.state(&run).pending.activities.open.contains_key(&task.id), "the result is in the history");

    let other = world.process();
    BROKEN.store(false, Ordering::SeqCst);
    world.clock.set(again.retry_at);
    world.ring();
    // Who knows nothing of the trouble may take over just as well.
    let alarm = world.mail.take_message(0);
    other.handle(alarm.clone()).unwrap().unwrap();
    process.handle(alarm).unwrap().unwrap();
    assert_eq!(world.result(&run), Some(json!([7, ["a", "b"]])));
    for process in [&process, &other] {
        let (listed, _) = drive(process.front.list(&RunFilter::default(), None, 10)).unwrap().unwrap();
        assert!(listed.workflows[0].parked.is_none(), "and nobody says that it stands still");
    }
}

/// A parked run goes on, and the request that says so to its row fails. When the message comes again, it is said.
#[test]
fn f1_a_run_that_goes_on_is_unparked_whatever_the_store_answers() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let world = World::new(app());
        let process = world.process();
        let run = process.start("words", "w", "r1", &1);
        process.deliver();
        drive(park(&process.ports, &run, &TurnFailure::ForeignFuture { turn: 1 })).unwrap().unwrap();
        assert!(world.row(&run).unwrap().parked.is_some());
        process.signal("w", "a", "word", &"a");
        process.faults.plan(On::Park, fault);
        let message = world.mail.take_message(0);
        assert!(process.handle(message.clone()).unwrap().is_err(), "the store does not answer");
        process.handle(message).unwrap().unwrap();
        assert_eq!(process.faults.outstanding(), 0);
        assert_eq!(world.row(&run).unwrap().parked, None, "{fault:?}");
        assert_eq!(process.ports.parkings.get(&run), None);
    }
}

/// A run in whose code a thread hangs is terminated, and the store does not answer who wants to know what follows.
#[test]
fn f1_a_terminated_run_that_stands_still_is_seen_to_whatever_the_store_answers() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &1);
    process.deliver();
    drive(park(&process.ports, &run, &TurnFailure::Endless { limit_ms: 1 })).unwrap().unwrap();
    process.ports.parkings.hold(run.clone());
    drive(process.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap();
    process.faults.plan(On::Park, Fault::FailBefore);
    let message = world.mail.take_message(0);
    assert!(process.handle(message.clone()).unwrap().is_err(), "what was not done is not said to be done");
    process.handle(message).unwrap().unwrap();
    assert_eq!(world.row(&run).unwrap().parked, None);
    assert_eq!(world.mail.alarm(&run), None);
}

/// The caller dies after its intent is on the queue. The queue carries it out.
#[test]
fn f2_an_intent_survives_its_caller() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let world = World::new(app());
        let dying = world.process();
        dying.faults.plan(On::Create(None), fault);
        let body = start_body("words", "w", &1, Default::default());
        assert!(drive(dying.front.start(Some("r1"), body)).is_none(), "it dies over the start");
        assert_eq!(world.records(&run("w", 0)).len(), usize::from(fault == Fault::CrashAfter));
        let living = world.process();
        living.deliver();
        assert_eq!(world.state(&run("w", 0)).started.request_id, "r1", "{fault:?}");

        let dying = world.process();
        dying.faults.plan(On::Create(None), fault);
        let target = latest("w");
        let signal = dying.front.signal(&target, Some("s"), "word", Payload::encode("heard").unwrap());
        assert!(drive(signal).is_none(), "it dies over the signal");
        living.deliver();
        assert_eq!(world.result(&run("w", 0)), Some(json!(["heard"])), "{fault:?}");
    }
}

/// The same for a caller that lives and gives up: what it could not commit, the queue commits.
#[test]
fn f2_an_intent_survives_a_store_that_does_not_answer() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &1);
    process.deliver();
    for _ in 0..5 {
        process.faults.plan(On::Create(None), Fault::FailBefore);
    }
    let target = latest("w");
    let answer = drive(process.front.signal(&target, Some("s"), "word", Payload::encode("heard").unwrap())).unwrap();
    assert!(matches!(answer, Err(ApiError::Unavailable(_))), "{answer:?}");
    process.deliver();
    // The caller asks again, as it was told to.
    let answer = drive(process.front.signal(&target, Some("s"), "word", Payload::encode("heard").unwrap())).unwrap();
    assert_eq!(answer, Ok(SignaledBody::default()), "it is answered as the first time");
    assert_eq!(world.result(&run), Some(json!(["heard"])));
}

/// The intent is on the queue, and delivered, before its caller's commit: one of the two records it.
#[test]
fn f2_an_intent_may_overtake_its_caller() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &1);
    process.deliver();
    process.signal("w", "s", "word", &"once");
    let intent = Intent { run: run.clone(), wish: Wish::Take { arrival: word("s"), pinned: false } };
    for _ in 0..2 {
        world.process().handle(RunMessage::Intent(intent.clone())).unwrap().unwrap();
    }
    process.deliver();
    assert_eq!(world.result(&run), Some(json!(["once"])));
}

/// A start's intent creates the run that it was meant for, or nothing.
#[test]
fn f3_a_late_start_begins_no_other_run() {
    let world = World::new(app());
    let process = world.process();
    // Its caller dies before the commit, and the intent is held up.
    let dying = world.process();
    dying.faults.plan(On::Create(None), Fault::CrashBefore);
    let body = start_body("local", "w", &1, Default::default());
    assert!(drive(dying.front.start(Some("r1"), body)).is_none());
    let held_up = world.mail.drop_messages();
    // Meanwhile another start is served, and its run completes.
    process.start("words", "w", "r2", &1);
    process.signal("w", "s", "word", &"done");
    process.deliver();
    for message in held_up {
        process.handle(message).unwrap().unwrap();
    }
    process.deliver();
    assert_eq!(world.records(&run("w", 1)).len(), 0, "nobody who was answered asked for this");

    // A copy of a start that was carried out, so late that its id is forgotten.
    let start = process.start("words", "v", "r1", &1);
    process.deliver();
    process.signal("v", "s1", "word", &"done");
    process.deliver();
    world.pass(Duration::from_hours(24 * 30));
    process.start("words", "v", "r2", &1);
    process.signal("v", "s2", "word", &"done");
    process.deliver();
    let request = dormouse_core::StartRequest {
        call: dormouse_core::Call::new("words", Payload::encode(&1).unwrap()),
        request_id: "r1".into(),
        reuse: Default::default(),
        conflict: Default::default(),
    };
    let copy = Intent { run: start, wish: Wish::Start(request.clone()) };
    process.handle(RunMessage::Intent(copy)).unwrap().unwrap();
    process.deliver();
    assert_eq!(world.records(&run("v", 2)).len(), 0, "an old start begins nothing new");

    // One for a run that does not follow from what is there.
    let stray = Intent { run: run("u", 1), wish: Wish::Start(request) };
    process.handle(RunMessage::Intent(stray)).unwrap().unwrap();
    process.deliver();
    assert_eq!(world.records(&run("u", 0)).len(), 0, "it begins its own run or none");
}

/// A late copy of a signal or a completion reaches its own run or none.
#[test]
fn f3_a_late_message_is_for_its_own_run() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("words", "w", "r1", &1);
    let run_id = world.state(&first).run_id();
    process.signal("w", "a", "word", &"a");
    process.deliver();
    let second = process.start("words", "w", "r2", &1);
    process.deliver();
    for request_id in ["a", "b"] {
        let wish = Wish::Take { arrival: word(request_id), pinned: false };
        world.mail.put(RunMessage::Intent(Intent { run: first.clone(), wish }));
        world.mail.arrive(&first, run_id, word(request_id));
        // At the right place, but for the run that used to be meant.
        world.mail.arrive(&second, run_id, word(request_id));
    }
    process.deliver();
    assert_eq!(world.batches(&second).len(), 2, "the start, and the first turn");
    assert_eq!(world.state(&second).status(), Status::Running);
}

/// Whoever asks again gets the answer that the first one got.
#[test]
fn f3_a_repeated_start_gives_the_first_answer() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &1);
    process.deliver();
    assert_eq!(process.start("chain", "w", "r1", &1), first);
    process.signal("w", "a", "word", &"on");
    process.deliver();
    assert_eq!(world.state(&run("w", 1)).status(), Status::Running, "it has continued as new");
    assert_eq!(world.process().start("chain", "w", "r1", &1), first);
    process.signal("w", "b", "word", &"end");
    process.deliver();
    let third = process.start("chain", "w", "r2", &0);
    assert_eq!(third.ordinal, 2);
    assert_eq!(world.process().start("chain", "w", "r1", &1), first, "also when others have come since");
}

/// A signal that names no run goes where the run went, with its id.
#[test]
fn f4_a_message_follows_the_chain() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &2);
    let first_id = world.state(&first).run_id();
    process.deliver();
    process.signal("w", "a", "word", &"on");
    process.deliver();
    process.signal("w", "b", "word", &"on");
    process.deliver();
    // Sent while the first run was the latest, and late. And again.
    let wish = Wish::Take { arrival: word("c"), pinned: false };
    for _ in 0..3 {
        world.mail.put(RunMessage::Intent(Intent { run: first.clone(), wish: wish.clone() }));
    }
    process.deliver();
    let last = run("w", 2);
    assert_eq!(world.result(&last), Some(json!(["c"])), "it is heard by the run of today, once");
    for ordinal in 0..2 {
        assert_eq!(world.state(&run("w", ordinal)).status(), Status::ContinuedAsNew);
    }
    // What an earlier run of the chain has heard is not heard again.
    let again = process.start("chain", "w", "r2", &0);
    for (request_id, word) in [("a", "on"), ("b", "on"), ("c", "c")] {
        process.signal("w", request_id, "word", &word);
    }
    process.deliver();
    assert_eq!(world.state(&again).status(), Status::Running, "known from runs before");

    // Who names a run means that run.
    let target = Target { workflow_id: "w".into(), run_id: Some(first_id) };
    let answer = drive(process.front.signal(&target, Some("d"), "word", Payload::NULL)).unwrap();
    assert!(matches!(answer, Err(ApiError::Closed(_))), "{answer:?}");
}

/// The run before has closed and its next one is missing: whoever brings a message creates it.
#[test]
fn f4_a_message_brings_the_next_run_about() {
    let world = World::new(app());
    let process = world.process();
    process.start("chain", "w", "r1", &1);
    process.deliver();
    process.signal("w", "a", "word", &"on");
    let messages = world.mail.drop_messages();
    let dying = world.process();
    dying.faults.plan(On::Create(Some(0)), Fault::CrashBefore);
    assert!(messages.into_iter().any(|message| dying.handle(message).is_none()), "it dies over the next run");
    world.mail.drop_messages();
    process.signal("w", "b", "word", &"heard");
    process.deliver();
    assert_eq!(world.result(&run("w", 1)), Some(json!(["heard"])));
}

/// Whatever a commit makes due earlier is in the index row when the commit is.
#[test]
fn f5_the_row_is_lowered_with_the_commit() {
    let world = World::new(app());
    let process = world.process();
    let begun = world.now();
    let nap = process.start("nap", "w", "r1", &10);
    assert_eq!(world.due(&nap), Some(begun + SWEEP), "a start is due in an interval");
    // The process dies as soon as the timer is in the history.
    let dying = world.process();
    dying.faults.plan(On::Create(Some(1)), Fault::CrashAfter);
    let start = world.mail.drop_messages().remove(0);
    assert!(dying.handle(start).is_none());
    assert_eq!(world.due(&nap), Some(begun + Duration::from_secs(10)), "a timer, when it fires");

    // A run that waits for nothing but people is due in a hundred years, until somebody says something.
    let words = process.start("words", "v", "r1", &1);
    process.deliver();
    world.pass_sweeps(1);
    world.sweep();
    process.deliver();
    assert!(world.due(&words).unwrap() > world.now() + Duration::from_hours(24 * 365));
    let intake = world.process();
    intake.faults.plan(On::Create(None), Fault::CrashAfter);
    let target = latest("v");
    assert!(drive(intake.front.signal(&target, Some("s"), "word", Payload::encode("hi").unwrap())).is_none());
    assert_eq!(world.due(&words), Some(world.now() + SWEEP), "an input, in an interval");
    world.mail.drop_messages();
    world.pass_sweeps(1);
    assert!(world.sweep().contains(&words));
    world.process().deliver();
    assert_eq!(world.result(&words), Some(json!(["hi"])));
}

/// The sweep's patience grows with what it finds waiting. News starts it afresh.
#[test]
fn f5_news_is_due_in_an_interval_however_patient_the_sweep_is() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("local beside words", "w", "r1", &1);
    process.deliver();
    for _ in 0..10 {
        world.clock.set(world.due(&run).unwrap() + Duration::from_secs(1));
        world.sweep();
        process.deliver();
    }
    assert!(world.due(&run).unwrap() > world.now() + SWEEP * 60, "it has grown patient");
    process.signal("w", "s", "word", &"news");
    assert_eq!(world.due(&run), Some(world.now() + SWEEP));

    // The same for what is decided.
    let run = process.start("queued", "v", "r1", &2);
    process.deliver();
    let task = world.mail.take_tasks().into_iter().find(|task| task.run == run).unwrap();
    for _ in 0..10 {
        world.clock.set(world.due(&run).unwrap() + Duration::from_secs(1));
        world.sweep();
        process.deliver();
    }
    process.complete(&task, 1, &7);
    assert_eq!(world.due(&run), Some(world.now() + SWEEP));
}

/// A closed run stays in the index until the run that it owes exists.
#[test]
fn f5_a_closed_run_is_indexed_until_its_successor_exists() {
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &1);
    process.deliver();
    process.signal("w", "a", "word", &"on");
    let dying = world.process();
    dying.faults.plan(On::Create(Some(0)), Fault::CrashBefore);
    let messages = world.mail.drop_messages();
    assert!(messages.into_iter().any(|message| dying.handle(message).is_none()));
    world.mail.drop_messages();
    assert_eq!(world.state(&first).status(), Status::ContinuedAsNew);
    assert_eq!(world.due(&first), Some(world.now() + SWEEP), "it owes the next run");
    world.pass_sweeps(1);
    assert_eq!(world.sweep(), std::slice::from_ref(&first));
    process.deliver();
    assert_eq!(world.due(&first), None, "it owes nothing");
    assert_eq!(world.state(&run("w", 1)).status(), Status::Running);
    // One that owes nothing leaves the index with its last batch.
    process.signal("w", "b", "word", &"end");
    process.deliver();
    assert_eq!(world.due(&run("w", 1)), None);
}

/// The sweep says when it looks again by a batch of its own: an input that comes in between is not slept over.
#[test]
fn f5_the_sweep_raises_the_row_with_a_batch_of_its_own() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("queued", "w", "r1", &1);
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    let mut before = Duration::ZERO;
    for look in 1..=3 {
        world.clock.set(world.due(&run).unwrap() + Duration::from_secs(1));
        assert_eq!(world.sweep(), std::slice::from_ref(&run));
        let sent = world.mail.sent().messages;
        process.deliver();
        assert_eq!(world.mail.sent().messages, sent, "which nobody needs to be told of");
        let batches = world.batches(&run);
        let swept = batches.last().unwrap();
        assert_eq!((swept.kind, swept.due, batches.len()), (BatchKind::Swept, world.due(&run), 2 + look));
        let patience = world.due(&run).unwrap().since(world.now());
        assert!(patience > before, "each look is later than the one before");
        before = patience;
        assert_eq!(world.sweep(), [], "and not before");
    }
    process.count_anew();
    process.complete(&task, 1, &7);
    assert_eq!(world.result(&run), Some(json!(7)));
    assert_eq!(process.counts().all_reads(), 0, "a swept run is warm");

    // A sweep and an input at the same time: the sweep loses.
    let run = process.start("words", "v", "r1", &1);
    process.deliver();
    world.pass_sweeps(1);
    world.sweep();
    let slow = world.process();
    slow.faults.plan(On::Create(Some(2)), Fault::CrashBefore);
    let sweeps = world.mail.drop_messages();
    assert!(slow.handle(sweeps[0].clone()).is_none(), "it is about to raise the row");
    process.signal("v", "s", "word", &"hi");
    world.mail.drop_messages();
    for sweep in sweeps {
        process.handle(sweep).unwrap().unwrap();
    }
    process.deliver();
    assert_eq!(world.result(&run), Some(json!(["hi"])));
}
