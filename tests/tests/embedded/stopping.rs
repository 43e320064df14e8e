//! A process that is told to stop: activities learn it, and how far they got is written down first.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{Activity, ActivityOptions, App, CancelReason, Failure, RetryPolicy, Workflow};
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::stores::sqlite::SqliteStore;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{start, target};

/// Far longer than all of this takes, so that it is the stop that ends an attempt; heartbeats are written twice a minute.
const LONG: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(10))
    .retry(RetryPolicy::max_attempts(5).initial_interval(Duration::from_millis(1)));

/// What attempts say.
#[derive(Debug, PartialEq)]
enum Word {
    Beat(u32),
    Told(CancelReason),
}

type Tell = UnboundedSender<Word>;

async fn work(cx: Workflow, activity: String) -> Result<u32, Failure> {
    match activity.as_str() {
        "deaf" => cx.activity(deaf, &()).options(LONG).await,
        "listens" => cx.activity(listens, &()).options(LONG).await,
        _ => cx.local_activity(listens_locally, &()).await,
    }
}

/// Beats until it is cut off. The second attempt returns what the first said last.
async fn deaf(cx: Activity, _: ()) -> Result<u32, Failure> {
    if let Some(last) = cx.last_heartbeat()? {
        return Ok(last);
    }
    for beat in 1.. {
        cx.heartbeat(&beat)?;
        let _ = cx.get::<Tell>().send(Word::Beat(beat));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(0)
}

/// Beats, then works until it learns that it should stop, and says how far it got.
async fn listens(cx: Activity, _: ()) -> Result<u32, Failure> {
    if let Some(last) = cx.last_heartbeat()? {
        return Ok(last);
    }
    cx.heartbeat(&1)?;
    let _ = cx.get::<Tell>().send(Word::Beat(1));
    let reason = cx.canceled().await;
    assert_eq!(cx.cancel_reason(), Some(reason));
    cx.heartbeat(&2)?;
    let _ = cx.get::<Tell>().send(Word::Told(reason));
    Err(Failure::application("stopped"))
}

async fn listens_locally(cx: Activity, _: ()) -> Result<u32, Failure> {
    if cx.attempt() == 1 {
        let _ = cx.get::<Tell>().send(Word::Beat(1));
        let reason = cx.canceled().await;
        let _ = cx.get::<Tell>().send(Word::Told(reason));
    }
    Ok(2)
}

async fn engine(dir: &std::path::Path) -> (Embedded, UnboundedReceiver<Word>) {
    let (tell, heard) = unbounded_channel();
    let app = App::new()
        .workflow("work", work)
        .activity("deaf", deaf)
        .activity("listens", listens)
        .activity("listensLocally", listens_locally)
        .provide(tell);
    let store = Arc::new(SqliteStore::open(dir).unwrap());
    (Embedded::open(Arc::new(app), store, Settings::default()).await.unwrap(), heard)
}

/// What the second process comes to, and the last that the first was told.
async fn over_a_restart(activity: &str, beats: u32, grace: Duration) -> (u32, Word) {
    let dir = tempfile::tempdir().unwrap();
    let (first, mut heard) = engine(dir.path()).await;
    first.front().start(Some("r"), start("work", "w", json!(activity))).await.unwrap();
    while heard.recv().await.expect("a word") != Word::Beat(beats) {}
    first.shutdown(grace).await;
    let mut last = Word::Beat(beats);
    while let Ok(word) = heard.try_recv() {
        last = word;
    }
    let (second, _heard) = engine(dir.path()).await;
    let result = second.front().result(&target("w"), Duration::from_secs(30)).await.unwrap();
    second.shutdown(Duration::from_secs(1)).await;
    (result.result.expect("a result").decode().unwrap(), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_heartbeat_before_a_stop_reaches_the_next_attempt() {
    for grace in [Duration::ZERO, Duration::from_millis(300)] {
        let (reached, last) = over_a_restart("deaf", 20, grace).await;
        let Word::Beat(last) = last else { panic!("{last:?}") };
        // It may have said one more in the moment in which it was cut off.
        assert!((20..=last).contains(&reached) && reached + 2 > last, "{reached} of {last}, with {grace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_learn_that_the_process_stops() {
    for activity in ["listens", "listens locally"] {
        let (reached, last) = over_a_restart(activity, 1, Duration::from_secs(20)).await;
        assert_eq!((reached, last), (2, Word::Told(CancelReason::WorkerShutdown)), "{activity}");
    }
}

/// Ends when the test does.
async fn endless(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.sleep(Duration::from_millis(1)).await?;
    loop {
        std::thread::park();
    }
}

/// However long a turn may take, and however little it gives back.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_never_ends_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let app = Arc::new(App::new().workflow("endless", endless));
    let settings = Settings { turn_limit: Duration::from_hours(1), ..Settings::default() };
    let engine = Embedded::open(app, store, settings).await.unwrap();
    let front = engine.front();
    front.start(Some("r"), start("endless", "w", json!(null))).await.unwrap();
    // Its timer has been recorded, so its second turn is near.
    while front.describe(&target("w")).await.unwrap().history_events < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopped = engine.shutdown(Duration::from_millis(10));
    tokio::time::timeout(Duration::from_mins(1), stopped).await.expect("it stops");
}
