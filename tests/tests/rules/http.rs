//! F3 and F4 over HTTP: what a request brings (its key, the run that it names, its policies and limits) reaches the
//! engine, route by route.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use dormouse::api::{DiscardedLetterBody, LetterBody, LetterShownBody, Redriven, RedrivenLetterBody, StoredRecord};
use dormouse::{Hosts, Limits, Payload, RunId, Status, Timestamp};
use dormouse_core::RunKey;
use dormouse_engine::ApiError;
use dormouse_engine::front::FrontDoor;
use dormouse_engine::seams::{Letters, QueryRunner, Redrive, SeamFuture};
use dormouse_testing::World;
use dormouse_testing::world::{Process, run};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::workflows::{FOLLOWS, app};

/// Answers each question with what it was asked.
struct Echo;

impl QueryRunner for Echo {
    fn query(&self, run: RunKey, name: String, input: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        let answer = Payload::encode(&json!([run.ordinal, name, input.to_value()])).expect("it serializes");
        std::future::ready(Ok(answer)).boxed()
    }
}

/// The whole API in front of one process of a world.
struct Api {
    world: World,
    process: Process,
    router: Router,
}

fn api() -> Api {
    let world = World::new(app());
    let process = world.process();
    let router = router(&process, |front| front);
    Api { world, process, router }
}

fn router(process: &Process, with: impl FnOnce(FrontDoor) -> FrontDoor) -> Router {
    let front = FrontDoor::new(process.ports.clone(), Arc::clone(&process.intake), Arc::new(Echo));
    dormouse::router(Arc::new(with(front)), Limits { max_payload_bytes: 64 * 1024 }, Hosts::any())
}

async fn ask(router: Router, method: &str, path: &str, key: Option<&str>, body: Value) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 4 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Requests are answered in the world's time; what axum counts with tokio's clock never comes to its end here.
fn in_time<T>(world: &World, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    world.in_time(future)
}

impl Api {
    fn post(&self, path: &str, key: Option<&str>, body: Value) -> (StatusCode, Value) {
        in_time(&self.world, ask(self.router.clone(), "POST", &format!("/v1/workflows{path}"), key, body))
    }

    fn get(&self, path: &str) -> (StatusCode, Value) {
        in_time(&self.world, ask(self.router.clone(), "GET", &format!("/v1/workflows{path}"), None, Value::Null))
    }

    /// What stands in a history, of one type.
    fn events(&self, ordinal: u64, event_type: &str) -> Vec<Value> {
        let run_id = self.world.state(&run("w", ordinal)).run_id();
        let (status, history) = self.get(&format!("/w/history?run_id={run_id}"));
        assert_eq!(status, 200);
        let events = history["events"].as_array().expect("events").iter();
        events.filter(|event| event["type"] == event_type).map(|event| event["attributes"].clone()).collect()
    }

    fn run_id(&self, ordinal: u64) -> RunId {
        self.world.state(&run("w", ordinal)).run_id()
    }

    /// Two runs of `w`: one that heard "first" and completed, and one that waits for words.
    fn two_runs(&self) -> (RunId, RunId) {
        self.process.start("words", "w", "r1", &1);
        self.process.signal("w", "s1", "word", &"first");
        self.process.deliver();
        self.process.start("words", "w", "r2", &5);
        self.process.deliver();
        assert_eq!(self.world.state(&run("w", 0)).status(), Status::Completed);
        (self.run_id(0), self.run_id(1))
    }
}

// --- keys ---

