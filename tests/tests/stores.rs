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
use dormouse_engine::store::{AttemptKey, Attempts, Histories, Opening, RowUpdate, Store, Stretch};
use dormouse_engine::stores::object::{ObjectStore, OwnerSettings};
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::conformance::{Damage, Subject, damage_objects};
use dormouse_testing::{CountingStore, Counts, Fault, FaultyStore, On, later, store_conformance};
use futures::executor::block_on;
use object_store::memory::InMemory;

/// What conforms: a store that does not remember what it keeps, and how to damage that.
pub fn subject<F>(store: Arc<dyn Store>, damage: impl Fn(Damage) -> F + Send + Sync + 'static) -> Subject
where
    F: Future<Output = ()> + Send + 'static,
{
    let same = Arc::clone(&store);
    let damage = move |what| {
        let (store, done) = (Arc::clone(&same), damage(what));
        Box::pin(async move {
            done.await;
            store
        }) as _
    };
    Subject { store, damage: Box::new(damage) }
}

#[test]
fn sqlite_conforms() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let report = block_on(store_conformance(async || {
        let place = dir.path().join(fresh.fetch_add(1, Ordering::Relaxed).to_string());
        let store = Arc::new(SqliteStore::open(&place).unwrap());
        subject(store, move |damage| {
            sqlite::damage(&place, &damage);
            std::future::ready(())
        })
    }));
    dormouse_tests::tell!("SQLite: {report}");
}

#[test]
fn objects_in_memory_conform() {
    let report = block_on(store_conformance(async || {
        let objects = Arc::new(InMemory::new());
        let store = Arc::new(ObjectStore::new(Arc::clone(&objects) as _, "some/prefix"));
        subject(store, move |damage| {
            let objects = Arc::clone(&objects);
            async move { damage_objects(&*objects, "some/prefix", &damage).await }
        })
    }));
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

/// What S3 says of it is XML, and nobody's business.
#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named() {
    for endpoint in dormouse_tests::endpoints::Endpoint::all() {
        let here = tokio::runtime::Handle::current();
        let store = ObjectStore::s3_at(&endpoint.url, "no-such-bucket-at-all", "p", here).unwrap();
        let error = store.own("s3://no-such-bucket-at-all/p", OwnerSettings::default(), |_| {}).await.unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("s3://no-such-bucket-at-all/p: the bucket does not exist"),
            "{}: {told}",
            endpoint.name
        );
        assert!(!told.contains('<') && std::error::Error::source(&error).is_none(), "{told}");
    }
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
            let report = block_on(store_conformance(async || {
                let prefix = format!("conformance-{since}-{process}/{}", fresh.fetch_add(1, Ordering::Relaxed));
                let Endpoint { url, bucket, .. } = &endpoint;
                let store = ObjectStore::s3_at(url, bucket, &prefix, runtime.handle().clone()).unwrap();
                let (objects, runtime) = (Arc::new(endpoint.client()), runtime.handle().clone());
                subject(Arc::new(store), move |damage| {
                    let (objects, prefix) = (Arc::clone(&objects), prefix.clone());
                    let done = runtime.spawn(async move { damage_objects(&*objects, &prefix, &damage).await });
                    async move { done.await.unwrap() }
                })
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

fn opening(due: u64) -> Opening {
    Opening {
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
        store.open(&run, "12345".into(), opening(2_000)).await.unwrap();
        for sequence in 1..4 {
            store.append(&run, later(sequence), "1234567890".into(), RowUpdate::NONE).await.unwrap();
        }
        store.append(&run, later(2), "too late".into(), RowUpdate::NONE).await.unwrap();
        faulty.plan(On::Create(Some(9)), Fault::FailBefore);
        faulty.plan(On::Read(None), Fault::FailBefore);
        faulty.plan(On::Create(Some(4)), Fault::FailAfter);
        assert!(store.append(&run, later(4), "x".into(), RowUpdate::NONE).await.is_err());
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
