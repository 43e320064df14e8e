//! The rules among processes that take in and decide the same runs, as functions do.

use dormouse::{IdConflictPolicy, Payload, Status};
use dormouse_core::Arrival;
use dormouse_core::RunKey;
use dormouse_core::history::{BatchKind, Event, Input, Turn};
use dormouse_core::operations;
use dormouse_engine::parking::{acquit, suspect};
use dormouse_engine::seams::{Intent, RunMessage, Wish};
use dormouse_testing::world::{Process, SWEEP, drive, latest, run, start_body};
use dormouse_testing::{Counts, Fault, On, World};
use serde_json::json;

use super::workflows::app;

fn world() -> World {
    World::new(app()).shared()
}

/// A word that somebody announced and may not have recorded.
fn announced(run: &RunKey, request_id: &str) -> RunMessage {
    let payload = Payload::encode(&request_id).unwrap();
    let arrival = Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: "word".into(), payload });
    RunMessage::Intent(Intent { run: run.clone(), wish: Wish::Take { arrival, pinned: false } })
}

fn handle(process: &Process, messages: Vec<RunMessage>) {
    process.handle_together(messages).expect("it lives").expect("an answer");
}

/// How often each word is in the histories of a workflow.
fn times_recorded(world: &World, workflow_id: &str, request_id: &str) -> usize {
    let runs = (0..).map(|ordinal| run(workflow_id, ordinal)).take_while(|run| world.row(run).is_some());
    let events = runs.flat_map(|run| world.batches(&run)).flat_map(|batch| batch.events);
    let is_it = |event: &Event| {
        matches!(event, Event::Input(Input::Signaled(operations::Signaled { request_id: found, .. }))
            | Event::Turn(Turn { input: Some(Input::Signaled(operations::Signaled { request_id: found, .. })), .. }) if found == request_id)
    };
    events.filter(is_it).count()
}

/// Whoever remembers a run asks for what stands behind that, and then writes once.
#[test]
fn c3_an_input_costs_one_look_and_one_put() {
    let world = world();
    let (api, other_api, decider) = (world.process(), world.process(), world.process());
    let run = api.start("words", "w", "r1", &10);
    decider.deliver();
    other_api.signal("w", "a", "word", &"a");
    decider.deliver();
    for (process, word) in [(&api, "b"), (&other_api, "c"), (&api, "d"), (&other_api, "e")] {
        // The first look of a process reads the whole history.
        process.signal("w", &format!("first {word}"), "word", &word);
        decider.deliver();
        process.count_anew();
        process.signal("w", word, "word", &word);
        let Counts { reads, creates, exists, .. } = process.counts();
        assert_eq!((reads, creates, exists), (1, 1, 0), "of {word}");
        // It was recorded between its announcement and the delivery.
        decider.count_anew();
        decider.deliver();
        let Counts { reads, creates, exists, .. } = decider.counts();
        assert_eq!((reads, creates, exists), (1, 1, 0), "deciding {word}");
    }
    api.signal("w", "last", "word", &"f");
    decider.deliver();
    assert_eq!(world.result(&run), Some(json!(["a", "b", "b", "c", "c", "d", "d", "e", "e", "f"])));
}

/// What others have decided meanwhile is read from there on, not from the beginning, and followed.
#[test]
fn c3_a_run_in_memory_that_is_behind_follows() {
    let world = world();
    let (one, other) = (world.process(), world.process());
    let run = one.start("words", "w", "r1", &6);
    one.deliver();
    for word in ["a", "b", "c"] {
        other.signal("w", word, "word", &word);
        other.deliver();
    }
    one.count_anew();
    other.signal("w", "d", "word", &"d");
    one.deliver();
    let Counts { reads, creates, exists, rows, .. } = one.counts();
    assert_eq!((reads, rows, creates, exists), (1, 0, 1, 0), "three decided batches and one of inputs, in one look");
    // The other is behind now.
    other.count_anew();
    one.signal("w", "e", "word", &"e");
    other.deliver();
    assert_eq!(other.counts().reads, 1);
    one.signal("w", "f", "word", &"f");
    one.deliver();
    assert_eq!(world.result(&run), Some(json!(["a", "b", "c", "d", "e", "f"])));
    assert_eq!(one.counts().parks + other.counts().parks, 0);
}

