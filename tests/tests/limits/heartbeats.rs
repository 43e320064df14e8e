//! Heartbeats: written rarely, and not lost.

use std::time::Duration;

use dormouse_core::Arrival;
use dormouse_core::operations;
use dormouse_testing::{Fault, On};

use dormouse_engine::seams::Delivery;
use dormouse_engine::worker::handle_task;

use super::clockwork::{Came, Limits, Step, bench, in_time, secs, sleep, timeout};

const LONG: Limits = Limits {
    start_to_close: Some(300),
    schedule_to_close: None,
    schedule_to_start: None,
    heartbeat: None,
    attempts: 0,
};

/// At 0.8 of the limit; every 30 s when there is none; once a minute at least.
#[test]
fn heartbeats_are_written_rarely() {
    for (heartbeat, writes) in [(Some(10), 13), (Some(50), 3), (Some(100), 2), (None, 4)] {
        let bench = bench(Limits { heartbeat, ..LONG }, &[&[Step::Beats(100)]]);
        bench.process.count_anew();
        assert!(matches!(
            bench.work(&bench.task),
            Came::Told(Arrival::ActivityCompleted(operations::ActivityCompleted { .. }))
        ));
        let counts = bench.process.counts();
        assert_eq!((counts.swaps, counts.stale), (1 + writes, 0), "a limit of {heartbeat:?}: the claim, and {writes}");
    }
}

/// A sign of life that came too soon after another is written when its time has come, though nothing follows it.
#[test]
fn a_heartbeat_that_was_held_back_is_written_in_its_time() {
    for (heartbeat, dies, known) in [(None, 29, 1), (None, 31, 2), (Some(100), 59, 1), (Some(100), 61, 2)] {
        let script = &[Step::Beat(1), Step::Sleep(1_000), Step::Beat(2), Step::Hang][..];
        let bench = bench(Limits { heartbeat, ..LONG }, &[script, &[Step::Hang]]);
        bench.work_and_die(&bench.task, secs(dies));
        bench.at(secs(600));
        let next = bench.lose(&bench.task);
        assert_eq!(bench.known_to_next(&next), Some(known), "a limit of {heartbeat:?}, dead at {dies} s");
    }
}

/// Whatever ends an attempt that lives: the next one knows how far it got, to the last sign of life, and the ones after
/// it do, if it says nothing more.
#[test]
fn the_last_heartbeat_reaches_the_next_attempt() {
    let scripts: [&[Step]; 4] = [
        &[Step::Beat(1), Step::Beat(2), Step::Fail],
        &[Step::Beat(1), Step::Sleep(1_000), Step::Beat(2), Step::Fail],
        &[Step::Beat(1), Step::Sleep(1_000), Step::Beat(2), Step::Sleep(300_000)],
        &[Step::Beat(1), Step::Sleep(1_000), Step::Beat(2), Step::Sleep(9_000), Step::Fail],
    ];
    for script in scripts {
        for heartbeat in [Some(20), None] {
            let bench = bench(Limits { heartbeat, ..LONG }, &[script, &[Step::Fail], &[Step::Hang]]);
            let Came::Again(second) = bench.work(&bench.task) else { panic!("a second attempt") };
            bench.world.clock.set(second.not_before);
            let Came::Again(third) = bench.work(&second) else { panic!("a third attempt") };
            assert_eq!(bench.known_to_next(&third), Some(2));
            let known: Vec<_> = bench.seen.attempts().into_iter().map(|(_, known)| known).collect();
            assert_eq!(known, [None, Some(2), Some(2)], "{script:?}, a limit of {heartbeat:?}");
        }
    }
}

/// One write is not recorded, and the activity goes on beating: nobody takes it for lost.
#[test]
fn a_heartbeat_that_is_not_recorded_is_written_again_in_time() {
    let bench = bench(Limits { heartbeat: Some(30), ..LONG }, &[&[Step::Beats(100)]]);
    in_time(&bench.world, async {
        let dying = timeout(&bench.world, secs(60), bench.deliver(&bench.task));
        let meanwhile = async {
            sleep(&bench.world, secs(20)).await;
            for _ in 0..5 {
                bench.process.faults.plan(On::Swap(None), Fault::FailBefore);
            }
            sleep(&bench.world, secs(16)).await;
            assert_eq!(bench.process.faults.outstanding(), 0, "the heartbeat at 24 s was not recorded");
            let again = handle_task(bench.world.app(), &bench.process.ports, bench.task.clone(), Delivery::Again, None);
            again.await.unwrap();
        };
        assert!(futures::join!(dying, meanwhile).0.is_none(), "it is at work");
    });
    assert!(matches!(bench.came(), Came::Again(_)), "it is believed alive");
}

/// The store does not answer for a while: the activity goes on, and what it says later is written.
#[test]
fn a_heartbeat_that_is_not_recorded_harms_nobody() {
    let script: Vec<_> = (0..4).flat_map(|beat| [Step::Beat(beat), Step::Sleep(9_000)]).chain([Step::Hang]).collect();
    let bench = bench(Limits { heartbeat: Some(10), ..LONG }, &[&script, &[Step::Hang]]);
    in_time(&bench.world, async {
        let dying = timeout(&bench.world, Duration::from_millis(18_500), bench.deliver(&bench.task));
        let meanwhile = async {
            sleep(&bench.world, secs(5)).await;
            for _ in 0..5 {
                bench.process.faults.plan(On::Swap(None), Fault::FailBefore);
            }
        };
        assert!(futures::join!(dying, meanwhile).0.is_none(), "it is at work");
    });
    assert_eq!(bench.process.faults.outstanding(), 0, "the heartbeat at 9 s was not recorded");
    bench.at(secs(600));
    let next = bench.lose(&bench.task);
    assert_eq!(bench.known_to_next(&next), Some(2));
}
