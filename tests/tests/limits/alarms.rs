//! Alarms: one per run, set to the next of all that it waits for; and what a closed run leaves due.

use std::sync::Arc;
use std::time::Duration;

use dormouse::{
    ActivityOptions, App, Embedded, Failure, IdConflictPolicy, Payload, Settings, Signal, Status, Workflow, join,
    select,
};
use dormouse_core::{Arrival, RunKey};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::World;
use dormouse_testing::world::{Process, SWEEP, drive, latest, run, start_body};
use object_store::memory::InMemory;
use serde_json::json;

use super::clockwork::secs;

const GO: Signal<u64> = Signal::new("go");

/// Sleeps 20 s and 50 s, side by side.
async fn two_naps(cx: Workflow, _: ()) -> Result<Vec<u64>, Failure> {
    let (long, short) = join!(nap(&cx, 50), nap(&cx, 20));
    Ok(vec![short?, long?])
}

/// How long it slept.
async fn nap(cx: &Workflow, seconds: u64) -> Result<u64, Failure> {
    let begun = cx.now();
    cx.sleep(secs(seconds)).await?;
    Ok(cx.now().since(begun).as_secs())
}

/// Sleeps an hour, or as many seconds as it is told meanwhile, unless it is told more.
async fn light_sleep(cx: Workflow, _: ()) -> Result<String, Failure> {
    let mut long = cx.sleep(secs(3_600));
    loop {
        let told = select! {
            slept = &mut long => { slept?; return Ok("long".into()) },
            told = cx.signal(GO) => told?,
        };
        if cx.timeout(secs(told), cx.signal(GO)).await?.is_none() {
            return Ok("short".into());
        }
    }
}

/// One activity with this limit.
async fn limited(cx: Workflow, which: String) -> Result<(), Failure> {
    let minute = ActivityOptions::start_to_close(secs(60));
    let options = match &*which {
        "start" => minute.schedule_to_start(secs(10)),
        "close" => minute.within(secs(30)),
        "both" => minute.within(secs(30)).schedule_to_start(secs(10)),
        _ => minute,
    };
    select! {
        done = cx.activity(idle, &()).options(options) => done,
        told = cx.signal(GO) => { told?; Ok(()) },
    }
}

async fn idle(_: dormouse::Activity, _: ()) -> Result<(), Failure> {
    Ok(())
}

/// Holds whatever can be held, until it is told how to end.
async fn holding(cx: Workflow, with: String) -> Result<(), Failure> {
    let activity = with.contains("activity");
    let activity = activity.then(|| cx.activity(idle, &()).options(ActivityOptions::start_to_close(secs(60))).start());
    let timer = with.contains("timer").then(|| cx.sleep(secs(3_600)));
    let local = with.contains("local").then(|| cx.local_activity(idle, &()).start());
    let how = cx.signal(GO).await;
    let ends = match how? {
        1 => Err(Failure::application("as told")),
        2 => cx.continue_as_new(holding, &String::new()),
        _ => Ok(()),
    };
    drop((activity, timer, local));
    ends
}

fn world() -> (World, Process) {
    let app = App::new()
        .workflow("two naps", two_naps)
        .workflow("light sleep", light_sleep)
        .workflow("limited", limited)
        .workflow("holding", holding)
        .activity("idle", idle);
    let world = World::new(app);
    let process = world.process();
    (world, process)
}

/// When the alarm rings and when the row is due, so long from now.
fn set_to(world: &World, run: &RunKey) -> (Option<Duration>, Option<Duration>) {
    let from_now = |at: Option<dormouse::Timestamp>| at.map(|at| at.since(world.now()));
    (from_now(world.mail.alarm(run)), from_now(world.due(run)))
}

fn pass_and_ring(world: &World, process: &Process, time: Duration) {
    world.pass(time);
    world.ring();
    process.deliver();
}

/// The first of two timers has fired: the alarm is set to the second, by the process that saw it or by another.
#[test]
fn the_second_of_two_timers_fires_too() {
    for another in [false, true] {
        let (world, one) = world();
        let other = world.process();
        let run = one.start("two naps", "w", "r", &());
        one.deliver();
        assert_eq!(set_to(&world, &run), (Some(secs(20)), Some(secs(20))));
        pass_and_ring(&world, if another { &other } else { &one }, secs(20));
        let (alarm, due) = set_to(&world, &run);
        assert!(alarm == Some(secs(30)) && due <= alarm, "{alarm:?}, {due:?}");
        pass_and_ring(&world, &one, secs(30));
        assert_eq!(world.result(&run), Some(json!([20, 50])));
        assert_eq!(set_to(&world, &run), (None, None));
    }
}

/// An alarm is set already. What is due sooner replaces it, and when that is over, it is set again.
#[test]
fn an_earlier_alarm_replaces_the_one_that_is_set() {
    let (world, process) = world();
    let run = process.start("light sleep", "w", "r", &());
    process.deliver();
    assert_eq!(set_to(&world, &run).0, Some(secs(3_600)));
    let go = |id: &str, seconds: u64| {
        process.signal("w", id, "go", &seconds);
        process.deliver();
    };
    go("a", 10);
    assert_eq!(set_to(&world, &run).0, Some(secs(10)));
    assert!(set_to(&world, &run).1 <= Some(secs(10)));
    // It is not needed any more.
    go("b", 1);
    assert_eq!(set_to(&world, &run).0, Some(secs(3_600)));
    go("c", 10);
    assert_eq!(set_to(&world, &run).0, Some(secs(10)));
    pass_and_ring(&world, &process, secs(9));
    assert_eq!(world.state(&run).status(), Status::Running);
    pass_and_ring(&world, &process, secs(1));
    assert_eq!(world.result(&run), Some(json!("short")));
    assert_eq!(world.mail.alarm(&run), None);
}

