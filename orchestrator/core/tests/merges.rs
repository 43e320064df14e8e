//! Two processes, one history: losing a commit, merging what won, and taking a decision to close anew.

mod common;

use std::time::Duration;

use common::{
    GO, MINUTE, NUMBER, SWEEP, World, cancel, completed, double, inputs, local, run_key, secs, signal, start_request,
    terminate,
};
use dormouse_core::RunState;
use dormouse_core::history::{Batch, BatchKind};
use dormouse_core::operations;
use dormouse_core::run::{EARLIER_REQUESTS, REQUEST_WINDOW, request_hash};
use dormouse_core::{
    Arrival, CommitId, Decision, Failure, Merge, Query, Refusal, Retake, RunId, StartVerdict, Status, TimeoutKind,
    Timestamp, Workflow,
};

const TIME: Query<u64> = Query::new("time");

async fn two_local_steps(cx: Workflow, n: u32) -> Result<(u32, u64), Failure> {
    let n = cx.local_activity(double, &n).await?;
    cx.publish(TIME, cx.now().as_millis());
    let n = cx.local_activity(double, &n).await?;
    Ok((n, cx.now().as_millis()))
}

#[test]
fn a_merge_keeps_the_results_of_local_activities_and_the_time_of_turns() {
    let mut world = World::run(two_local_steps, &1);
    let inputs = world.state().accept(&local(1, "2"), world.now()).unwrap();
    world.live.take_in(inputs);
    world.live.decide(world.now()).unwrap();
    // Our batch is sealed, but somebody else's wins, three seconds later.
    let (_, lost) = world.seal();
    world.clock = 4_000;
    world.merged([signal("s", "go", "true")]);
    world.clock = 7_000;
    let (batch, record) = world.seal();
    assert_ne!(record, lost);
    world.live.committed(&batch, &record);
    world.log.push(record);
    world.check();
    assert_eq!(world.last_commands(), ["local 1 double", "publish time=1000", "local 2 double"]);
    assert_eq!(batch.time, Timestamp::from_millis(7_000));
    // The signal was merged undelivered; it is decided next, and the run ends as if nothing had happened.
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.arrive(local(2, "4")), ["complete [4,7000]"]);
}

#[test]
fn what_was_merged_is_delivered_after_the_draft() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let first = cx.signal(NUMBER).await?;
            let second = cx.signal(NUMBER).await?;
            Ok((first, second))
        },
        &(),
    );
    let mine = world.state().accept(&signal("mine", "number", "1"), world.now()).unwrap();
    world.live.take_in(mine);
    world.live.decide(world.now()).unwrap();
    world.merged([signal("theirs", "number", "2")]);
    world.commit();
    assert_eq!(world.settle(), ["complete [1,2]"]);
}

#[test]
fn requests_are_remembered_alike_by_all_who_read_the_history() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            for _ in 0..3 {
                cx.signal(NUMBER).await?;
            }
            Ok(())
        },
        &(),
    );
    let mine = world.state().accept(&signal("mine", "number", "1"), world.now()).unwrap();
    world.live.take_in(mine);
    world.live.decide(world.now()).unwrap();
    world.clock = 2_000;
    world.merged([signal("theirs", "number", "2")]);
    world.clock = 3_000;
    world.commit();
    let again = world.replay().unwrap();
    let remembered = |state: &RunState| state.requests_to_remember(Timestamp::from_millis(9_000));
    assert_eq!(remembered(again.state()), remembered(world.state()));
    let times: Vec<_> = remembered(world.state()).iter().map(|request| request.at.as_millis()).collect();
    assert_eq!(times, [1_000, 2_000, 3_000]);
}

