//! What a history leaves to be done, as one list.

mod common;

use common::{GO, MINUTE, World, app, completed, double, failed, halve, json, run_key, secs, signal, terminate};
use dormouse_core::history::{Batch, is_closed};
use dormouse_core::operations::WorkerGone;
use dormouse_core::{
    ActivityOptions, Arrival, Debt, Failure, Owed, RetryState, RunState, Status, TimeoutKind, Timestamp, Workflow, join,
};

fn show(debts: &[Debt]) -> Vec<String> {
    let line = |debt: &Debt| match debt {
        Debt::Task(task) => format!("task {} not before {}", task.id, task.not_before.as_millis()),
        Debt::Unwanted(id) => format!("unwanted {id}"),
        Debt::Alarm(None) => "no alarm".to_owned(),
        Debt::Alarm(Some(at)) => format!("alarm at {}", at.as_millis()),
        Debt::NextRun(batch) => format!("next run, {} events", batch.events.len()),
    };
    debts.iter().map(line).collect()
}

fn newest(world: &World) -> Vec<String> {
    let batch = world.batch(world.log.len() - 1);
    show(&world.state().debts(Owed::New(&batch), world.now()))
}

fn owed(world: &World, owed: Owed<'_>) -> Vec<String> {
    show(&world.state().debts(owed, world.now()))
}

fn lost(id: u64, attempt: u32) -> Arrival {
    WorkerGone { id, attempt, timeout: TimeoutKind::StartToClose, last_heartbeat: None }.into()
}

/// Two activities, the first with a limit of them all; two timers.
async fn busy(cx: Workflow, _: ()) -> Result<(), Failure> {
    let (a, b, c, d) = join!(
        cx.activity(double, &1).options(ActivityOptions::start_to_close(secs(10)).within(secs(60))),
        cx.activity(halve, &2).options(MINUTE),
        cx.sleep(secs(30)),
        cx.sleep(secs(40)),
    );
    let _ = (a?, b?, c?, d?);
    Ok(())
}

#[test]
fn a_batch_adds_what_it_calls_for_and_no_more() {
    let mut world = World::run(busy, &());
    assert_eq!(newest(&world), ["task 1 not before 0", "task 2 not before 0", "alarm at 31000"]);
    // A signal beside them: nothing is sent again, no alarm is set again.
    world.arrive(signal("s", "go", "true"));
    assert_eq!(newest(&world), [""; 0]);
    world.clock = 2_000;
    world.arrive(lost(2, 1));
    assert_eq!(newest(&world), ["task 2 not before 3000"]);
    world.arrive(completed(1, "2"));
    assert_eq!(newest(&world), [""; 0]);
    // The second of two timers.
    world.alarm_at(31_000);
    assert_eq!(newest(&world), ["alarm at 41000"]);
    world.alarm_at(41_000);
    assert_eq!(newest(&world), ["no alarm"]);
}

#[test]
fn an_earlier_alarm_replaces_the_one_that_is_set_and_a_later_one_does_not() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let _late = cx.sleep(secs(30));
            cx.signal(GO).await?;
            let _later = cx.sleep(secs(60));
            cx.signal(GO).await?;
            let _early = cx.sleep(secs(5));
            cx.signal(GO).await?;
            Ok(())
        },
        &(),
    );
    world.arrive(signal("s1", "go", "true"));
    assert_eq!(newest(&world), [""; 0], "the alarm is set already");
    world.arrive(signal("s2", "go", "true"));
    assert_eq!(newest(&world), ["alarm at 6000"]);
}

#[test]
fn a_timer_that_fired_by_others_moves_the_alarm_too() {
    let mut world = World::run(busy, &());
    world.clock = 31_000;
    world.merged([Arrival::Alarm]);
    world.settle();
    assert_eq!(newest(&world), ["alarm at 41000"]);
}

