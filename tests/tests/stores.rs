//! Every storage backend against the one conformance suite, and what each promises besides.

#[cfg(feature = "aws")]
#[path = "stores/dynamo.rs"]
mod dynamo;
#[path = "stores/objects.rs"]
mod objects;
#[path = "stores/owners.rs"]
mod owners;
#[path = "stores/sqlite.rs"]
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::{AttemptKey, RowChange, Store, Stretch};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::{CountingStore, Counts, Fault, FaultyStore, On, store_conformance};
use futures::executor::block_on;
use object_store::memory::InMemory;

#[test]
fn sqlite_conforms() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let report = block_on(store_conformance(async || {
        let place = dir.path().join(fresh.fetch_add(1, Ordering::Relaxed).to_string());
        SqliteStore::open(&place).unwrap()
    }));
    dormouse_tests::tell!("SQLite: {report}");
}

#[test]
fn objects_in_memory_conform() {
    let report = block_on(store_conformance(async || ObjectStore::new(Arc::new(InMemory::new()), "some/prefix")));
    dormouse_tests::tell!("objects in memory: {report}");
}

/// Each endpoint of [`dormouse_tests::endpoints`].
#[test]
fn s3_conforms() {
    // Written past the capture of the test harness: a test that asked nobody should not look like one that did.
    #[cfg(not(feature = "s3"))]
    dormouse_tests::tell!("SKIPPED: S3 is asked only with the feature `s3`");
    #[cfg(feature = "s3")]
    s3::conforms();
}

#[cfg(feature = "s3")]
mod s3 {
    use dormouse_tests::endpoints::Endpoint;

    use super::*;

    pub fn conforms() {
        let endpoints = Endpoint::all();
        if endpoints.is_empty() {
            dormouse_tests::tell!(
                "SKIPPED: S3 is asked only with DORMOUSE_TEST_S3_ENDPOINTS (CONTRIBUTING.md says how)"
            );
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // A prefix of its own for each case of each run of the tests.
        let (process, fresh) = (std::process::id(), AtomicU32::new(0));
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        for endpoint in endpoints {
            // A process may not change its own environment safely: one endpoint at most is the environment's.
            let by_environment = std::env::var("AWS_ENDPOINT_URL").is_ok_and(|url| url == endpoint.url);
            let report = runtime.block_on(store_conformance(async || {
                let prefix = format!("conformance-{since}-{process}/{}", fresh.fetch_add(1, Ordering::Relaxed));
                if by_environment {
                    ObjectStore::s3(&endpoint.bucket, &prefix, runtime.handle().clone()).unwrap()
                } else {
                    ObjectStore::new(Arc::new(endpoint.client()), &prefix)
                }
            }));
            dormouse_tests::tell!("{} at {}: {report}", endpoint.name, endpoint.url);
        }
    }
}

/// `scripts/local-aws start` says how to set the environment.
#[cfg(not(feature = "aws"))]
#[test]
fn dynamodb_conforms() {
    dormouse_tests::tell!("SKIPPED: DynamoDB is asked only with the feature `aws`");
}

fn run(workflow_id: &str, ordinal: u64) -> RunKey {
    WorkflowKey::new("default", workflow_id).unwrap().run(ordinal)
}

fn opening(due: u64) -> RowChange {
    RowChange::Open {
        run_id: RunId::from_bytes([7; 16]),
        workflow_type: "test".into(),
        started_at: Timestamp::from_millis(1_000),
        due: Timestamp::from_millis(due),
    }
}

/// What the counts and faults of other tests rest on.
#[test]
fn counting_and_faulty_stores_do_as_they_say() {
    let objects: Arc<dyn Store> = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), ""));
    let faulty = Arc::new(FaultyStore::new(objects));
    let store = CountingStore::new(Arc::clone(&faulty) as Arc<dyn Store>);
    let run = run("counted", 0);
    block_on(async {
        store.create(&run, 0, "12345".into(), Some(opening(2_000))).await.unwrap();
        for sequence in 1..4 {
            store.create(&run, sequence, "1234567890".into(), None).await.unwrap();
        }
        store.create(&run, 2, "too late".into(), None).await.unwrap();
        faulty.plan(On::Create(Some(9)), Fault::FailBefore);
        faulty.plan(On::Read(None), Fault::FailBefore);
        faulty.plan(On::Create(Some(4)), Fault::FailAfter);
        assert!(store.create(&run, 4, "x".into(), None).await.is_err());
        assert!(store.read(&run, 0).await.is_err());
        assert_eq!(faulty.outstanding(), 1, "the one for sequence 9");
        assert_eq!(store.read(&run, 0).await.unwrap().records.len(), 5);
        faulty.show_only_before(Some(3));
        assert_eq!(store.read(&run, 1).await.unwrap().records.len(), 2);
        assert_eq!(store.read(&run, 7).await.unwrap(), Stretch::default());
        faulty.show_only_before(None);
        let key = AttemptKey { run: run.clone(), activity: 1 };
        store.swap(&key, None, "123".into()).await.unwrap();
        store.swap(&key, None, "123".into()).await.unwrap();
    });
    let expected = Counts {
        creates: 6,
        created: 4,
        exists: 1,
        row_changes: 1,
        reads: 4,
        swaps: 2,
        swapped: 1,
        stale: 1,
        errors: 2,
        bytes_written: 5 + 3 * 10 + 3,
        ..Counts::default()
    };
    assert_eq!(store.reset(), expected);
    assert_eq!(store.counts(), Counts::default());
    assert_eq!((expected.all_reads(), expected.all_writes()), (4, 8));
}
