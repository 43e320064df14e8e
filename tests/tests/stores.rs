//! Every storage backend against the one conformance suite, and what each promises besides.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::{Creation, RowChange, Store, StoreError};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::stores::sqlite::{OpenError, SqliteStore};
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
fn object_store_in_memory_conforms() {
    let report = block_on(store_conformance(async || {
        ObjectStore::new(Arc::new(InMemory::new()), "some/prefix")
    }));
    println!("objects in memory: {report}");
}