/// The look at what stands behind fails, in each way: nothing is decided on what was remembered.
#[test]
fn c3_a_run_in_memory_is_not_believed_when_the_store_does_not_answer() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::CrashBefore, Fault::CrashAfter] {
        let world = world();
        let (one, other) = (world.process(), world.process());
        let run = one.start("words", "w", "r1", &3);
        one.deliver();
        other.signal("w", "a", "word", &"a");
        other.deliver();
        let message = announced(&run, "b");
        one.count_anew();
        one.faults.plan(On::Read(None), fault);
        assert!(!matches!(one.handle(message.clone()), Some(Ok(()))), "{fault:?}: not acknowledged");
        assert_eq!((one.counts().creates, times_recorded(&world, "w", "b")), (0, 0), "{fault:?}");
        let next = if matches!(fault, Fault::CrashBefore | Fault::CrashAfter) { world.process() } else { one };
        handle(&next, vec![message]);
        next.signal("w", "c", "word", &"c");
        next.deliver();
        assert_eq!(world.result(&run), Some(json!(["a", "b", "c"])), "{fault:?}");
    }
}

/// A result that is not recorded yet stays when something else that arrives makes the run look again.
#[test]
fn c2_a_look_at_the_store_keeps_the_results_of_local_activities() {
    let world = world();
    let (one, other) = (world.process(), world.process());
    let run = one.start("local, then words", "w", "r1", &2);
    one.deliver();
    let [task] = &world.mail.take_locals()[..] else { panic!("one local step") };
    other.signal("w", "a", "word", &"a");
    world.mail.drop_messages();
    let result = Payload::encode(&7).unwrap();
    let completed = Arrival::LocalCompleted(operations::LocalCompleted { id: task.id, attempt: task.attempt, result });
    let arrived = |arrival| RunMessage::Arrived { run: run.clone(), run_id: task.run_id, arrival };
    one.count_anew();
    // Nothing is due, says the memory; so the store is asked.
    handle(&one, vec![arrived(completed), arrived(Arrival::Alarm)]);
    let Counts { reads, creates, exists, .. } = one.counts();
    assert_eq!((reads, creates, exists), (1, 1, 0), "what came in between is known before the put");
    assert_eq!(world.mail.take_locals().len(), 0, "the step is not repeated");
    other.signal("w", "b", "word", &"b");
    one.deliver();
    assert_eq!(world.mail.take_locals().len(), 0, "the step is not repeated");
    assert_eq!(world.result(&run), Some(json!([7, ["a", "b"]])));
}

/// Announced and not recorded by their callers, doubled and in any order, to a run that moves on or closes over them.
#[test]
fn f4_announced_words_are_heard_once_wherever_the_chain_stands() {
    let orders: [&[&str]; 8] = [
        &["a", "b"],
        &["b", "a"],
        &["a", "a", "b", "b"],
        &["b", "a", "b", "a"],
        &["a", "b", "a"],
        &["b", "b", "a"],
        &["a", "b", "b", "a"],
        &["a", "b", "c", "b"],
    ];
    for together in [true, false] {
        for order in orders {
            let world = world();
            let (one, other) = (world.process(), world.process());
            let first = one.start("chain", "w", "r1", &1);
            one.deliver();
            let messages: Vec<_> = order.iter().map(|word| announced(&first, word)).collect();
            if together {
                handle(&one, messages.clone());
            } else {
                let at = [&one, &other];
                messages.iter().zip(at.into_iter().cycle()).for_each(|(message, at)| handle(at, vec![message.clone()]));
            }
            other.deliver();
            // All come once more, at the end.
            handle(&other, messages.clone());
            handle(&one, messages);
            one.deliver();
            let last = run("w", 1);
            assert_eq!(world.state(&first).status(), Status::ContinuedAsNew, "{order:?}");
            assert_eq!(world.state(&last).status(), Status::Completed, "{order:?}, together: {together}");
            let recorded = |word: &&&str| times_recorded(&world, "w", word) == 1;
            let once = order.iter().filter(recorded).count();
            // A third word may come too late for the last run; it is in no history then.
            let late = order.iter().filter(|word| times_recorded(&world, "w", word) == 0).count();
            assert!(
                once + late == order.len() && late <= order.iter().filter(|word| **word == "c").count(),
                "{order:?}"
            );
            assert_eq!(one.counts().parks + other.counts().parks, 0);
        }
    }
}

