//! The embedded runtime, through its front door: the sample application on a real store.

#[path = "embedded/log.rs"]
mod log;
#[path = "embedded/stopping.rs"]
mod stopping;
#[path = "embedded/values.rs"]
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_core::api::{ResultBody, StartBody};
use dormouse_core::{App, Failure, Payload, Query, Signal, Status, Workflow};
use dormouse_engine::ApiError;
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::front::Target;
use dormouse_engine::store::RunFilter;
use dormouse_engine::stores::sqlite::SqliteStore;
use functions::ledger::Ledger;
use serde_json::{Value, json};

struct Server {
    engine: Embedded,
    ledger: Ledger,
    _dir: tempfile::TempDir,
}

async fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path().join("ledger.jsonl"));
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let app = Arc::new(functions::app(ledger.clone()));
    let engine = Embedded::open(app, store, Settings::default()).await.unwrap();
    Server { engine, ledger, _dir: dir }
}

fn start(workflow_type: &str, id: &str, input: Value) -> StartBody {
    StartBody {
        workflow_type: workflow_type.into(),
        workflow_id: Some(id.into()),
        input: input.into(),
        id_reuse_policy: Default::default(),
        id_conflict_policy: Default::default(),
    }
}

fn target(id: &str) -> Target {
    Target { workflow_id: id.into(), run_id: None }
}

