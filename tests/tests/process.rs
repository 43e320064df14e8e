//! Servers as processes: starting, stopping, being in each other's way, and carrying code that misbehaves.

#[path = "process/new.rs"]
mod new;
#[path = "process/program.rs"]
mod program;
#[path = "process/soak.rs"]
mod soak;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use dormouse::api::{DescribeBody, StartBody};
use dormouse::{ClientError, IdConflictPolicy, IdReusePolicy, ParkedCause, Payload, RawClient, Status};
use dormouse_tests::dice::Dice;
use dormouse_tests::server::{Server, dev, functions};
use functions::ledger::Ledger;
use serde_json::json;

/// For whatever must happen some time.
const PATIENCE: Duration = Duration::from_secs(90);

fn oddities() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_oddities"))
}

fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default()
}

fn ledger(dir: &Path) -> Vec<(String, String, u32)> {
    let entries = Ledger::at(dir.join("ledger.jsonl")).entries().unwrap();
    entries.into_iter().map(|entry| (entry.workflow_id, entry.activity, entry.attempt)).collect()
}

async fn start(client: &RawClient, workflow_type: &str, id: &str) {
    start_with(client, workflow_type, id, json!(null)).await;
}

fn start_body(workflow_type: &str, id: &str, input: serde_json::Value) -> StartBody {
    StartBody {
        workflow_type: workflow_type.into(),
        workflow_id: Some(id.into()),
        input: input.into(),
        id_reuse_policy: IdReusePolicy::default(),
        id_conflict_policy: IdConflictPolicy::default(),
    }
}

async fn start_with(client: &RawClient, workflow_type: &str, id: &str, input: serde_json::Value) {
    client.start(&start_body(workflow_type, id, input), None).await.unwrap();
}

