//! What a step costs, to the request: counted at the store, under the embedded runtime, and at the queues.

use std::sync::Arc;
use std::time::Duration;

use dormouse::{Activity, ActivityOptions, App, Failure, IdConflictPolicy, Workflow};
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::seams::RunMessage;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::world::{Sent, drive, start_body};
use dormouse_testing::{CountingStore, Counts, World};
use object_store::memory::InMemory;
use serde_json::json;

async fn one(_: Activity, _: u32) -> Result<u32, Failure> {
    Ok(1)
}

async fn local(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    let mut sum = 0;
    for step in 0..steps {
        sum += cx.local_activity(one, &step).await?;
    }
    Ok(sum)
}

async fn queued(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    let mut sum = 0;
    for step in 0..steps {
        let options = ActivityOptions::start_to_close(Duration::from_secs(10));
        sum += cx.activity(one, &step).options(options).await?;
    }
    Ok(sum)
}

fn app() -> App {
    App::new().workflow("local", local).workflow("queued", queued).activity("one", one)
}

/// What one run of this workflow costs at the store, from the request that starts it to its last batch.
async fn cost(workflow_type: &str, steps: u32, last_batch: u64) -> Counts {
    let store = Arc::new(CountingStore::new(Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"))));
    let engine = Embedded::open(Arc::new(app()), Arc::clone(&store) as _, Settings::default()).await.unwrap();
    store.reset();
    let body = start_body(workflow_type, "w", &steps, IdConflictPolicy::Fail);
    engine.front().start(Some("r"), body).await.unwrap();
    // Looking at the run would be counted too.
    let closed = async {
        while store.counts().created < last_batch {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("a run that ends");
    // Ends what is under way: nothing comes after.
    engine.shutdown(Duration::from_secs(5)).await;
    let counts = store.reset();

    let again = Embedded::open(Arc::new(app()), store, Settings::default()).await.unwrap();
    let target = dormouse_testing::world::latest("w");
    let result = again.front().result(&target, Duration::ZERO).await.unwrap();
    assert_eq!(result.result, Some(json!(steps)));
    again.shutdown(Duration::ZERO).await;
    counts
}

/// N local steps are N + 1 creates. The one read is the start's own: is the id free?
#[tokio::test(flavor = "multi_thread")]
async fn a_local_step_is_one_create() {
    for steps in [1, 10, 100_u32] {
        let counts = cost("local", steps, u64::from(steps) + 1).await;
        let expected = Counts {
            creates: u64::from(steps) + 1,
            created: u64::from(steps) + 1,
            newest: 1,
            // The first and the last batch alone.
            row_changes: 2,
            bytes_written: counts.bytes_written,
            ..Counts::default()
        };
        assert_eq!(counts, expected, "{steps} steps");
    }
}

/// A queued step is one create and one claim. Beside the steps: the start, and the first decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_queued_step_is_one_create_and_one_claim() {
    for steps in [1, 10, 100_u32] {
        let counts = cost("queued", steps, u64::from(steps) + 2).await;
        let expected = Counts {
            creates: u64::from(steps) + 2,
            created: u64::from(steps) + 2,
            swaps: u64::from(steps),
            swapped: u64::from(steps),
            newest: 1,
            row_changes: 2,
            bytes_written: counts.bytes_written,
            ..Counts::default()
        };
        assert_eq!(counts, expected, "{steps} steps");
    }
}

/// At the queues: a local step sends nothing. A queued step sends its task, once; its worker sends the result.
#[test]
fn a_local_step_sends_nothing() {
    for steps in [1, 10, 100_u32] {
        let world = World::new(app());
        let process = world.process();
        let run = process.start("local", "w", "r", &steps);
        process.deliver();
        for _ in 0..steps {
            let task = world.mail.take_locals().remove(0);
            process.complete_local(&task, &1);
        }
        assert_eq!(world.result(&run), Some(json!(steps)));
        assert_eq!(world.mail.sent(), Sent { messages: 1, tasks: 0, alarms: 0 }, "the start's own message");
    }
    for steps in [1, 10, 100_u32] {
        let world = World::new(app());
        let process = world.process();
        let run = process.start("queued", "w", "r", &steps);
        process.deliver();
        for _ in 0..steps {
            let task = world.mail.take_tasks().remove(0);
            process.complete(&task, 1, &1);
        }
        assert_eq!(world.result(&run), Some(json!(steps)));
        assert_eq!(world.mail.sent(), Sent { messages: 1, tasks: u64::from(steps), alarms: 0 });
    }
}

/// Hears so many signals, and keeps their number alone.
async fn listen(cx: Workflow, signals: u32) -> Result<u32, Failure> {
    for _ in 0..signals {
        cx.signal(WORD).await?;
    }
    Ok(signals)
}

const WORD: dormouse::Signal<u32> = dormouse::Signal::new("word");

/// What it costs to look at a run with so many events behind it, by a process that has not met it, and then once more:
/// describe, the last page of its history, a signal, a late message after its end.
fn looks(signals: u32) -> [(&'static str, Counts); 6] {
    let world = World::new(App::new().workflow("listen", listen));
    let process = world.process();
    let run = process.start("listen", "w", "r", &(signals + 2));
    process.deliver();
    for signal in 0..signals {
        process.signal("w", &format!("s{signal}"), "word", &signal);
        process.deliver();
        world.clock.work();
    }
    let reader = world.process();
    let counted = |look: &dyn Fn()| {
        reader.count_anew();
        look();
        Counts { bytes_written: 0, ..reader.counts() }
    };
    let target = dormouse_testing::world::latest("w");
    let describe = || drop(drive(reader.front.describe(&target)).expect("an answer").expect("a run"));
    let events = drive(process.front.describe(&target)).expect("an answer").expect("a run").history_events;
    assert!(events > u64::from(signals));
    let page = || {
        let page = drive(reader.front.history(&target, events - 3, 100)).expect("an answer").expect("a run");
        assert_eq!(page.events.len(), 3);
    };
    let (cold, warm, last_page) = (counted(&describe), counted(&describe), counted(&page));
    let accept = counted(&|| reader.signal("w", "last", "word", &0));
    let other = world.process();
    other.count_anew();
    other.signal("w", "last but one", "word", &0);
    let accept_cold = Counts { bytes_written: 0, ..other.counts() };
    process.deliver();
    assert_eq!(world.result(&run), Some(json!(signals + 2)));
    let late = RunMessage::Sweep { run: run.clone() };
    let late = counted(&|| reader.handle(late.clone()).expect("it lives").expect("an answer"));
    [
        ("describe, cold", cold),
        ("describe, warm", warm),
        ("last page of history", last_page),
        ("accept, warm", accept),
        ("accept, cold", accept_cold),
        ("late message to a closed run", late),
    ]
}

/// However long the history is, whoever looks at it pays the same.
#[test]
fn looks_cost_the_same_at_each_length() {
    let [short, long, longer] = [10, 1_000, 3_000].map(looks);
    for ((look, short), ((_, long), (_, longer))) in short.into_iter().zip(long.into_iter().zip(longer)) {
        let total = |counts: Counts| counts.all_reads() + counts.all_writes();
        dormouse_tests::tell!("{look:<32} {:>3} {:>3} {:>3}", total(short), total(long), total(longer));
        for counts in [long, longer] {
            // What stands behind the last snapshot is a page or two.
            assert!(total(counts) <= total(short) + 2, "{look}: {short:?} at 10 signals, {counts:?} at more");
        }
    }
}
