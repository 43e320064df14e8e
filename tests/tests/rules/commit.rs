//! C1 to C4: one conditional create, and what its answers mean.

use std::time::Duration;

use dormouse::{IdConflictPolicy, Payload, Status};
use dormouse_core::Arrival;
use dormouse_core::history::BatchKind;
use dormouse_core::operations;
use dormouse_engine::intake::{Announce, Taken};
use dormouse_engine::seams::RunMessage;
use dormouse_testing::world::{Process, drive, latest, run, start_body};
use dormouse_testing::{Counts, Fault, On, World};
use serde_json::json;

use super::workflows::app;

/// The put lands, its answer is lost, something below sends it again, and the answer to that is "exists".
#[test]
fn c1_a_put_that_exists_as_our_own_has_won() {
    let world = World::new(app());
    let process = world.process();
    process.faults.plan(On::Create(Some(0)), Fault::RetriedHidden);
    let body = start_body("local", "w", &2, IdConflictPolicy::Fail);
    let (_, created) = drive(process.front.start(Some("r1"), body)).unwrap().unwrap();
    assert!(created, "the start is told that it created the run");
    let run = run("w", 0);

    process.count_anew();
    process.deliver();
    for sequence in 1..=2 {
        process.faults.plan(On::Create(Some(sequence)), Fault::RetriedHidden);
        let [task] = &world.mail.take_locals()[..] else { panic!("one local step is asked for, once") };
        process.complete_local(task, &10);
    }
    assert_eq!(process.faults.outstanding(), 0, "all faults have happened");
    assert_eq!(world.mail.take_locals().len(), 0, "no step is repeated");
    assert_eq!(world.result(&run), Some(json!(20)));
    let Counts { creates, exists, .. } = process.counts();
    assert_eq!((creates, exists, process.counts().all_reads()), (2, 2, 0), "to have won costs nothing more");
}

/// The same for the signal of a caller, and for the last batch of a run.
#[test]
fn c1_an_answer_that_was_lost_is_asked_for_again() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("words", "w", "r1", &2);
    process.deliver();
    for (signal, fault) in ["a", "b"].into_iter().zip([Fault::FailAfter, Fault::FailBefore]) {
        process.faults.plan(On::Create(None), fault);
        process.signal("w", signal, "word", &signal);
    }
    process.faults.plan(On::Create(None), Fault::FailAfter);
    process.deliver();
    assert_eq!(process.faults.outstanding(), 0, "all faults have happened");
    assert_eq!(world.result(&run), Some(json!(["a", "b"])), "each signal is in the history once");
    assert_eq!(world.row(&run).unwrap().status, Status::Completed, "and the index row went with the last batch");
}

/// The outcome stays unknown. The messages come again, and everything happens once.
#[test]
fn c1_an_outcome_that_stays_unknown_is_left_to_the_next_delivery() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("queued", "w", "r1", &1);
    let [message] = &world.mail.drop_messages()[..] else { panic!("the start's own message") };
    for _ in 0..5 {
        process.faults.plan(On::Create(Some(1)), Fault::FailAfter);
    }
    process.handle(message.clone()).unwrap().unwrap_err();
    assert_eq!(world.mail.take_tasks(), [], "nothing is handed out on a guess");
    process.handle_again(message.clone()).unwrap().unwrap();
    let [task] = &world.mail.take_tasks()[..] else { panic!("one task") };
    process.complete(task, 1, &7);
    assert_eq!(world.result(&run), Some(json!(7)));
    assert_eq!(world.records(&run).len(), 3);
}

/// A snapshot saves a look and proves nothing: whoever keeps one may die before or after, its answer may be lost, and one
/// that is asked for may not come.
#[test]
fn c1_a_snapshot_that_is_not_kept_costs_a_longer_look() {
    let looked_at = |process: &Process| drive(process.front.describe(&latest("w"))).expect("an answer");
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Refused, Fault::CrashBefore, Fault::CrashAfter] {
        let world = World::new(app());
        let (process, reader) = (world.process(), world.process());
        process.faults.plan(On::KeepSnapshot, fault);
        process.start("fan out", "w", "r1", &(300, 0));
        process.deliver();
        world.clock.work();
        assert_eq!(process.faults.outstanding(), 0, "{fault:?}: the decider keeps one behind so many events");
        reader.faults.plan(On::KeepSnapshot, fault);
        let described = looked_at(&reader).expect("a run");
        assert_eq!(described.pending_activities_total, 300);
        world.clock.work();
        let kept = matches!(fault, Fault::FailAfter | Fault::CrashAfter);
        assert_eq!(reader.faults.outstanding(), usize::from(kept), "{fault:?}: the reader, where it had to read far");
        let other = world.process();
        other.faults.plan(On::Snapshot, Fault::FailBefore);
        assert!(looked_at(&other).is_err(), "{fault:?}: not a guess");
        assert_eq!(looked_at(&other).expect("a run"), described, "{fault:?}");
    }
}

