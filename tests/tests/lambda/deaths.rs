//! Code that ends its process, or never gives it back. Each delivery is a process of its own; the store is a file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dormouse::{Activity, App, Failure, Query, SqliteStore, Status, Timestamp, Workflow};
use dormouse_core::{IdConflictPolicy, RunKey};
use dormouse_engine::front::FrontDoor;
use dormouse_engine::host::{Machine, wall_clock};
use dormouse_engine::intake::Intake;
use dormouse_engine::parkings::Parkings;
use dormouse_engine::ports::{Choices, Ports};
use dormouse_engine::seams::{Closings, Code, Host, Instant, QueryRunner};
use dormouse_engine::states::States;
use dormouse_engine::stop::Stop;
use dormouse_engine::store::{Index, RunRow, Store};
use dormouse_testing::world::{Mail, run, start_body};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{Clerk, Consumer, PLENTY, body, failed, letter};

/// What a process is told, as JSON in this variable; the name of the directory is in it.
const ORDER: &str = "DORMOUSE_TEST_INVOCATION";
const LOOP: Query<u32, ()> = Query::new("loop");
const CHILD: &str = "deaths::invocation";

#[derive(Serialize, Deserialize, Clone, Default)]
struct Order {
    dir: String,
    build: String,
    /// Types and ids.
    starts: Vec<(String, String)>,
    /// Group and body.
    letters: Vec<(String, String)>,
    deliveries: u32,
    /// The id of a workflow that is asked "loop", after the letters.
    query: Option<String>,
    /// The clock panics as soon as letters are handled.
    broken_clock: bool,
}

#[derive(Serialize, Deserialize)]
struct Said {
    failed: Vec<String>,
    sent: Vec<(String, String)>,
}

async fn mate(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.local_activity(one, &()).await
}

async fn one(_: Activity, (): ()) -> Result<u32, Failure> {
    Ok(1)
}

fn mended() -> bool {
    std::env::var(ORDER).is_ok_and(|order| order.contains("\"build\":\"mended\""))
}

async fn aborts(cx: Workflow, _: ()) -> Result<u32, Failure> {
    if !mended() {
        std::process::abort();
    }
    mate(cx, ()).await
}

/// Aborts only when its step is recorded.
async fn aborts_later(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let one = mate(cx.clone(), ()).await?;
    if !mended() {
        std::process::abort();
    }
    Ok(one)
}

/// A query that loops, in a workflow that waits.
async fn asked(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.answer(LOOP, |_: ()| {
        loop {
            std::hint::spin_loop();
        }
    });
    cx.sleep(Duration::from_hours(1)).await?;
    Ok(1)
}

/// Runs out of stack.
#[allow(unconditional_recursion, reason = "that is the fault")]
fn deeper(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 512]);
    deeper(depth + 1) + here[(depth % 512) as usize]
}

async fn overflows(cx: Workflow, _: ()) -> Result<u32, Failure> {
    if !mended() {
        std::hint::black_box(deeper(0));
    }
    mate(cx, ()).await
}

async fn endless(cx: Workflow, _: ()) -> Result<u32, Failure> {
    while !mended() {
        std::hint::spin_loop();
    }
    mate(cx, ()).await
}

fn app() -> App {
    App::new()
        .workflow("mate", mate)
        .workflow("aborts", aborts)
        .workflow("aborts later", aborts_later)
        .workflow("overflows", overflows)
        .workflow("asked", asked)
        .workflow("endless", endless)
        .activity("one", one)
}

struct Nobody;

impl Closings for Nobody {
    fn closed(&self, _: &RunKey) {}

    fn wait(&self, _: &RunKey) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }
}

impl QueryRunner for Nobody {
    fn query(
        &self,
        _: RunKey,
        name: String,
        _: dormouse::Payload,
    ) -> BoxFuture<'_, Result<dormouse::Payload, dormouse_engine::ApiError>> {
        std::future::ready(Err(dormouse_engine::ApiError::NotFound(name))).boxed()
    }
}

struct BrokenClock(Machine);

impl Host for BrokenClock {
    fn now(&self) -> Timestamp {
        panic!("planned: the engine panics");
    }

    fn instant(&self) -> Instant {
        self.0.instant()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.0.spawn(work);
    }

    fn spawn_activity(&self, code: Code, work: BoxFuture<'static, ()>) {
        self.0.spawn_activity(code, work);
    }

    fn fresh_id(&self) -> [u8; 16] {
        self.0.fresh_id()
    }

    fn back_off(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.back_off(pause)
    }

    fn give_way(&self) -> BoxFuture<'_, ()> {
        self.0.give_way()
    }
}

