//! The store on DynamoDB: against whatever answers at `DORMOUSE_TEST_DYNAMODB_ENDPOINTS` (`name=url,name=url`), with
//! objects at `DORMOUSE_TEST_S3_ENDPOINT` or in memory. `scripts/local-aws start` starts some and sets both.

#[path = "dynamo/faults.rs"]
mod faults;
#[path = "dynamo/large.rs"]
mod large;
#[path = "dynamo/quarantine.rs"]
mod quarantine;
#[path = "dynamo/relay.rs"]
mod relay;
#[path = "dynamo/retire.rs"]
mod retire;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::store::{DynamoStore, attempt_address};
use dormouse_core::{RunKey, Status, Timestamp};
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Histories, Index, Newest, Parked, RowUpdate, RunFilter, StoreError, Stretch, Swap,
};
use dormouse_testing::conformance::Damage;
use dormouse_testing::later;
use dormouse_testing::store_conformance;
use dormouse_tests::endpoints::dynamodb as client;
use futures::executor::block_on;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;

use super::{opening, run, subject};

/// Where the clients' requests run, as long as the tests do.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Something that speaks DynamoDB.
struct Part {
    name: String,
    url: String,
}

/// All that there are; says so when there is none.
fn parts(asked: &str) -> Vec<Part> {
    let listed = std::env::var("DORMOUSE_TEST_DYNAMODB_ENDPOINTS").unwrap_or_default();
    let parts: Vec<_> = listed
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, url) = part.split_once('=').expect("name=url,name=url");
            Part { name: name.to_owned(), url: url.to_owned() }
        })
        .collect();
    if parts.is_empty() {
        dormouse_tests::tell!("SKIPPED: {asked} is asked only with DORMOUSE_TEST_DYNAMODB_ENDPOINTS");
    }
    parts
}

/// A name that no other test, and no other run of the tests, uses.
fn fresh(what: &str) -> String {
    static FRESH: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    format!("{what}-{since}-{}-{}", std::process::id(), FRESH.fetch_add(1, Ordering::Relaxed))
}

impl Part {
    fn table(&self) -> String {
        let table = fresh("dormouse");
        RUNTIME.block_on(DynamoStore::create_table(&client(&self.url), &table)).unwrap();
        table
    }

    fn store(&self, table: &str, objects: Arc<dyn object_store::ObjectStore>) -> DynamoStore {
        DynamoStore::new(
            client(&self.url),
            table,
            Blobs::new(objects, RUNTIME.handle().clone()),
            RUNTIME.handle().clone(),
        )
    }

    fn fresh_store(&self) -> DynamoStore {
        self.store(&self.table(), Arc::new(InMemory::new()))
    }
}