/// F3: the newest ones, and those of two weeks to the millisecond.
#[test]
fn requests_are_remembered_within_bounds() {
    let mut world = World::run(gathers, &1);
    world.clock = 2_000;
    world.merged([signal("s0", "go", "1")]);
    let ends = world.now() + REQUEST_WINDOW;
    let hashes =
        |state: &RunState, at| state.requests_to_remember(at).iter().map(|request| request.hash).collect::<Vec<_>>();
    assert_eq!(hashes(world.state(), ends), [request_hash("s0")], "the start is a second too old");
    assert_eq!(hashes(world.state(), ends + Duration::from_millis(1)), [0; 0]);
    let ids: Vec<_> = (1..=EARLIER_REQUESTS).map(|n| format!("s{n}")).collect();
    world.merged(ids[1..].iter().map(|id| signal(id, "number", "1")));
    assert_eq!(hashes(world.state(), world.now()).len(), EARLIER_REQUESTS);
    assert_eq!(hashes(world.state(), world.now())[0], request_hash("s0"), "the start is one too many");
    world.merged([signal(&ids[0], "number", "1")]);
    let remembered = hashes(world.state(), world.now());
    assert_eq!((remembered.len(), remembered[0]), (EARLIER_REQUESTS, request_hash("s2")));
    assert_eq!(remembered.last(), Some(&request_hash("s1")), "oldest first");
}

#[test]
fn the_same_message_does_not_count_twice() {
    let mut world =
        World::run(|cx: Workflow, _: ()| async move { Ok((cx.signal(NUMBER).await?, cx.signal(NUMBER).await?)) }, &());
    let twice = signal("same", "number", "1");
    // Two copies taken in together.
    for _ in 0..2 {
        let inputs = world.state().accept(&twice, world.now()).unwrap();
        world.live.take_in(inputs);
    }
    world.live.decide(world.now()).unwrap();
    // And a third, that somebody else committed first.
    let record = world.elsewhere([twice.clone()]);
    assert!(matches!(world.live.merge(&record), Merge::Reload));
    world.reload();
    assert_eq!(world.refused(twice), Refusal::Duplicate(0));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.status(), Status::Running);
}

#[test]
fn the_same_outcome_twice_is_a_reload() {
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    world.merged([]);
    let first = world.state().accept(&signal("s", "go", "true"), world.now()).unwrap();
    let second = world.state().accept(&completed(1, "2"), world.now()).unwrap();
    world.live.take_in(first);
    world.live.take_in(second);
    world.live.decide(world.now()).unwrap();
    let record = world.elsewhere([completed(1, "2")]);
    let Merge::Retake(retake) = world.live.merge(&record) else { panic!("the draft closes the run") };
    world.reload();
    world.live.resume(retake).unwrap();
    assert_eq!(world.settle(), ["complete 2"]);
    assert_eq!(world.last_turns(), 2, "the outcome from the history, then the signal was too late");
}

#[test]
fn a_lost_attempt_here_and_its_result_there_do_not_merge() {
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    let lost = Arrival::AttemptLost(operations::WorkerGone {
        id: 1,
        attempt: 1,
        timeout: TimeoutKind::StartToClose,
        last_heartbeat: None,
    });
    let inputs = world.state().accept(&lost, world.now()).unwrap();
    world.live.take_in(inputs);
    world.live.decide(world.now()).unwrap();
    let record = world.elsewhere([completed(1, "2")]);
    assert!(matches!(world.live.merge(&record), Merge::Reload));
    world.reload();
    assert_eq!(world.refused(lost), Refusal::Superseded);
    assert_eq!(world.settle(), ["complete 2"]);
}

#[test]
fn kept_turns_that_the_history_overtook_are_taken_anew() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let first = cx.activity(double, &1).options(MINUTE).start();
            let second = cx.activity(double, &2).options(MINUTE).start();
            Ok(first.await? + second.await?)
        },
        &(),
    );
    for arrival in [completed(1, "2"), completed(2, "4")] {
        let inputs = world.state().accept(&arrival, world.now()).unwrap();
        world.live.take_in(inputs);
    }
    world.live.decide(world.now()).unwrap();
    // The turn that would be kept tells what this batch tells, too.
    let record = world.elsewhere([completed(1, "2")]);
    let Merge::Retake(retake) = world.live.merge(&record) else { panic!("the draft closes the run") };
    world.reload();
    world.live.resume(retake).unwrap();
    assert_eq!(world.settle(), ["complete 6"]);
}