/// Sleeps an hour, or, once it is told so, for a moment.
async fn cut_short(cx: Workflow, _: ()) -> Result<(), Failure> {
    let long = cx.sleep(secs(3_600));
    cx.signal(GO).await?;
    cx.sleep(Duration::from_millis(20)).await?;
    drop(long);
    Ok(())
}

/// In a process, whose alarm clock sleeps meanwhile. It looks at the time every ten seconds, told or not; so the answer
/// has to be there sooner.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_clock_hears_of_an_earlier_alarm() {
    let opened = std::time::Instant::now();
    let app = Arc::new(App::new().workflow("cut short", cut_short));
    let store = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let engine = Embedded::open(app, store, Settings::default()).await.unwrap();
    let front = engine.front();
    front.start(None, start_body("cut short", "w", &(), Default::default())).await.unwrap();
    while front.describe(&latest("w")).await.unwrap().timers.is_empty() {
        tokio::task::yield_now().await;
    }
    front.signal(&latest("w"), None, "go", Payload::encode(&1).unwrap()).await.unwrap();
    let result = front.result(&latest("w"), secs(9).saturating_sub(opened.elapsed())).await.unwrap();
    assert_eq!(result.status, Status::Completed, "it is not woken");
    drop(front);
    engine.shutdown(secs(5)).await;
}

/// Each time limit that the run itself must see to has its alarm, also when it is the only one.
#[test]
fn time_limits_of_activities_have_alarms() {
    for (which, alarm) in [("start", Some(10)), ("close", Some(30)), ("both", Some(10)), ("neither", None)] {
        let (world, process) = world();
        let run = process.start("limited", "w", "r", &which);
        process.deliver();
        let due = alarm.map_or(SWEEP, secs);
        assert_eq!(set_to(&world, &run), (alarm.map(secs), Some(due)), "{which}");
        // Taken up or not, somebody looks when the limit has passed.
        let task = world.mail.take_tasks().remove(0);
        pass_and_ring(&world, &process, due);
        let fails = which != "neither";
        assert_eq!(world.state(&run).status() == Status::Failed, fails, "{which}");
        if !fails {
            process.complete(&task, 1, &());
            assert_eq!(world.state(&run).status(), Status::Completed);
        }
        assert_eq!(world.mail.alarm(&run), None);
    }
}

/// However a run ends: with nothing owed it leaves nothing due, from its last batch on. Of what it waited for, only
/// activities that somebody may have taken up are owed word, and once they have it, nothing is due either.
#[test]
fn a_closed_run_leaves_due_what_it_owes() {
    type End = fn(&Process);
    let ends: [(&str, End); 5] = [
        ("completed", |process| process.signal("w", "end", "go", &0)),
        ("failed", |process| process.signal("w", "end", "go", &1)),
        ("canceled", |process| drive(process.front.cancel(&latest("w"), Some("end"), "x")).unwrap().unwrap()),
        ("terminated", |process| drive(process.front.terminate(&latest("w"), Some("end"), "x")).unwrap().unwrap()),
        ("continued", |process| process.signal("w", "end", "go", &2)),
    ];
    for (how, end) in ends {
        for with in ["", "timer", "local", "timer and local", "activity", "activity, timer and local"] {
            let (world, process) = world();
            let holding = process.start("holding", "w", "r", &with);
            process.deliver();
            end(&process);
            // The process that decides dies right after the last batch; the first to close it is the caller.
            let dying = world.process();
            dying.faults.plan(dormouse_testing::On::Create(None), dormouse_testing::Fault::CrashAfter);
            if how != "terminated" {
                assert!(dying.handle(world.mail.take_message(0)).is_none(), "{how}, with {with:?}");
            }
            assert!(world.state(&holding).closed.is_some(), "{how}, with {with:?}");
            let owes = with.contains("activity") || how == "continued";
            let due = world.due(&holding);
            assert_eq!(due, owes.then(|| world.now() + SWEEP), "{how}, with {with:?}");
            // Nobody else hears of it but by the sweep, and by the alarm that was set.
            world.mail.drop_messages();
            world.pass_sweeps(1);
            assert_eq!(world.sweep().contains(&holding), owes);
            let living = world.process();
            living.deliver();
            assert_eq!(world.due(&holding), None, "{how}, with {with:?}: nothing is owed any more");
            world.pass(secs(3_600));
            world.ring();
            living.deliver();
            assert_eq!((world.due(&holding), world.mail.alarm(&holding)), (None, None), "{how}, with {with:?}");
            let next = world.row(&run("w", 1)).is_some();
            assert_eq!(next, how == "continued", "{how}: nobody asked for another run");
        }
    }
}

/// The same for a run that a start has replaced.
#[test]
fn a_replaced_run_leaves_nothing_due() {
    for with in ["", "activity and timer"] {
        let (world, process) = world();
        let first = process.start("holding", "w", "r", &with);
        process.deliver();
        let body = start_body("holding", "w", &"", IdConflictPolicy::TerminateExisting);
        drive(process.front.start(Some("r2"), body)).unwrap().unwrap();
        assert_eq!(world.due(&first), None, "with {with:?}");
        process.deliver();
        assert_eq!(world.mail.alarm(&first), None, "with {with:?}");
        // What it waited for comes late.
        let run_id = world.state(&first).run_id();
        world.pass(secs(3_600));
        world.mail.arrive(&first, run_id, Arrival::Alarm);
        process.deliver();
        assert_eq!((world.due(&first), world.mail.alarm(&first)), (None, None), "with {with:?}");
        assert_eq!(world.state(&run("w", 1)).status(), Status::Running);
    }
}
