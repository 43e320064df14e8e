//! `replay` and `workflow export` on the command line: the same runs, found in a directory, at a server, in files.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::{EXIT_DOES_NOT_FIT, EXIT_INTERRUPTED, EXIT_USAGE, SqliteStore};
use serde_json::{Value, json};

use crate::Door;

/// Where the child process finds its arguments, a line each, and whose code it has.
const ARGUMENTS: &str = "DORMOUSE_TEST_REPLAY";
const CODE: &str = "DORMOUSE_TEST_CODE";

const STATUS: Query<String> = Query::new("status");
const MINUTE: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));

async fn double(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(n * 2)
}

async fn halve(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(n / 2)
}

async fn before(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let _status = cx.publish(STATUS, "begun".into());
    let doubled = cx.activity(double, &n).options(MINUTE).await?;
    cx.sleep(Duration::from_hours(1)).await?;
    Ok(doubled)
}

async fn after(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let _status = cx.publish(STATUS, "begun".into());
    let doubled = cx.activity(double, &n).options(MINUTE).await?;
    cx.activity(halve, &n).options(MINUTE).await?;
    cx.sleep(Duration::from_hours(1)).await?;
    Ok(doubled)
}

async fn endless(cx: Workflow, n: u32) -> Result<u32, Failure> {
    if n == 1 {
        loop {
            std::hint::spin_loop();
        }
    }
    before(cx, n).await
}

fn app(code: &str) -> App {
    let app = App::new().activity("double", double).activity("halve", halve);
    match code {
        "before" => app.workflow("waiting", before),
        "after" => app.workflow("waiting", after),
        "endless" => app.workflow("waiting", endless),
        other => panic!("there is no code {other}"),
    }
}

/// Not a test of its own: the process that the tests below start.
#[test]
fn child() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let code = dormouse::cli(app(&std::env::var(CODE).unwrap())).main_from(arguments.lines());
        println!("\nended as {code:?}");
    }
}

fn command(code: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let line = ["app"].iter().chain(arguments).copied().collect::<Vec<_>>().join("\n");
    command.args(["--exact", "replay::child", "--nocapture"]).env(ARGUMENTS, line).env(CODE, code);
    command.env_remove("DORMOUSE_ADDRESS").env("COLUMNS", "400");
    command
}

/// What it printed, and whether it ended with this exit code.
async fn run(code: &str, arguments: &[&str], exit: u8) -> String {
    let mut command = command(code, arguments);
    said(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap(), exit)
}

fn said(output: Output, exit: u8) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let ended = format!("ended as {:?}", std::process::ExitCode::from(exit));
    assert!(said.contains(&ended), "not {ended}: {said}");
    said
}

