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

/// Not the address at which the machine would give out credentials: that there are none.
#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_credentials_says_so() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
    command.args(["dev", "--store", "s3://bucket/prefix", "--listen", "127.0.0.1:0"]).env_clear();
    command.env("AWS_REGION", "eu-central-1").env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("no AWS credentials were found") && err.contains("AWS_ACCESS_KEY_ID"), "{err}");
    assert!(!err.contains("127.0.0.1:1") && output.status.code() == Some(1), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_tells_runs_apart_and_a_closed_run_says_how_it_ended() {
    let door = Door::open(app()).await;
    for (workflow_type, id, says) in [("eleven", "e", "result    11"), ("failing", "f", "failure   no tea")] {
        let start = json!({ "workflow_type": workflow_type, "workflow_id": id });
        let (_, began) = door.send("POST", "/v1/workflows", id, &start).await;
        door.client().workflow(id, None).outcome(Some(Duration::from_secs(60))).await.unwrap();
        let (out, _, _) = command_line(&door, &["workflow", "describe", id]).await;
        assert!(out.contains(says), "{out}");
        let (out, _, _) = command_line(&door, &["workflow", "list", "--id-prefix", id, "--limit", "1"]).await;
        assert!(out.contains(began["run_id"].as_str().unwrap()) && out.contains("RUN"), "{out}");
    }
    // The same words over HTTP.
    let (status, page) = door.send("GET", "/v1/workflows?id_prefix=e&limit=1", "k", &json!(null)).await;
    assert_eq!((status, page["workflows"].as_array().map(Vec::len)), (200, Some(1)), "{page}");
    door.server.stop(Duration::ZERO).await;
}

/// Where the child process finds of which verb to show the help.
const HELP_OF: &str = "DORMOUSE_TEST_HELP_OF";

/// Not a test of its own: the sample application's program, whose help the test below reads.
#[test]
fn child() {
    if let Ok(verb) = std::env::var(HELP_OF) {
        let sample = functions::app(functions::ledger::Ledger::at("/nowhere"));
        let words = ["app"].into_iter().chain(verb.split_whitespace()).chain(["--help"]);
        println!("\nended as {:?}", dormouse::cli(sample).main_from(words));
    }
}

fn output(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// The sample's line works when it is typed; another program's help does not speak of the sample.
#[tokio::test(flavor = "multi_thread")]
async fn the_help_speaks_of_this_application() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    for verb in ["", "workflow start"] {
        let mut sample = std::process::Command::new(std::env::current_exe().unwrap());
        sample.args(["--exact", "words::child", "--nocapture"]).env(HELP_OF, verb);
        let help = output(sample);
        // Over two lines, as one types it.
        let begins = help.find("workflow start --type orderWorkflow --id").unwrap_or_else(|| panic!("{help}"));
        let line: String = help[begins..].lines().take(2).map(|line| line.trim().trim_end_matches('\\')).collect();
        let mut typed = std::process::Command::new("sh");
        let program = env!("CARGO_BIN_EXE_oddities");
        typed.args([
            "-c",
            &format!("{program} {line} --id-conflict-policy UseExisting --address {}", door.server.url()),
        ]);
        assert!(output(typed).contains("example-1"), "{line}");
    }
    for verb in
        [&[][..], &["workflow", "start"], &["workflow", "signal"], &["workflow", "query"], &["workflow", "list"]]
    {
        let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_oddities"));
        other.args(verb).arg("--help");
        let help = output(other);
        for theirs in ["orderWorkflow", "order-", "expense", "approval", "tea\"", "{type}", "{input}"] {
            assert!(!help.contains(theirs), "{theirs} is in: {help}");
        }
    }
    door.server.stop(Duration::ZERO).await;
}
