//! What people at a terminal, and their scripts, are told: what happened, what to type next, and an exit code for each
//! kind.

use std::net::TcpListener;
use std::time::Duration;

use dormouse::{App, Failure, Workflow};
use serde_json::{Value, json};

use crate::{Door, command_line, of_words};

async fn failing(_: Workflow, _: ()) -> Result<(), Failure> {
    Err(Failure::application("no tea"))
}

async fn eleven(_: Workflow, _: ()) -> Result<u32, Failure> {
    Ok(11)
}

fn app() -> App {
    App::new().workflow("waiting", of_words).workflow("failing", failing).workflow("eleven", eleven)
}

/// The last line of standard error, which is a problem.
fn problem(err: &str) -> Value {
    serde_json::from_str(err.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("no problem: {err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_error_has_an_exit_code_and_is_a_problem_for_scripts() {
    let door = Door::open(app()).await;
    for (workflow_type, id) in [("waiting", "w"), ("failing", "f"), ("eleven", "e")] {
        let start = json!({ "workflow_type": workflow_type, "workflow_id": id });
        assert_eq!(door.send("POST", "/v1/workflows", id, &start).await.0, 201);
    }
    for (line, code, kind) in [
        (&["workflow", "result", "e"][..], 0, ""),
        (&["workflow", "start", "--type", "waiting", "--id", "w"], 1, "/problems/already-started"),
        (&["workflow", "start", "--type", "nothing"], 1, "/problems/invalid-request"),
        (&["workflow", "start", "--type", "waiting", "--input", "tea"], 2, "about:blank"),
        (&["workflow", "start", "--kind", "waiting"], 2, "about:blank"),
        (&["workflow", "describe", "nobody"], 4, "/problems/not-found"),
        (&["workflow", "query", "w", "mood"], 4, "/problems/no-such-query"),
        (&["workflow", "result", "f"], 5, ""),
        (&["workflow", "result", "w", "--wait", "0s"], 6, ""),
    ] {
        let (_, err, as_prose) = command_line(&door, line).await;
        assert_eq!(as_prose, Some(code), "{line:?}: {err}");
        assert!(code == 0 || err.contains("error: "), "{line:?}: {err}");
        let (out, err, as_json) = command_line(&door, &[line, &["--output", "json"]].concat()).await;
        assert_eq!(as_json, Some(code), "{line:?}: {err}");
        if kind.is_empty() {
            assert!(serde_json::from_str::<Value>(&out).is_ok() && err.is_empty(), "the outcome: {out}{err}");
        } else {
            let problem = problem(&err);
            assert_eq!((&problem["type"], &problem["exit_code"]), (&json!(kind), &json!(code)), "{line:?}");
            assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        }
    }
    let (_, err, _) = command_line(&door, &["workflow", "query", "w", "mood"]).await;
    assert!(err.contains("it answers: none") && !err.contains("workflow list"), "{err}");
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_began_nothing_says_so() {
    let door = Door::open(app()).await;
    let start = |policy: &str| json!({ "workflow_type": "waiting", "workflow_id": "w", "id_conflict_policy": policy });
    let (status, began) = door.send("POST", "/v1/workflows", "k", &start("Fail")).await;
    assert_eq!((status, began.get("existing")), (201, None));
    // Again and again, the first answer of each.
    for (key, policy, expected) in [("j", "UseExisting", 200), ("k", "Fail", 201), ("j", "UseExisting", 200)] {
        let (status, answer) = door.send("POST", "/v1/workflows", key, &start(policy)).await;
        assert_eq!((status, &answer["run_id"]), (expected, &began["run_id"]), "{key}: {answer}");
        assert_eq!(answer["existing"].as_bool().unwrap_or_default(), expected == 200, "{key}: {answer}");
    }
    let line = ["workflow", "start", "--type", "waiting", "--id", "w", "--id-conflict-policy", "UseExisting"];
    let (out, _, code) = command_line(&door, &line).await;
    assert!(code == Some(0) && !out.contains("Started") && out.contains("nothing was started"), "{out}");
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_reason_has_none() {
    let door = Door::open(app()).await;
    assert_eq!(
        door.send("POST", "/v1/workflows", "k", &json!({ "workflow_type": "waiting", "workflow_id": "w" })).await.0,
        201
    );
    assert_eq!(door.send("POST", "/v1/workflows/w/terminate", "t", &json!({})).await.0, 200);
    let (_, err, _) = command_line(&door, &["workflow", "result", "w"]).await;
    assert!(err.contains("ended as Terminated\n"), "{err}");
    door.server.stop(Duration::ZERO).await;
}

/// A server that answers with these, and then no more.
fn stub(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).unwrap();
            seen.push(String::from_utf8_lossy(&asked[..length]).into_owned());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        seen
    });
    (address, served)
}

const UNAVAILABLE: &str = "HTTP/1.1 503 X\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\
    Content-Length: 152\r\n\r\n{\"type\": \"/problems/unavailable\", \"title\": \"t\", \"status\": 503, \"detail\": \
    \"no answer; repeat the request with the same Idempotency-Key                 \"}";

#[tokio::test(flavor = "multi_thread")]
async fn when_an_outcome_is_unknown_a_command_is_shown_that_can_be_typed() {
    for answer in ["", UNAVAILABLE] {
        for verb in [&["start", "--type", "it's"][..], &["signal", "a b", "go"], &["cancel", "a"], &["terminate", "a"]]
        {
            let (address, served) = stub(vec![answer; if verb[0] == "start" { 3 } else { 4 }]);
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
            command.arg("workflow").args(verb).args(["--address", &address]);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{verb:?}: {err}");
            assert!(!err.contains("Idempotency-Key"), "its flag has another name: {err}");
            let (before, id) =
                err.trim_end().rsplit_once(" --request-id ").unwrap_or_else(|| panic!("{verb:?}: {err}"));
            let quoted = ["it's", "a b"].iter().any(|word| verb.contains(word));
            assert_eq!(before.contains(r"'it'\''s'") || before.contains("'a b'"), quoted, "{err}");
            let seen = served.join().unwrap();
            assert!(
                seen.last().unwrap().to_lowercase().contains(&format!("idempotency-key: {}", id.trim_matches('`'))),
                "{id}: {seen:?}"
            );
        }
    }
}