/// The same start with the same key, before and after the run has closed, is answered as the first time.
#[test]
fn f3_a_start_with_a_key_begins_one_run() {
    let api = api();
    let body = json!({ "workflow_type": "words", "workflow_id": "w", "input": 1 });
    let first = api.post("", Some("k"), body.clone());
    assert_eq!(first.0, StatusCode::CREATED);
    assert_eq!(api.post("", Some("k"), body.clone()), first);
    let (status, problem) = api.post("", Some("other"), body.clone());
    assert_eq!(
        (status, &problem["run_id"]),
        (StatusCode::CONFLICT, &first.1["run_id"]),
        "another key asks for another"
    );
    assert_eq!(api.post("", None, body.clone()).0, StatusCode::CONFLICT, "and so does none");
    api.process.signal("w", "s", "word", &"end");
    api.process.deliver();
    assert_eq!(api.post("", Some("k"), body.clone()), first, "it has completed");
    assert_eq!(api.world.row(&run("w", 1)), None);
    assert_eq!(api.events(0, "WorkflowStarted")[0]["request_id"], "k");
    assert_eq!(api.post("", Some("other"), body).0, StatusCode::CREATED);

    // Without an id, the key names the workflow: a repeat finds it.
    let nameless = json!({ "workflow_type": "words", "input": 1 });
    let first = api.post("", Some("k"), nameless.clone());
    assert_eq!(first.1["workflow_id"], "request-k");
    assert_eq!(api.post("", Some("k"), nameless.clone()), first);
    // One that is too long for that is hashed. Golden: a repeat may meet another build.
    let long = "k".repeat(255);
    let first = api.post("", Some(&long), nameless.clone());
    assert_eq!(first.1["workflow_id"], "request-9294a423-f0d9-4990-a749-445913e6346b");
    assert_eq!(api.post("", Some(&long), nameless.clone()), first);
    let others = [api.post("", None, nameless.clone()), api.post("", None, nameless)];
    assert_ne!(others[0].1["workflow_id"], others[1].1["workflow_id"]);
}

/// Writes to a run: repeated with their key they are in its history once, with another key or none, twice.
#[test]
fn f3_a_write_with_a_key_is_recorded_once() {
    for (path, event, body) in [
        ("/w/signals/word", "SignalReceived", json!("hi")),
        ("/w/cancel", "CancelRequested", json!({ "reason": "enough" })),
    ] {
        let api = api();
        api.process.start("words", "w", "r1", &9);
        for (key, recorded) in [(Some("k"), 1), (Some("k"), 1), (Some("l"), 2), (None, 3), (None, 4), (Some("k"), 4)] {
            assert_eq!(api.post(path, key, body.clone()).0, StatusCode::ACCEPTED, "{path}");
            let events = api.events(0, event);
            assert_eq!(events.len(), recorded, "{path} with {key:?}");
            let last = &events[recorded - 1];
            if let Some(key) = key.filter(|key| *key != "k" || recorded == 1) {
                assert_eq!(last["request_id"], key);
            }
            let said = if event == "SignalReceived" { &last["payload"] } else { &last["reason"] };
            assert!(*said == "hi" || *said == "enough", "{last}");
        }
    }
    let api = api();
    api.process.start("words", "w", "r1", &9);
    let body = json!({ "reason": "enough" });
    for (key, status) in [(Some("k"), 200), (Some("k"), 200), (Some("l"), 409), (None, 409), (Some("k"), 200)] {
        assert_eq!(api.post("/w/terminate", key, body.clone()).0, status, "with {key:?}");
    }
    let [terminated] = &api.events(0, "WorkflowTerminated")[..] else { panic!("once") };
    assert_eq!((&terminated["request_id"], &terminated["reason"]), (&json!("k"), &json!("enough")));
}

/// The same request again gets the first answer, from an earlier run too; another request with its key is refused,
/// whichever kind it is of, and nothing is written.
#[test]
fn f3_a_key_is_for_one_request_of_a_workflow() {
    let api = api();
    api.two_runs();
    let start = |workflow_type: &str, input: Value| json!({ "workflow_type": workflow_type, "workflow_id": "w", "input": input });
    for (path, key, body, expected) in [
        ("/w/signals/word", "s1", json!("first"), 202),
        ("/w/signals/word", "s1", json!("again"), 422),
        ("/w/signals/other", "s1", json!("first"), 422),
        ("/w/cancel", "s1", Value::Null, 422),
        ("/w/terminate", "r2", Value::Null, 422),
        ("", "s1", start("words", json!(1)), 422),
        ("", "r1", start("words", json!(1)), 201),
        ("", "r1", start("words", json!(2)), 422),
        ("", "r1", start("nap", json!(1)), 422),
        ("", "r2", start("words", json!(5)), 201),
    ] {
        let (status, answer) = api.post(path, Some(key), body.clone());
        assert_eq!(status, expected, "{path} with {key} and {body}: {answer}");
        if expected == 422 {
            assert_eq!(answer["type"], "/problems/key-reused", "{answer}");
            assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains(key)), "{answer}");
        }
    }
    api.process.deliver();
    assert_eq!(api.world.state(&run("w", 1)).status(), Status::Running);
    for event in ["SignalReceived", "CancelRequested", "WorkflowTerminated"] {
        assert_eq!(api.events(1, event).len(), 0, "{event}");
    }
}

