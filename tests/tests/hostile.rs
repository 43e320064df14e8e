//! Hostile ids and bodies over HTTP: each is refused with a problem document, and nothing is written.

use std::sync::Arc;
use std::time::Duration;

use dormouse::{Settings, Store};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_http::Server;
use dormouse_testing::world::start_body;
use dormouse_testing::{CountingStore, Counts};
use dormouse_tests::hostile::{Target, assail};
use dormouse_tests::tell;
use functions::ledger::Ledger;
use object_store::memory::InMemory;
use serde_json::json;

/// Reading is no harm.
fn writes(counts: &Counts) -> [u64; 5] {
    [counts.creates, counts.swaps, counts.settles, counts.parks, counts.bytes_written]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_should_send_is_refused_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(CountingStore::new(Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"))));
    let app = Arc::new(functions::app(Ledger::at(dir.path().join("ledger.jsonl"))));
    let server = Server::start(app, Arc::clone(&store) as Arc<dyn Store>, Settings::default(), "127.0.0.1:0").await;
    let server = server.unwrap();
    store.reset();
    let base = server.url();
    let sent = tokio::task::spawn_blocking(move || assail(&Target { base: &base, headers: &[], gateway: false }));
    tell!("{} requests were refused", sent.await.unwrap());
    assert_eq!(writes(&store.counts()), [0; 5]);

    // What is counted would have been noticed.
    let input = json!({ "expense_id": "e", "amount_cents": 1 });
    let body = start_body("expenseApprovalWorkflow", "e", &input, dormouse::IdConflictPolicy::Fail);
    server.engine().front().start(None, body).await.unwrap();
    let [creates, .., bytes] = writes(&store.counts());
    assert!(creates > 0 && bytes > 0);
    server.stop(Duration::ZERO).await;
}

/// The same against whatever stands at DORMOUSE_HOSTILE_TARGET, behind a gateway: a deployed API, or an emulated one.
#[test]
fn a_deployed_api_refuses_it_too() {
    let Ok(base) = std::env::var("DORMOUSE_HOSTILE_TARGET") else {
        tell!("SKIPPED: no deployed API is named in DORMOUSE_HOSTILE_TARGET");
        return;
    };
    tell!("{} requests were refused", assail(&Target { base: &base, headers: &[], gateway: true }));
}
