//! The front door as callers meet it: what does not fit the application's types is refused before anything is
//! written, histories have continuous numbers, problems explain themselves.

#[path = "door/names.rs"]
mod names;
#[path = "door/parked.rs"]
mod parked_runs;
#[path = "door/replay.rs"]
mod replay;
#[path = "door/words.rs"]
mod words;

use std::sync::Arc;
use std::time::Duration;

use dormouse::{App, Failure, Settings, Store, Workflow};
use dormouse_client::{Auth, ClientError, RawClient, RawHandle};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_http::{Connections, Listen, Server, Token};
use dormouse_testing::CountingStore;
use dormouse_tests::hostile::exchange;
use functions::ledger::Ledger;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Door {
    server: Server,
    store: Arc<CountingStore>,
}

impl Door {
    async fn open(app: App) -> Self {
        Self::over(app, Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"))).await
    }

    async fn over(app: App, store: Arc<dyn Store>) -> Self {
        let store = Arc::new(CountingStore::new(store));
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let server = Server::start(Arc::new(app), shared, Settings::default(), "127.0.0.1:0").await.unwrap();
        store.reset();
        Self { server, store }
    }

    /// The sample application.
    async fn functions(dir: &tempfile::TempDir) -> Self {
        Self::open(functions::app(Ledger::at(dir.path().join("ledger.jsonl")))).await
    }

    fn client(&self) -> RawClient {
        RawClient::new(&self.server.url()).unwrap()
    }

    /// Status and body of the answer.
    async fn send(&self, method: &str, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let address = self.server.address().to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let sent = tokio::task::spawn_blocking(move || exchange(&address, request.as_bytes()).unwrap());
        let answer = sent.await.unwrap();
        let body = serde_json::from_slice(&answer.body);
        (answer.status, body.unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into_owned().into()))
    }

    fn writes(&self) -> u64 {
        let counts = self.store.counts();
        counts.creates + counts.swaps + counts.settles + counts.parks
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_does_not_fit_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    for (n, (input, pointer, says)) in [
        (json!({ "order_id": 7, "amount_cents": "x" }), "/amount_cents", "string \"x\", expected u64"),
        (json!({ "order_id": 7, "amount_cents": 1 }), "/order_id", "integer `7`, expected a string"),
        (json!({ "order_id": "o" }), "", "missing field `amount_cents`"),
        (json!(null), "", "expected struct Order"),
    ]
    .into_iter()
    .enumerate()
    {
        let start = json!({ "workflow_type": "orderWorkflow", "workflow_id": "o", "input": input });
        let (status, problem) = door.send("POST", "/v1/workflows", &format!("k-{n}"), &start).await;
        assert_eq!((status, problem["pointer"].as_str()), (422, Some(pointer)), "{input}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says) && detail.contains("orderWorkflow"), "{detail}");
        assert!(!detail.contains("column") && !detail.contains(".rs"), "{detail}");
    }
    assert_eq!(door.writes(), 0);
    let fits = json!({ "workflow_type": "statementsWorkflow", "input": { "month": "2026-11", "customers": 0 } });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &fits).await.0, 201);
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_and_queries_that_are_declared_are_held_against_their_types() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    let input = json!({ "expense_id": "lunch", "amount_cents": 1800 });
    let start = json!({ "workflow_type": "expenseApprovalWorkflow", "workflow_id": "lunch", "input": input });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);
    let status = "/v1/workflows/lunch/queries/status";
    let awaiting = json!({ "result": "awaiting_approval" });
    assert_eq!(door.send("POST", status, "q", &json!(null)).await, (200, awaiting));
    let (code, problem) = door.send("POST", status, "q", &json!([7])).await;
    assert_eq!((code, problem["pointer"].as_str()), (422, Some("")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("the argument of query \"status\""), "{problem}");

    door.store.reset();
    let (code, problem) = door.send("POST", "/v1/workflows/lunch/signals/approval", "s", &json!("yes")).await;
    assert_eq!((code, problem["pointer"].as_str()), (422, Some("")), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("the argument of signal \"approval\"") && detail.contains("expected a boolean"),
        "{detail}"
    );
    assert_eq!(door.writes(), 0);
    // What is not declared is not known here, and the workflow may wait for it all the same.
    assert_eq!(door.send("POST", "/v1/workflows/lunch/signals/undeclared", "u", &json!("yes")).await.0, 202);
    assert_eq!(door.send("POST", "/v1/workflows/lunch/signals/approval", "s", &json!(true)).await.0, 202);
    door.server.stop(Duration::ZERO).await;
}