// --- runs ---

/// Each route that reads: the run that is named, the latest where none is, and no other.
#[test]
fn f3_a_reader_that_names_a_run_gets_that_run() {
    let api = api();
    let (first, second) = api.two_runs();
    let stranger = RunId::from_bytes([9; 16]);
    for (query, ordinal) in [(format!("?run_id={first}"), 0), (format!("?run_id={second}"), 1), (String::new(), 1)] {
        let id = if ordinal == 0 { first } else { second }.to_string();
        let (status, described) = api.get(&format!("/w{query}"));
        let found = (status, &described["run_id"], &described["ordinal"], &described["input"]);
        assert_eq!(found, (StatusCode::OK, &json!(id), &json!(ordinal), &json!([1, 5][ordinal])));
        let (status, history) = api.get(&format!("/w/history{query}"));
        assert_eq!((status, &history["events"][0]["attributes"]["run_id"]), (StatusCode::OK, &json!(id)));
        let (status, stored) = api.get(&format!("/w/records{query}"));
        assert_eq!((status, &stored["run_id"], &stored["ordinal"]), (StatusCode::OK, &json!(id), &json!(ordinal)));
        let records = serde_json::from_value::<Vec<StoredRecord>>(stored["records"].clone()).expect("records");
        let records: Vec<_> = records.into_iter().map(|record| record.0).collect();
        assert_eq!(records, api.world.records(&run("w", ordinal as u64)), "the very bytes that are stored");
        let (status, outcome) = api.get(&format!("/w/result{query}"));
        let ended = [(StatusCode::OK, json!(["first"])), (StatusCode::ACCEPTED, Value::Null)];
        assert_eq!(((status, outcome["result"].clone()), &outcome["run_id"]), (ended[ordinal].clone(), &json!(id)));
        let (status, answer) = api.post(&format!("/w/queries/what{query}"), None, json!({ "a": 1 }));
        assert_eq!((status, answer), (StatusCode::OK, json!({ "result": [ordinal, "what", { "a": 1 }] })));
    }
    for path in ["/w", "/w/history", "/w/records", "/w/result"] {
        assert_eq!(api.get(&format!("{path}?run_id={stranger}")).0, StatusCode::NOT_FOUND, "{path}");
    }
    let asked = api.post(&format!("/w/queries/what?run_id={stranger}"), None, Value::Null);
    assert_eq!(asked.0, StatusCode::NOT_FOUND);
}

/// Each route that writes: nothing that is addressed to an earlier run reaches the one of today.
#[test]
fn f3_a_write_that_names_a_run_is_for_that_run() {
    let api = api();
    let (first, second) = api.two_runs();
    let stranger = RunId::from_bytes([9; 16]);
    let writes = [
        ("/w/signals/word", json!("x"), "SignalReceived"),
        ("/w/cancel", Value::Null, "CancelRequested"),
        ("/w/terminate", Value::Null, "WorkflowTerminated"),
    ];
    for (path, body, event) in writes.clone() {
        let before = api.world.records(&run("w", 1)).len();
        for (id, expected) in [(first, StatusCode::CONFLICT), (stranger, StatusCode::NOT_FOUND)] {
            assert_eq!(api.post(&format!("{path}?run_id={id}"), Some("e"), body.clone()).0, expected, "{path}");
        }
        api.process.deliver();
        assert_eq!(api.world.records(&run("w", 1)).len(), before, "{path}");
        assert_eq!((api.events(0, event).len(), api.events(1, event).len()), (usize::from(path.contains("sig")), 0));
    }
    for (path, body, event) in writes {
        let (status, _) = api.post(&format!("{path}?run_id={second}"), Some(event), body);
        assert!(status.is_success(), "{path}: {status}");
        assert_eq!(api.events(1, event).len(), 1, "{path}");
    }
}

/// The run has continued as new. Who names it means it, and who does not is heard by the one of today.
#[test]
fn f4_over_http_only_a_message_that_names_no_run_follows() {
    let api = api();
    api.process.start("chain", "w", "r1", &1);
    api.process.deliver();
    api.process.signal("w", "a", "word", &"on");
    api.process.deliver();
    let first = api.run_id(0);
    for (path, body) in [("/w/signals/word", json!("x")), ("/w/cancel", Value::Null), ("/w/terminate", Value::Null)] {
        let (status, problem) = api.post(&format!("{path}?run_id={first}"), None, body);
        assert_eq!(status, StatusCode::CONFLICT, "{path}");
        let says = problem["detail"].as_str().expect("why");
        assert!(says.contains(&first.to_string()), "{path}: {says}");
    }
    api.process.deliver();
    assert_eq!(api.world.records(&run("w", 1)).len(), 2, "the start, and the first turn");
    assert_eq!(api.post("/w/signals/word", None, json!("end")).0, StatusCode::ACCEPTED);
    api.process.deliver();
    assert_eq!(api.get("/w/result").1["result"], json!(["end"]));
}

