//! What a step costs, to the request: counted at the store, under the embedded runtime, and at the queues.

#[path = "requests/looks.rs"]
mod looks;
#[path = "requests/places.rs"]
mod places;

use std::sync::Arc;
use std::time::Duration;

use dormouse::{Activity, ActivityOptions, App, Failure, IdConflictPolicy, Workflow};
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::world::{Sent, start_body};
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
    assert_eq!(result.result, Some(json!(steps).into()));
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
