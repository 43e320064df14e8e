//! Local activities: they run inside the invocation, and nowhere else.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dormouse::{Activity, App, Failure, LocalActivityOptions, RetryPolicy, Workflow, join};
use dormouse_core::history::{Event, Input, Turn};
use dormouse_core::operations;
use dormouse_engine::seams::RunMessage;
use dormouse_testing::{Counts, Fault, On, World};
use serde_json::json;
use tokio::sync::Notify;

use crate::{Function, PLENTY, letters};

/// What activities of one test share.
#[derive(Clone, Default)]
struct Told(Arc<Shared>);

#[derive(Default)]
struct Shared {
    began: AtomicU32,
    ended: AtomicU32,
    dropped: AtomicU32,
    gate: Notify,
    open: AtomicBool,
}

impl Told {
    fn began(&self) -> u32 {
        self.0.began.load(Ordering::SeqCst)
    }

    fn ended(&self) -> u32 {
        self.0.ended.load(Ordering::SeqCst)
    }

    fn dropped(&self) -> u32 {
        self.0.dropped.load(Ordering::SeqCst)
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let long = tokio::time::timeout(Duration::from_secs(20), async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        long.await.expect("it comes to that");
    }
}

struct OnDrop(Told);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn world(told: &Told) -> World {
    let app = App::new()
        .workflow("steps", steps)
        .workflow("two kinds", two_kinds)
        .workflow("three at once", three_at_once)
        .workflow("one of two waits", one_of_two_waits)
        .workflow("busy", busy)
        .workflow("too long", too_long)
        .workflow("slow and failing", slow_and_failing)
        .activity("step", step)
        .activity("step beside", step_beside)
        .activity("wait at the gate", wait_at_the_gate)
        .activity("fail slowly", fail_slowly)
        .provide(told.clone());
    World::new(app).shared()
}

async fn step(cx: Activity, n: u32) -> Result<u32, Failure> {
    let told = cx.get::<Told>();
    told.0.began.fetch_add(1, Ordering::SeqCst);
    told.0.ended.fetch_add(1, Ordering::SeqCst);
    Ok(n)
}

/// A step that does not end before another activity has begun.
async fn step_beside(cx: Activity, n: u32) -> Result<u32, Failure> {
    let told = cx.get::<Told>().clone();
    told.until(|told| told.began() > 0).await;
    step(cx, n).await
}

async fn wait_at_the_gate(cx: Activity, n: u32) -> Result<u32, Failure> {
    let told = cx.get::<Told>().clone();
    let _dropped = OnDrop(told.clone());
    told.0.began.fetch_add(1, Ordering::SeqCst);
    while !told.0.open.load(Ordering::SeqCst) {
        let _ = tokio::time::timeout(Duration::from_millis(5), told.0.gate.notified()).await;
    }
    told.0.ended.fetch_add(1, Ordering::SeqCst);
    Ok(n)
}

/// Takes nearly its limit, and fails.
async fn fail_slowly(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Told>().0.began.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2_400)).await;
    Err(Failure::application("as planned"))
}

async fn steps(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    let mut sum = 0;
    for n in 0..steps {
        sum += cx.local_activity(step, &n).await?;
    }
    Ok(sum)
}

const LONG: LocalActivityOptions = LocalActivityOptions::start_to_close(Duration::from_secs(20));
const SHORT: LocalActivityOptions = LocalActivityOptions::start_to_close(Duration::from_secs(1));

/// A short step, then one that may take long.
async fn two_kinds(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let first = cx.local_activity(step, &1).options(SHORT).await?;
    Ok(first + cx.local_activity(step, &2).options(LONG).await?)
}

async fn three_at_once(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let one = |n| cx.local_activity(wait_at_the_gate, &n).start();
    let (a, b, c) = join!(one(1), one(2), one(3));
    Ok(a? + b? + c?)
}

