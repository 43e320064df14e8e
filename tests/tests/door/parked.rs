//! A run that is parked: whoever waits for it, looks at it or asks something of it is told, with the reason and what to
//! do.

use std::process::Stdio;
use std::time::Duration;

use dormouse::{App, Client, ClientError, Failure, IdConflictPolicy, ParkedCause, Workflow};
use serde_json::{Value, json};

use crate::{Door, command_line, parked};

/// Its panic has two lines, and the second is long.
async fn broken(_: Workflow, _: Value) -> Result<(), Failure> {
    panic!("three is\nnot four, {}", "as has been said before, ".repeat(12))
}

async fn door() -> Door {
    let door = Door::open(App::new().workflow("broken", broken)).await;
    let start = json!({ "workflow_type": "broken", "workflow_id": "b" });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);
    parked(&door.client().workflow("b", None)).await;
    door
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_wait_says_so() {
    let door = door().await;
    // By the first, one looks; by the second, one waits no longer than until it is known.
    for path in ["/v1/workflows/b/result", "/v1/workflows/b/result?wait=25s&or_parked=true"] {
        let (status, answer) = door.send("GET", path, "k", &json!(null)).await;
        let reason = answer["parked"]["reason"].as_str().unwrap_or_default();
        assert!(status == 202 && reason.contains("three is\nnot four"), "{path}: {status} {answer}");
        let (kind, place) = (&answer["parked"]["cause"]["kind"], answer["parked"]["cause"]["place"].as_str());
        assert!(kind == "panic" && place.unwrap_or_default().contains("door/parked.rs:"), "{path}: {answer}");
    }
    let (status, problem) = door.send("GET", "/v1/workflows/b/result?wait=500s", "k", &json!(null)).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("25s at most"), "{problem}");
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_a_terminal_is_told_once_and_may_give_up() {
    let door = door().await;
    let (out, err, code) = command_line(&door, &["workflow", "result", "b", "--wait", "1s"]).await;
    assert_eq!((out.as_str(), code), ("", Some(7)), "{err}");
    let note = err.lines().find(|line| line.starts_with("note: ")).unwrap_or_else(|| panic!("{err}"));
    assert!(note.contains("b is parked") && note.contains("three is; not four"), "{note}");
    assert!(err.contains("workflow terminate b") && !err.contains("\\u{"), "{err}");

    for line in [&["workflow", "result", "b"][..], &["workflow", "start", "--type", "broken", "--wait"]] {
        let (_, err, code) = command_line(&door, &[line, &["--fail-if-parked"]].concat()).await;
        assert!(code == Some(7) && err.contains("three is; not four"), "{line:?}: {code:?} {err}");
    }
    let (out, err, code) = command_line(&door, &["workflow", "result", "b", "--wait", "0s", "--output", "json"]).await;
    let outcome: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((&outcome["status"], code), (&json!("Running"), Some(7)));
    assert!(outcome["parked"]["reason"].is_string() && err.is_empty(), "{err}");

    // It waits on, and has been told.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
    command.args(["workflow", "result", "b", "--address", &door.server.url()]);
    let waits = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
    command.args(["workflow", "show", "b", "--follow", "--address", &door.server.url()]);
    let follows = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_, err, code) = command_line(&door, &["workflow", "terminate", "b"]).await;
    assert_eq!(code, Some(0), "{err}");
    for (child, code) in [(waits, 5), (follows, 0)] {
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.matches("is parked").count()), (Some(code), 1), "{err}");
    }
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_or_asks_at_a_terminal_is_told() {
    let door = door().await;
    let workflow = door.client().workflow("b", None);
    let (out, err, code) = command_line(&door, &["workflow", "show", "b"]).await;
    assert!(code == Some(0) && !out.contains("parked") && err.contains("three is; not four"), "{out}{err}");
    let (out, _, _) = command_line(&door, &["workflow", "describe", "b"]).await;
    assert!(out.contains("three is") && !out.contains("\\u{"), "{out}");
    let longest = out.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(130), "{out}");
    let (out, ..) = command_line(&door, &["workflow", "describe", "b", "--output", "json"]).await;
    let described: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}"));
    assert_eq!(described["parked"]["cause"]["turn"], 1, "{out}");
    let (out, ..) = command_line(&door, &["workflow", "list", "--parked", "--output", "json"]).await;
    assert!(out.contains("\"kind\":\"panic\"") || out.contains("\"kind\": \"panic\""), "{out}");
    for verb in [&["cancel", "b"][..], &["signal", "b", "go"], &["query", "b", "status"]] {
        parked(&workflow).await;
        let (out, err, code) = command_line(&door, &[&["workflow"], verb].concat()).await;
        let all = out + &err;
        assert!(all.contains("three is") && all.contains("workflow terminate b"), "{verb:?}: {all}");
        assert!(all.contains("deploy"), "{verb:?}: {all}");
        assert_eq!(code, Some(if verb[0] == "query" { 7 } else { 0 }), "{verb:?}: {all}");
    }
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_client_may_give_up() {
    let app = App::new().workflow("broken", broken);
    let door = Door::open(app.clone()).await;
    let client = Client::connect(&door.server.url(), &app).unwrap();
    let handle = client.start(broken, "b", &json!(1)).await.unwrap();
    // It is parked while he waits, or has been before.
    let error = handle.result_unless_parked().await.unwrap_err();
    let ClientError::Parked(problem) = &error else { panic!("{error:?}") };
    assert!(problem.detail.contains("three is; not four") && problem.run_id == handle.run_id(), "{problem:?}");
    let described = handle.describe().await.unwrap();
    let cause = described.run.parked.expect("it is parked").cause;
    let Some(ParkedCause::Panic { turn: 1, message, .. }) = &cause else { panic!("{cause:?}") };
    assert!(message.starts_with("three is\nnot four"), "{message}");
    assert!(!handle.is_existing());
    let again = client.start(broken, "b", &json!(1)).id_conflict_policy(IdConflictPolicy::UseExisting).await.unwrap();
    assert!(again.is_existing() && again.run_id() == handle.run_id());
    door.server.stop(Duration::ZERO).await;
}