async fn of_words(cx: Workflow, _: Value) -> Result<(), Failure> {
    cx.canceled().await;
    Ok(())
}

async fn of_numbers(cx: Workflow, _: u64) -> Result<(), Failure> {
    cx.canceled().await;
    Ok(())
}

/// An answer that was lost, and a build with other types before the caller asks again.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_build_took_in_is_answered_as_it_was() {
    let store: Arc<dyn Store> = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let start = json!({ "workflow_type": "w", "workflow_id": "a", "input": "seven" });
    let door = Door::over(App::new().workflow("w", of_words), Arc::clone(&store)).await;
    let (status, began) = door.send("POST", "/v1/workflows", "k", &start).await;
    assert_eq!(status, 201, "{began}");
    door.server.stop(Duration::ZERO).await;

    let door = Door::over(App::new().workflow("w", of_numbers), store).await;
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await, (201, began));
    assert_eq!(door.send("POST", "/v1/workflows", "other", &start).await.0, 422);
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_history_are_numbered_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    let input = json!({ "month": "2026-11", "customers": 3, "preview": true });
    let start = json!({ "workflow_type": "statementsWorkflow", "workflow_id": "s", "input": input });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);
    let workflow = door.client().workflow("s", None);
    workflow.outcome(Some(Duration::from_secs(60))).await.unwrap();
    let events = workflow.history().await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    let steps = ["LocalActivityScheduled", "LocalActivityCompleted"].repeat(3);
    assert_eq!(kinds, [&["WorkflowStarted"], &steps[..], &["WorkflowCompleted"]].concat());
    assert_eq!(events.iter().map(|event| event.event_id).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    // What people read line by line has the same numbers, and so have the other routes.
    let lines = dormouse::timeline(&events);
    assert_eq!(lines.lines().count(), events.len());
    assert_eq!(workflow.describe().await.unwrap().history_events, 8);
    assert_eq!(workflow.history_after(7).await.unwrap(), events[7..]);
    let first = workflow.history_page(7, None).await.unwrap();
    let second = workflow.history_page(7, first.next_page_token.as_deref()).await.unwrap();
    assert_eq!((first.events.as_slice(), second.events.as_slice()), (&events[..7], &events[7..]));
    assert_eq!(second.next_page_token, None);
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_type_of_a_problem_leads_to_a_page_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    let (status, problem) = door.send("GET", "/v1/workflows/nobody", "k", &json!(null)).await;
    assert_eq!(status, 404);
    let (status, page) = door.send("GET", problem["type"].as_str().unwrap(), "k", &json!(null)).await;
    assert_eq!(status, 200, "{page}");
    let page = page.as_str().unwrap();
    assert!(page.contains(problem["title"].as_str().unwrap()) && page.contains("workflow list"), "{page}");
    door.server.stop(Duration::ZERO).await;
}

async fn broken(_: Workflow, _: Value) -> Result<(), Failure> {
    panic!("three is not four")
}