// --- the rest of what a request brings ---

/// Policies, type and input of a start.
#[test]
fn f3_a_start_brings_its_policies() {
    let api = api();
    let start = |input: Value, with: &[(&str, &str)]| {
        let mut body = json!({ "workflow_type": "words", "workflow_id": "w", "input": input });
        with.iter().for_each(|(name, value)| body[name] = json!(value));
        api.post("", None, body)
    };
    let first = start(json!(1), &[]);
    let open = api.events(0, "WorkflowStarted");
    assert_eq!((&open[0]["workflow_type"], &open[0]["input"]), (&json!("words"), &json!(1)));
    assert_eq!(start(json!(1), &[("id_conflict_policy", "Fail")]).0, StatusCode::CONFLICT);
    let joined = start(json!(1), &[("id_conflict_policy", "UseExisting")]);
    assert_eq!((joined.0, &joined.1["run_id"]), (StatusCode::OK, &first.1["run_id"]));
    assert_eq!((joined.1["existing"].as_bool(), first.1.get("existing")), (Some(true), None), "who began it");
    let second = start(json!(1), &[("id_conflict_policy", "TerminateExisting")]);
    assert_eq!(
        (second.0, api.run_id(1).to_string()),
        (StatusCode::CREATED, second.1["run_id"].as_str().unwrap().into())
    );
    assert_eq!(api.get(&format!("/w?run_id={}", api.run_id(0))).1["status"], "Terminated");
    // The second completes; the next three may not follow it, or may.
    api.process.signal("w", "s", "word", &"end");
    api.process.deliver();
    assert_eq!(start(json!(1), &[("id_reuse_policy", "RejectDuplicate")]).0, StatusCode::CONFLICT);
    assert_eq!(start(json!(1), &[("id_reuse_policy", "AllowDuplicateFailedOnly")]).0, StatusCode::CONFLICT);
    assert_eq!(start(json!(1), &[("id_reuse_policy", "AllowDuplicate")]).0, StatusCode::CREATED);
    assert_eq!(api.post("/w/terminate", None, Value::Null).0, StatusCode::OK);
    assert_eq!(start(json!(1), &[("id_reuse_policy", "AllowDuplicateFailedOnly")]).0, StatusCode::CREATED);
}

/// Listings: the filter, the page and its size. Histories: the page, its size, and where to begin.
#[test]
fn f3_a_listing_is_what_was_asked_for() {
    let api = api();
    for (id, workflow_type) in [("a1", "words"), ("a2", "nap"), ("b1", "words"), ("b2", "words")] {
        api.process.start(workflow_type, id, "r", &1);
        api.process.deliver();
        api.world.pass(Duration::from_secs(1));
    }
    let ended = api.post("/b1/terminate", None, Value::Null);
    assert_eq!(ended.0, StatusCode::OK);
    let ids = |page: &Value| -> Vec<String> {
        let runs = page["workflows"].as_array().expect("runs").iter();
        runs.map(|run| run["workflow_id"].as_str().expect("an id").to_owned()).collect()
    };
    for (query, expected) in [
        ("", &["b2", "b1", "a2", "a1"][..]),
        ("?status=Running", &["b2", "a2", "a1"]),
        ("?status=terminated", &["b1"]),
        ("?workflow_type=nap", &["a2"]),
        ("?id_prefix=b", &["b2", "b1"]),
        ("?id_prefix=b&status=running&workflow_type=words", &["b2"]),
        ("?limit=3", &["b2", "b1", "a2"]),
    ] {
        let (status, page) = api.get(query);
        assert_eq!(
            (status, &ids(&page)[..]),
            (StatusCode::OK, &expected.iter().map(|id| (*id).into()).collect::<Vec<String>>()[..]),
            "{query}"
        );
        assert_eq!(page["next_page_token"].is_string(), query.contains("limit"), "{query}");
    }
    // Two pages, both full: the second is the last.
    let (_, page) = api.get("?limit=2");
    let token = page["next_page_token"].as_str().expect("there is more");
    let (_, last) = api.get(&format!("?limit=2&page_token={token}"));
    assert_eq!((ids(&page), ids(&last)), (vec!["b2".into(), "b1".into()], vec!["a2".into(), "a1".into()]));
    assert_eq!(last.get("next_page_token"), None);

    api.process.deliver();
    api.process.signal("b2", "s", "word", &"heard");
    let (_, all) = api.get("/b2/history");
    let all = all["events"].as_array().expect("events");
    assert!(all.len() >= 2, "{all:?}");
    let (_, exact) = api.get(&format!("/b2/history?limit={}", all.len()));
    assert_eq!((exact["events"].as_array(), exact.get("next_page_token")), (Some(all), None));
    let (_, one) = api.get("/b2/history?limit=1");
    assert_eq!(one["events"].as_array(), Some(&all[..1].to_vec()));
    let token = one["next_page_token"].as_str().expect("there is more");
    let (_, rest) = api.get(&format!("/b2/history?page_token={token}"));
    assert_eq!((rest["events"].as_array(), rest.get("next_page_token")), (Some(&all[1..].to_vec()), None));
    let (_, behind) = api.get(&format!("/b2/history?after={}", all[0]["event_id"]));
    assert_eq!(behind["events"].as_array(), Some(&all[1..].to_vec()));
}

