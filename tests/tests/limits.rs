//! Limits of time, of size and of pages, and what comes of them. Here: time limits, retries, panics, cancellation and
//! termination, on the embedded engine.

#[path = "limits/alarms.rs"]
mod alarms;
#[path = "limits/attempts.rs"]
mod attempts;
#[path = "limits/clockwork.rs"]
mod clockwork;
#[path = "limits/heartbeats.rs"]
mod heartbeats;
#[path = "limits/pages.rs"]
mod pages;
#[path = "limits/pauses.rs"]
mod pauses;
#[path = "limits/queries.rs"]
mod queries;
#[path = "limits/sizes.rs"]
mod sizes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dormouse::api::{ResultBody, StartBody};
use dormouse::prelude::*;
use dormouse::{
    Activity, App, Embedded, Failure, FailureKind, IdConflictPolicy, IdReusePolicy, Payload, RetryState, Settings,
    Status, TimeoutKind, Workflow,
};
use dormouse_engine::front::{FrontDoor, Target};
use dormouse_engine::stores::sqlite::SqliteStore;
use serde_json::json;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_mins(10);
const QUICK: RetryPolicy = RetryPolicy::max_attempts(3).initial_interval(Duration::from_millis(20));

/// How often each activity ran.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<HashMap<String, u32>>>);

impl Tally {
    fn note(&self, cx: &Activity) {
        *self.0.lock().unwrap().entry(cx.info().activity_type.clone()).or_default() += 1;
    }

    fn of(&self, activity: &str) -> u32 {
        self.0.lock().unwrap().get(activity).copied().unwrap_or_default()
    }
}

struct Engine {
    engine: Embedded,
    front: Arc<FrontDoor>,
    tally: Tally,
    _dir: tempfile::TempDir,
}

async fn engine(settings: Settings) -> Engine {
    let (dir, tally) = (tempfile::tempdir().unwrap(), Tally::default());
    let app = App::new()
        .workflow("beating", beating)
        .workflow("hanging", hanging)
        .workflow("hopeless", hopeless)
        .workflow("crowded", crowded)
        .workflow("unlucky", unlucky)
        .workflow("final", refused_for_good)
        .workflow("tidy", tidy)
        .workflow("stubborn", stubborn)
        .workflow("looping", looping)
        .workflow("asking", asking)
        .activity("beat", beat)
        .activity("hang", hang)
        .activity("occupy", occupy)
        .activity("neverRuns", never_runs)
        .activity("panicTwice", panic_twice)
        .activity("refuse", refuse)
        .activity("toil", toil)
        .activity("cleanUp", clean_up)
        .activity("fail", fail)
        .provide(tally.clone());
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let engine = Embedded::open(Arc::new(app), store, settings).await.unwrap();
    Engine { front: engine.front(), engine, tally, _dir: dir }
}

fn target(id: &str) -> Target {
    Target { workflow_id: id.into(), run_id: None }
}

impl Engine {
    async fn start(&self, workflow_type: &str) {
        let body = StartBody {
            workflow_type: workflow_type.into(),
            workflow_id: Some(workflow_type.into()),
            input: Payload::NULL,
            id_reuse_policy: IdReusePolicy::default(),
            id_conflict_policy: IdConflictPolicy::default(),
        };
        self.front.start(None, body).await.unwrap();
    }

    async fn result(&self, id: &str) -> ResultBody {
        let result = self.front.result(&target(id), Duration::from_secs(60)).await.unwrap();
        assert!(result.status.is_closed(), "{id}: {result:?}");
        result
    }

