//! Signals, conditions, and who is woken by what.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{GO, MINUTE, NUMBER, World, cancel, completed, double, secs, signal};
use dormouse_core::{Arrival, Decision, Failure, LiveRun, Status, TurnFailure, Workflow, join, select};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

async fn collects(cx: Workflow, n: usize) -> Result<Vec<u32>, Failure> {
    let mut numbers = cx.signals(NUMBER);
    let mut all = Vec::new();
    while all.len() < n {
        all.push(numbers.next().await?);
    }
    Ok(all)
}

#[test]
fn early_signals_are_kept_in_order_by_name() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            cx.sleep(secs(1)).await?;
            let go = cx.signal(GO).await?;
            Ok((go, cx.signal(NUMBER).await?, cx.signal(NUMBER).await?))
        },
        &(),
    );
    world.arrive(signal("a", "number", "1"));
    world.arrive(signal("b", "number", "2"));
    world.arrive(signal("c", "go", "true"));
    assert_eq!(world.alarm_at(2_000), ["complete [true,1,2]"]);
}

#[test]
fn a_stream_of_signals() {
    let mut world = World::run(collects, &3);
    for (n, id) in [(3, "a"), (1, "b")] {
        assert_eq!(world.arrive(signal(id, "number", &n.to_string())), [""; 0]);
    }
    assert_eq!(world.arrive(signal("c", "number", "2")), ["complete [3,1,2]"]);
}

#[test]
fn several_waiting_signals_are_delivered_one_a_turn() {
    let mut world = World::run(collects, &4);
    let burst = |from: u32| (from..from + 2).map(|n| signal(&format!("s{n}"), "number", &n.to_string()));
    world.merged(burst(0));
    world.merged(burst(2));
    world.clock = 5_000;
    assert_eq!(world.settle(), ["complete [0,1,2,3]"]);
    assert_eq!(world.last_turns(), 4);
}

#[test]
fn a_signal_that_does_not_fit_is_passed_over() {
    let mut world = World::run(collects, &2);
    for (id, payload) in [("a", "\"seven\""), ("b", "7"), ("c", "-1"), ("d", "{}")] {
        assert_eq!(world.arrive(signal(id, "number", payload)), [""; 0]);
    }
    assert_eq!(world.arrive(signal("e", "number", "8")), ["complete [7,8]"]);
}

#[test]
fn two_who_wait_for_one_name_are_served_in_order() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (first, second) = join!(cx.signal(NUMBER), cx.signal(NUMBER));
            Ok((first?, second?))
        },
        &(),
    );
    world.arrive(signal("a", "number", "1"));
    assert_eq!(world.arrive(signal("b", "number", "2")), ["complete [1,2]"]);
}

#[test]
fn try_next_takes_what_is_there() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let mut numbers = cx.signals(NUMBER);
            let none = numbers.try_next();
            cx.signal(GO).await?;
            Ok((none, numbers.try_next(), numbers.try_next()))
        },
        &(),
    );
    world.arrive(signal("a", "number", "5"));
    assert_eq!(world.arrive(signal("b", "go", "true")), ["complete [null,5,null]"]);
}

/// What the state says is unread: name, how many, how many of them came from the run before.
fn unread(world: &World) -> Vec<(String, u64, u64)> {
    let unread = &world.state().pending.signals.unread;
    unread.iter().map(|(name, unread)| (name.clone(), unread.count(), unread.carried())).collect()
}

/// One number, then the next run: what nobody takes goes along.
async fn one_a_run(cx: Workflow, runs: u32) -> Result<(), Failure> {
    cx.signal(NUMBER).await?;
    if runs == 1 { Ok(()) } else { cx.continue_as_new(one_a_run, &(runs - 1)) }
}