/// What the command line prints (standard output, standard error) and its exit code.
async fn command_line(door: &Door, line: &[&str]) -> (String, String, Option<i32>) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
    command.args(line).args(["--address", &door.server.url()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Whatever arrives for a parked run has it tried again.
async fn parked(workflow: &RawHandle) {
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        while workflow.describe().await.unwrap().run.parked.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.expect("it is parked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_when_a_run_is_parked() {
    let door = Door::open(App::new().workflow("broken", broken)).await;
    let start = json!({ "workflow_type": "broken", "workflow_id": "b", "input": "x".repeat(500) });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);
    let workflow = door.client().workflow("b", None);
    let says = |(out, err, code): (String, String, Option<i32>), expected: i32, parts: &[&str]| {
        let all = out + &err;
        assert_eq!(code, Some(expected), "{all}");
        for part in parts {
            assert!(all.contains(part), "{part} is not in: {all}");
        }
    };
    parked(&workflow).await;
    let signal = command_line(&door, &["workflow", "signal", "b", "go"]).await;
    says(signal, 0, &["Sent go to b", "parked", "three is not four"]);
    parked(&workflow).await;
    let cancel = command_line(&door, &["workflow", "cancel", "b"]).await;
    says(cancel, 0, &["Asked b to stop", "parked", "three is not four", "workflow terminate b"]);
    parked(&workflow).await;
    let result = command_line(&door, &["workflow", "result", "b", "--wait", "0s"]).await;
    says(result, 7, &["parked", "three is not four", "workflow terminate b"]);
    let full = command_line(&door, &["workflow", "show", "b", "--full"]).await;
    says(full, 0, &["   1  ", "   2  ", "   3  ", &"x".repeat(500)]);
    parked(&workflow).await;
    let terminate = command_line(&door, &["workflow", "terminate", "b", "--output", "json"]).await;
    says(terminate, 0, &["\"workflow_id\": \"b\"", "\"parked\"", "three is not four"]);
    let again = command_line(&door, &["workflow", "terminate", "b"]).await;
    says(again, 1, &["is closed (Terminated)"]);
    door.server.stop(Duration::ZERO).await;
}

/// As many as may be, and more: each is half a request, or none.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_make_room() {
    let app = Arc::new(App::new().workflow("ofWords", of_words));
    let store = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let connections = Connections { most: 4, head_timeout: Duration::from_millis(200) };
    let listen = Listen::at("127.0.0.1:0").connections(connections);
    let server = Server::start(app, store, Settings::default(), listen).await.unwrap();
    let mut held = Vec::new();
    for said in ["", "GET /healthz", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"].into_iter().cycle().take(12) {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        connection.write_all(said.as_bytes()).await.unwrap();
        held.push(connection);
    }
    // One that has asked and lingers holds no place either.
    let mut lingers = TcpStream::connect(server.address()).await.unwrap();
    lingers.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answers = String::new();
    lingers.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 200") && answers.matches("HTTP/1.1").count() == 1, "{answers}");
    assert_eq!(RawClient::new(&server.url()).unwrap().list(&Default::default(), 1).await.unwrap(), []);
    drop(held);
    server.stop(Duration::ZERO).await;
}

/// Where other machines can reach the server it asks for a token, of whoever wants to know anything of workflows.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_show_the_token_is_refused() {
    let token = Token::new("0123456789abcdef0123").unwrap();
    let store = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    let listen = Listen::at("127.0.0.1:0").token(Some(token));
    let app = Arc::new(App::new().workflow("w", of_words));
    let server = Server::start(app, store, Settings::default(), listen).await.unwrap();
    let address = server.address().to_string();
    let ask = async |path: &str, header: &str| {
        let (to, request) =
            (address.clone(), format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}Connection: close\r\n\r\n"));
        tokio::task::spawn_blocking(move || exchange(&to, request.as_bytes()).unwrap()).await.unwrap()
    };
    for header in
        ["", "Authorization: Bearer 0123456789abcdef0124\r\n", "Authorization: Basic 0123456789abcdef0123\r\n"]
    {
        for path in ["/v1/workflows", "/v1/workflows/a/result", "/", "/v1/../healthz"] {
            let answer = ask(path, header).await;
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(
                (answer.status, problem["type"].as_str()),
                (401, Some("/problems/unauthorized")),
                "{path} {header}"
            );
            assert!(problem["detail"].as_str().unwrap().contains("--token-file"), "{problem}");
        }
    }
    for path in ["/healthz", "/openapi.json", "/problems/unauthorized"] {
        assert_eq!(ask(path, "").await.status, 200, "{path}");
    }
    assert_eq!(ask("/v1/workflows", "authorization: bearer 0123456789abcdef0123\r\n").await.status, 200);
    let client = RawClient::new(&server.url()).unwrap();
    let denied = client.list(&Default::default(), 1).await.unwrap_err();
    assert!(matches!(denied, ClientError::Denied(_)) && denied.to_string().contains("--token-file"), "{denied}");
    let client = client.auth(Auth::bearer("0123456789abcdef0123").unwrap());
    assert!(client.list(&Default::default(), 1).await.unwrap().is_empty());
    server.stop(Duration::ZERO).await;
}