/// A history as it is stored comes in pages that any gateway lets through, and each batch is in one of them.
#[test]
fn f3_stored_records_come_in_pages() {
    let api = api();
    api.process.start("words", "w", "r1", &9);
    for n in 0..24 {
        api.process.signal("w", &format!("s{n}"), "word", &"x".repeat(60_000));
    }
    api.process.deliver();
    let (mut records, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let (status, page) = api.get(&format!("/w/records{token}"));
        assert_eq!(status, StatusCode::OK, "{page}");
        records.extend(serde_json::from_value::<Vec<StoredRecord>>(page["records"].clone()).expect("records"));
        pages += 1;
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("?run_id={}&page_token={next}", page["run_id"].as_str().expect("a run"));
    }
    let records: Vec<_> = records.into_iter().map(|record| record.0).collect();
    assert_eq!(records, api.world.records(&run("w", 0)));
    assert!(pages >= 2, "{pages}");
}

/// How long an answer is waited for: as long as was asked, within a bound, and no longer than it takes.
#[test]
fn f3_a_result_is_waited_for_as_long_as_was_asked() {
    let api = api();
    api.process.start("words", "w", "r1", &1);
    api.process.deliver();
    let waited = |path: &str| {
        let begun = api.world.now();
        let (status, _) = api.get(path);
        (status, api.world.now().since(begun).as_millis())
    };
    for (path, ms) in [("/w/result", 0), ("/w/result?wait=700ms", 700), ("/w/result?wait=25s", 25_000)] {
        let (status, waited) = waited(path);
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(waited, ms, "{path}");
    }
    api.process.signal("w", "s", "word", &"end");
    let begun = api.world.now();
    let ((status, _), ()) = in_time(&api.world, async {
        let decided = async {
            api.process.ports.host.sleep(Duration::from_secs(1)).await;
            api.process.deliver();
        };
        futures::join!(ask(api.router.clone(), "GET", "/v1/workflows/w/result?wait=20s", None, Value::Null), decided)
    });
    let waited = api.world.now().since(begun);
    assert_eq!(status, StatusCode::OK);
    assert!(waited < Duration::from_secs(4), "{waited:?}: it looks by itself, without notice");
}

/// By a process that has not parked it: the row tells. Who waits for an end until then is told at once, who waits on is
/// told when the time is up.
#[test]
fn o1_a_waiter_learns_that_a_run_is_parked_while_he_waits() {
    let mut api = api();
    let code = api.world.process();
    api.process = api.world.process();
    api.router = router(&api.process, |front| front);
    FOLLOWS.set(true);
    code.start("fragile", "w", "r1", &());
    code.deliver();
    for (path, within) in [("/w/result?wait=20s&or_parked=true", 4), ("/w/result?wait=20s", 21)] {
        FOLLOWS.set(true);
        let full = format!("/v1/workflows{path}");
        let begun = api.world.now();
        let ((status, answer), ()) = in_time(&api.world, async {
            let parks = async {
                code.ports.host.sleep(Duration::from_secs(1)).await;
                FOLLOWS.set(false);
                let other = api.world.process();
                other.signal("w", path, "word", &"a");
                other.deliver();
            };
            futures::join!(ask(api.router.clone(), "GET", &full, None, Value::Null), parks)
        });
        let waited = api.world.now().since(begun);
        assert!(waited < Duration::from_secs(within), "{path}: {waited:?}");
        assert_eq!((status, &answer["status"]), (StatusCode::ACCEPTED, &json!("Running")));
        assert!(answer["parked"]["reason"].as_str().is_some_and(|why| why.contains("no longer matches")), "{answer}");
    }
    // What has come to its history since makes the parking void.
    api.process.signal("w", "late", "word", &"b");
    assert_eq!(api.get("/w/result").1.get("parked"), None);
}

