//! What callers send.

use std::collections::BTreeMap;

use dormouse::{ClientError, Payload, Status};
use dormouse_core::WorkflowKey;
use dormouse_core::history::{Batch, Event, Input, Turn};
use dormouse_core::operations;
use dormouse_engine::states::read_history;
use dormouse_tests::cloud::{Cloud, large};
use dormouse_tests::tell;
use serde_json::json;

use crate::PATIENCE;

/// Signals, queries, cancellation, termination, and values that neither an item nor a message can hold.
pub async fn what_callers_may_do(cloud: &Cloud) {
    let client = cloud.client();
    let expense = |id: &str| json!({ "expense_id": id, "amount_cents": 100 });
    for id in ["approved", "canceled", "ended", "a/b ~ c%2F?é"] {
        cloud.start("expenseApprovalWorkflow", id, expense(id)).await;
        let status = client.workflow(id, None).query("status", &Payload::NULL).await.unwrap();
        assert_eq!(status.to_value(), json!("awaiting_approval"), "{id}");
    }
    for id in ["approved", "a/b ~ c%2F?é"] {
        client.workflow(id, None).signal("approval", &Payload::encode(&true).unwrap(), None).await.unwrap();
        assert_eq!(cloud.result(id, PATIENCE).await, json!("paid"), "{id}");
        let status = client.workflow(id, None).query("status", &Payload::NULL).await.unwrap();
        assert_eq!(status.to_value(), json!("paid"), "{id}");
    }
    client.workflow("canceled", None).cancel("changed our minds", None).await.unwrap();
    client.workflow("ended", None).terminate("no more", None).await.unwrap();
    for (id, status) in [("canceled", Status::Canceled), ("ended", Status::Terminated)] {
        assert_eq!(client.workflow(id, None).outcome(Some(PATIENCE)).await.unwrap().status, status, "{id}");
    }
    let late = client.workflow("ended", None).signal("approval", &Payload::encode(&true).unwrap(), None).await;
    assert!(matches!(&late, Err(ClientError::Closed(_))), "{late:?}");
    let unknown = client.workflow("ended", None).query("weather", &Payload::NULL).await;
    assert!(matches!(&unknown, Err(ClientError::NotFound(_))), "{unknown:?}");

    let month = large().to_value();
    cloud.start("statementsWorkflow", "large", json!({ "month": month, "customers": 2 })).await;
    assert_eq!(cloud.result("large", PATIENCE).await, json!(2));
}

/// A hundred signals to one run, from processes that know nothing of each other.
pub async fn a_hundred_inputs_at_once(cloud: &Cloud) {
    const INPUTS: usize = 100;
    let client = cloud.client();
    let id = "crowded";
    cloud.start("expenseApprovalWorkflow", id, json!({ "expense_id": id, "amount_cents": 1 })).await;
    drop(cloud.proxy.reset());
    let signals = (0..INPUTS).map(|n| {
        let handle = client.workflow(id, None);
        let request_id = format!("note-{n}");
        async move { handle.signal("note", &Payload::encode(&n).unwrap(), Some(&request_id)).await.unwrap() }
    });
    futures::future::join_all(signals).await;
    let counts = cloud.proxy.reset();
    let processes = cloud.processes("api").len();
    client.workflow(id, None).signal("approval", &Payload::encode(&true).unwrap(), None).await.unwrap();
    assert_eq!(cloud.result(id, PATIENCE).await, json!("paid"));

    let run = WorkflowKey::new("default", id).unwrap().run(0);
    let store = cloud.store();
    let mut heard = BTreeMap::<String, u32>::new();
    for (sequence, record) in read_history(&store, &run).await.unwrap().iter().enumerate() {
        for event in Batch::decode(sequence as u64, record).unwrap().events {
            if let Event::Input(Input::Signaled(operations::Signaled { request_id, .. }))
            | Event::Turn(Turn { input: Some(Input::Signaled(operations::Signaled { request_id, .. })), .. }) = event
            {
                *heard.entry(request_id).or_default() += 1;
            }
        }
    }
    for n in 0..INPUTS {
        assert_eq!(heard.get(&format!("note-{n}")), Some(&1), "signal {n} is in the history once");
    }
    let puts = counts.came("dynamodb/*/batch*");
    tell!(
        "{INPUTS} signals at once from {processes} API processes: {puts} attempted puts of batches ({:.2} per input), {} \
         reads of history",
        puts as f64 / INPUTS as f64,
        counts.came("dynamodb/Query/history"),
    );
    assert!(processes >= 8, "{processes} processes are too few to be a crowd");
    assert!(puts <= 3 * INPUTS as u64, "{puts} attempted puts");
}