#[test]
fn all_and_recent_of_an_open_run() {
    let mut world = World::run(busy, &());
    world.arrive(signal("s", "go", "true"));
    assert_eq!(owed(&world, Owed::All), ["task 1 not before 0", "task 2 not before 0", "alarm at 31000"]);
    assert_eq!(owed(&world, Owed::Recent), ["alarm at 31000"]);
    world.arrive(lost(2, 1));
    assert_eq!(owed(&world, Owed::Recent), ["task 2 not before 2000", "alarm at 31000"]);
    assert_eq!(owed(&world, Owed::Closing), [""; 0]);
}

#[test]
fn an_activity_that_is_given_up_is_unwanted_once() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let running = cx.activity(double, &1).options(MINUTE);
            let done = cx.activity(halve, &2).options(MINUTE).start();
            let (a, b) = join!(running, cx.detached().signal(GO));
            drop(done);
            let _ = (a.is_err(), b?);
            Ok(())
        },
        &(),
    );
    world.arrive(completed(2, "1"));
    world.arrive(common::cancel("c"));
    assert_eq!(world.last_commands(), ["cancel activity 1"]);
    assert_eq!(newest(&world), ["unwanted 1"]);
    assert_eq!(owed(&world, Owed::All), ["no alarm"]);
}

#[test]
fn a_closed_run_owes_what_its_last_batch_says_and_no_more() {
    let mut world = World::run(busy, &());
    let inputs = world.state().accept(&terminate("t"), world.now()).unwrap();
    world.live.take_in(inputs);
    world.settle();
    assert_eq!(newest(&world), ["no alarm", "unwanted 1", "unwanted 2"]);
    for asked in [Owed::All, Owed::Recent, Owed::Closing] {
        assert_eq!(owed(&world, asked), ["no alarm", "unwanted 1", "unwanted 2"]);
    }
    // Nothing under way, nothing owed: by whoever asks, however often.
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    world.arrive(failed(1, 1, Failure::application("no"), RetryState::NonRetryableFailure));
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(world.state().due, None);
    assert_eq!(newest(&world), [""; 0]);
    for asked in [Owed::All, Owed::Recent, Owed::Closing] {
        assert_eq!(owed(&world, asked), [""; 0]);
    }
    // One that continued as new.
    async fn again(cx: Workflow, left: u32) -> Result<(), Failure> {
        if left > 0 { cx.continue_as_new(again, &(left - 1)) } else { Ok(()) }
    }
    let world = World::idle(app(again), "test", json("1"));
    let mut world = world;
    world.settle();
    assert_eq!(owed(&world, Owed::Closing), ["no alarm", "next run, 1 events"]);
}

#[test]
fn whether_a_history_is_closed_its_last_batch_says() {
    let mut world = World::run(busy, &());
    assert_eq!(is_closed(0, &world.log), Ok(false));
    assert_eq!(is_closed(0, &[]), Ok(false));
    world.merged([signal("s", "go", "true")]);
    world.elsewhere([terminate("t")]);
    assert_eq!(is_closed(0, &world.log), Ok(true));
    let swept = |world: &World| {
        let mut state = RunState::begin(run_key(0), &world.log[0]).unwrap().0;
        world.log[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
        let first = world.batch(0);
        Batch {
            previous: state.head,
            time: state.time,
            kind: dormouse_core::history::BatchKind::Swept,
            events: Vec::new(),
            due: Some(Timestamp::from_millis(9_000_000)),
            ..first
        }
    };
    let batch = swept(&world);
    world.log.push(batch.encode());
    assert_eq!(is_closed(0, &world.log), Ok(true));
    let last = world.log.len() - 2;
    assert_eq!(is_closed(last as u64, &world.log[last..]), Ok(true));
    assert!(is_closed(7, &[bytes::Bytes::from_static(b"x")]).unwrap_err().to_string().contains("batch 7"));
    let mut open = World::run(busy, &());
    let batch = swept(&open);
    open.log.push(batch.encode());
    assert_eq!(is_closed(0, &open.log), Ok(false));
}