/// Notes what it is asked.
#[derive(Default)]
struct Quarantine(Mutex<Vec<String>>);

impl Quarantine {
    fn note<T: Send + 'static>(&self, asked: String, answer: T) -> SeamFuture<'_, T> {
        self.0.lock().unwrap().push(asked);
        std::future::ready(Ok(answer)).boxed()
    }
}

fn redriven(id: &str) -> RedrivenLetterBody {
    RedrivenLetterBody { id: id.into(), outcome: Redriven::Sent, detail: "to its queue".into() }
}

impl Redrive for Quarantine {
    fn list(&self, after: Option<String>, limit: usize) -> SeamFuture<'_, Letters<LetterBody>> {
        let letter = LetterBody {
            id: "l1".into(),
            queue: "tasks".into(),
            received_at: Timestamp::from_millis(0),
            reason: "no reason".into(),
            workflow_id: None,
            ordinal: None,
            size: None,
        };
        self.note(format!("list {after:?} {limit}"), (vec![letter], Some("behind l1".into())))
    }

    fn redrive(&self, after: Option<String>) -> SeamFuture<'_, Letters<RedrivenLetterBody>> {
        self.note(format!("redrive {after:?}"), (vec![redriven("l1")], after.is_none().then(|| "behind l1".into())))
    }

    fn redrive_these(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<RedrivenLetterBody>> {
        self.note(format!("these {ids:?}"), ids.iter().map(|id| redriven(id)).collect())
    }

    fn show(&self, id: String) -> SeamFuture<'_, Option<LetterShownBody>> {
        self.note(format!("show {id:?}"), None)
    }

    fn discard(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<DiscardedLetterBody>> {
        self.note(format!("discard {ids:?}"), vec![])
    }
}

/// The quarantine: pages, sizes and ids.
#[test]
fn f3_letters_are_those_that_were_asked_for() {
    let world = World::new(app());
    let process = world.process();
    let quarantine = Arc::new(Quarantine::default());
    let router = router(&process, |front| front.with_quarantine(Arc::clone(&quarantine) as _));
    let send = |method: &str, path: &str, body: Value| {
        let (status, answer) = in_time(&world, ask(router.clone(), method, path, None, body));
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    };
    let page = send("GET", "/v1/quarantine", Value::Null);
    let token = page["next_page_token"].as_str().expect("there is more");
    send("GET", &format!("/v1/quarantine?limit=7&page_token={token}"), Value::Null);
    let sent = send("POST", "/v1/quarantine/redrive", Value::Null);
    let last = send("POST", "/v1/quarantine/redrive", json!({ "page_token": sent["next_page_token"] }));
    assert_eq!(last.get("next_page_token"), None);
    let these = send("POST", "/v1/quarantine/redrive", json!({ "ids": ["l3", "l2"] }));
    assert_eq!((&these["letters"][0]["id"], &these["letters"][1]["id"]), (&json!("l3"), &json!("l2")));
    assert_eq!(send("POST", "/v1/quarantine/discard", json!({ "ids": ["l4"] })), json!({ "letters": [] }));
    let (status, _) = in_time(&world, ask(router.clone(), "GET", "/v1/quarantine/1-a~23b", None, Value::Null));
    assert_eq!(status, StatusCode::NOT_FOUND);
    let asked = [
        "list None 100",
        "list Some(\"behind l1\") 7",
        "redrive None",
        "redrive Some(\"behind l1\")",
        "these [\"l3\", \"l2\"]",
        "discard [\"l4\"]",
        "show \"1-a#b\"",
    ];
    assert_eq!(*quarantine.0.lock().unwrap(), asked);
}
