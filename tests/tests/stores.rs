//! Every storage backend against the one conformance suite, and what each promises besides.

#[path = "stores/objects.rs"]
mod objects;
#[path = "stores/sqlite.rs"]
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::RowChange;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::store_conformance;
use futures::executor::block_on;
use object_store::memory::InMemory;

#[test]
fn sqlite_conforms() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let report = block_on(store_conformance(async || {
        let place = dir.path().join(fresh.fetch_add(1, Ordering::Relaxed).to_string());
        SqliteStore::open(&place).unwrap()
    }));
    println!("SQLite: {report}");
}

#[test]
fn objects_in_memory_conform() {
    let report = block_on(store_conformance(async || ObjectStore::new(Arc::new(InMemory::new()), "some/prefix")));
    println!("objects in memory: {report}");
}

/// `scripts/local-s3 start` says how to set the environment.
#[test]
fn s3_conforms() {
    #[cfg(not(feature = "s3"))]
    println!("SKIPPED: S3 is asked only with the feature `s3`");
    #[cfg(feature = "s3")]
    match std::env::var("DORMOUSE_TEST_S3_ENDPOINT") {
        Err(_) => println!("SKIPPED: S3 is asked only with DORMOUSE_TEST_S3_ENDPOINT"),
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
        println!("S3 at {endpoint}: {report}");
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