/// Two deciders go different ways; the one whose batch is not in the history has no say.
#[test]
fn c2_a_loser_hands_nothing_out() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("in time", "w", "r1", &());
    let messages = world.mail.messages();
    one.deliver();
    let [task] = &world.mail.take_tasks()[..] else { panic!("the activity") };
    // The other one knows the run, up to here.
    for message in messages {
        other.handle(message).unwrap().unwrap();
    }
    world.mail.take_tasks();

    one.complete(task, 1, &7);
    world.pass(Duration::from_secs(31));
    // It believes that time is up, and that something else is to be done.
    let alarm = RunMessage::Arrived { run: run.clone(), run_id: task.run_id, arrival: Arrival::Alarm };
    other.handle(alarm).unwrap().unwrap();
    other.deliver();
    let tasks = world.mail.take_tasks();
    assert!(tasks.iter().all(|task| task.activity_type != "late"), "the history says otherwise: {tasks:?}");
    world.pass(Duration::from_hours(1));
    world.ring();
    one.deliver();
    assert_eq!(world.result(&run), Some(json!("in time")));
}

/// Signals come first; the result of a local step goes behind them, and is not asked for again.
#[test]
fn c2_a_loser_keeps_the_results_of_local_activities() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("local, then words", "w", "r1", &2);
    one.deliver();
    let [task] = &world.mail.take_locals()[..] else { panic!("one local step") };
    other.signal("w", "a", "word", &"a");
    world.mail.drop_messages();
    one.count_anew();
    one.complete_local(task, &7);
    assert_eq!(world.mail.take_locals().len(), 0, "the step is not repeated");
    other.signal("w", "b", "word", &"b");
    one.deliver();
    assert_eq!(world.result(&run), Some(json!([7, ["a", "b"]])));
    assert_eq!(one.counts().all_reads(), 0, "a loser that can go on reads nothing");
}

/// However many inputs are first: each costs one put that loses, and the decision gets through.
#[test]
fn c2_a_storm_of_signals_does_not_starve_the_decider() {
    const STORM: usize = 50;
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("local beside words", "w", "r1", &(STORM + 1));
    one.deliver();
    let [task] = &world.mail.take_locals()[..] else { panic!("one local step") };
    for n in 0..STORM {
        other.signal("w", &format!("s{n}"), "word", &format!("w{n}"));
    }
    world.mail.drop_messages();
    one.count_anew();
    one.complete_local(task, &7);
    let Counts { creates, created, .. } = one.counts();
    assert_eq!((creates, created, one.counts().all_reads()), (STORM as u64 + 1, 1, 0));
    one.signal("w", "last", "word", &"last");
    one.deliver();
    assert_eq!(world.mail.take_locals().len(), 0, "the step is not repeated");
    let heard: Vec<_> = (0..STORM).map(|n| format!("w{n}")).chain(["last".into()]).collect();
    assert_eq!(world.result(&run), Some(json!([7, heard])));
}

/// Only the decision to close is taken anew: it has not heard the inputs that were first.
#[test]
fn c2_a_close_that_loses_hears_what_was_first() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("words", "w", "r1", &1);
    one.deliver();
    for n in 0..10 {
        other.signal("w", &format!("s{n}"), "word", &n.to_string());
    }
    // The first message alone: on it, the decider would close the run.
    let messages = world.mail.drop_messages();
    one.handle(messages[0].clone()).unwrap().unwrap();
    one.deliver();
    let heard: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(world.result(&run), Some(json!(heard)), "an acknowledged signal is heard");
    // The others are late now.
    for message in messages {
        one.handle(message).unwrap().unwrap();
    }
    assert_eq!(world.state(&run).status(), Status::Completed);
}

/// A decision to close is taken anew on a history in which somebody else has decided meanwhile, or has ended the run:
/// what was kept of the old decision does not fit, and must neither be forced on the run nor stop it.
#[test]
fn c2_a_close_that_is_taken_anew_gives_way() {
    for terminated in [false, true] {
        let world = World::new(app());
        let (one, other) = (world.process(), world.process());
        let run = one.start("local, then words", "w", "r1", &2);
        one.deliver();
        let [task] = &world.mail.take_locals()[..] else { panic!("one local step") };
        one.complete_local(task, &7);
        let messages: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .flat_map(|word| {
                other.signal("w", word, "word", &word);
                world.mail.drop_messages()
            })
            .collect();
        if terminated {
            drive(other.front.terminate(&latest("w"), Some("t"), "enough")).unwrap().unwrap();
        } else {
            other.handle(RunMessage::Sweep { run: run.clone() }).unwrap().unwrap();
        }
        world.mail.drop_messages();
        // It hears of a; its decision on a and b would close the run, but loses to c.
        for message in &messages[..2] {
            one.handle(message.clone()).unwrap().unwrap();
        }
        one.deliver();
        assert_eq!(one.counts().parks, 0, "nothing is wrong with this run");
        let heard = Some(json!([7, ["a", "b", "c"]])).filter(|_| !terminated);
        assert_eq!(world.result(&run), heard);
    }
}