async fn one_of_two_waits(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let waits = cx.local_activity(wait_at_the_gate, &1).start();
    let quick = cx.local_activity(step_beside, &2).await?;
    Ok(quick + waits.await?)
}

/// What [`busy`] shares with the activities of its one test.
static BUSY: OnceLock<Told> = OnceLock::new();

/// Opens the gate, and holds the thread until three have passed.
async fn busy(_: Workflow, _: ()) -> Result<(), Failure> {
    let told = BUSY.get().expect("its test sets it");
    told.0.open.store(true, Ordering::SeqCst);
    while told.ended() < 3 || told.dropped() < 3 {
        std::thread::yield_now();
    }
    // Their ends are told by now, or within a moment.
    #[allow(clippy::disallowed_methods, reason = "this code is meant to hold its thread")]
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

async fn too_long(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.local_activity(step, &1).options(LocalActivityOptions::start_to_close(Duration::from_secs(26))).await
}

async fn slow_and_failing(cx: Workflow, _: ()) -> Result<(), Failure> {
    let patient = RetryPolicy::max_attempts(3).initial_interval(Duration::from_secs(1));
    let options = LocalActivityOptions::start_to_close(Duration::from_millis(2_500)).retry(patient);
    cx.local_activity(fail_slowly, &()).options(options).await
}

/// N local steps are N + 1 puts, and the invocation that gets the first message does them all.
#[tokio::test(flavor = "multi_thread")]
async fn steps_are_a_put_each() {
    let told = Told::default();
    let world = world(&told);
    let function = Function::begin(&world);
    let run = function.process.start("steps", "w", "r1", &5);
    function.process.count_anew();
    assert_eq!(function.invoke(letters(&world.mail.drop_messages()), PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(10)));
    let Counts { creates, exists, .. } = function.process.counts();
    assert_eq!((creates, exists, told.began()), (5, 0, 5), "the first turn goes with the first result");
    assert_eq!(world.mail.messages(), [], "and no message");
}

/// Results that are there when the thread looks are recorded together.
#[tokio::test(flavor = "multi_thread")]
async fn several_that_end_together_share_a_put() {
    let told = BUSY.get_or_init(Told::default).clone();
    let world = world(&told);
    let function = Function::begin(&world);
    let run = function.process.start("three at once", "w", "r1", &());
    let first = letters(&world.mail.drop_messages());
    function.process.start("busy", "busy", "r2", &());
    let second = letters(&world.mail.drop_messages());
    function.process.count_anew();
    let (one, other) = futures::join!(function.invoke(first, PLENTY), async {
        told.until(|told| told.began() == 3).await;
        function.invoke(second, PLENTY).await
    });
    assert_eq!((one, other), (vec![], vec![]));
    assert_eq!(world.result(&run), Some(json!(6)));
    assert_eq!(function.process.counts().creates, 2, "one for three results, one for the busy workflow");
}

/// What does not fit into the rest of the invocation is for the next one, which repeats nothing that is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_handed_over() {
    let told = Told::default();
    let world = world(&told);
    let (one, other) = (Function::begin(&world), Function::begin(&world));
    let run = one.process.start("two kinds", "w", "r1", &());
    let messages = world.mail.drop_messages();
    assert_eq!(one.invoke(letters(&messages), Duration::from_secs(10)).await, [""; 0], "it is all seen to");
    assert_eq!(told.began(), 1, "the long one is not begun");
    let handed_over = world.mail.drop_messages();
    assert_eq!(handed_over, [RunMessage::Sweep { run: run.clone() }]);
    assert_eq!(world.records(&run).len(), 2, "the first result is recorded");
    // In the next process, and in the same one.
    assert_eq!(other.invoke(letters(&handed_over), PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(3)));
    assert_eq!(one.invoke(letters(&handed_over), PLENTY).await, [""; 0]);
    assert_eq!(told.began(), 2, "nothing is repeated");
    assert_eq!(world.mail.messages(), []);
}

