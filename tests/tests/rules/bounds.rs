//! L1: everything has a bound, and the bound has a name, which is said before anything is written.

use dormouse::{Payload, RunId, Status};
use dormouse_core::api::SignaledBody;
use dormouse_core::{Arrival, Limits, operations};
use dormouse_engine::ApiError;
use dormouse_engine::describe::MAX_DESCRIBED;
use dormouse_engine::front::Target;
use dormouse_testing::world::{drive, latest, run};
use dormouse_testing::{Fault, On, World};

use super::workflows::app;

/// A turn that asks for too much: its run is parked, nothing of the turn is recorded or sent, and an operator ends it.
#[test]
fn l1_a_turn_beyond_its_limit_is_parked_by_name() {
    let limits = Limits { turn_events: 100, ..Limits::DEFAULT };
    for (wide, fits) in [(99, true), (100, false)] {
        let world = World::new(app()).within(limits);
        let process = world.process();
        let run = process.start("fan out", "w", "r1", &(wide, 0));
        process.deliver();
        assert_eq!(world.mail.take_tasks().len(), if fits { 99 } else { 0 });
        let parked = world.row(&run).unwrap().parked;
        assert_eq!(parked.is_none(), fits, "{parked:?}");
        if let Some(parked) = parked {
            assert!(parked.reason.contains("turn_events"), "{}", parked.reason);
            assert_eq!(world.records(&run).len(), 1, "the start alone");
            drive(process.front.terminate(&latest("w"), Some("t"), "too wide")).unwrap().unwrap();
            process.deliver();
            assert_eq!((world.state(&run).status(), world.due(&run)), (Status::Terminated, None));
        }
    }
}

/// A batch that the store refuses would be refused for ever: its run is parked with the store's own words, nothing of the
/// turn is handed out, what came is kept, and the run goes on once it is taken.
#[test]
fn l1_what_the_store_refuses_parks_the_run() {
    let world = World::new(app());
    let process = world.process();
    let run = process.start("word, then activity", "w", "r1", &1);
    process.deliver();
    let before = world.records(&run).len();
    process.faults.plan(On::Create(None), Fault::Refused);
    let word = Arrival::Signal(operations::Signaled {
        request_id: "s".into(),
        name: "word".into(),
        payload: Payload::encode("a").unwrap(),
    });
    world.mail.arrive(&run, world.state(&run).run_id(), word);
    process.deliver();
    let parked = world.row(&run).unwrap().parked.expect("it is parked");
    assert!(parked.reason.contains("cannot be stored") && parked.reason.contains("liking"), "{}", parked.reason);
    assert_eq!(world.records(&run).len(), before + 1, "the signal alone");
    assert_eq!(world.mail.take_tasks().len(), 0);
    assert_eq!(world.mail.alarm(&run), Some(parked.retry_at));

    world.clock.set(parked.retry_at);
    world.ring();
    process.deliver();
    assert_eq!(world.row(&run).unwrap().parked, None);
    assert_eq!(world.mail.take_tasks().len(), 1);
}

/// An inbox that nobody empties: at its limit a signal is refused with the limit's name, and an operator is heard.
#[test]
fn l1_a_full_inbox_says_so() {
    for limits in [
        Limits { inbox_events: 5, ..Limits::DEFAULT },
        Limits { inbox_bytes: 1_000, ..Limits::DEFAULT },
        Limits { history_events: 8, ..Limits::DEFAULT },
    ] {
        let world = World::new(app()).within(limits);
        let process = world.process();
        let run = process.start("words", "w", "r1", &100);
        let word = Payload::encode(&"x".repeat(150)).unwrap();
        let send = |n: u32| {
            let id = format!("s{n}");
            drive(process.front.signal(&latest("w"), Some(&id), "word", word.clone())).unwrap()
        };
        let refused = (0..20).find_map(|n| send(n).err()).expect("an end");
        let ApiError::TooLarge(why) = refused else { panic!("{refused:?}") };
        let names = ["inbox_events", "inbox_bytes", "history_events"];
        assert!(names.iter().any(|name| why.contains(name)), "{why}");
        let before = world.records(&run).len();
        assert!(send(21).is_err());
        assert_eq!(world.records(&run).len(), before, "nothing was written");
        assert_eq!(send(0), Ok(SignaledBody::default()), "a repeat is answered as the first time");
        drive(process.front.terminate(&latest("w"), Some("t"), "too much")).unwrap().unwrap();
        assert_eq!(world.state(&run).status(), Status::Terminated);
    }
}

