//! A server and a client in one process: what goes in at one end comes out at the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::{
    Client, ClientError, IdConflictPolicy, ListFilter, Payload, Server, Settings, SqliteStore, Status, timeline,
};

const GO: Signal<u64> = Signal::new("go/on");
const SEEN: Query<u64> = Query::new("seen");
const TIMES: Query<u64, u64> = Query::new("times");

async fn double(_: Activity, number: u64) -> Result<u64, Failure> {
    Ok(number * 2)
}

/// Waits for a number, doubles it.
async fn doubling_workflow(cx: Workflow, start: u64) -> Result<u64, Failure> {
    const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));
    let seen = cx.publish(SEEN, start);
    cx.answer(TIMES, move |factor| start * factor);
    let number = cx.signal(GO).await?;
    seen.set(number);
    if number == 0 {
        return Err(Failure::application("nothing to double").with_type("Zero").non_retryable());
    }
    cx.activity(double, &number).options(PATIENT).await
}

fn app() -> App {
    App::new().workflow("doublingWorkflow", doubling_workflow).activity("double", double)
}

async fn serve(data_dir: &Path) -> (Server, Client) {
    let store = Arc::new(SqliteStore::open(data_dir).unwrap());
    let server = Server::start(Arc::new(app()), store, Settings::default(), "127.0.0.1:0").await.unwrap();
    let client = Client::connect(&server.url(), &app()).unwrap();
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_its_own_has_no_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    for answer in [
        client.raw().quarantine(1).await.map(drop),
        client.raw().redrive(&["1763820000000-a".into()]).await.map(drop),
        client.raw().redrive_page(None).await.map(drop),
    ] {
        match answer {
            Err(ClientError::Problem(problem)) => {
                assert_eq!(problem.status, 404);
                assert!(problem.detail.contains("no quarantine here"), "{}", problem.detail);
            }
            other => panic!("{other:?}"),
        }
    }
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_shape_name_their_workflow() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    for id in [
        "order-1",
        "a/b",
        "%2F",
        "%252F",
        "~2F",
        "../../etc/passwd",
        ".",
        "..",
        "...",
        "a b+c?d#e&f",
        "日本語 🐭",
        &"é".repeat(127),
    ] {
        let handle = client.start(doubling_workflow, id, &1).await.unwrap();
        handle.signal(GO, &21).await.unwrap();
        assert_eq!(handle.result().await.unwrap(), 42, "{id}");
        assert_eq!(handle.describe().await.unwrap().run.workflow_id, id);
        assert_eq!(
            client.raw().list(&ListFilter { id_prefix: Some(id.into()), ..Default::default() }, 1).await.unwrap().len(),
            1
        );
    }
    for id in ["", "a\0b", &"x".repeat(256)] {
        let refused = client.start(doubling_workflow, id, &1).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Problem(problem) if problem.status == 400), "{id:?}: {refused}");
    }
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_outlives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    client.start(doubling_workflow, "x", &7).await.unwrap();
    server.stop(Duration::from_secs(5)).await;

    let (server, client) = serve(dir.path()).await;
    let handle = client.workflow(doubling_workflow, "x", None);
    handle.signal(GO, &4).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 8);
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_histories_tell_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    let handle = client.start(doubling_workflow, "x", &7).await.unwrap();
    while let Err(early) = handle.query(SEEN).await {
        // The workflow's code has not been run yet.
        assert!(matches!(early, ClientError::NotFound(_)), "{early}");
    }
    assert_eq!(handle.query(SEEN).await.unwrap(), 7);
    assert_eq!(handle.query_with(TIMES, &6).await.unwrap(), 42);
    // Beyond what a floating-point number keeps.
    let seen = handle.raw().query("times", &Payload::encode(&2_635_249_153_387_078_802_u64).unwrap()).await.unwrap();
    assert_eq!(seen.as_bytes(), b"18446744073709551614");

    handle.signal(GO, &4).await.unwrap();
    assert_eq!(handle.result().await.unwrap(), 8);
    assert_eq!(handle.query(SEEN).await.unwrap(), 4);

    let history = handle.history().await.unwrap();
    let (mut paged, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = handle.raw().history_page(2, token.as_deref()).await.unwrap();
        assert!(page.events.len() <= 2);
        paged.extend(page.events);
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(paged, history);
    assert_eq!(handle.raw().history_after(history.len() as u64 - 1).await.unwrap(), history[history.len() - 1..]);
    let text = timeline(&history);
    assert_eq!(text.lines().count(), history.len());
    assert!(text.contains("double #") && text.contains("→ 8") && text.contains("go/on, 4"), "{text}");
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_with_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    let first = client.start(doubling_workflow, "x", &1).request_id("r1").await.unwrap();
    let again = client.start(doubling_workflow, "x", &1).request_id("r1").await.unwrap();
    assert_eq!(first.run_id(), again.run_id());
    match client.start(doubling_workflow, "x", &1).await {
        Err(ClientError::AlreadyStarted(problem)) => assert_eq!(problem.run_id, first.run_id()),
        other => panic!("{other:?}"),
    }
    let joined =
        client.start(doubling_workflow, "x", &1).id_conflict_policy(IdConflictPolicy::UseExisting).await.unwrap();
    assert_eq!(joined.run_id(), first.run_id());

    first.signal(GO, &0).await.unwrap();
    match first.result().await {
        Err(ClientError::WorkflowFailed { status: Status::Failed, failure: Some(failure), .. }) => {
            assert_eq!((failure.message.as_str(), failure.type_name()), ("nothing to double", Some("Zero")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(first.cancel("late").await, Err(ClientError::Closed(_))));
    let nobody = client.workflow(doubling_workflow, "nobody", None);
    assert!(matches!(nobody.describe().await, Err(ClientError::NotFound(_))));
    assert!(matches!(nobody.result().await, Err(ClientError::NotFound(_))));
    let unknown: Query<u64> = Query::new("unknown");
    let unasked = first.query(unknown).await.unwrap_err();
    assert!(!unasked.is_unreachable(), "{unasked}");

    let ended = client.start(doubling_workflow, "y", &1).await.unwrap();
    ended.terminate("enough").await.unwrap();
    assert!(matches!(ended.result().await, Err(ClientError::WorkflowFailed { status: Status::Terminated, .. })));
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_paged_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(dir.path()).await;
    for n in 0..7 {
        client.start(doubling_workflow, format!("o-{n}"), &1).await.unwrap();
    }
    client.workflow(doubling_workflow, "o-3", None).terminate("").await.unwrap();
    let filter = ListFilter { id_prefix: Some("o-".into()), ..Default::default() };
    let (mut ids, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = client.raw().list_page(&filter, 3, token.as_deref()).await.unwrap();
        assert!(page.workflows.len() <= 3);
        ids.extend(page.workflows.into_iter().map(|run| run.workflow_id));
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    ids.sort();
    assert_eq!(ids, (0..7).map(|n| format!("o-{n}")).collect::<Vec<_>>());
    let running = ListFilter { status: Some(Status::Running), ..filter };
    assert_eq!(client.raw().list(&running, 100).await.unwrap().len(), 6);
    assert_eq!(client.raw().list(&running, 4).await.unwrap().len(), 4);
    server.stop(Duration::ZERO).await;
}