/// The bucket at `DORMOUSE_TEST_S3_ENDPOINT`, if there is one.
fn bucket() -> Option<(String, Arc<dyn object_store::ObjectStore>)> {
    let endpoint = std::env::var("DORMOUSE_TEST_S3_ENDPOINT").ok()?;
    let bucket = std::env::var("DORMOUSE_TEST_S3_BUCKET").unwrap_or_else(|_| "dormouse-test".into());
    let objects = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_bucket_name(bucket)
        .build()
        .unwrap();
    Some((endpoint, Arc::new(objects)))
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn dynamodb_conforms() {
    for part in parts("DynamoDB") {
        let (place, objects) = bucket()
            .unwrap_or_else(|| ("memory".into(), Arc::new(InMemory::new()) as Arc<dyn object_store::ObjectStore>));
        let report = block_on(store_conformance(async || {
            let table = part.table();
            let (store, client) = (part.store(&table, Arc::clone(&objects)), client(&part.url));
            subject(Arc::new(store), move |damage| {
                let done = RUNTIME.spawn(self::damage(client.clone(), table.clone(), damage));
                async move { done.await.unwrap() }
            })
        }));
        dormouse_tests::tell!("DynamoDB as {} at {}, objects in {place}: {report}", part.name, part.url);
    }
}

/// Damages an item of the table.
async fn damage(client: aws_sdk_dynamodb::Client, table: String, damage: Damage) {
    let row = |run: &RunKey| {
        let workflow = format!("run#{}/{}", run.workflow.namespace, run.workflow.workflow_id);
        (workflow, format!("{:020}#row", run.ordinal))
    };
    let ((p, s), attribute, value) = match &damage {
        Damage::Row(run) => (row(run), "run_id", "no id"),
        Damage::Status(run, status) => (row(run), "status", *status),
        Damage::Parking(run) => (row(run), "parked", "{"),
        Damage::Attempt(key) => (attempt_address(key), "version", "new"),
    };
    client
        .update_item()
        .table_name(table)
        .key("p", AttributeValue::S(p))
        .key("s", AttributeValue::S(s))
        .update_expression("SET #a = :a")
        .condition_expression("attribute_exists(p)")
        .expression_attribute_names("#a", attribute)
        .expression_attribute_values(":a", AttributeValue::S(value.to_owned()))
        .send()
        .await
        .unwrap();
}

/// What a worker with any SDK finds, and may leave behind.
#[test]
fn attempt_records_are_json_in_a_text_attribute() {
    for part in parts("an attempt record") {
        let table = part.table();
        let store = part.store(&table, Arc::new(InMemory::new()));
        let key = AttemptKey { run: run("order/1", 3), activity: 7 };
        let json = r#"{"attempt":1,"state":"closed"}"#;
        assert_eq!(block_on(store.swap(&key, None, json.into())), Ok(Swap::Done(1)));

        let (p, s) = attempt_address(&key);
        assert_eq!(
            (p.as_str(), s.as_str()),
            ("attempt#default/order%2F1/00000000000000000003", "00000000000000000007")
        );
        RUNTIME.block_on(async {
            let client = client(&part.url);
            let found = client
                .get_item()
                .table_name(&table)
                .key("p", AttributeValue::S(p.clone()))
                .key("s", AttributeValue::S(s.clone()))
                .send()
                .await
                .unwrap();
            let item = found.item.expect("an item");
            assert_eq!(item["record"], AttributeValue::S(json.into()));
            assert_eq!(item["version"], AttributeValue::N("1".into()));
            client
                .update_item()
                .table_name(&table)
                .key("p", AttributeValue::S(p))
                .key("s", AttributeValue::S(s))
                .update_expression("SET #r = :r, version = :next")
                .condition_expression("version = :expected")
                .expression_attribute_names("#r", "record")
                .expression_attribute_values(":r", AttributeValue::S("{}".into()))
                .expression_attribute_values(":next", AttributeValue::N("2".into()))
                .expression_attribute_values(":expected", AttributeValue::N("1".into()))
                .send()
                .await
                .unwrap();
        });
        let found = block_on(store.attempt(&key)).unwrap().expect("a record");
        assert_eq!((found.version, &found.record[..]), (2, &b"{}"[..]));
        let bytes = Bytes::from_static(b"\xff\x00");
        assert_eq!(block_on(store.swap(&key, Some(2), bytes.clone())), Ok(Swap::Done(3)));
        assert_eq!(block_on(store.attempt(&key)).unwrap().expect("a record").record, bytes);
    }
}

#[test]
fn an_attempt_record_that_no_item_holds_is_refused_with_advice() {
    for part in parts("the size of an attempt record") {
        let store = part.fresh_store();
        let key = AttemptKey { run: run("large", 0), activity: 1 };
        let refused = block_on(store.swap(&key, None, vec![b'x'; 400 << 10].into()));
        let Err(StoreError::Refused(why)) = refused else { panic!("{refused:?}") };
        assert!(why.as_str().contains("shorter message"), "{why}");
        assert_eq!(block_on(store.attempt(&key)), Ok(None));
        let largest = Bytes::from(vec![b'x'; 399 << 10]);
        assert_eq!(block_on(store.swap(&key, None, largest)), Ok(Swap::Done(1)), "what fits is taken");
    }
}

#[test]
fn a_batch_without_a_row_makes_no_run() {
    for part in parts("a stray batch") {
        let store = part.fresh_store();
        let (first, stray) = (run("w", 0), run("w", 4));
        block_on(async {
            assert_eq!(store.append(&stray, later(3), "stray".into(), RowUpdate::NONE).await, Ok(Creation::Created));
            assert_eq!(store.newest(&first.workflow).await, Ok(Newest::Nothing));
            store.open(&first, "batch 0".into(), opening(2_000)).await.unwrap();
            assert_eq!(store.newest(&first.workflow).await.unwrap().row().map(|row| row.run), Some(first.clone()));
            assert_eq!(store.row(&stray).await, Ok(None));
            assert!(store.read(&stray, 0).await.unwrap().gap);
        });
    }
}

/// Rows of a newer build, or damaged ones, are passed over by the sweep, and refused where they are asked for.
#[test]
fn one_bad_row_does_not_hide_the_others() {
    for part in parts("a damaged row") {
        let table = part.table();
        let store = part.store(&table, Arc::new(InMemory::new()));
        let runs: Vec<_> = (0..20).map(|i| run(&format!("w{i}"), 0)).collect();
        block_on(async {
            for run in &runs {
                store.open(run, "batch 0".into(), opening(2_000)).await.unwrap();
            }
        });
        RUNTIME.block_on(async {
            client(&part.url)
                .update_item()
                .table_name(&table)
                .key("p", AttributeValue::S("run#default/w7".into()))
                .key("s", AttributeValue::S("00000000000000000000#row".into()))
                .update_expression("SET #run_id = :new")
                .expression_attribute_names("#run_id", "run_id")
                .expression_attribute_values(":new", AttributeValue::S("no id".into()))
                .send()
                .await
                .unwrap();
        });
        block_on(async {
            assert_eq!(store.due(at(5_000), None, 100).await.unwrap().len(), 19);
            assert_eq!(store.list("default", &RunFilter::default(), None, 100).await.unwrap().len(), 19);
            assert!(matches!(store.row(&runs[7]).await, Err(StoreError::Refused(_))));
            assert!(matches!(store.newest(&runs[7].workflow).await, Err(StoreError::Refused(_))));
        });
    }
}

#[test]
fn a_long_explanation_is_cut() {
    for part in parts("a long explanation") {
        let store = part.fresh_store();
        let run = run("parked", 0);
        let reason = "\u{1F42D}".repeat(200_000);
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            let parked = Parked {
                reason: reason.clone(),
                cause: None,
                build: "b".into(),
                sequence: 1,
                attempts: 1,
                retry_at: at(5),
                ends_process: false,
                since: None,
            };
            store.park(&run, Some(parked)).await.unwrap();
            let found = store.row(&run).await.unwrap().and_then(|row| row.parked).expect("it is parked");
            assert!(reason.starts_with(&found.reason) && found.reason.len() > 10_000, "{}", found.reason.len());
        });
    }
}