#[test]
fn a_decision_to_close_is_taken_anew_when_inputs_were_merged() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let done = cx.local_activity(double, &1).await?;
            let late = cx.signals(NUMBER).try_next();
            Ok((done, late))
        },
        &(),
    );
    let inputs = world.state().accept(&local(1, "2"), world.now()).unwrap();
    world.live.take_in(inputs);
    world.live.decide(world.now()).unwrap();
    assert_eq!(world.live.state().status(), Status::Completed);
    let record = world.elsewhere([signal("s", "number", "7")]);
    let Merge::Retake(retake) = world.live.merge(&record) else { panic!("the draft closes the run") };
    world.reload();
    world.live.resume(retake).unwrap();
    assert_eq!(world.settle(), ["local 1 double", "complete [2,7]"], "the local result was kept");
}

#[test]
fn inputs_that_wait_are_delivered_before_a_close() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.signal(GO).await?;
            let mut numbers = cx.signals(NUMBER);
            Ok(std::iter::from_fn(|| numbers.try_next()).collect::<Vec<_>>())
        },
        &(),
    );
    let burst =
        [signal("a", "number", "1"), signal("b", "go", "true"), signal("c", "number", "2"), signal("d", "number", "3")];
    world.merged(burst);
    let Decision::Retake(retake) = world.live.decide(world.now()).unwrap() else { panic!("inputs wait unseen") };
    world.reload();
    world.live.resume(retake).unwrap();
    assert_eq!(world.settle(), ["complete [1,2,3]"]);
    assert_eq!(world.last_turns(), 2, "the first signal alone, then all that waited");
}

/// Numbers that wait when it is told to go; where none does, it ends at once.
async fn gathers(cx: Workflow, many: usize) -> Result<Vec<u32>, Failure> {
    cx.signal(GO).await?;
    let mut numbers = cx.signals(NUMBER);
    let mut seen: Vec<_> = std::iter::from_fn(|| numbers.try_next()).collect();
    while !seen.is_empty() && seen.len() < many {
        seen.push(numbers.next().await?);
    }
    Ok(seen)
}

#[test]
fn a_close_that_is_taken_anew_takes_all_at_once_and_then_one_by_one() {
    let mut world = World::run(gathers, &4);
    world.merged([signal("g", "go", "true"), signal("a", "number", "1")]);
    let mine = world.state().accept(&signal("mine", "number", "2"), world.now()).unwrap();
    world.live.take_in(mine);
    let Decision::Retake(retake) = world.live.decide(world.now()).unwrap() else { panic!("a number waits unseen") };
    world.reload();
    assert!(world.live.resume(retake).unwrap());
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.last_turns(), 2, "all that waited, then what had come here");
    world.merged([signal("b", "number", "3"), signal("c", "number", "4")]);
    assert_eq!(world.settle(), ["complete [1,2,3,4]"]);
    assert_eq!(world.last_turns(), 2, "one a turn again");
}

/// A draft that ended the run, and lost to a signal. What happens before the run is read again, `meanwhile` does.
fn overtaken(meanwhile: impl FnOnce(&mut World)) -> (World, Retake) {
    let mut world = World::run(gathers, &1);
    for arrival in [signal("mine", "number", "1"), signal("g", "go", "true")] {
        let inputs = world.state().accept(&arrival, world.now()).unwrap();
        world.live.take_in(inputs);
    }
    world.live.decide(world.now()).unwrap();
    let record = world.elsewhere([signal("theirs", "number", "7")]);
    let Merge::Retake(retake) = world.live.merge(&record) else { panic!("the draft closes the run") };
    world.reload();
    meanwhile(&mut world);
    world.reload();
    (world, retake)
}

#[test]
fn a_close_that_a_decision_overtook_tells_again_what_it_was_told() {
    let (mut world, retake) = overtaken(|world| drop(world.settle()));
    assert!(!world.live.resume(retake).unwrap(), "somebody has decided");
    assert_eq!(world.settle(), ["complete [7,1]"]);
}

