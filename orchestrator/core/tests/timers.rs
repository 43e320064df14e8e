//! Timers: when they fire, when they are canceled, and when there is none.

mod common;

use common::{GO, MINUTE, World, completed, double, secs, signal};
use dormouse_core::{Arrival, Failure, Refusal, Workflow, join, select};

#[test]
fn a_timer_fires_when_its_time_has_come() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.sleep(secs(10)).await?;
            Ok(cx.now().as_millis())
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["timer 1 at 11000"]);
    assert_eq!(world.state().alarm(world.now()).map(|at| at.as_millis()), Some(11_000));
    world.clock = 10_999;
    assert_eq!(world.refused(Arrival::Alarm), Refusal::NothingDue);
    assert_eq!(world.alarm_at(12_500), ["complete 12500"]);
}

#[test]
fn a_timer_of_no_length_is_still_a_timer() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.sleep(secs(0)).await?;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["timer 1 at 1000"]);
    assert_eq!(world.arrive(Arrival::Alarm), ["complete null"]);
}

#[test]
fn dropping_a_timer_cancels_it_even_unpolled() {
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            drop(cx.sleep(secs(10)));
            let _kept_to_the_end = cx.sleep(secs(20));
            Ok(())
        },
        &(),
    );
    assert_eq!(
        world.last_commands(),
        ["timer 1 at 11000", "cancel timer 1", "timer 2 at 21000", "cancel timer 2", "complete null"]
    );
    assert!(world.state().pending.timers.open.is_empty());
}

#[test]
fn a_timer_that_fired_unseen_is_not_canceled() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let timer = cx.sleep(secs(1));
            cx.signal(GO).await?;
            drop(timer);
            Ok(())
        },
        &(),
    );
    assert_eq!(world.alarm_at(3_000), [""; 0]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete null"]);
}

#[test]
fn several_due_timers_fire_in_the_order_of_their_times() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let order = std::cell::RefCell::new(Vec::new());
            let wait = |seconds| {
                let (timer, order) = (cx.sleep(secs(seconds)), &order);
                async move {
                    timer.await?;
                    order.borrow_mut().push(seconds);
                    Ok::<_, Failure>(())
                }
            };
            let (a, b, c) = join!(wait(3), wait(1), wait(2));
            a.and(b).and(c)?;
            Ok(order.take())
        },
        &(),
    );
    assert_eq!(world.alarm_at(9_000), ["complete [1,2,3]"]);
    assert_eq!(world.last_turns(), 3);
}

#[test]
fn of_two_timers_due_together_the_loser_is_passed_over() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let first = select! {
                done = cx.sleep(secs(2)) => { done?; 2 },
                done = cx.sleep(secs(1)) => { done?; 1 },
            };
            cx.signal(GO).await?;
            Ok(first)
        },
        &(),
    );
    assert_eq!(world.alarm_at(9_000), ["cancel timer 1"]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete 1"]);
}

#[test]
fn losers_of_a_select_are_gone_before_its_arm_runs() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            select! {
                go = cx.signal(GO) => {
                    go?;
                    cx.activity(double, &1).options(MINUTE).await
                },
                late = cx.sleep(secs(60)) => { late?; Ok(0) },
            }
        },
        &(),
    );
    assert_eq!(world.arrive(signal("s", "go", "true")), ["cancel timer 1", "activity 2 double(1)"]);
    assert_eq!(world.arrive(completed(2, "2")), ["complete 2"]);
}

#[test]
fn a_finished_timer_gives_its_answer_again() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut timer = cx.sleep(secs(1));
            (&mut timer).await?;
            (&mut timer).await?;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.alarm_at(2_000), ["complete null"]);
}

#[test]
fn a_signal_beats_its_time_limit_or_does_not() {
    let patient = |cx: Workflow, _: ()| async move { Ok::<_, Failure>(cx.timeout(secs(10), cx.signal(GO)).await?) };
    let mut world = World::run(patient, &());
    assert_eq!(world.last_commands(), ["timer 1 at 11000"]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["cancel timer 1", "complete true"]);

    let mut world = World::run(patient, &());
    assert_eq!(world.alarm_at(11_000), ["complete null"]);
}

#[test]
fn a_time_limit_on_what_is_ready_makes_no_timer() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.activity(double, &1).options(MINUTE).await?;
            Ok(cx.timeout(secs(10), cx.signal(GO)).await?)
        },
        &(),
    );
    world.arrive(signal("s", "go", "false"));
    assert_eq!(world.arrive(completed(1, "2")), ["complete false"]);
}

#[test]
fn when_the_time_is_up_what_was_waited_for_is_dropped() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut limited = cx.timeout(secs(1), cx.sleep(secs(60)));
            let done = (&mut limited).await?.is_some();
            cx.signal(GO).await?;
            drop(limited);
            Ok(done)
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["timer 1 at 61000", "timer 2 at 2000"]);
    assert_eq!(world.alarm_at(2_000), ["cancel timer 1"]);
    assert_eq!(world.arrive(signal("s", "go", "true")), ["complete false"]);
}

#[test]
fn a_time_limit_awaited_again_says_so() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut limited = cx.timeout(secs(1), cx.signal(GO));
            (&mut limited).await?;
            (&mut limited).await?;
            Ok(())
        },
        &(),
    );
    let inputs = world.state().accept(&signal("s", "go", "true"), world.now()).unwrap();
    world.live.take_in(inputs);
    let failure = world.try_settle().unwrap_err();
    assert!(failure.to_string().contains("awaited again after it had ended"), "{failure}");
}