async fn until(client: &RawClient, id: &str, what: impl Fn(&DescribeBody) -> bool) -> DescribeBody {
    let began = Instant::now();
    loop {
        let described = client.workflow(id, None).describe().await.unwrap();
        if what(&described) {
            return described;
        }
        assert!(began.elapsed() < PATIENCE, "{id} does not come to that: {described:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn go(client: &RawClient, id: &str) {
    client.workflow(id, None).signal("go", &Payload::NULL, Some(&format!("go-{id}"))).await.unwrap();
}

async fn result(client: &RawClient, id: &str) -> serde_json::Value {
    let outcome = client.workflow(id, None).outcome(Some(PATIENCE)).await.unwrap();
    assert_eq!(outcome.status, Status::Completed, "{id}: {outcome:?}");
    outcome.result.unwrap().to_value()
}

/// Starts the oddities, bad or well, as builds of those names.
fn start_oddities(dir: &Path, kind: &str) -> Server {
    let mut command = dev(oddities(), dir);
    command.env("ODDITIES", kind).env("DORMOUSE_BUILD_ID", kind);
    if kind == "bad" {
        // Endless turns are many here.
        command.args(["--turn-limit", "2s"]);
    }
    let mut server = Server::spawn(command);
    assert!(server.wait_until_up().is_some(), "{}", log_of(dir));
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_for_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(functions(), dir.path());
    let pid = std::fs::read_to_string(dir.path().join("data/dormouse.lock")).unwrap();

    let second = dev(functions(), dir.path()).stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success());
    assert_eq!(String::from_utf8_lossy(&second.stdout), "", "it does not say that it listens");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains("in use by another process") && said.contains(pid.trim()) && said.contains("--data-dir"),
        "{said}"
    );

    // The first does not mind, and its death sets the directory free at once.
    assert!(server.client().list(&Default::default(), 1).await.unwrap().is_empty());
    server.kill();
    assert!(Server::start(functions(), dir.path()).terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_on_when_nobody_reads_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody will read the address, so it must be known: a port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = std::process::Command::new(functions());
    command.args(["dev", "--listen", &address, "--data-dir"]).arg(dir.path().join("data"));
    command.env("LEDGER_FILE", dir.path().join("ledger.jsonl")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let client = RawClient::new(&format!("http://{address}")).unwrap().tries(1);
    let listed = async {
        while client.list(&Default::default(), 1).await.is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listed).await.expect("it serves");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// After a few ends the run over whose code the process died is left alone, and everything else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_code_ends_the_process_does_not_keep_it_from_living() {
    for deadly in ["overflowing", "aborting", "deadlyLocally"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = start_oddities(dir.path(), "bad");
        start(&server.client(), "steady", "steady").await;
        until(&server.client(), "steady", |described| described.pending_activities.is_empty()).await;
        let body = StartBody {
            workflow_type: deadly.into(),
            workflow_id: Some("deadly".into()),
            input: Payload::NULL,
            id_reuse_policy: IdReusePolicy::default(),
            id_conflict_policy: IdConflictPolicy::default(),
        };
        // Its process may be gone before it can answer.
        drop(server.client().tries(1).start(&body, None).await);
        assert!(!server.wait().success());
        let mut ends = 1;
        let server = loop {
            let mut command = dev(oddities(), dir.path());
            command.env("ODDITIES", "bad").env("DORMOUSE_BUILD_ID", "bad");
            let mut server = Server::spawn(command);
            if server.wait_until_up().is_some() && lives(&server.client().tries(1), dir.path()).await {
                break server;
            }
            assert!(!server.wait().success());
            ends += 1;
            assert!(ends < 5, "{deadly}: it dies again and again: {}", log_of(dir.path()));
        };
        let client = server.client();
        let described = client.workflow("deadly", None).describe().await.unwrap();
        let parked = described.run.parked.expect("parked");
        assert!(parked.reason.contains("the process that ran this run's code has ended"), "{}", parked.reason);
        assert!(matches!(parked.cause, Some(ParkedCause::ProcessEnded { times: 1.. })), "{:?}", parked.cause);
        assert!(log_of(dir.path()).contains("it is tried alone"), "{}", log_of(dir.path()));
        server.kill();
        // Another build is given its chance, under suspicion; an operator's word needs no code.
        let server = start_oddities(dir.path(), "well");
        let log = log_of(dir.path());
        assert!(log.contains("1 run is parked") && log.contains("(deadly)") && log.contains("--parked"), "{log}");
        go(&server.client(), "deadly").await;
        assert_eq!(result(&server.client(), "deadly").await, "well", "{deadly}");
        assert!(server.terminate().success());
        assert!(!dir.path().join("data/dormouse.trials").exists(), "an orderly end");
    }
}

/// Whether the deadly run is left alone and the other goes on, before the process ends.
async fn lives(client: &RawClient, dir: &Path) -> bool {
    let steady = client.workflow("steady", None);
    let goes_on = async {
        steady.signal("go", &Payload::NULL, Some("go-steady")).await?;
        let outcome = steady.outcome(Some(PATIENCE)).await?;
        assert_eq!(outcome.result.unwrap().to_value(), "well", "the others go on");
        while !log_of(dir).contains("it is left alone") {
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.workflow("deadly", None).describe().await?;
        }
        Ok::<_, ClientError>(())
    };
    goes_on.await.is_ok()
}

/// Whoever was tried and lived through it is no suspect any more when the process ends over something else: if processes
/// keep ending, it would be left alone for longer each time, and starve.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_over_something_else_acquits_whom_it_has_tried() {
    let dir = tempfile::tempdir().unwrap();
    let trials = dir.path().join("data/dormouse.trials");
    let server = start_oddities(dir.path(), "bad");
    start(&server.client(), "steady", "steady").await;
    until(&server.client(), "steady", |described| described.pending_activities.is_empty()).await;
    server.kill();
    for by_force in [true, false] {
        // As a process leaves it that has died while the run's code ran.
        let told = br#"["default","steady",0,"Running"]"#;
        std::fs::write(&trials, [&(told.len() as u16).to_le_bytes()[..], told].concat()).unwrap();
        let server = start_oddities(dir.path(), "bad");
        let began = Instant::now();
        while !String::from_utf8_lossy(&std::fs::read(&trials).unwrap()).contains("Proving") {
            assert!(began.elapsed() < PATIENCE, "it is not tried: {}", log_of(dir.path()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if by_force {
            server.kill();
        } else {
            assert!(server.terminate().success());
        }
        let server = start_oddities(dir.path(), "bad");
        assert_eq!(server.client().workflow("steady", None).describe().await.unwrap().run.parked, None);
        server.kill();
        assert_eq!(log_of(dir.path()).matches("it is tried alone").count(), 1 + usize::from(!by_force));
    }
    let server = start_oddities(dir.path(), "bad");
    go(&server.client(), "steady").await;
    assert_eq!(result(&server.client(), "steady").await, "well");
}

/// A server at a place of its own, so that the next one can stand there.
fn server_at(address: &str, dir: &Path) -> std::process::Child {
    let mut command = std::process::Command::new(oddities());
    command.args(["dev", "--listen", address, "--data-dir"]).arg(dir.join("data"));
    command.env("LEDGER_FILE", dir.join("ledger.jsonl")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_outlives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut server = server_at(&address, dir.path());
    let client = RawClient::new(&format!("http://{address}")).unwrap();
    start(&client, "steady", "steady").await;
    // An address without a scheme will do.
    let ask = |verb: &[&str]| {
        let mut command = std::process::Command::new(oddities());
        command.arg("workflow").args(verb).args(["--address", &address]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let waiters = [ask(&["result", "steady", "--wait", "80s"]), ask(&["show", "steady", "--follow"])];
    let typed = client.clone().tries(2);
    let typed = tokio::spawn(async move { typed.workflow("steady", None).outcome(Some(PATIENCE)).await });
    // They have begun to wait; a moment earlier they are told at once, and that is right too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill().unwrap();
    server.wait().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut server = server_at(&address, dir.path());
    until(&client, "steady", |_| true).await;
    go(&client, "steady").await;
    assert_eq!(typed.await.unwrap().unwrap().result.unwrap().to_value(), "well");
    for waiter in waiters {
        let output = waiter.wait_with_output().unwrap();
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("\"well\""), "{said}{told}");
        assert!(told.contains("waiting on") && told.contains("there again"), "{told}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    // As far as this client knows, nobody was ever there.
    let stranger = RawClient::new(&format!("http://{address}")).unwrap().tries(1);
    let error = stranger.workflow("steady", None).outcome(Some(PATIENCE)).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    // The other has met a server there, and waits for it.
    let steady = client.tries(1).workflow("steady", None);
    let waits = steady.outcome(Some(PATIENCE));
    let comes_back = async { server_at(&address, dir.path()) };
    let (outcome, mut server) = futures::join!(waits, comes_back);
    assert_eq!(outcome.unwrap().result.unwrap().to_value(), "well");
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Threads of one's own are bounded by what the machine has; these are more than any number of them that is likely.
const HELD: u32 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn activities_that_hold_their_threads_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = dev(oddities(), dir.path());
    command.args(["--grace", "1s"]).current_dir(dir.path());
    let mut server = Server::spawn(command);
    server.wait_until_up().unwrap();
    let client = server.client();
    start_with(&client, "held", "held", json!(HELD)).await;
    until(&client, "held", |described| described.pending_activities.iter().any(|a| a.state == "running")).await;
    // Activities, timers, and the time limits of those that hold on: none waits for a thread.
    start(&client, "steady", "steady").await;
    start(&client, "resting", "resting").await;
    go(&client, "steady").await;
    assert_eq!(result(&client, "steady").await, "well");
    assert_eq!(result(&client, "resting").await, "rested");
    assert_eq!(result(&client, "held").await, HELD * 3, "all have timed out");
    let told = |name: &str| log_of(dir.path()).matches(&format!("activity_type={name} held")).count();
    let began = Instant::now();
    while told("hold") == 0 || told("holdHere") == 0 {
        assert!(began.elapsed() < PATIENCE, "nobody says who holds threads: {}", log_of(dir.path()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nor does the end, and nobody has made the file.
    assert_eq!(server.terminate().code(), Some(0), "{}", log_of(dir.path()));
    assert_eq!((told("hold"), told("holdHere")), (1, 1), "each is named once: {}", log_of(dir.path()));
    assert_eq!(told("keep"), 0, "it said so itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_lets_activities_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = start_oddities(dir.path(), "well");
    assert!(!server.url().ends_with(":0"), "the address names the port: {}", server.url());
    start(&server.client(), "slow", "slow").await;
    until(&server.client(), "slow", |described| described.pending_activities.iter().any(|a| a.state == "running"))
        .await;
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", log_of(dir.path()));

    let server = start_oddities(dir.path(), "well");
    let client = server.client();
    // It is in the history already; nothing is left to be done.
    let described = client.workflow("slow", None).describe().await.unwrap();
    assert_eq!(described.pending_activities, []);
    go(&client, "slow").await;
    assert_eq!(result(&client, "slow").await, "well");
    let activities: Vec<_> = ledger(dir.path()).into_iter().map(|(_, activity, attempt)| (activity, attempt)).collect();
    assert_eq!(activities, [("takeLong".to_owned(), 1), ("note".to_owned(), 1)]);
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_the_start_leaves_a_good_directory() {
    let mut dice = Dice::cast("start");
    for _ in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..6 {
            let server = Server::spawn(dev(oddities(), dir.path()));
            std::thread::sleep(Duration::from_micros(dice.within(0..80_000)));
            server.kill();
        }
        let server = start_oddities(dir.path(), "well");
        start(&server.client(), "steady", "steady").await;
        go(&server.client(), "steady").await;
        assert_eq!(result(&server.client(), "steady").await, "well");
        assert!(server.terminate().success());
        let db = rusqlite::Connection::open(dir.path().join("data/dormouse.db")).unwrap();
        let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_cannot_go_on_is_parked_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    // This one is well at first.
    let server = start_oddities(dir.path(), "well");
    start(&server.client(), "diverging", "diverging").await;
    until(&server.client(), "diverging", |described| {
        described.pending_activities.is_empty() && !ledger(dir.path()).is_empty()
    })
    .await;
    assert!(server.terminate().success());

    let server = start_oddities(dir.path(), "bad");
    let client = server.client();
    let kinds = ["endless", "blocked", "panicking", "foreign", "tokio"];
    for kind in kinds {
        start(&client, kind, kind).await;
    }
    // The others go on, wherever they live.
    for n in 0..8 {
        start(&client, "steady", &format!("steady-{n}")).await;
        go(&client, &format!("steady-{n}")).await;
    }
    for n in 0..8 {
        assert_eq!(result(&client, &format!("steady-{n}")).await, "well");
    }
    for (kind, cause, says) in [
        ("endless", "endless_turn", &["did not give the turn back", "loops or blocks"][..]),
        ("blocked", "endless_turn", &["did not give the turn back", "loops or blocks"]),
        ("panicking", "panic", &["panicked", "three is not four"]),
        ("foreign", "foreign_future", &["a future that its context did not give", "cx.sleep"]),
        ("tokio", "panic", &["panicked", "without a tokio runtime", "cx.sleep"]),
    ] {
        let parked = until(&client, kind, |described| described.run.parked.is_some()).await.run.parked.unwrap();
        println!("{kind}: {}", parked.reason);
        assert!(says.iter().all(|part| parked.reason.contains(part)), "{kind}: {}", parked.reason);
        assert_eq!(parked.build, "bad");
        assert_eq!(serde_json::to_value(&parked.cause).unwrap()["kind"], cause);
    }
    // What arrives for them is taken in all the same, as often as it comes, and holds nobody else up.
    for kind in kinds.iter().chain(&["diverging"]) {
        go(&client, kind).await;
        for n in 0..3 {
            let noise = format!("noise-{n}-{kind}");
            client.workflow(*kind, None).signal("noise", &Payload::NULL, Some(&noise)).await.unwrap();
        }
        let history = client.workflow(*kind, None).history().await.unwrap();
        let signals = history.iter().filter(|event| event.event_type == "SignalReceived");
        assert_eq!(
            signals
                .map(|event| event.attributes["request_id"].to_value())
                .filter(|id| *id == format!("go-{kind}"))
                .count(),
            1
        );
        until(&client, kind, |described| described.run.parked.is_some()).await;
    }
    let diverging = until(&client, "diverging", |described| described.run.parked.is_some()).await.run.parked.unwrap();
    println!("diverging: {}", diverging.reason);
    for part in ["recorded:  activity \"note\" (id 1) at ", "attempted: activity \"other\" (id 1) at ", "oddities.rs:"]
    {
        assert!(diverging.reason.contains(part), "{part} is not in: {}", diverging.reason);
    }
    // Ending one needs none of its code.
    start(&client, "endless", "ended").await;
    until(&client, "ended", |described| described.run.parked.is_some()).await;
    client.workflow("ended", None).terminate("enough", None).await.unwrap();
    let ended = until(&client, "ended", |described| described.run.parked.is_none()).await;
    assert_eq!(ended.run.status, Status::Terminated);
    start(&client, "steady", "steady-late").await;
    go(&client, "steady-late").await;
    assert_eq!(result(&client, "steady-late").await, "well");
    assert!(ledger(dir.path()).iter().all(|(_, activity, _)| activity != "other"), "diverging code has no effects");
    assert!(server.terminate().success(), "{}", log_of(dir.path()));

    let server = start_oddities(dir.path(), "well");
    let client = server.client();
    for kind in kinds.iter().chain(&["diverging"]) {
        assert_eq!(result(&client, kind).await, "well", "{kind}");
        let described = client.workflow(*kind, None).describe().await.unwrap();
        assert_eq!(described.run.parked, None);
        let twice: Vec<_> = ledger(dir.path()).into_iter().filter(|(id, ..)| id == kind).collect();
        assert_eq!(twice.len(), 2, "each of the two activities ran once: {twice:?}");
    }
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn good_code_takes_a_run_out_of_parking_even_if_nothing_happens_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = start_oddities(dir.path(), "well");
    start(&server.client(), "diverging", "waits").await;
    until(&server.client(), "waits", |described| {
        described.pending_activities.is_empty() && !ledger(dir.path()).is_empty()
    })
    .await;
    server.kill();

    let server = start_oddities(dir.path(), "bad");
    let before = until(&server.client(), "waits", |described| described.run.parked.is_some()).await;
    server.kill();

    let server = start_oddities(dir.path(), "well");
    let after = until(&server.client(), "waits", |described| described.run.parked.is_none()).await;
    assert_eq!(after.history_events, before.history_events);
    go(&server.client(), "waits").await;
    assert_eq!(result(&server.client(), "waits").await, "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_of_a_local_activity_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = start_oddities(dir.path(), "well");
    start(&server.client(), "stumbling", "stumbling").await;
    let described = until(&server.client(), "stumbling", |described| {
        described.pending_activities.iter().any(|activity| activity.state == "backing_off")
    })
    .await;
    let due = described.pending_activities[0].next_attempt_at.unwrap().as_millis();
    server.kill();

    let server = start_oddities(dir.path(), "well");
    assert_eq!(result(&server.client(), "stumbling").await, 2);
    let entries = Ledger::at(dir.path().join("ledger.jsonl")).entries().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.attempt).collect::<Vec<_>>(), [1, 2]);
    assert!(entries[1].at >= due, "the second attempt waits for its time, whoever makes it");
    assert!(server.terminate().success());
}