/// Two callers recorded their words themselves; the second stood behind the word over which the run moved on.
#[test]
fn f4_a_word_that_was_recorded_goes_along_once() {
    let world = world();
    let (one, other) = (world.process(), world.process());
    let first = one.start("chain", "w", "r1", &1);
    one.deliver();
    other.signal("w", "a", "word", &"a");
    other.signal("w", "b", "word", &"b");
    let messages = world.mail.drop_messages();
    handle(&one, messages.iter().rev().cloned().collect());
    one.deliver();
    for message in messages {
        handle(&other, vec![message.clone(), message]);
    }
    other.deliver();
    assert_eq!(world.state(&first).status(), Status::ContinuedAsNew);
    assert_eq!(world.result(&run("w", 1)), Some(json!(["b"])));
    let late = drive(one.front.signal(&latest("w"), Some("c"), "word", Payload::NULL)).unwrap();
    assert!(late.is_err());
}

/// Its caller announced it and died, or has not recorded it yet and says no more afterwards: whoever has the
/// announcement begins the run, and decides it.
#[test]
fn f2_an_announced_start_is_decided_by_whoever_has_it() {
    let world = world();
    let (caller, decider) = (world.process(), world.process());
    caller.faults.plan(On::Create(Some(0)), Fault::CrashBefore);
    assert!(drive(caller.front.start(Some("r"), start_body("words", "w", &1, IdConflictPolicy::Fail))).is_none());
    drop(caller);
    let messages = world.mail.drop_messages();
    assert!(matches!(messages[..], [RunMessage::Intent(_)]), "{messages:?}");
    handle(&decider, messages);
    drop(world.mail.drop_messages());
    let state = world.state(&run("w", 0));
    assert!(!state.is_undecided(), "nobody would look at it before the sweep");
}

/// Code that ends its process is run once by whoever has been told of it, and then left alone, whatever comes, until its
/// time; so what came with its messages is not handled over and over by processes that die.
#[test]
fn f1_code_that_ends_its_process_is_left_alone() {
    let world = world();
    let api = world.process();
    let run = api.start("words", "w", "r1", &2);
    let record = world.records(&run).remove(0);
    // As a decider that creates a run announces it.
    let first = RunMessage::Accepted { run: run.clone(), sequence: 0, record };
    let sweep = RunMessage::Sweep { run: run.clone() };
    world.mail.drop_messages();
    let dies = |messages: Vec<RunMessage>, suspected: bool| {
        let process = world.process();
        if suspected {
            drive(suspect(&process.ports, &run, 4)).unwrap().unwrap();
        }
        // As good as dying: nothing of this process is heard of again.
        process.faults.plan(On::Create(None), Fault::CrashBefore);
        process.handle_together(messages).is_none()
    };
    assert!(dies(vec![first.clone()], false), "nobody knows yet");
    assert!(dies(vec![first.clone(), sweep.clone()], true), "its row is told before it dies");
    let parked = world.row(&run).unwrap().parked.expect("parked before it was tried");
    assert!(parked.ends_process && parked.retry_at > world.now() + SWEEP / 2, "{parked:?}");

    api.signal("w", "a", "word", &"a");
    world.mail.drop_messages();
    for messages in [vec![first, sweep.clone()], vec![announced(&run, "a")], vec![announced(&run, "b")], vec![sweep]] {
        handle(&world.process(), messages);
    }
    let decided = |world: &World| world.batches(&run).iter().any(|batch| batch.kind == BatchKind::Decided);
    assert!(!decided(&world), "its code did not run");
    let again = world.row(&run).unwrap().parked.expect("still parked");
    assert_eq!((again.attempts, again.retry_at), (parked.attempts, parked.retry_at), "it was not tried");

    // At its time it is tried, and should that process die too, for longer.
    world.clock.set(parked.retry_at);
    assert!(dies(vec![RunMessage::Sweep { run: run.clone() }], false));
    let third = world.row(&run).unwrap().parked.expect("parked before it was tried");
    assert!(third.attempts > parked.attempts && third.retry_at > world.now() + SWEEP, "{third:?}");

    // It was innocent after all.
    world.clock.set(third.retry_at);
    let process = world.process();
    handle(&process, vec![RunMessage::Sweep { run: run.clone() }]);
    drive(acquit(&process.ports, &run)).unwrap().unwrap();
    assert_eq!(world.result(&run), Some(json!(["a", "b"])), "what came meanwhile was taken in");
    assert_eq!(world.row(&run).unwrap().parked, None);
}