/// What it told scripts.
async fn told(code: &str, arguments: &[&str], exit: u8) -> Value {
    let said = run(code, &[arguments, &["--output", "json"]].concat(), exit).await;
    let (begins, ends) = (said.find("\n{").expect(&said), said.find("\n}").expect(&said));
    serde_json::from_str(&said[begins..ends + 2]).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A server with three runs that wait for a timer.
async fn three_runs(dir: &Path) -> Door {
    let door = Door::over(app("before"), Arc::new(SqliteStore::open(dir).unwrap())).await;
    for n in 0..3 {
        let start = json!({ "workflow_type": "waiting", "workflow_id": format!("w/{n}"), "input": n });
        assert_eq!(door.send("POST", "/v1/workflows", &format!("k{n}"), &start).await.0, 201);
        let workflow = door.client().workflow(format!("w/{n}"), None);
        let begun = tokio::time::timeout(Duration::from_secs(60), async {
            while workflow.describe().await.unwrap().history_events < 5 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        begun.await.expect("its timer runs");
    }
    door
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_are_replayed_wherever_they_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (data, exported) = (data.to_str().unwrap(), dir.path().join("histories"));
    let exported = exported.to_str().unwrap();
    let door = three_runs(Path::new(data)).await;
    let url = door.server.url();
    let written = run("before", &["workflow", "export", "--dir", exported, "--address", &url], 0).await;
    assert!(written.contains("histories/w~2F1.0.json"), "{written}");

    let writes = door.writes();
    // Beside the running server, at the server, from files: one verdict.
    let sources: [&[&str]; 3] = [&["--data-dir", data], &["--address", &url], &[exported]];
    for source in sources {
        let line = [&["replay"], source].concat();
        let fits = told("before", &line, 0).await;
        assert_eq!((&fits["runs"], &fits["events"], &fits["fit"]), (&json!(3), &json!(15), &json!(3)), "{fits}");
        let strays = told("after", &line, EXIT_DOES_NOT_FIT).await;
        assert_eq!(strays["verdicts"], json!({ "diverges": 3 }), "{strays}");
        let stray = &strays["do_not_fit"][0];
        let sides = (&stray["recorded"]["kind"], &stray["attempted"]["kind"], &stray["attempted"]["name"]);
        assert_eq!(sides, (&json!("timer"), &json!("activity"), &json!("halve")), "{stray}");
        for side in ["recorded", "attempted"] {
            assert!(stray[side]["place"].as_str().unwrap().contains("door/replay.rs:"), "{stray}");
        }
    }
    let one = told("after", &["replay", "--data-dir", data, "--id", "w/1"], EXIT_DOES_NOT_FIT).await;
    assert_eq!((&one["runs"], &one["do_not_fit"][0]["workflow_id"]), (&json!(1), &json!("w/1")), "{one}");
    let none = run("after", &["replay", "--data-dir", data, "--type", "other"], 0).await;
    assert!(none.contains("No runs to replay."), "{none}");
    assert_eq!(door.writes(), writes, "nothing was written");
    door.server.stop(Duration::ZERO).await;
    drop(door.store);
    // Where nobody runs.
    assert_eq!(told("before", &["replay", "--data-dir", data], 0).await["fit"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_ci_read_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let door = three_runs(&dir.path().join("data")).await;
    let (url, junit) = (door.server.url(), dir.path().join("replay.xml"));
    let line = ["replay", "--address", &url, "--junit", junit.to_str().unwrap()];
    let table = run("after", &line, EXIT_DOES_NOT_FIT).await;
    for part in ["TODAY'S CODE", "timer at ", "activity \"halve\" at ", "w/2", "3 runs, 15 events: 3 do not fit"] {
        assert!(table.contains(part), "{part} is not in: {table}");
    }
    assert_eq!(table.matches("activity \"halve\" at ").count(), 1, "one cause, one line: {table}");
    let report = std::fs::read_to_string(&junit).unwrap();
    for part in ["<testsuite name=\"waiting\" tests=\"3\"", "failures=\"3\"", "type=\"diverges\"", "recorded:  timer"] {
        assert!(report.contains(part), "{part} is not in: {report}");
    }

    let sample = ["replay", "--address", &url, "--sample", "2", "--seed", "7"];
    let chosen = told("after", &sample, EXIT_DOES_NOT_FIT).await;
    assert_eq!(chosen["runs"], 2);
    let ids = |told: &Value| -> Vec<String> {
        let runs = told["do_not_fit"].as_array().unwrap().iter();
        let mut ids: Vec<_> = runs.map(|run| run["workflow_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&chosen), ids(&told("after", &sample, EXIT_DOES_NOT_FIT).await));

    // One of them never gives its turn back: the others are replayed all the same.
    let line = ["replay", "--address", &url, "--threads", "1", "--turn-limit", "300ms"];
    let endless = told("endless", &line, EXIT_DOES_NOT_FIT).await;
    assert_eq!(endless["verdicts"], json!({ "endless": 1, "fits": 2 }), "{endless}");
    let stray = &endless["do_not_fit"][0];
    assert_eq!((&stray["workflow_id"], &stray["workflow_type"]), (&json!("w/1"), &json!("waiting")), "{stray}");
    door.server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_history_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let refused = run("before", &["replay", &at("")], EXIT_USAGE).await;
    assert!(refused.contains("there is no history in") && refused.contains("workflow export"), "{refused}");
    std::fs::write(at("shown.json"), r#"{"events": []}"#).unwrap();
    let refused = run("before", &["replay", &at("shown.json")], EXIT_USAGE).await;
    assert!(refused.contains("shown.json: it holds the events of `workflow show"), "{refused}");
    let refused = run("before", &["replay", "--data-dir", &at("")], 1).await;
    assert!(refused.contains("dormouse.db"), "{refused}");
    assert!(!dir.path().join("dormouse.db").exists(), "nothing is made");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_tells_what_it_has_found() {
    let dir = tempfile::tempdir().unwrap();
    let door = three_runs(&dir.path().join("data")).await;
    let line = ["replay", "--address", &door.server.url(), "--threads", "1", "--turn-limit", "1h"];
    let child = command("endless", &line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    // When it is interrupted, nobody knows how far it is: not before it listens.
    let listens = tokio::task::spawn_blocking(move || {
        let caught = || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
            u64::from_str_radix(caught, 16).unwrap_or(0) & 2 != 0
        };
        while cfg!(target_os = "linux") && !caught() {
            std::thread::yield_now();
        }
        Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
        child.wait_with_output().unwrap()
    });
    let said = said(listens.await.unwrap(), EXIT_INTERRUPTED);
    assert!(said.contains("run"), "{said}");
    door.server.stop(Duration::ZERO).await;
}