#[test]
fn what_is_unread_is_known_without_the_code() {
    let mut world = World::run(one_a_run, &3);
    world.arrive(signal("a", "numbre", "100"));
    assert_eq!(unread(&world), [("numbre".to_owned(), 1, 0)]);
    assert_eq!(world.state().pending.signals.unread["numbre"].bytes(), 9);
    // Three at once: one is taken, two go along.
    world.merged(["b", "c", "d"].map(|id| signal(id, "number", "1")));
    assert_eq!(world.settle(), ["continue test(2) carrying [\"number=1\", \"number=1\", \"numbre=100\"]"]);
    let next = world.state().next_run().unwrap().encode();
    let run = world.state().run.workflow.run(1);
    let mut world = World::of(world.app, run, vec![next]);
    assert_eq!(unread(&world), [], "not delivered yet");
    assert_eq!(world.settle(), ["continue test(1) carrying [\"number=1\", \"numbre=100\"]"]);
    assert_eq!(unread(&world), [("number".to_owned(), 1, 1), ("numbre".to_owned(), 1, 1)]);
}

#[test]
fn a_condition_is_looked_at_after_every_event() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let sum = Cell::new(0);
            let adds = async {
                loop {
                    match cx.signal(NUMBER).await {
                        Ok(n) => sum.set(sum.get() + n),
                        Err(canceled) => return canceled,
                    }
                }
            };
            select! {
                enough = cx.wait_until(|| sum.get() >= 5) => { enough?; Ok(sum.get()) },
                canceled = adds => Err(canceled.into()),
            }
        },
        &(),
    );
    world.arrive(signal("a", "number", "3"));
    // The condition is the first arm, and what makes it true the second: it is looked at again in the same turn.
    assert_eq!(world.arrive(signal("b", "number", "4")), ["complete 7"]);
}

#[test]
fn conditions_that_make_each_other_true_settle_within_a_turn() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (a, b) = (Cell::new(false), Cell::new(false));
            let (third, second, first) = join!(
                cx.wait_until(|| b.get()),
                async {
                    cx.wait_until(|| a.get()).await?;
                    b.set(true);
                    Ok::<_, Failure>(())
                },
                async {
                    cx.signal(GO).await?;
                    a.set(true);
                    Ok::<_, Failure>(())
                }
            );
            third?;
            second.and(first)
        },
        &(),
    );
    assert_eq!(world.arrive(signal("a", "go", "true")), ["complete null"]);
    assert_eq!(world.last_turns(), 1);
}

#[test]
fn tasks_that_wake_each_other_settle_within_a_turn() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (mut tell, mut told) = futures::channel::mpsc::channel(1);
            let (listens, speaks) = (async { told.next().await.unwrap_or(0) }, async {
                let n = cx.signal(NUMBER).await.unwrap_or(0);
                tell.try_send(n).ok();
                drop(tell);
                n
            });
            let tasks: FuturesUnordered<futures::future::LocalBoxFuture<'_, u32>> =
                [Box::pin(listens) as _, Box::pin(speaks) as _].into_iter().collect();
            Ok(tasks.collect::<Vec<_>>().await)
        },
        &(),
    );
    assert_eq!(world.arrive(signal("a", "number", "4")), ["complete [4,4]"]);
}

#[test]
fn a_future_that_wakes_itself_is_polled_again() {
    let world = World::run(
        |_: Workflow, _: ()| async move {
            let mut yields = 3;
            std::future::poll_fn(|context| {
                yields -= 1;
                context.waker().wake_by_ref();
                if yields == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            Ok(())
        },
        &(),
    );
    assert_eq!(world.last_commands(), ["complete null"]);
}

#[test]
fn a_future_that_only_wakes_itself_is_reported() {
    let spins = |_: Workflow, _: ()| async move {
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            std::task::Poll::<()>::Pending
        })
        .await;
        Ok(())
    };
    let mut world = World::idle(common::app(spins), "test", common::json("null"));
    assert!(matches!(world.try_settle(), Err(TurnFailure::ForeignFuture { turn: 1 })));
}

#[test]
fn futures_unordered_takes_results_as_they_come() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let calls: FuturesUnordered<_> = (0..n).map(|i| cx.activity(double, &i).options(MINUTE).start()).collect();
            let results: Vec<_> = calls.collect().await;
            results.into_iter().collect::<Result<Vec<u32>, Failure>>()
        },
        &3,
    );
    world.arrive(completed(3, "4"));
    world.arrive(completed(1, "0"));
    assert_eq!(world.arrive(completed(2, "2")), ["complete [4,0,2]"]);
}