impl Server {
    async fn result(&self, id: &str) -> ResultBody {
        let result = self.engine.front().result(&target(id), Duration::from_secs(20)).await.unwrap();
        assert!(result.status.is_closed(), "{id}: {result:?}");
        result
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_its_way() {
    let server = server().await;
    let input = json!({ "order_id": "o1", "amount_cents": 4200, "fulfilment_delay_ms": 50 });
    server.engine.front().start(Some("r1"), start("orderWorkflow", "o1", input)).await.unwrap();
    let result = server.result("o1").await;
    assert_eq!(result.status, Status::Completed, "{result:?}");
    assert_eq!(result.result.unwrap().to_value(), json!({ "order_id": "o1", "tracking": "TRACK-o1" }));
    let activities: Vec<_> = server.ledger.entries().unwrap().into_iter().map(|entry| entry.activity).collect();
    assert_eq!(activities, ["charge", "sendConfirmation", "ship"]);
    server.engine.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expense_waits_for_its_manager() {
    let server = server().await;
    let front = server.engine.front();
    let input = json!({ "expense_id": "e1", "amount_cents": 900 });
    front.start(None, start("expenseApprovalWorkflow", "e1", input)).await.unwrap();
    let status = loop {
        // Published with the first turn, which may not be over yet.
        match front.query(&target("e1"), "status", Payload::NULL).await {
            Ok(status) => break status,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(status.to_value(), json!("awaiting_approval"));
    let yes = Payload::encode(&true).unwrap();
    front.signal(&target("e1"), Some("s1"), "approval", yes.clone()).await.unwrap();
    front.signal(&target("e1"), Some("s1"), "approval", yes).await.unwrap();
    let result = server.result("e1").await;
    assert_eq!(result.result.unwrap().to_value(), json!("paid"));
    assert_eq!(server.ledger.entries().unwrap().len(), 1);
    server.engine.shutdown(Duration::from_secs(1)).await;
}

/// As a bad deploy does.
static BROKEN: AtomicBool = AtomicBool::new(true);

async fn brittle(cx: Workflow, _: ()) -> Result<(), Failure> {
    assert!(!BROKEN.load(Ordering::SeqCst), "broken");
    Ok(cx.signal(Signal::<()>::new("end")).await?)
}

/// The trouble is over, and the index says so, also when the process that parked the run is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_after_a_restart_is_no_longer_parked() {
    let dir = tempfile::tempdir().unwrap();
    for broken in [true, false] {
        BROKEN.store(broken, Ordering::SeqCst);
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        let app = Arc::new(App::new().workflow("brittle", brittle));
        let engine = Embedded::open(app, store, Settings::default()).await.unwrap();
        let front = engine.front();
        front.start(Some("r1"), start("brittle", "b", Value::Null)).await.unwrap();
        let parked = async {
            while front.list(&RunFilter::default(), None, 1).await.unwrap().0.workflows[0].parked.is_some() != broken {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), parked).await.expect("what the listing should say");
        drop(front);
        engine.shutdown(Duration::from_secs(1)).await;
    }
}

mod elsewhere {
    //! Activities of other programs, where there are no such programs.

    use dormouse_core::{Activity, ActivityOptions, RemoteActivity};

    use super::*;

    const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");
    const PYTHON: ActivityOptions = ActivityOptions::start_to_close(Duration::from_secs(10)).task_queue("python");

    async fn gallery(cx: Workflow, width: u32) -> Result<u32, Failure> {
        cx.activity(RESIZE, &width).options(PYTHON).await
    }

    async fn resize(_: Activity, width: u32) -> Result<u32, Failure> {
        Ok(width / 2)
    }

    async fn outcome(app: App) -> ResultBody {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        let engine = Embedded::open(Arc::new(app), store, Settings::default()).await.unwrap();
        engine.front().start(None, start("gallery", "g", json!(8))).await.unwrap();
        let result = engine.front().result(&target("g"), Duration::from_secs(20)).await.unwrap();
        engine.shutdown(Duration::from_secs(1)).await;
        result
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_does_them_and_the_failure_says_what_helps() {
        let result = outcome(App::new().workflow("gallery", gallery)).await;
        assert_eq!(result.status, Status::Failed, "{result:?}");
        let failure = result.failure.unwrap().to_string();
        for part in ["resize", "python", "not retryable", ".activity(\"resize\", ...)"] {
            assert!(failure.contains(part), "{part} is not in: {failure}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stand_in_of_the_same_name_does_them() {
        let result = outcome(App::new().workflow("gallery", gallery).activity("resize", resize)).await;
        assert_eq!(result.result, Some(json!(4).into()), "{result:?}");
    }
}

mod asked {
    //! Queries whose handlers do not give their thread back.

    use super::*;

    const GO: Signal<()> = Signal::new("go");
    const HANG: Query<bool, usize> = Query::new("hang");
    const HEARD: Query<u32, ()> = Query::new("heard");

    const LIMIT: Duration = Duration::from_millis(300);

    /// By test, whether its handlers go on: nothing spins beyond it.
    static LET_GO: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
    static HANGS: AtomicBool = AtomicBool::new(false);

    async fn patient(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.answer(HEARD, |()| 7);
        cx.answer(HANG, |test| {
            HANGS.fetch_or(test == 0, Ordering::SeqCst);
            while !LET_GO[test].load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            true
        });
        Ok(cx.signal(GO).await?)
    }

    async fn engine() -> (Embedded, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        let settings = Settings { workflow_threads: 1, turn_limit: LIMIT, ..Settings::default() };
        let app = Arc::new(App::new().workflow("patient", patient));
        (Embedded::open(app, store, settings).await.unwrap(), dir)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_that_hang_cost_so_many_threads_and_no_more() {
        let (engine, _dir) = engine().await;
        let front = engine.front();
        let p = target("p");
        front.start(None, start("patient", "p", Value::Null)).await.unwrap();
        let mut hung = 0;
        let refused = loop {
            match front.query(&p, HANG.name(), Payload::encode(&1).unwrap()).await {
                Err(ApiError::QueryFailed(_)) => hung += 1,
                other => break other,
            }
        };
        assert!(matches!(&refused, Err(ApiError::Unavailable(detail)) if detail.contains("8 threads")), "{refused:?}");
        assert_eq!(hung, 8);
        LET_GO[1].store(true, Ordering::SeqCst);
        let answered = async {
            while front.query(&p, HEARD.name(), Payload::NULL).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answered).await.expect("threads that came back");
        engine.shutdown(Duration::from_secs(1)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_query_that_hangs_fails_and_stops_nobody() {
        let (engine, _dir) = engine().await;
        let front = engine.front();
        front.start(None, start("patient", "p", Value::Null)).await.unwrap();
        front.start(None, start("patient", "q", Value::Null)).await.unwrap();

        let (p, q) = (target("p"), target("q"));
        let (hung, heard) = tokio::time::timeout(Duration::from_secs(20), async {
            let hung = front.query(&p, HANG.name(), Payload::encode(&0).unwrap());
            let heard = async {
                while !HANGS.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
                // Waits on the thread that hangs.
                front.query(&q, HEARD.name(), Payload::NULL).await
            };
            tokio::join!(hung, heard)
        })
        .await
        .expect("whoever asks is answered");
        let Err(ApiError::QueryFailed(failure)) = hung else { panic!("{hung:?}") };
        let failure = format!("{failure:?}");
        for part in ["QueryTimedOut", "hang", "300ms", "turn_limit"] {
            assert!(failure.contains(part), "{part} is not in: {failure}");
        }
        assert_eq!(heard.unwrap().to_value(), json!(7), "another thread answers");

        // Whoever asks cannot stop a run.
        assert_eq!(front.describe(&p).await.unwrap().run.parked, None);
        front.signal(&p, None, "go", Payload::NULL).await.unwrap();
        let result = front.result(&p, Duration::from_secs(20)).await.unwrap();
        assert_eq!(result.status, Status::Completed, "{result:?}");
        LET_GO[0].store(true, Ordering::SeqCst);
        engine.shutdown(Duration::from_secs(1)).await;
    }
}

mod beside {
    //! Runs that share their thread with code that does not give it back.

    use std::sync::atomic::AtomicUsize;

    use dormouse_core::Activity;

    use super::*;

    static LET_GO: AtomicBool = AtomicBool::new(false);
    static KEPT: AtomicUsize = AtomicUsize::new(0);

    async fn selfish(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.sleep(Duration::from_millis(1)).await?;
        while !LET_GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(())
    }

    async fn keep(_: Activity, _: ()) -> Result<(), Failure> {
        KEPT.fetch_add(1, Ordering::SeqCst);
        while !LET_GO.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn keeping(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.local_activity(keep, &()).await
    }

    async fn modest(cx: Workflow, _: ()) -> Result<u32, Failure> {
        cx.sleep(Duration::from_millis(1)).await?;
        cx.local_activity(one, &()).await
    }

    async fn one(_: Activity, _: ()) -> Result<u32, Failure> {
        Ok(1)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn they_go_on_long_before_its_time_is_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
        let settings = Settings { workflow_threads: 1, turn_limit: Duration::from_mins(10), ..Settings::default() };
        let app = App::new().workflow("selfish", selfish).workflow("modest", modest).workflow("keeping", keeping);
        let app = Arc::new(app.activity("one", one).activity("keep", keep));
        let engine = Embedded::open(app, store, settings).await.unwrap();
        let front = engine.front();
        front.start(None, start("keeping", "keeping", Value::Null)).await.unwrap();
        while KEPT.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for n in 0..3 {
            front.start(None, start("selfish", &format!("selfish-{n}"), Value::Null)).await.unwrap();
            front.start(None, start("modest", &format!("modest-{n}"), Value::Null)).await.unwrap();
        }
        for n in 0..3 {
            let result = front.result(&target(&format!("modest-{n}")), Duration::from_secs(20)).await.unwrap();
            assert_eq!(result.status, Status::Completed, "{result:?}");
            let selfish = front.describe(&target(&format!("selfish-{n}"))).await.unwrap().run;
            assert_eq!((selfish.status, selfish.parked), (Status::Running, None));
        }
        // Slow, and nothing worse.
        LET_GO.store(true, Ordering::SeqCst);
        for id in ["selfish-0", "selfish-1", "selfish-2", "keeping"] {
            let result = front.result(&target(id), Duration::from_secs(20)).await.unwrap();
            assert_eq!(result.status, Status::Completed, "{result:?}");
        }
        assert_eq!(KEPT.load(Ordering::SeqCst), 1, "what was under way is not begun again by another thread");
        engine.shutdown(Duration::from_secs(1)).await;
    }
}

/// Whoever is on probation holds nothing open.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_on_probation_does_not_keep_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (trials, ledger) = (dir.path().join("trials"), Ledger::at(dir.path().join("ledger.jsonl")));
    let open = async || {
        let store = Arc::new(SqliteStore::open(dir.path()).expect("nobody has it"));
        let settings = Settings { trials: Some(trials.clone()), ..Settings::default() };
        Embedded::open(Arc::new(functions::app(ledger.clone())), store, settings).await.unwrap()
    };
    let engine = open().await;
    let input = json!({ "expense_id": "e", "amount_cents": 1 });
    engine.front().start(None, start("expenseApprovalWorkflow", "e", input)).await.unwrap();
    engine.shutdown(Duration::from_secs(5)).await;
    // As a process leaves it that dies over this run.
    let told = br#"["default","e",0,"Running"]"#;
    std::fs::write(&trials, [&(told.len() as u16).to_le_bytes()[..], told].concat()).unwrap();
    let engine = open().await;
    engine.front().query(&target("e"), "status", Payload::NULL).await.unwrap();
    while engine.front().describe(&target("e")).await.unwrap().run.parked.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    engine.shutdown(Duration::from_secs(5)).await;
    open().await.shutdown(Duration::from_secs(5)).await;
}
