//! What grows with a history grows in proportion to it. Counted in allocations, which no machine's load changes.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{World, app, run_key, secs, signal};
use dormouse_core::history::{Batch, BatchKind, Event};
use dormouse_core::{App, Arrival, CommitId, Failure, LiveRun, RunState, Signal, Workflow};

const WORD: Signal<u32> = Signal::new("word");

async fn listens(cx: Workflow, _: ()) -> Result<(), Failure> {
    let mut words = cx.signals(WORD);
    for _ in 0..u32::MAX {
        words.next().await?;
    }
    Ok(())
}

/// A history in which so many signals were taken in one by one, by callers, and wait.
fn waiting(count: usize) -> (Arc<App>, Vec<Bytes>) {
    let world = World::run(listens, &());
    let mut log = world.log.clone();
    let mut state = RunState::begin(run_key(0), &log[0]).unwrap().0;
    log[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
    for n in 0..count {
        let arrival: Arrival = signal(&format!("request-{n}"), "word", "1");
        let inputs = state.accept(&arrival, state.time).unwrap();
        let mut commit_id = [7; 16];
        commit_id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let batch = Batch {
            commit_id: CommitId::from_bytes(commit_id),
            previous: state.head,
            time: state.time,
            kind: BatchKind::Accepted,
            events: inputs.into_iter().map(Event::Input).collect(),
            due: None,
        };
        log.push(batch.encode());
        state.append(log.last().unwrap()).unwrap();
    }
    (Arc::new(app(listens)), log)
}

fn allocations(count: usize, decided: bool) -> u64 {
    let (app, mut log) = waiting(count);
    if decided {
        let mut live = LiveRun::replay(&app, &run_key(0), &log).unwrap();
        let now = live.state().time;
        live.decide(now).unwrap();
        let batch = live.seal(CommitId::from_bytes([9; 16]), now, secs(60));
        log.push(batch.encode());
    }
    allocation_counter::measure(|| drop(LiveRun::replay(&app, &run_key(0), &log).unwrap())).count_total
}

#[test]
fn replay_is_linear_in_the_signals_that_wait_and_in_those_that_were_taken() {
    for decided in [false, true] {
        let (few, many) = (allocations(250, decided), allocations(2_000, decided));
        assert!(many < few * 10, "eight times the signals, {few} and {many} allocations (decided: {decided})");
    }
}

#[test]
fn deciding_is_linear_in_the_signals_that_wait() {
    let decide = |count| {
        let (app, log) = waiting(count);
        let mut live = LiveRun::replay(&app, &run_key(0), &log).unwrap();
        let now = live.state().time;
        allocation_counter::measure(|| drop(live.decide(now).unwrap())).count_total
    };
    let (few, many) = (decide(250), decide(2_000));
    assert!(many < few * 10, "eight times the signals, {few} and {many} allocations");
}

/// By hand: `cargo test -p dormouse-core --release --test linear -- --ignored --nocapture`.
#[test]
#[ignore = "measures time, for people"]
fn how_long_replay_takes() {
    for count in [1_000, 8_000] {
        let (app, log) = waiting(count);
        let begun = std::time::Instant::now();
        drop(LiveRun::replay(&app, &run_key(0), &log).unwrap());
        println!("{count} signals that wait: {:?}", begun.elapsed());
    }
}