/// The process of one invocation; without an order, nothing.
#[tokio::test(flavor = "multi_thread")]
async fn invocation() {
    let Some(order) = std::env::var(ORDER).ok() else { return };
    let order: Order = serde_json::from_str(&order).unwrap();
    let mail = Mail::default();
    let app = Arc::new(app());
    let machine = Machine::here();
    let until = machine.instant() + PLENTY;
    let host: Arc<dyn Host> = if order.broken_clock { Arc::new(BrokenClock(machine)) } else { Arc::new(machine) };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(Path::new(&order.dir)).unwrap());
    let ports = Ports {
        states: Arc::new(States::new(Arc::clone(&store), Arc::clone(&host))),
        store,
        runs: Arc::new(mail.clone()),
        activities: Arc::new(mail.clone()),
        alarms: Arc::new(mail.clone()),
        host,
        closings: Arc::new(Nobody),
        parkings: Arc::new(Parkings::default()),
        stop: Stop::default(),
        choices: Choices {
            namespace: "default".into(),
            build: order.build.as_str().into(),
            sweep_interval: Duration::from_mins(1),
            shared: true,
            max_payload_bytes: 64 * 1024,
            limits: dormouse_core::Limits::DEFAULT,
            declared: Arc::new(app.declared().clone()),
        },
    };
    let front = FrontDoor::new(ports.clone(), Arc::new(Intake::new(ports.clone())), Arc::new(Nobody));
    for (workflow_type, id) in &order.starts {
        let body = start_body(workflow_type, id, &(), IdConflictPolicy::Fail);
        front.start(Some(id), body).await.unwrap();
    }
    let consumer = Consumer::begin(app, ports, Clerk::default()).unwrap();
    let letters = order.letters.iter().enumerate().map(|(id, (group, body))| dormouse_lambda::envelope::Letter {
        deliveries: order.deliveries,
        ..letter(&id.to_string(), group, body.clone())
    });
    let answer = consumer.letters(letters.collect(), until).await;
    if let Some(id) = &order.query {
        drop(consumer.query(run(id, 0), LOOP.name().into(), dormouse::Payload::NULL).await);
    }
    if order.broken_clock {
        // Answered or not: it must not be there for the next invocation.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let sent = mail.messages();
    let sent = sent.iter().map(|message| (message.run().workflow.workflow_id.to_string(), body(message)));
    let said = Said { failed: failed(&serde_json::to_value(answer).unwrap()), sent: sent.collect() };
    std::fs::write(Path::new(&order.dir).join("said.json"), serde_json::to_vec(&said).unwrap()).unwrap();
}

/// Runs an invocation. `None`: its process died.
fn invoke(order: &Order) -> Option<Said> {
    let said = Path::new(&order.dir).join("said.json");
    drop(std::fs::remove_file(&said));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(ORDER, serde_json::to_string(order).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("a process that neither answers nor ends");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    serde_json::from_slice(&std::fs::read(said).ok()?).unwrap()
}

fn row(dir: &Path, id: &str) -> RunRow {
    let store = SqliteStore::open(dir).unwrap();
    futures::executor::block_on(store.row(&run(id, 0))).unwrap().unwrap()
}

struct Scene {
    dir: tempfile::TempDir,
    order: Order,
}

/// Two mates, and between them one that ends its process, all started, with what is on the queue.
fn scene(poison: &str) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let starts = [("mate", "a"), (poison, "poison"), ("mate", "z")];
    let starts = starts.map(|(workflow_type, id)| (workflow_type.to_owned(), id.to_owned())).to_vec();
    let order = Order { dir: dir.path().to_str().unwrap().into(), build: "first".into(), starts, ..Order::default() };
    let letters = invoke(&order).expect("starting is no danger").sent;
    assert_eq!(letters.len(), 3);
    Scene { dir, order: Order { starts: Vec::new(), letters, ..order } }
}

impl Scene {
    /// Delivers until all is answered; how many deliveries it took.
    fn deliver(&mut self) -> u32 {
        for deliveries in 1..=20 {
            self.order.deliveries = deliveries;
            if let Some(said) = invoke(&self.order) {
                assert_eq!(said.failed, [""; 0]);
                return deliveries;
            }
        }
        panic!("they would all be dead letters");
    }

    fn check_parked(&self) {
        for mate in ["a", "z"] {
            assert_eq!(row(self.dir.path(), mate).status, Status::Completed, "{mate}");
            assert_eq!(row(self.dir.path(), mate).parked, None, "{mate} is innocent");
        }
        let parked = row(self.dir.path(), "poison").parked.expect("it is parked");
        assert!(parked.retry_at > wall_clock() + Duration::from_secs(20), "not tried again at once: {parked:?}");
    }

    /// Another build tries at once.
    fn check_mended(&mut self) {
        self.order.build = "mended".into();
        self.order.deliveries = 1;
        assert!(invoke(&self.order).is_some());
        let row = row(self.dir.path(), "poison");
        assert_eq!((row.status, row.parked), (Status::Completed, None));
    }
}

#[test]
fn a_run_that_aborts_its_process_is_left_alone() {
    for poison in ["aborts", "aborts later", "overflows"] {
        let mut scene = scene(poison);
        let deliveries = scene.deliver();
        assert!(deliveries <= 5, "{poison}: {deliveries} deliveries");
        scene.check_parked();
        // Its message once more, and something new: nothing of that is tried.
        scene.order.deliveries = 1;
        assert!(invoke(&scene.order).is_some(), "{poison} is left alone");
        scene.check_mended();
    }
}

#[test]
fn a_run_whose_turn_does_not_end_is_left_alone() {
    let mut scene = scene("endless");
    assert_eq!(scene.deliver(), 2, "the first process parks it and ends; the second finds it parked");
    scene.check_parked();
    scene.order.deliveries = 1;
    assert!(invoke(&scene.order).is_some(), "whatever comes");
    scene.check_mended();
}

/// A query that loops ends its process, and leaves the run alone: it is not the run's fault.
#[test]
fn a_query_that_does_not_end_parks_nothing() {
    let mut scene = scene("asked");
    scene.order.query = Some("poison".into());
    scene.order.deliveries = 1;
    assert!(invoke(&scene.order).is_none(), "the process ends");
    let row = row(scene.dir.path(), "poison");
    assert_eq!((row.status, row.parked), (Status::Running, None));
}

/// A process whose workflow thread has died would fail for ever.
#[test]
fn a_process_without_its_thread_ends() {
    let mut scene = scene("mate");
    scene.order.broken_clock = true;
    scene.order.deliveries = 1;
    assert!(invoke(&scene.order).is_none(), "it ends");
    scene.order.broken_clock = false;
    assert_eq!(scene.deliver(), 1);
    assert_eq!(row(scene.dir.path(), "a").status, Status::Completed);
}