#[test]
fn a_close_that_a_termination_overtook_changes_nothing() {
    let (mut world, retake) = overtaken(|world| drop(world.elsewhere([terminate("t")])));
    let before = world.log.len();
    assert!(!world.live.resume(retake).unwrap(), "somebody has ended the run");
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!((world.status(), world.log.len()), (Status::Terminated, before));
}

/// Inputs are taken in under what waits here. Decisions are followed only where nothing waits: what came would be held
/// against what is not known to the history.
#[test]
fn catching_up_follows_decisions_where_nothing_waits() {
    for (arrived, drafted) in [(false, false), (true, false), (true, true)] {
        let mut world = World::run(gathers, &1);
        let mut other = World::of(world.app.clone(), run_key(0), world.log.clone());
        if arrived {
            let inputs = world.state().accept(&signal("mine", "number", "1"), world.now()).unwrap();
            world.live.take_in(inputs);
        }
        if drafted {
            world.live.decide(world.now()).unwrap();
        }
        let accepted = other.elsewhere([signal("theirs", "number", "7")]);
        assert!(world.live.catch_up(&[accepted]));
        other.reload();
        other.settle();
        let decided = other.log.last().unwrap().clone();
        assert_eq!(world.live.catch_up(&[decided]), !arrived, "{arrived} {drafted}");
    }
}

#[test]
fn a_termination_survives_a_merge() {
    let mut world = World::run(two_local_steps, &1);
    for arrival in [local(1, "2"), terminate("t")] {
        let inputs = world.state().accept(&arrival, world.now()).unwrap();
        world.live.take_in(inputs);
    }
    world.live.decide(world.now()).unwrap();
    assert_eq!(world.status(), Status::Terminated);
    let record = world.elsewhere([signal("s", "go", "true")]);
    let Merge::Retake(retake) = world.live.merge(&record) else { panic!("the draft closes the run") };
    world.reload();
    world.live.resume(retake).unwrap();
    world.settle();
    assert_eq!(world.status(), Status::Terminated);
    assert_eq!(inputs(&world.batch(world.log.len() - 1)).len(), 2, "the local result was kept as well");
}

#[test]
fn what_cannot_be_merged_is_reloaded() {
    let fresh = || World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    // A termination ends the draft's world.
    let mut world = fresh();
    let record = world.elsewhere([terminate("t")]);
    assert!(matches!(world.live.merge(&record), Merge::Reload));
    // Decisions, another place in the chain, and bytes that are no batch. A sweep's batch decides nothing, and fits.
    let mut world = fresh();
    let mine = world.state().accept(&signal("s", "go", "true"), world.now()).unwrap();
    world.live.take_in(mine);
    world.live.decide(world.now()).unwrap();
    let (batch, decided) = world.seal();
    assert!(matches!(world.live.merge(&decided), Merge::Reload));
    let swept = Batch { kind: BatchKind::Swept, events: Vec::new(), ..batch };
    assert!(matches!(world.live.merge(&swept.encode()), Merge::Merged));
    assert!(matches!(world.live.merge(&world.log[0].clone()), Merge::Reload));
    assert!(matches!(world.live.merge(&bytes::Bytes::from_static(b"\x01\xff")), Merge::Reload));
}

#[test]
fn extend_takes_what_follows_and_nothing_else() {
    let mut world = World::run(two_local_steps, &1);
    world.merged([]);
    let next = world.state().next_sequence;
    let record = world.elsewhere([signal("s", "go", "true")]);
    assert!(!world.live.extend(next + 1, &record), "a gap");
    assert!(world.live.extend(next, &record));
    assert!(world.live.extend(next, &record), "known already");
    assert_eq!(world.state().inbox.len(), 1);
}

