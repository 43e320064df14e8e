//! Against a server that misbehaves on purpose: writes are repeated with the same key, and not for ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use dormouse_client::{Auth, Client, ClientError, RawClient};
use dormouse_core::{App, Failure, Query, Signal, Workflow};

/// What a request was: its first line, its idempotency key, its body.
#[derive(Debug)]
struct Seen {
    line: String,
    key: Option<String>,
    authorization: Option<String>,
    body: String,
}

/// Answers one request after another with these; an empty answer closes the connection instead.
fn server(answers: Vec<String>) -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (seen, seen_by) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            seen.send(read(&stream)).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, seen_by)
}

fn read(stream: &TcpStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut key, mut authorization, mut length) = (None, None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = Some(value.to_owned()),
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Seen { line: line.trim().to_owned(), key, authorization, body: String::from_utf8(body).unwrap() }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\nretry-after: 0\r\n\r\n{body}", body.len())
}

fn problem(status: u16, kind: &str) -> String {
    let body =
        format!(r#"{{"type":"/problems/{kind}","title":"t","status":{status},"detail":"the detail of {kind}"}}"#);
    answer(&format!("{status} X"), &body)
}

const RUN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

async fn order_workflow(_: Workflow, items: Vec<String>) -> Result<usize, Failure> {
    Ok(items.len())
}

async fn stranger(_: Workflow, _: ()) -> Result<(), Failure> {
    Ok(())
}

fn app() -> App {
    App::new().workflow("orderWorkflow", order_workflow)
}

fn items() -> Vec<String> {
    vec!["tea".into()]
}

#[tokio::test]
async fn a_write_is_repeated_with_the_same_key() {
    let started = format!(r#"{{"workflow_id":"order/1","run_id":"{RUN}"}}"#);
    let (address, seen) = server(vec![String::new(), problem(503, "unavailable"), answer("201 Created", &started)]);
    let client = Client::connect(&address, &app()).unwrap();
    let handle = client.start(order_workflow, "order/1", &items()).await.unwrap();
    assert_eq!(handle.run_id().unwrap().to_string(), RUN);

    let seen: Vec<Seen> = seen.try_iter().collect();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.line == "POST /v1/workflows HTTP/1.1" && one.body == seen[0].body));
    assert!(seen[0].key.is_some() && seen.iter().all(|one| one.key == seen[0].key), "{seen:?}");
    assert!(seen[0].body.contains(r#""workflow_type":"orderWorkflow""#) && seen[0].body.contains(r#"["tea"]"#));
}

#[tokio::test]
async fn two_writes_have_two_keys_and_a_given_key_is_kept() {
    let (address, seen) =
        server(vec![answer("202 Accepted", ""), answer("202 Accepted", ""), problem(409, "already-started")]);
    let client = Client::connect(&address, &app()).unwrap();
    let handle = client.workflow(order_workflow, "a/b", None);
    const APPROVAL: Signal<bool> = Signal::new("approve/now");
    handle.signal(APPROVAL, &true).await.unwrap();
    handle.cancel("enough").await.unwrap();
    let refused = client.start(order_workflow, "a", &items()).request_id("mine").await.unwrap_err();
    assert!(matches!(&refused, ClientError::AlreadyStarted(problem) if problem.status == 409), "{refused:?}");

    let seen: Vec<Seen> = seen.try_iter().collect();
    assert_eq!(seen[0].line, "POST /v1/workflows/a~2Fb/signals/approve~2Fnow HTTP/1.1");
    assert_eq!((seen[0].body.as_str(), seen[1].body.as_str()), ("true", r#"{"reason":"enough"}"#));
    assert_ne!(seen[0].key, seen[1].key);
    assert_eq!(seen[2].key.as_deref(), Some("mine"));
}

#[tokio::test]
async fn refusals_are_not_repeated_and_keep_their_kind() {
    let (address, seen) = server(vec![
        problem(404, "not-found"),
        problem(409, "closed"),
        problem(422, "query-failed"),
        answer("404 Not Found", r#"{"message":"Not Found"}"#),
        problem(500, "internal"),
        answer("422 X", r#"{"type":"/problems/does-not-fit","title":"t","status":422,"detail":"d","pointer":"/a"}"#),
    ]);
    let handle = RawClient::new(&address).unwrap().workflow("x", None);
    assert!(matches!(handle.describe().await, Err(ClientError::NotFound(_))));
    let closed = handle.terminate("", None).await.unwrap_err();
    assert!(matches!(closed, ClientError::Closed(_)));
    assert_eq!(closed.to_string(), "the detail of closed");
    let null = dormouse_core::Payload::NULL;
    assert!(matches!(handle.query("q", &null).await, Err(ClientError::Problem(problem)) if problem.status == 422));
    let foreign = handle.describe().await.unwrap_err().to_string();
    assert!(foreign.contains("(Not Found)") && foreign.contains("not from a Dormouse server"), "{foreign}");
    assert!(matches!(handle.describe().await, Err(ClientError::Problem(problem)) if problem.status == 500));
    match handle.signal("s", &null, None).await {
        Err(ClientError::DoesNotFit(problem)) => assert_eq!(problem.pointer.as_deref(), Some("/a")),
        other => panic!("{other:?}"),
    }
    assert_eq!(seen.try_iter().count(), 6);
}

/// Gateways say these while the function behind them dies or there is too much to do; the key makes a repeat harmless.
#[tokio::test]
async fn what_gateways_say_in_passing_is_repeated() {
    let (address, seen) = server(vec![
        answer("500 Internal Server Error", r#"{"message":"Internal Server Error"}"#),
        answer("429 Too Many Requests", r#"{"message":"Too Many Requests"}"#),
        answer("502 Bad Gateway", "<html>"),
        answer("504 Gateway Timeout", r#"{"message":"Endpoint request timed out"}"#),
        answer("202 Accepted", ""),
        answer("502 Bad Gateway", "<html>"),
    ]);
    let handle = RawClient::new(&address).unwrap().workflow("x", None);
    handle.cancel("enough", None).await.unwrap();
    let keys: Vec<_> = seen.try_iter().map(|one| one.key).collect();
    assert!(keys.len() == 5 && keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");

    let once = RawClient::new(&address).unwrap().tries(1);
    assert!(
        matches!(once.workflow("x", None).describe().await, Err(ClientError::Problem(problem)) if problem.status == 502)
    );
}

#[tokio::test]
async fn whoever_is_turned_away_learns_what_may_help() {
    let challenge = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 26\r\nconnection: close\r\nwww-authenticate: Bearer \
                     error=\"invalid_token\"\r\n\r\n{\"message\":\"Unauthorized\"}";
    let (address, seen) = server(vec![
        answer("403 Forbidden", r#"{"Message":"Forbidden. No."}"#),
        challenge.to_owned(),
        problem(403, "cross-site"),
    ]);
    let client = RawClient::new(&address).unwrap();
    let denied = client.workflow("x", None).describe().await.unwrap_err();
    assert!(matches!(&denied, ClientError::Denied(problem) if problem.status == 403), "{denied:?}");
    for part in ["Forbidden. No.", "--auth aws", "Auth::bearer"] {
        assert!(denied.to_string().contains(part), "{denied}");
    }
    let bearer = client.clone().auth(Auth::bearer("old").unwrap());
    let denied = bearer.workflow("x", None).describe().await.unwrap_err();
    for part in ["Unauthorized", "invalid_token", "expired"] {
        assert!(matches!(&denied, ClientError::Denied(_)) && denied.to_string().contains(part), "{denied}");
    }
    // The server's own refusals say themselves what they mean.
    assert!(matches!(client.workflow("x", None).cancel("", None).await, Err(ClientError::Problem(_))));
    let shown: Vec<_> = seen.try_iter().map(|one| one.authorization).collect();
    assert_eq!(shown, [None, Some("Bearer old".to_owned()), None]);
}

#[tokio::test]
async fn nobody_there_is_told_after_a_few_tries() {
    let client = RawClient::new("http://127.0.0.1:1").unwrap().tries(2);
    let error = client.list(&Default::default(), 10).await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn results_are_awaited_over_breaks_and_runs() {
    let result =
        |status: &str, more: &str| answer("200 OK", &format!(r#"{{"run_id":"{RUN}","status":"{status}"{more}}}"#));
    let (address, seen) = server(vec![
        result("Running", ""),
        String::new(),
        result("ContinuedAsNew", ""),
        result("Running", ""),
        result("Completed", r#","result":3"#),
        result(
            "Failed",
            r#","failure":{"message":"no tea","kind":"application","cause":{"message":"dry","kind":"application"}}"#,
        ),
    ]);
    let client = Client::connect(&address, &app()).unwrap();
    let handle = client.workflow(order_workflow, "x", Some(RUN.parse().unwrap()));
    assert_eq!(handle.result().await.unwrap(), 3);
    let lines: Vec<String> = seen.try_iter().map(|one| one.line).collect();
    assert!(
        lines[..3].iter().all(|line| line.contains(RUN)) && !lines[3].contains(RUN) && !lines[4].contains(RUN),
        "{lines:?}"
    );

    let failed = handle.result().await.unwrap_err();
    assert!(failed.to_string().ends_with("ended as Failed: no tea: dry"), "{failed}");
}

#[tokio::test]
async fn a_handle_of_one_run_asks_for_that_run() {
    let (address, seen) = server(vec![answer("202 Accepted", "")]);
    let handle = RawClient::new(&address).unwrap().workflow("a", None).of_run(Some(RUN.parse().unwrap()));
    handle.cancel("enough", None).await.unwrap();
    let line = seen.recv().unwrap().line;
    assert!(line.contains(RUN), "{line}");
}

#[tokio::test]
async fn answers_of_another_type_are_told() {
    let (address, _seen) =
        server(vec![answer("200 OK", r#"{"result": 12345678901234567890}"#), answer("200 OK", r#"{"result": "x"}"#)]);
    let client = Client::connect(&address, &app()).unwrap();
    let handle = client.workflow(order_workflow, "x", None);
    const COUNT: Query<u64> = Query::new("count");
    assert_eq!(handle.query(COUNT).await.unwrap(), 12_345_678_901_234_567_890);
    assert!(matches!(handle.query(COUNT).await, Err(ClientError::Decode(_))));
}

#[tokio::test]
async fn unknown_functions_are_told_before_anything_is_sent() {
    let client = Client::connect("http://127.0.0.1:1", &app()).unwrap();
    let error = client.start(stranger, "x", &()).await.unwrap_err();
    assert!(error.to_string().contains("App::workflow"), "{error}");
}