    async fn run(&self, workflow_type: &str) -> ResultBody {
        self.start(workflow_type).await;
        self.result(workflow_type).await
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not come to that: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What became of the activity by whose failure a workflow failed.
    async fn failed_activity(&self, workflow_type: &str) -> (Failure, RetryState) {
        self.start(workflow_type).await;
        self.outcome_of_failed(workflow_type).await
    }

    async fn outcome_of_failed(&self, id: &str) -> (Failure, RetryState) {
        let result = self.result(id).await;
        assert_eq!(result.status, Status::Failed, "{result:?}");
        let failure = result.failure.unwrap();
        let FailureKind::Activity { retry_state, .. } = failure.kind else { panic!("{failure:?}") };
        (failure.chain().last().unwrap().clone(), retry_state)
    }
}

// --- silence and slowness ---

async fn beating(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(beat, &()).options(ActivityOptions::start_to_close(LONG).heartbeat(SHORT).retry(QUICK)).await
}

/// Falls silent after one heartbeat; the next attempt knows how far it got.
async fn beat(cx: Activity, _: ()) -> Result<u32, Failure> {
    cx.get::<Tally>().note(&cx);
    if let Some(reached) = cx.last_heartbeat()? {
        return Ok(reached);
    }
    cx.heartbeat(&41)?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cx.heartbeat(&42)?;
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_activity_is_begun_again_where_it_was() {
    let engine = engine(Settings::default()).await;
    assert_eq!(engine.run("beating").await.result, Some(json!(42).into()));
    assert_eq!(engine.tally.of("beat"), 2);
    engine.engine.shutdown(Duration::ZERO).await;
}

async fn hanging(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(hang, &2).options(ActivityOptions::start_to_close(SHORT).retry(QUICK)).await
}

async fn hopeless(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(hang, &u32::MAX).options(ActivityOptions::start_to_close(SHORT).retry(QUICK)).await
}

/// Hangs until the given attempt.
async fn hang(cx: Activity, until: u32) -> Result<u32, Failure> {
    cx.get::<Tally>().note(&cx);
    if cx.attempt() < until {
        std::future::pending::<()>().await;
    }
    Ok(cx.attempt())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_tried_again_and_given_up_in_the_end() {
    let engine = engine(Settings::default()).await;
    assert_eq!(engine.run("hanging").await.result, Some(json!(2).into()));
    assert_eq!(engine.tally.of("hang"), 2);
    let (cause, retry_state) = engine.failed_activity("hopeless").await;
    assert!(matches!(cause.kind, FailureKind::Timeout { timeout: TimeoutKind::StartToClose, .. }), "{cause:?}");
    assert_eq!(retry_state, RetryState::MaximumAttemptsReached);
    assert_eq!(engine.tally.of("hang"), 5);
    engine.engine.shutdown(Duration::ZERO).await;
}

async fn crowded(cx: Workflow, _: ()) -> Result<(), Failure> {
    let limits = ActivityOptions::start_to_close(LONG);
    let occupied = cx.activity(occupy, &()).options(limits).start();
    cx.signal(GO).await?;
    let late = cx.activity(never_runs, &()).options(limits.schedule_to_start(SHORT)).await;
    occupied.await?;
    late
}

/// Keeps the only place until the test gives it free.
async fn occupy(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    while cx.get::<Tally>().of("free") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn never_runs(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_that_nobody_takes_up_in_time_never_runs() {
    let engine = engine(Settings { concurrent_activities: 1, ..Settings::default() }).await;
    engine.start("crowded").await;
    engine.until("the place is taken", async || engine.tally.of("occupy") == 1).await;
    engine.front.signal(&target("crowded"), None, "go", Payload::NULL).await.unwrap();
    let pending = async || engine.front.describe(&target("crowded")).await.unwrap().pending_activities.len();
    let asked = async || engine.front.history(&target("crowded"), 0, 1000).await.unwrap().events;
    engine
        .until("both are asked for", async || {
            asked().await.iter().filter(|event| event.event_type == "ActivityScheduled").count() == 2
        })
        .await;
    engine.until("one is given up", async || pending().await == 1).await;
    engine.tally.0.lock().unwrap().insert("free".into(), 1);
    let (cause, retry_state) = engine.outcome_of_failed("crowded").await;
    assert!(matches!(cause.kind, FailureKind::Timeout { timeout: TimeoutKind::ScheduleToStart, .. }), "{cause:?}");
    assert_eq!(retry_state, RetryState::Timeout);
    assert_eq!((engine.tally.of("occupy"), engine.tally.of("neverRuns")), (1, 0));
    engine.engine.shutdown(Duration::ZERO).await;
}

// --- failures ---

async fn unlucky(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(panic_twice, &()).options(ActivityOptions::start_to_close(LONG).retry(QUICK)).await
}

async fn panic_twice(cx: Activity, _: ()) -> Result<u32, Failure> {
    cx.get::<Tally>().note(&cx);
    assert!(cx.attempt() > 2, "this attempt is out of luck");
    Ok(cx.attempt())
}

async fn refused_for_good(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.activity(refuse, &()).options(ActivityOptions::start_to_close(LONG).retry(QUICK)).await
}

async fn refuse(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    Err(Failure::application("never").with_type("Never").non_retryable())
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_are_failures_and_some_failures_are_final() {
    let engine = engine(Settings::default()).await;
    assert_eq!(engine.run("unlucky").await.result, Some(json!(3).into()));
    assert_eq!(engine.tally.of("panicTwice"), 3);
    let (cause, retry_state) = engine.failed_activity("final").await;
    assert_eq!((cause.type_name(), retry_state), (Some("Never"), RetryState::NonRetryableFailure));
    assert_eq!(engine.tally.of("refuse"), 1);
    engine.engine.shutdown(Duration::ZERO).await;
}

// --- ending it from outside ---

async fn tidy(cx: Workflow, _: ()) -> Result<(), Failure> {
    let toiled = cx.activity(toil, &()).options(ActivityOptions::start_to_close(LONG).heartbeat(SHORT)).await;
    if toiled.as_ref().is_err_and(Failure::is_canceled) {
        cx.detached().activity(clean_up, &()).options(ActivityOptions::start_to_close(LONG)).await?;
    }
    toiled
}

/// Works until it is told to stop.
async fn toil(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    while !cx.is_canceled() {
        cx.heartbeat(&())?;
        tokio::time::sleep(SHORT / 10).await;
    }
    *cx.get::<Tally>().0.lock().unwrap().entry("toldToStop".into()).or_default() += 1;
    Ok(())
}

async fn clean_up(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_workflow_cleans_up_and_its_activity_is_told() {
    let engine = engine(Settings::default()).await;
    engine.start("tidy").await;
    engine.until("the activity runs", async || engine.tally.of("toil") == 1).await;
    engine.front.cancel(&target("tidy"), Some("c"), "enough").await.unwrap();
    engine.front.cancel(&target("tidy"), Some("c"), "enough").await.unwrap();
    let result = engine.result("tidy").await;
    assert_eq!(result.status, Status::Canceled, "{result:?}");
    assert_eq!(engine.tally.of("cleanUp"), 1);
    engine.until("the activity hears of it", async || engine.tally.of("toldToStop") == 1).await;
    engine.engine.shutdown(Duration::ZERO).await;
}

async fn stubborn(cx: Workflow, _: ()) -> Result<(), Failure> {
    let policy = RetryPolicy::DEFAULT.initial_interval(Duration::from_millis(50)).backoff_coefficient(1.0);
    cx.activity(fail, &()).options(ActivityOptions::start_to_close(LONG).retry(policy)).await
}

async fn fail(cx: Activity, _: ()) -> Result<(), Failure> {
    cx.get::<Tally>().note(&cx);
    Err(Failure::application("again"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_workflow_tries_nothing_again() {
    let engine = engine(Settings::default()).await;
    engine.start("stubborn").await;
    engine.until("a few attempts", async || engine.tally.of("fail") >= 3).await;
    engine.front.terminate(&target("stubborn"), None, "enough").await.unwrap();
    assert_eq!(engine.result("stubborn").await.status, Status::Terminated);
    // One may have been about to begin.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let tried = engine.tally.of("fail");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(engine.tally.of("fail"), tried);
    engine.engine.shutdown(Duration::ZERO).await;
}

// --- code that does not give its turn back ---

const GO: Signal<()> = Signal::new("go");

/// Holds its thread until the test lets it go.
async fn looping(cx: Workflow, _: ()) -> Result<(), Failure> {
    while !std::fs::exists(stop_file())? {
        std::thread::sleep(Duration::from_millis(1));
    }
    cx.signal(GO).await?;
    Ok(())
}

fn stop_file() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("dormouse-looping-{}", std::process::id()))
}

async fn asking(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.activity(clean_up, &()).options(ActivityOptions::start_to_close(LONG)).await?;
    cx.signal(GO).await?;
    Ok(())
}

/// How many threads run workflows in this process.
#[cfg(target_os = "linux")]
fn workflow_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "workflows").count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_loop_costs_one_thread_and_nobody_elses_messages() {
    // In a process of its own, for the threads to be its own.
    let test = std::env::current_exe().unwrap();
    let output =
        std::process::Command::new(test).args(["--exact", "in_a_loop", "--ignored", "--nocapture"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[cfg(target_os = "linux")]
#[ignore = "runs in a process of its own"]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_loop() {
    let turn_limit = Duration::from_millis(300);
    let engine = engine(Settings { workflow_threads: 1, turn_limit, ..Settings::default() }).await;
    let parked = async |id: &str| engine.front.describe(&target(id)).await.unwrap().run.parked;
    engine.start("looping").await;
    engine.start("asking").await;
    engine.until("the loop is parked", async || parked("looping").await.is_some()).await;
    // Neither inputs nor its time to be tried again cost another thread.
    for n in 0..5 {
        engine.front.signal(&target("looping"), Some(&format!("s{n}")), "noise", Payload::NULL).await.unwrap();
        tokio::time::sleep(turn_limit).await;
    }
    engine.until("it is parked still", async || parked("looping").await.is_some()).await;
    // The one, those for runs that were parked and for suspects, and the one that hangs.
    assert_eq!(workflow_threads(), 4);
    // The other's activity ran once, though its thread hung when the result came.
    engine.front.signal(&target("asking"), None, "go", Payload::NULL).await.unwrap();
    assert_eq!(engine.result("asking").await.status, Status::Completed);
    assert_eq!(engine.tally.of("cleanUp"), 1);
    // The loop ends: its run goes on.
    std::fs::write(stop_file(), "").unwrap();
    engine.front.signal(&target("looping"), None, "go", Payload::NULL).await.unwrap();
    let result = engine.result("looping").await;
    assert_eq!(result.status, Status::Completed, "{result:?}");
    engine.until("the hung thread ends", async || workflow_threads() == 3).await;
    std::fs::remove_file(stop_file()).unwrap();
    engine.engine.shutdown(Duration::ZERO).await;
}
