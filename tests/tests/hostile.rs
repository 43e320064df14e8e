//! Hostile ids and bodies over HTTP: each is refused with a problem document, and nothing is written.

use std::sync::Arc;
use std::time::Duration;

use dormouse::{Settings, Store};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_http::{Listen, Server};
use dormouse_testing::world::start_body;
use dormouse_testing::{CountingStore, Counts};
use dormouse_tests::hostile::{Target, assail, exchange};
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

/// A page under a name that its owner lets lead to 127.0.0.1 is of the same origin as what listens there.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_the_servers_own_are_refused_on_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(CountingStore::new(Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"))));
    let app = Arc::new(functions::app(Ledger::at(dir.path().join("ledger.jsonl"))));
    let server = Server::start(app, Arc::clone(&store) as Arc<dyn Store>, Settings::default(), "127.0.0.1:0").await;
    let server = server.unwrap();
    store.reset();
    let address = server.address();
    let port = address.port();
    let ask = move |head: &str| exchange(&address.to_string(), format!("{head}\r\n").as_bytes()).unwrap();
    let sent = tokio::task::spawn_blocking(move || {
        let body = "Content-Length: 45\r\nConnection: close\r\n\r\n{\"workflow_type\":\"statementsWorkflow\",\"x\":1}";
        let rest = "Sec-Fetch-Site: same-origin\r\nConnection: close\r\n";
        for host in [
            "rebound.example",
            &format!("rebound.example:{port}"),
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
            "localhost@rebound.example",
            "rebound.example@127.0.0.1",
            "192.168.0.7",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "[fe80::1]",
            "",
            "127.0.0.1\r\nHost: rebound.example",
        ] {
            for route in ["GET /v1/workflows", "GET /healthz", "GET /openapi.json", "GET /", "HEAD /healthz"] {
                let answer = ask(&format!("{route} HTTP/1.1\r\nHost: {host}\r\n{rest}"));
                assert!(matches!(answer.status, 400 | 421), "{route} at {host:?}: {}", answer.status);
            }
            let answer = ask(&format!("POST /v1/workflows HTTP/1.1\r\nHost: {host}\r\n{body}"));
            assert!(matches!(answer.status, 400 | 421), "POST at {host:?}: {}", answer.status);
        }
        // Somebody else's name in the request line counts too, and no name at all is none of ours.
        let absolute = format!("GET http://rebound.example/healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{rest}");
        assert_eq!(ask(&absolute).status, 421);
        assert_eq!(ask("GET /healthz HTTP/1.0\r\n").status, 421);
        // What helps is said.
        let answer = ask(&format!("GET /v1/workflows HTTP/1.1\r\nHost: rebound.example:7780\r\n{rest}"));
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(said.contains("--allow-host rebound.example") && !said.contains("7780\""), "{said}");

        for host in ["127.0.0.1", "localhost", "LocalHost.", "127.8.9.10:1", "[::1]:7780", "[::ffff:127.0.0.1]"] {
            let answer = ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{rest}"));
            assert_eq!(answer.status, 200, "{host}");
        }
    });
    sent.await.unwrap();
    assert_eq!(writes(&store.counts()), [0; 5]);
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_allowed_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let app = Arc::new(functions::app(Ledger::at(dir.path().join("ledger.jsonl"))));
    let listen = Listen::at("127.0.0.1:0").allow(["orders.internal".parse().unwrap(), "10.0.0.7".parse().unwrap()]);
    let server = Server::start(app, store, Settings::default(), listen).await.unwrap();
    let address = server.address();
    let ask = move |host: &str| {
        let request = format!(
            "POST /v1/workflows/a/cancel HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        exchange(&address.to_string(), request.as_bytes()).unwrap().status
    };
    let asked = tokio::task::spawn_blocking(move || {
        for (host, status) in [
            ("orders.internal", 404),
            ("Orders.Internal:443", 404),
            ("10.0.0.7:7780", 404),
            ("localhost", 404),
            ("other.internal", 421),
            ("10.0.0.8", 421),
        ] {
            assert_eq!(ask(host), status, "{host}");
        }
    });
    asked.await.unwrap();
    server.stop(Duration::ZERO).await;
}

/// Browsers that do not say `Sec-Fetch-Site`, as towards addresses that they do not trust, still say who asks.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let app = Arc::new(functions::app(Ledger::at(dir.path().join("ledger.jsonl"))));
    let server = Server::start(app, store, Settings::default(), "127.0.0.1:0").await.unwrap();
    let address = server.address();
    let ask = move |method: &str, origin: &str| {
        let request = format!(
            "{method} /v1/workflows/a/cancel HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        exchange(&address.to_string(), request.as_bytes()).unwrap().status
    };
    let asked = tokio::task::spawn_blocking(move || {
        for origin in ["https://elsewhere.example", "http://127.0.0.1.elsewhere.example", "null", "file://", "?"] {
            assert_eq!(ask("POST", origin), 403, "{origin}");
            assert_eq!(ask("GET", origin), 403, "{origin}");
        }
        for origin in [format!("http://{address}"), "http://localhost:3000".into()] {
            assert_eq!(ask("POST", &origin), 404, "{origin}: there is no such workflow");
        }
    });
    asked.await.unwrap();
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
