//! Retention: what goes, in which order, and that it may be cut short anywhere.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse::{App, Failure, Workflow};
use dormouse_core::api::StartBody;
use dormouse_core::{IdConflictPolicy, IdReusePolicy, RunKey, Status, Timestamp, WorkflowKey};
use dormouse_engine::ApiError;
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::front::Target;
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Entry, Histories, Index, Newest, Retirement, RowUpdate, RunFilter,
    SHORTEST_RETENTION, Store, StoreError, Swap,
};
use dormouse_testing::later;
use futures::executor::block_on;
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;

use super::relay::{Relay, Spoil};
use super::{Part, RUNTIME, at, client, opening, parts, run};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const CLOSED_AT: Timestamp = Timestamp::from_millis(10_000);

/// A closed run of `2 + steps` batches, one of them large, with `attempts` attempt records.
async fn closed(store: &impl Store, run: &RunKey, steps: u64, attempts: u64, owing: bool) {
    store.open(run, "batch 0".into(), opening(2_000)).await.unwrap();
    for sequence in 1..=steps {
        let record = if sequence == 1 { Bytes::from(vec![1; 70_000]) } else { "a step".into() };
        store.append(run, later(sequence), record, RowUpdate::NONE).await.unwrap();
    }
    for activity in 0..attempts {
        let key = AttemptKey { run: run.clone(), activity };
        store.swap(&key, None, r#"{"attempt":1}"#.into()).await.unwrap();
    }
    let due = owing.then_some(at(11_000));
    let close = RowUpdate::close(Status::Completed, CLOSED_AT, due);
    assert_eq!(store.append(run, later(steps + 1), "the end".into(), close).await, Ok(Creation::Created));
}

/// Everything in the table, by its keys; attempt records that expire are marked so.
fn items(part: &Part, table: &str) -> Vec<(String, String)> {
    let mut found = RUNTIME.block_on(async {
        let items = client(&part.url).scan().table_name(table).into_paginator().items().send();
        items.try_collect().await.unwrap()
    });
    found.sort_by_key(|item| (item["p"].as_s().unwrap().clone(), item["s"].as_s().unwrap().clone()));
    let key = |item: &std::collections::HashMap<String, AttributeValue>| {
        let expires = if item.contains_key("expires") { " expires" } else { "" };
        (item["p"].as_s().unwrap().clone(), format!("{}{expires}", item["s"].as_s().unwrap()))
    };
    found.iter().map(key).collect()
}

fn objects(bucket: &InMemory) -> usize {
    // Memory answers at once.
    bucket.list(None).try_collect::<Vec<_>>().now_or_never().unwrap().unwrap().len()
}

fn tombstone(workflow: &str, ordinal: u64) -> (String, String) {
    (format!("run#default/{workflow}"), format!("{ordinal:020}#row"))
}

/// Calls until there is nothing to do.
async fn retire_all(store: &impl Store, now: Timestamp) {
    for _ in 0..1_000 {
        if store.retire(now, DAY, 100).await.unwrap() == Retirement::default() {
            return;
        }
    }
    panic!("it finds no end");
}

#[test]
fn a_run_is_retired_then_deleted_and_its_ordinal_stays_taken() {
    for part in parts("retention") {
        let (table, bucket) = (part.table(), Arc::new(InMemory::new()));
        let store = part.store(&table, Arc::clone(&bucket) as _);
        let run = run("w", 0);
        block_on(async {
            closed(&store, &run, 40, 3, false).await;
            let before = items(&part, &table);
            assert_eq!(before.len(), 42 + 1 + 3);
            assert_eq!(store.retire(CLOSED_AT + DAY - HOUR, DAY, 100).await, Ok(Retirement::default()), "too early");
            assert!(store.row(&run).await.unwrap().is_some());

            let now = CLOSED_AT + DAY;
            let done = store.retire(now, DAY, 100).await.unwrap();
            assert_eq!((done.retired, done.deleted), (1, 0));
            assert_eq!(store.newest(&run.workflow).await, Ok(Newest::Retired(0)));
            assert_eq!(store.newest(&run.workflow).await.map(Newest::row), Ok(None));
            assert_eq!(store.row(&run).await, Ok(None));
            assert_eq!(store.list("default", &RunFilter::default(), None, 10).await, Ok(vec![]));
            assert_eq!(store.due(at(u64::MAX), None, 10).await, Ok(vec![]));
            assert_eq!(items(&part, &table), before, "whoever reads it now reads it to its end");
            assert_eq!(store.retire(now + HOUR - Duration::from_secs(1), DAY, 100).await, Ok(Retirement::default()));

            let some = store.retire(now + HOUR, DAY, 10).await.unwrap();
            assert_eq!(some, Retirement { retired: 0, deleted: 10, more: true });
            retire_all(&store, now + HOUR).await;
            let mut expected: Vec<_> = (0..3)
                .map(|activity| {
                    ("attempt#default/w/00000000000000000000".to_owned(), format!("{activity:020} expires"))
                })
                .collect();
            expected.push(tombstone("w", 0));
            assert_eq!(items(&part, &table), expected);
            assert_eq!(objects(&bucket), 0);
            assert_eq!(store.newest(&run.workflow).await, Ok(Newest::Retired(0)));
            // A task that comes after all finds its attempt taken.
            let key = AttemptKey { run: run.clone(), activity: 2 };
            assert!(matches!(store.swap(&key, None, "late".into()).await, Ok(Swap::Stale(Some(_)))));
        });
    }
}

#[test]
fn what_is_open_or_owes_something_stays() {
    for part in parts("what stays") {
        let (table, late) = (part.table(), CLOSED_AT + DAY * 400);
        let store = part.store(&table, Arc::new(InMemory::new()));
        let (open, owing, settled) = (run("open", 0), run("owing", 0), run("settled", 0));
        block_on(async {
            store.open(&open, "batch 0".into(), opening(2_000)).await.unwrap();
            closed(&store, &owing, 1, 0, true).await;
            closed(&store, &settled, 1, 0, true).await;
            store.settle(&settled).await.unwrap();
            // Somebody came back with a debt: not settled after all.
            let again = run("again", 0);
            closed(&store, &again, 1, 0, false).await;
            store.append(&again, later(3), "forwarded".into(), RowUpdate::due(at(20_000))).await.unwrap();
            assert_eq!(store.retire(late, DAY, 100).await.unwrap().retired, 1);
            for there in [&open, &owing, &again] {
                assert!(store.row(there).await.unwrap().is_some(), "{there}");
            }
            assert_eq!(store.newest(&settled.workflow).await, Ok(Newest::Retired(0)));
            store.settle(&again).await.unwrap();
            assert_eq!(store.retire(late, DAY, 100).await.unwrap().retired, 1);

            let short = store.retire(late, SHORTEST_RETENTION - Duration::from_secs(1), 100).await;
            assert!(matches!(short, Err(StoreError::Refused(_))), "{short:?}");
        });
    }
}

/// The index may still show what the row is no more.
#[test]
fn the_row_decides_and_not_the_index() {
    for part in parts("late indexes") {
        let table = part.table();
        let store = part.store(&table, Arc::new(InMemory::new()));
        block_on(async {
            for (id, attribute, value) in [
                ("owing", "due", AttributeValue::N("20000".into())),
                ("open", "status", AttributeValue::S("Running".into())),
                ("young", "closed_at", AttributeValue::N((CLOSED_AT + HOUR).as_millis().to_string())),
            ] {
                let run = run(id, 0);
                closed(&store, &run, 1, 0, false).await;
                // Only the row changes, and not what the index is made of.
                RUNTIME.block_on(async {
                    let (p, s) = tombstone(id, 0);
                    let update = client(&part.url).update_item().table_name(&table).update_expression("SET #a = :v");
                    let update = update.key("p", AttributeValue::S(p)).key("s", AttributeValue::S(s));
                    let update = update.expression_attribute_names("#a", attribute);
                    update.expression_attribute_values(":v", value).send().await.unwrap();
                });
                assert_eq!(store.retire(CLOSED_AT + DAY, DAY, 100).await, Ok(Retirement::default()), "{id}");
                assert!(store.row(&run).await.unwrap().is_some(), "{id}");
            }
        });
    }
}

#[test]
fn a_retired_run_takes_nothing_in_and_nothing_is_begun_in_its_place() {
    for part in parts("zombies of retired runs") {
        let table = part.table();
        let store = part.store(&table, Arc::new(InMemory::new()));
        let run = run("w", 0);
        block_on(async {
            closed(&store, &run, 1, 0, false).await;
            retire_all(&store, CLOSED_AT + DAY).await;
            retire_all(&store, CLOSED_AT + DAY + HOUR).await;
            let left = items(&part, &table);
            for entry in [Entry::Open(opening(2_000)), Entry::Append(later(1), RowUpdate::due(at(5)))] {
                let late = entry.put(&store, &run, "zombie".into()).await;
                assert!(matches!(late, Err(StoreError::Refused(_))), "{late:?}");
            }
            assert!(matches!(store.park(&run, None).await, Err(StoreError::Refused(_))));
            assert!(matches!(store.settle(&run).await, Err(StoreError::Refused(_))));
            assert_eq!(items(&part, &table), left);
            let next = run.workflow.run(1);
            assert_eq!(store.open(&next, "next".into(), opening(2_000)).await, Ok(Creation::Created));
            assert_eq!(store.newest(&run.workflow).await.unwrap().row().map(|row| row.run), Some(next));
        });
    }
}

/// Of a chain, the last tombstone stays, and no other.
#[test]
fn one_tombstone_is_left_of_a_chain() {
    for part in parts("chains") {
        let table = part.table();
        let store = part.store(&table, Arc::new(InMemory::new()));
        let workflow = WorkflowKey::new("default", "w").unwrap();
        block_on(async {
            for ordinal in 0..4 {
                closed(&store, &workflow.run(ordinal), 3, 0, false).await;
            }
            retire_all(&store, CLOSED_AT + DAY).await;
            retire_all(&store, CLOSED_AT + DAY + HOUR).await;
            assert_eq!(items(&part, &table), [tombstone("w", 3)]);
            // One begins behind a tombstone that is there for good.
            closed(&store, &workflow.run(4), 3, 0, false).await;
            store.open(&workflow.run(5), "batch 0".into(), opening(2_000)).await.unwrap();
            retire_all(&store, CLOSED_AT + DAY).await;
            retire_all(&store, CLOSED_AT + DAY + HOUR).await;
            let (partition, row) = tombstone("w", 5);
            assert_eq!(items(&part, &table), [(partition.clone(), format!("{:020}#{:020}", 5, 0)), (partition, row)]);
            assert_eq!(store.newest(&workflow).await.unwrap().row().map(|row| row.run.ordinal), Some(5));
        });
    }
}

/// Each write of a retirement is lost once, and each is refused once after it was carried out. Whatever was done by
/// then, the ordinal stays taken, nobody finds half a run, and the next sweep goes on.
#[test]
fn it_may_be_cut_short_anywhere() {
    for part in parts("cut retirements") {
        let relay = Relay::to(&part.url);
        let behind = Part { name: part.name.clone(), url: relay.url.clone() };
        let mut cuts = 0;
        for cut in 0.. {
            let (table, bucket) = (part.table(), Arc::new(InMemory::new()));
            let store = behind.store(&table, Arc::clone(&bucket) as _);
            let watcher = part.store(&table, Arc::clone(&bucket) as _);
            let (first, last) = (run("w", 0), run("w", 1));
            block_on(async {
                closed(&watcher, &first, 12, 2, false).await;
                closed(&watcher, &last, 2, 2, false).await;
            });
            // What the SDK does not try again by itself.
            let lost = Spoil::Refuse(400, r#"{"__type":"x#ValidationException","message":"cut"}"#.into());
            relay.plan_nth(cut / 2, if cut % 2 == 0 { lost } else { Spoil::AnswerRefused });
            for at in [CLOSED_AT + DAY, CLOSED_AT + DAY + HOUR] {
                // After a cut, the sweep comes again.
                let mut idle = 0;
                while idle < 2 {
                    match block_on(store.retire(at, DAY, 6)) {
                        Ok(done) if done == Retirement::default() => idle += 1,
                        Ok(_) | Err(_) => idle = 0,
                    }
                    let newest = block_on(watcher.newest(&last.workflow)).unwrap();
                    match &newest {
                        Newest::Run(row) => assert_eq!(row.run, last),
                        newest => assert_eq!(*newest, Newest::Retired(1), "cut {cut}"),
                    }
                    // Whoever is found is whole.
                    for (run, batches) in [(&first, 14), (&last, 4)] {
                        if block_on(watcher.row(run)).unwrap().is_some() {
                            assert_eq!(block_on(watcher.read(run, 0)).unwrap().records.len(), batches, "cut {cut}");
                        }
                    }
                }
            }
            let left: Vec<_> = items(&part, &table).into_iter().filter(|(_, s)| !s.ends_with("expires")).collect();
            assert_eq!(left, [tombstone("w", 1)], "cut {cut}");
            assert_eq!(objects(&bucket), 0, "cut {cut}");
            if !relay.is_spent() {
                break;
            }
            cuts += 1;
        }
        dormouse_tests::tell!("retention on {}: cut short at {cuts} places", part.name);
        assert!(cuts > 20, "{cuts}");
    }
}

async fn echo(_: Workflow, input: u32) -> Result<u32, Failure> {
    Ok(input)
}

/// The whole way: a run ends, is retired, nobody finds it, and the next start of its id has the next ordinal.
#[test]
fn c5_ordinals_outlive_retention() {
    for part in parts("starts after retention") {
        let table = part.table();
        let store = Arc::new(part.store(&table, Arc::new(InMemory::new())));
        let app = Arc::new(App::new().workflow("echo", echo));
        RUNTIME.block_on(async {
            let settings = Settings { workflow_threads: 1, ..Settings::default() };
            let engine = Embedded::open(app, Arc::clone(&store) as _, settings).await.unwrap();
            let (front, target) = (engine.front(), Target { workflow_id: "w".into(), run_id: None });
            let start = async |request_id: &str| {
                let body = StartBody {
                    workflow_type: "echo".into(),
                    workflow_id: Some("w".into()),
                    input: serde_json::json!(7).into(),
                    id_reuse_policy: IdReusePolicy::RejectDuplicate,
                    id_conflict_policy: IdConflictPolicy::Fail,
                };
                front.start(Some(request_id), body).await
            };
            let (first, _) = start("r1").await.unwrap();
            let result = front.result(&target, Duration::from_secs(20)).await.unwrap();
            assert_eq!(result.status, Status::Completed);
            assert!(matches!(start("r2").await, Err(ApiError::AlreadyStarted { .. })));

            let closed_at = store.row(&run("w", 0)).await.unwrap().and_then(|row| row.closed_at).expect("it is closed");
            retire_all(&*store, closed_at + DAY).await;
            for _ in 0..2 {
                assert!(matches!(front.describe(&target).await, Err(ApiError::NotFound(_))));
                assert!(matches!(front.history(&target, 0, 10).await, Err(ApiError::NotFound(_))));
                let of_run = Target { run_id: Some(first.run_id), ..target.clone() };
                assert!(matches!(front.result(&of_run, Duration::ZERO).await, Err(ApiError::NotFound(_))));
                assert!(front.list(&RunFilter::default(), None, 10).await.unwrap().0.workflows.is_empty());
                retire_all(&*store, closed_at + DAY + HOUR).await;
            }
            let (second, created) = start("r3").await.unwrap();
            assert!(created && second.run_id != first.run_id);
            assert_eq!(front.describe(&target).await.unwrap().ordinal, 1);
            engine.shutdown(Duration::ZERO).await;
        });
    }
}