/// Parking, settling and committing write the same row: none undoes another.
#[test]
fn racing_writers_of_one_row_keep_each_other_s_changes() {
    for part in parts("racing writers") {
        let store = Arc::new(part.fresh_store());
        let run = run("raced", 0);
        block_on(store.open(&run, "batch 0".into(), opening(2_000))).unwrap();
        let parking = {
            let (store, run) = (Arc::clone(&store), run.clone());
            std::thread::spawn(move || {
                for attempts in 1..=40 {
                    let parked = Parked {
                        reason: "why".into(),
                        cause: None,
                        build: "b".into(),
                        sequence: 1,
                        attempts,
                        retry_at: at(5),
                        ends_process: false,
                        since: None,
                    };
                    until_known(|| store.park(&run, Some(parked.clone())));
                    until_known(|| store.settle(&run));
                }
            })
        };
        for sequence in 1..=40 {
            let change = if sequence < 40 {
                RowUpdate::due(at(2_000 + sequence))
            } else {
                RowUpdate::close(Status::Completed, at(9_000), Some(at(9_500)))
            };
            let record = Bytes::from(format!("batch {sequence}"));
            until_known(|| store.append(&run, later(sequence), record.clone(), change.clone()));
        }
        parking.join().unwrap();
        let row = block_on(store.row(&run)).unwrap().expect("a row");
        assert_eq!(row.parked.map(|parked| parked.attempts), Some(40));
        assert_eq!((row.status, row.closed_at), (Status::Completed, Some(at(9_000))));
        assert_eq!(block_on(store.read(&run, 0)).unwrap().records.len(), 41);
    }
}

/// Rule C1: what is unknown is sent again.
fn until_known<'a, T>(request: impl Fn() -> dormouse_engine::store::StoreFuture<'a, T>) -> T {
    for _ in 0..1_000 {
        match block_on(request()) {
            Err(StoreError::Unknown(_)) => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("the outcome stays unknown")
}

/// Reading what comes next, where nothing does.
#[test]
fn the_tail_is_an_empty_stretch() {
    for part in parts("the tail") {
        let store = part.fresh_store();
        let run = run("tail", 0);
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            assert_eq!(store.read(&run, 1).await, Ok(Stretch::default()));
            let next = run.workflow.run(1);
            store.open(&next, "batch 0".into(), opening(2_000)).await.unwrap();
            assert_eq!(store.read(&run, 1).await, Ok(Stretch::default()), "the next run is another");
            assert_eq!(store.read(&run, u64::MAX).await, Ok(Stretch::default()));
        });
    }
}
