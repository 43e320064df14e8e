//! Nothing is acknowledged before it is on the disk: a server's system calls, watched by `strace`.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use dormouse::api::StartBody;
use dormouse::{IdConflictPolicy, IdReusePolicy, Payload};
use dormouse_tests::server::{Server, dev, functions};
use dormouse_tests::syncs::{CALLS, Expected, check};
use futures::future::join_all;
use serde_json::json;

const WORKFLOWS: usize = 12;
const SIGNALS: usize = 4;

/// `dev` below `strace`.
fn watched(dir: &Path) -> Command {
    let server = dev(functions(), dir);
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-ttt", "-xx", "-s", "65536", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(dir.join("trace"));
    strace.arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledgement_follows_a_sync_of_what_it_acknowledges() {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    assert!(
        works.as_ref().is_ok_and(|output| output.status.success()),
        "this test watches the server with strace, and strace does not work here ({works:?}); \
         `apt-get install strace` installs it, and ptrace must be allowed (in a container: --cap-add SYS_PTRACE)"
    );
    let dir = tempfile::tempdir().unwrap();
    // The first start grows the log with megabytes of nothing: not worth watching.
    assert!(Server::start(functions(), dir.path()).terminate().success());

    let mut server = Server::spawn(watched(dir.path()));
    let Some(_) = server.wait_until_up() else {
        panic!("no server under strace: {}", std::fs::read_to_string(dir.path().join("stderr.log")).unwrap());
    };
    let client = server.client();
    let mut expected = Vec::new();
    let starts = (0..WORKFLOWS).map(|n| {
        let (id, request_id) = (format!("watched-workflow-{n}"), format!("watched-start-{n}"));
        expected.push(Expected { request_id: request_id.clone(), durable: vec![id.clone(), request_id.clone()] });
        let body = StartBody {
            workflow_type: "expenseApprovalWorkflow".into(),
            workflow_id: Some(id.clone()),
            input: json!({ "expense_id": id, "amount_cents": 1 }).into(),
            id_reuse_policy: IdReusePolicy::default(),
            id_conflict_policy: IdConflictPolicy::default(),
        };
        let client = client.clone();
        async move { client.start(&body, Some(&request_id)).await.unwrap() }
    });
    let starts: Vec<_> = starts.collect();
    join_all(starts).await;
    let mut signals = Vec::new();
    for n in 0..WORKFLOWS {
        for m in 0..SIGNALS {
            let request_id = format!("watched-signal-{n}-{m}");
            expected.push(Expected { request_id: request_id.clone(), durable: vec![request_id.clone()] });
            let handle = client.workflow(format!("watched-workflow-{n}"), None);
            signals.push(async move { handle.signal("note", &Payload::NULL, Some(&request_id)).await.unwrap() });
        }
    }
    join_all(signals).await;
    let stopped = Expected { request_id: "watched-stop".into(), durable: vec!["watched-stop".into()] };
    client.workflow("watched-workflow-0", None).terminate("enough", Some(&stopped.request_id)).await.unwrap();
    expected.push(stopped);

    // Told by its own id: strace ends with it.
    let pid = std::fs::read_to_string(dir.path().join("data/dormouse.lock")).unwrap().trim().parse().unwrap();
    assert!(server.terminate_pid(pid).success());
    let trace = std::fs::read_to_string(dir.path().join("trace")).unwrap();

    let verdict = check(&trace, &expected);
    dormouse_tests::tell!(
        "{} acknowledgements, {} syncs, {} lines of trace",
        verdict.acknowledged.len(),
        verdict.syncs,
        trace.lines().count()
    );
    assert_eq!(verdict.violations, [], "{:#?}", verdict.violations);
    let mut found: Vec<_> = verdict.acknowledged.iter().map(|(id, _)| id.as_str()).collect();
    let mut asked: Vec<_> = expected.iter().map(|expected| expected.request_id.as_str()).collect();
    found.sort_unstable();
    asked.sort_unstable();
    assert_eq!(found, asked, "every acknowledgement is in the trace");
    let created = verdict.acknowledged.iter().filter(|(_, status)| *status == 201).count();
    assert_eq!(created, WORKFLOWS);

    // The same trace as it would be without the syncs proves nothing.
    let doctored: String =
        trace.lines().filter(|line| !line.contains("sync")).map(|line| format!("{line}\n")).collect();
    assert_eq!(check(&doctored, &expected).violations.len(), expected.len() + WORKFLOWS);
    // Nor with syncs that all fail, or of other files.
    let failing = trace.replace("sync resumed>) = 0", "sync resumed>) = -1 EIO");
    let failing: String = failing
        .lines()
        .map(|line| if line.contains("sync(") { line.replace(") = 0", ") = -1 EIO") } else { line.to_owned() } + "\n")
        .collect();
    assert_eq!(check(&failing, &expected).violations.len(), expected.len() + WORKFLOWS);
}