#[test]
fn futures_unordered_wakes_for_signals_timers_conditions_and_cancellation() {
    async fn tasks(cx: Workflow, _: ()) -> Result<Vec<String>, Failure> {
        let seen = Rc::new(RefCell::new(false));
        let flag = Rc::clone(&seen);
        let mut tasks: FuturesUnordered<futures::future::LocalBoxFuture<'_, String>> = FuturesUnordered::new();
        tasks.push(Box::pin(async { format!("signal {:?}", cx.signal(GO).await) }));
        tasks.push(Box::pin(async { format!("timer {:?}", cx.sleep(secs(5)).await) }));
        tasks.push(Box::pin(async { format!("until {:?}", cx.wait_until(|| *flag.borrow()).await) }));
        tasks.push(Box::pin(async { format!("number {:?}", cx.signal(NUMBER).await) }));
        tasks.push(Box::pin(async {
            cx.canceled().await;
            "canceled".into()
        }));
        let mut all = Vec::new();
        while let Some(next) = tasks.next().await {
            *seen.borrow_mut() = true;
            all.push(next);
        }
        Ok(all)
    }
    let mut world = World::run(tasks, &());
    assert_eq!(world.alarm_at(6_000), [""; 0]);
    assert_eq!(world.arrive(signal("s", "go", "true")), [""; 0]);
    let closing = world.arrive(cancel("c"));
    assert_eq!(
        closing,
        ["complete [\"timer Ok(())\",\"until Ok(())\",\"signal Ok(true)\",\"number Err(Canceled)\",\"canceled\"]"]
    );
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn many_turns_leave_nothing_behind() {
    // A loop of selects, each with a condition and a signal that never come.
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            for _ in 0..200 {
                select! {
                    stop = cx.signal(GO) => { stop?; break },
                    never = cx.wait_until(|| false) => never?,
                    n = cx.signal(NUMBER) => { n?; },
                }
            }
            Ok(())
        },
        &(),
    );
    for n in 0..100 {
        let inputs = world.state().accept(&signal(&format!("s{n}"), "number", "1"), world.now()).unwrap();
        world.live.take_in(inputs);
    }
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(waiters(&world.live), 3);
}

/// How many futures of the run are registered to be woken.
fn waiters(live: &LiveRun) -> usize {
    let text = format!("{live:?}");
    let (_, count) = text.split_once("waiting: ").unwrap();
    count.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_foreign_future_is_noticed_even_beside_ours() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            let (slept, ()) = join!(cx.sleep(secs(1)), std::future::pending::<()>());
            slept?;
            Ok(())
        },
        &(),
    );
    world.clock = 9_000;
    let inputs = world.state().accept(&Arrival::Alarm, world.now()).unwrap();
    world.live.take_in(inputs);
    assert!(matches!(world.live.decide(world.now()), Err(TurnFailure::ForeignFuture { turn: 2 })));
}

#[test]
fn a_select_that_ended_no_longer_counts_as_waiting() {
    let mut world = World::run(
        |cx: Workflow, _: ()| async move {
            select! {
                go = cx.signal(GO) => { go?; std::future::pending::<()>().await },
                late = cx.sleep(secs(60)) => late?,
                never = cx.wait_until(|| false) => never?,
            }
            Ok(())
        },
        &(),
    );
    let inputs = world.state().accept(&signal("s", "go", "true"), world.now()).unwrap();
    world.live.take_in(inputs);
    assert!(matches!(world.live.decide(world.now()), Err(TurnFailure::ForeignFuture { turn: 2 })));
}

#[test]
fn an_empty_history_of_arrivals_decides_nothing() {
    let mut world = World::run(collects, &1);
    assert!(matches!(world.live.decide(world.now()), Ok(Decision::Decided)));
    assert!(!world.live.must_commit());
}