/// The hand-over itself fails: the letter is not acknowledged, and the next delivery goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_with_a_local_activity_loses_nothing_recorded() {
    let told = Told::default();
    let world = world(&told);
    let one = Function::begin(&world);
    let run = one.process.start("steps", "w", "r1", &3);
    let messages = world.mail.drop_messages();
    // The second result is never answered: as if the process died with it.
    one.process.faults.plan(On::Create(Some(2)), Fault::CrashBefore);
    let dying = tokio::time::timeout(Duration::from_millis(500), one.invoke(letters(&messages), PLENTY)).await;
    assert!(dying.is_err(), "no answer");
    let mut again = letters(&messages);
    again.iter_mut().for_each(|letter| letter.deliveries = 2);
    let other = Function::begin(&world);
    assert_eq!(other.invoke(again, PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(3)));
    assert_eq!(told.began(), 4, "only what was not recorded ran again");
}

/// The invocation fails while a local activity runs: that ends too. Its code must not go on beside its next attempt, or
/// stand still in a frozen process and wake up later.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_when_the_invocation_is_over() {
    let told = Told::default();
    let world = world(&told);
    let function = Function::begin(&world);
    let run = function.process.start("one of two waits", "w", "r1", &());
    let messages = world.mail.drop_messages();
    for _ in 0..5 {
        function.process.faults.plan(On::Create(Some(1)), Fault::FailBefore);
    }
    assert_eq!(function.invoke(letters(&messages), PLENTY).await, ["0"], "the quick one was not recorded");
    told.until(|told| told.began() == 2).await;
    told.until(|told| told.dropped() == 1).await;
    told.0.open.store(true, Ordering::SeqCst);
    assert_eq!(function.invoke(letters(&messages), PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(3)));
    assert_eq!((told.began(), told.ended(), told.dropped()), (4, 3, 2), "both ran again, the cut one never ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_invocation_can_do_fails_with_an_explanation() {
    let told = Told::default();
    let world = world(&told);
    let function = Function::begin(&world);
    let run = function.process.start("too long", "w", "r1", &());
    assert_eq!(function.invoke(letters(&world.mail.drop_messages()), PLENTY).await, [""; 0]);
    let Some(dormouse_core::history::Closed::Failed(failure)) = world.state(&run).closed else { panic!("it failed") };
    assert!(failure.to_string().contains("25s"), "{failure}");
    assert!(format!("{failure:?}").contains("LocalActivityTooLong"), "{failure:?}");
    assert_eq!(told.began(), 0);
}

/// Enough for one attempt of [`fail_slowly`].
const SCANT: Duration = Duration::from_millis(3_300);

/// Attempts that do not fit into one invocation are counted across several: were they begun from the first each time, a
/// slow activity would fail for ever and never be given up.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_count_across_invocations() {
    let told = Told::default();
    let world = world(&told);
    let function = Function::begin(&world);
    let run = function.process.start("slow and failing", "w", "r1", &());
    assert_eq!(function.invoke(letters(&world.mail.drop_messages()), SCANT).await, [""; 0]);
    let events: Vec<_> = world.batches(&run).into_iter().flat_map(|batch| batch.events).collect();
    let backed_off = |event: &&Event| {
        matches!(
            event,
            Event::Input(Input::LocalBackoff(operations::LocalBackoff { attempt: 1, .. }))
                | Event::Turn(Turn {
                    input: Some(Input::LocalBackoff(operations::LocalBackoff { attempt: 1, .. })),
                    ..
                })
        )
    };
    assert_eq!(events.iter().filter(backed_off).count(), 1, "{events:?}");
    for _ in 0..10 {
        if world.state(&run).closed.is_some() {
            break;
        }
        world.pass(Duration::from_secs(5));
        world.ring();
        let messages = world.mail.drop_messages();
        assert_eq!(function.invoke(letters(&messages), SCANT).await, [""; 0]);
    }
    assert_eq!(told.began(), 3, "three attempts in all");
    assert_eq!(world.state(&run).status(), dormouse::Status::Failed);
}