#[test]
fn everyone_derives_the_same_next_run() {
    async fn rounds(cx: Workflow, n: u32) -> Result<u32, Failure> {
        if n == 3 {
            return Ok(cx.signal(NUMBER).await?);
        }
        cx.signal(GO).await?;
        cx.continue_as_new(rounds, &(n + 1))
    }
    let mut world = World::run(rounds, &1);
    world.arrive(signal("n", "number", "8"));
    world.arrive(signal("m", "number", "\"ill-typed, and carried all the same\""));
    assert_eq!(
        world.arrive(signal("g", "go", "true")),
        ["continue test(2) carrying [\"number=8\", \"number=\\\"ill-typed, and carried all the same\\\"\"]"]
    );
    assert_eq!(world.refused(signal("late", "go", "true")), Refusal::MovedOn);
    assert_eq!(world.refused(signal("g", "go", "true")), Refusal::Duplicate(0));
    let next = world.state().next_run().unwrap();
    // The sweep passes over the closed run: who has seen that derives the same bytes as who has not.
    let swept = Batch {
        commit_id: CommitId::from_bytes([7; 16]),
        previous: world.state().head,
        time: Timestamp::from_millis(900_000),
        kind: BatchKind::Swept,
        events: Vec::new(),
        due: Some(Timestamp::from_millis(960_000)),
    };
    world.log.push(swept.encode());
    let again = world.replay().unwrap();
    assert_eq!(again.state().next_run().unwrap().encode(), next.encode());

    let mut second = World::of(world.app.clone(), run_key(1), vec![next.encode()]);
    second.settle();
    assert_eq!(second.state().started.continued_from, Some(RunId::from_bytes([1; 16])));
    assert_eq!(second.refused(signal("g", "go", "true")), Refusal::Duplicate(0), "answered by the run before");
    assert_eq!(start_request("test", common::json("1")).against(Some(second.state())), StartVerdict::Existing(0));
    second.arrive(signal("g2", "go", "true"));
    let third = second.state().next_run().unwrap();
    let mut third = World::of(world.app.clone(), run_key(2), vec![third.encode()]);
    assert_eq!(third.settle(), ["complete 8"]);
}

/// The next run is due as soon as the closed one is for owing it, though its first turn was due long before.
#[test]
fn the_next_run_is_due_when_it_is_owed() {
    async fn rounds(cx: Workflow, n: u32) -> Result<u32, Failure> {
        cx.signal(GO).await?;
        cx.continue_as_new(rounds, &(n + 1))
    }
    let mut world = World::run(rounds, &1);
    world.clock = 500_000;
    world.arrive(signal("g", "go", "true"));
    let owed = world.batch(world.log.len() - 1).due.expect("it owes the next run");
    assert!(owed > world.now(), "{owed}");
    assert_eq!(world.state().next_run().unwrap().due, Some(owed));
}

#[test]
fn asking_to_continue_and_thinking_better_of_it() {
    async fn wavers(cx: Workflow, n: u32) -> Result<u32, Failure> {
        cx.continue_as_new::<_, _, u32>(wavers, &(n + 1)).ok();
        cx.sleep(secs(1)).await?;
        Ok(n)
    }
    let mut world = World::run(wavers, &1);
    assert_eq!(world.alarm_at(2_000), ["complete 1"]);
}

#[test]
fn a_cancel_request_that_raced_a_close_is_seen() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.signal(GO).await?;
            // Nothing is asked for here; the run would complete.
            Ok(())
        },
        &(),
    );
    world.merged([signal("a", "go", "true"), cancel("c")]);
    assert_eq!(world.settle(), ["complete null"], "the signal came first, and code that ended well stays so");
}

#[test]
fn a_sweep_forgets_its_patience_when_something_happens() {
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    for sweeps in 0..4u64 {
        let state = world.state();
        let time = Timestamp::from_millis(state.due.unwrap().as_millis());
        let due = state.due_after(time, state.patience(SWEEP));
        assert_eq!(due, Some(time + SWEEP * 2u32.pow(sweeps as u32)));
        let batch = Batch {
            commit_id: CommitId::from_bytes([50 + sweeps as u8; 16]),
            previous: state.head,
            time,
            kind: BatchKind::Swept,
            events: Vec::new(),
            due,
        };
        world.log.push(batch.encode());
        world.reload();
    }
    world.clock = world.state().time.as_millis() + 1;
    let now = world.now();
    world.arrive(Arrival::Signal(operations::Signaled {
        request_id: "s".into(),
        name: "go".into(),
        payload: common::json("true"),
    }));
    assert_eq!(world.state().due, Some(now + SWEEP));
}
