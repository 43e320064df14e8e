//! Every storage backend against the one conformance suite, and what each promises besides.

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

/// `scripts/local-s3 start` says how to set the environment.
#[test]
fn s3_conforms() {
    // Written past the capture of the test harness: a test that asked nobody should not look like one that did.
    let skipped = |needed: &str| dormouse_tests::tell!("SKIPPED: S3 is asked only with {needed}");
    #[cfg(not(feature = "s3"))]
    skipped("the feature `s3`");
    #[cfg(feature = "s3")]
    match std::env::var("DORMOUSE_TEST_S3_ENDPOINT") {
        Err(_) => skipped("DORMOUSE_TEST_S3_ENDPOINT"),
        Ok(endpoint) => s3::conforms(&endpoint),
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use super::*;

    pub fn conforms(endpoint: &str) {
        // The client reads the standard variables; a process may not change its own environment safely, so the test
        // asks for them instead of setting them.
        let set = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
        assert_eq!(set, endpoint, "set AWS_ENDPOINT_URL to DORMOUSE_TEST_S3_ENDPOINT");
        let bucket = std::env::var("DORMOUSE_TEST_S3_BUCKET").unwrap_or_else(|_| "dormouse-test".into());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // A prefix of its own for each case of each run of the tests.
        let (process, fresh) = (std::process::id(), AtomicU32::new(0));
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let report = block_on(store_conformance(async || {
            let prefix = format!("conformance-{since}-{process}/{}", fresh.fetch_add(1, Ordering::Relaxed));
            ObjectStore::s3(&bucket, &prefix, runtime.handle().clone()).unwrap()
        }));
        dormouse_tests::tell!("S3 at {endpoint}: {report}");
    }
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