/// What a cache refuses, the store is asked about. Here, the activity is younger than the cache.
#[test]
fn c3_a_refusal_never_comes_from_a_cache() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("word, then activity", "w", "r1", &2);
    let messages = world.mail.messages();
    one.deliver();
    // Decider and intake of the other process know the run, up to here.
    for message in messages {
        other.handle(message).unwrap().unwrap();
    }
    other.signal("w", "a", "word", &"a");
    one.deliver();
    let [task] = &world.mail.take_tasks()[..] else { panic!("the activity") };
    let completed = Arrival::ActivityCompleted(operations::ActivityCompleted {
        id: task.id,
        attempt: 1,
        result: Payload::encode(&7).unwrap(),
    });
    let taken = drive(other.intake.take(&run, None, &completed, Announce::No)).unwrap().unwrap();
    assert!(matches!(taken, Taken::Recorded { .. }), "the intake looked again: {taken:?}");
    world.pass_sweeps(1);
    world.sweep();
    one.deliver();

    // The same for a decider.
    one.signal("w", "b", "word", &"b");
    one.deliver();
    let Some(task) = world.mail.take_tasks().pop() else { panic!("the second activity") };
    let completed = Arrival::ActivityCompleted(operations::ActivityCompleted {
        id: task.id,
        attempt: 1,
        result: Payload::encode(&7).unwrap(),
    });
    let arrived = RunMessage::Arrived { run: run.clone(), run_id: task.run_id, arrival: completed };
    other.handle(arrived).unwrap().unwrap();
    other.deliver();
    assert_eq!(world.state(&run).status(), Status::Completed, "the decider looked again");
}

/// "Nothing is due" is no answer of a cache either: the timer is younger.
#[test]
fn c3_nothing_due_never_comes_from_a_cache() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("word, then nap", "w", "r1", &10);
    let messages = world.mail.messages();
    one.deliver();
    for message in messages {
        other.handle(message).unwrap().unwrap();
    }
    one.signal("w", "a", "word", &"a");
    one.deliver();
    world.pass(Duration::from_secs(10));
    let alarm = RunMessage::Arrived { run: run.clone(), run_id: world.state(&run).run_id(), arrival: Arrival::Alarm };
    other.handle(alarm).unwrap().unwrap();
    assert_eq!(world.result(&run), Some(json!(null)), "the alarm rang once, and was heard");
}

/// A repeated request is answered from the store: recorded once, and the same answer each time.
#[test]
fn c3_a_duplicate_is_recorded_once() {
    let world = World::new(app());
    let (one, other) = (world.process(), world.process());
    let run = one.start("words", "w", "r1", &2);
    for process in [&one, &other, &one, &other] {
        process.signal("w", "same", "word", &"once");
    }
    other.signal("w", "another", "word", &"twice");
    one.deliver();
    assert_eq!(world.result(&run), Some(json!(["once", "twice"])));
    // A message that comes twice, or after four days.
    let accepted = world.batches(&run).iter().filter(|batch| batch.kind == BatchKind::Accepted).count();
    assert_eq!(accepted, 3);
}

/// A process that slept through everything wakes up: its sequence is taken, also when the run is long closed.
#[test]
fn c4_a_zombie_finds_its_key_taken() {
    let world = World::new(app());
    let (zombie, living) = (world.process(), world.process());
    let run = zombie.start("in time", "w", "r1", &());
    let messages = world.mail.messages();
    zombie.deliver();
    for message in messages {
        living.handle(message).unwrap().unwrap();
    }
    let task = world.mail.take_tasks().remove(0);
    living.complete(&task, 1, &7);
    world.pass(Duration::from_hours(1));
    world.ring();
    living.deliver();
    let before = world.records(&run);
    assert_eq!(world.result(&run), Some(json!("in time")));

    let late = [
        Arrival::Alarm,
        Arrival::ActivityCompleted(operations::ActivityCompleted { id: task.id, attempt: 1, result: Payload::NULL }),
    ];
    for arrival in late {
        zombie.handle(RunMessage::Arrived { run: run.clone(), run_id: task.run_id, arrival }).unwrap().unwrap();
    }
    zombie.deliver();
    assert_eq!(world.records(&run), before, "the history is as it was");
    assert_eq!(world.mail.take_tasks(), [], "and nothing is handed out");
    let answer = drive(zombie.front.signal(&latest("w"), Some("s"), "word", Payload::NULL)).unwrap();
    assert!(answer.is_err(), "a closed run takes nothing in");
}
