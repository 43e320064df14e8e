//! The folded state in one piece: exact, of one fold, of one run.

mod common;

use common::{GO, MINUTE, World, app, completed, double, json, run_key, secs, signal};
use dormouse_core::{ActivityOptions, Query, RunState, StaleSnapshot, Workflow};

fn world() -> World {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let status = cx.publish(Query::<u32>::new("status"), n);
            let limited = cx
                .activity(double, &n)
                .options(ActivityOptions::start_to_close(secs(5)).within(secs(50)).schedule_to_start(secs(20)))
                .start();
            let timer = cx.sleep(secs(9));
            let n = cx.activity(double, &n).options(MINUTE).await?;
            status.set(n);
            cx.signal(GO).await?;
            timer.await?;
            limited.await
        },
        &1,
    );
    world.merged([signal("early", "number", "7")]);
    world.settle();
    world.arrive(completed(3, "2"));
    world.merged([signal("waits", "number", "8")]);
    world
}

#[test]
fn a_snapshot_gives_the_very_state_and_what_follows_is_appended() {
    let mut world = world();
    world.reload();
    let snapshot = world.state().snapshot();
    let mut state = RunState::from_snapshot(&run_key(0), &snapshot).unwrap();
    assert_eq!(&state, world.state());
    assert_eq!(state.snapshot(), snapshot);
    let before = world.log.len();
    world.arrive(signal("s", "go", "true"));
    world.alarm_at(20_000);
    for record in &world.log[before..] {
        state.append(record).unwrap();
    }
    assert_eq!(&state, world.state());
    assert_eq!(state.alarm(world.now()), world.state().alarm(world.now()));
}

#[test]
fn what_cannot_be_used_says_why() {
    let mut world = world();
    world.reload();
    let snapshot = world.state().snapshot();
    let stale = |bytes: Vec<u8>| RunState::from_snapshot(&run_key(0), &bytes).unwrap_err();
    let newer = [&[snapshot[0] + 1], &snapshot[1..]].concat();
    assert_eq!(stale(newer), StaleSnapshot::Stale { version: snapshot[0] + 1, fold: 0 });
    // Another fold, whole in itself.
    let body = &snapshot[..snapshot.len() - 16];
    let mut other = body.to_vec();
    other[1] += 1;
    let hash = dormouse_core::BatchHash::of(&other);
    other.extend_from_slice(hash.as_bytes());
    assert_eq!(stale(other), StaleSnapshot::Stale { version: snapshot[0], fold: u32::from(snapshot[1]) + 1 });
    for at in 1..snapshot.len() {
        let mut bytes = snapshot.to_vec();
        bytes[at] ^= 1;
        assert!(matches!(stale(bytes), StaleSnapshot::Damaged(_)), "byte {at}");
        assert!(matches!(stale(snapshot[..at].to_vec()), StaleSnapshot::Damaged(_)), "cut at {at}");
    }
    let of_another = RunState::from_snapshot(&run_key(1), &snapshot).unwrap_err();
    assert!(of_another.to_string().contains("it is of run default/w#0"), "{of_another}");
}

#[test]
#[should_panic(expected = "a draft is not in the history")]
fn a_draft_is_in_no_snapshot() {
    let mut world =
        World::idle(app(|cx: Workflow, _: ()| async move { Ok(cx.sleep(secs(1)).await?) }), "test", json("null"));
    assert!(world.state().is_committed());
    world.live.decide(world.now()).unwrap();
    let _ = world.state().snapshot();
}