/// What nobody takes is counted by name, in this run and those that continue it, and bounded.
#[test]
fn l1_unread_signals_are_counted_and_bounded() {
    let world = World::new(app()).within(Limits { unread_signals: 5, ..Limits::DEFAULT });
    let process = world.process();
    process.start("chain", "w", "r1", &3);
    let send = |id: &str, name: &str| {
        let sent = drive(process.front.signal(&latest("w"), Some(id), name, Payload::encode("x").unwrap())).unwrap();
        process.deliver();
        sent
    };
    for link in 0..3_u64 {
        send(&format!("typo {link}"), "wrod").unwrap();
        let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
        let [unread] = &described.unread_signals[..] else { panic!("{:?}", described.unread_signals) };
        assert_eq!(
            (&*unread.name, unread.count, unread.bytes, unread.carried),
            ("wrod", link + 1, 7 * (link + 1), link)
        );
        send(&format!("word {link}"), "word").unwrap();
        assert_eq!(described.ordinal, link);
    }
    send("typo 3", "wrod").unwrap();
    send("typo 4", "wrod").unwrap();
    let before = world.records(&run("w", 3)).len();
    let refused = send("typo 5", "wrod");
    assert!(matches!(&refused, Err(ApiError::TooLarge(why)) if why.contains("unread_signals")), "{refused:?}");
    assert_eq!(world.records(&run("w", 3)).len(), before, "nothing was written");
    drive(process.front.terminate(&latest("w"), Some("t"), "nobody reads")).unwrap().unwrap();
    assert_eq!(world.state(&run("w", 3)).status(), Status::Terminated);
}

/// However many activities are open, a description reads a bounded number of their records, and says how many there are.
#[test]
fn l1_a_description_lists_so_many_and_counts_all() {
    let world = World::new(app());
    let process = world.process();
    process.start("fan out", "w", "r1", &(300, 0));
    process.deliver();
    process.count_anew();
    let described = drive(process.front.describe(&latest("w"))).unwrap().unwrap();
    assert_eq!((described.pending_activities.len(), described.pending_activities_total), (MAX_DESCRIBED, 300));
    assert_eq!(described.pending_activities[99].activity_id, "100", "those that were asked for first");
    let counts = process.counts();
    assert!(counts.all_reads() <= MAX_DESCRIBED as u64 + 4, "{counts:?}");
}

/// However many runs a workflow has had, one is found by its id with one read more than the latest, and so is that there is
/// none.
#[test]
fn l1_a_run_is_found_by_its_id_with_one_read() {
    const RUNS: u64 = 20;
    let world = World::new(app());
    let process = world.process();
    let first = process.start("chain", "w", "r1", &(RUNS - 1));
    for n in 1..RUNS {
        process.deliver();
        process.signal("w", &format!("s{n}"), "word", &"on");
    }
    process.deliver();
    let none = RunId::of_run([7; 16], 3);
    let ids = (0..RUNS).map(|ordinal| world.state(&first.workflow.run(ordinal)).run_id()).chain([none]);
    for (ordinal, run_id) in ids.enumerate() {
        process.count_anew();
        let target = Target { workflow_id: "w".into(), run_id: Some(run_id) };
        let found = drive(process.front.describe(&target)).unwrap();
        match found {
            Ok(described) => assert_eq!((described.ordinal, run_id != none), (ordinal as u64, true)),
            Err(error) => assert!(matches!(error, ApiError::NotFound(_)) && run_id == none, "{error:?}"),
        }
        let counts = process.counts();
        assert!(counts.newest + counts.rows <= 2, "{counts:?}");
    }
}
