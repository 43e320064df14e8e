//! Durable steps through the whole embedded engine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dormouse_core::api::StartBody;
use dormouse_core::{Activity, ActivityOptions, App, Failure, Workflow};
use dormouse_engine::embedded::{Embedded, Settings};
use dormouse_engine::front::Target;
use dormouse_engine::store::Store;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::CountingStore;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::Figures;
use crate::limits::figures;
use crate::machine::{cpu_by_thread, cpu_seconds};

/// How a step runs.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Where the workflow is decided.
    Local,
    /// On a worker, with a claim.
    Queued,
}

/// When each step of each workflow ran.
#[derive(Default)]
struct Stopwatch(Mutex<Vec<Vec<Instant>>>);

async fn step(cx: Activity, workflow: usize) -> Result<(), Failure> {
    let stopwatch: &Stopwatch = cx.get();
    stopwatch.0.lock().expect("no step panics")[workflow].push(Instant::now());
    Ok(())
}

async fn local_steps(cx: Workflow, (workflow, steps): (usize, u32)) -> Result<(), Failure> {
    for _ in 0..steps {
        cx.local_activity(step, &workflow).await?;
    }
    Ok(())
}

async fn queued_steps(cx: Workflow, (workflow, steps): (usize, u32)) -> Result<(), Failure> {
    const MINUTE: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));
    for _ in 0..steps {
        cx.activity(step, &workflow).options(MINUTE).await?;
    }
    Ok(())
}

struct Bench {
    runtime: Runtime,
    engine: Option<Embedded>,
    store: Arc<CountingStore>,
    app: Arc<App>,
    kind: Kind,
    started: usize,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(kind: Kind, workflows: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stopwatch = Stopwatch(Mutex::new(vec![Vec::new(); workflows]));
        let app = App::new()
            .workflow("localSteps", local_steps)
            .workflow("queuedSteps", queued_steps)
            .activity("step", step)
            .provide(stopwatch);
        let app = Arc::new(app);
        let store = Arc::new(CountingStore::new(Arc::new(SqliteStore::open(dir.path()).expect("a fresh store"))));
        let runtime = Runtime::new().expect("a runtime");
        let open = Embedded::open(Arc::clone(&app), Arc::clone(&store) as Arc<dyn Store>, Settings::default());
        let engine = runtime.block_on(open).expect("a fresh engine");
        Self { runtime, engine: Some(engine), store, app, kind, started: 0, _dir: dir }
    }

    /// Runs this many workflows of this many steps, and waits for all.
    fn run(&mut self, workflows: usize, steps: u32) -> Duration {
        let front = self.engine.as_ref().expect("a running engine").front();
        let workflow_type = match self.kind {
            Kind::Local => "localSteps",
            Kind::Queued => "queuedSteps",
        };
        let first = self.started;
        self.started += workflows;
        let began = Instant::now();
        self.runtime.block_on(async {
            let runs = (first..first + workflows).map(|workflow| {
                let front = Arc::clone(&front);
                tokio::spawn(async move {
                    let body = StartBody {
                        workflow_type: workflow_type.into(),
                        workflow_id: Some(format!("w{workflow}")),
                        input: json!([workflow, steps]).into(),
                        id_reuse_policy: Default::default(),
                        id_conflict_policy: Default::default(),
                    };
                    front.start(None, body).await.expect("a start");
                    let target = Target { workflow_id: format!("w{workflow}"), run_id: None };
                    let result = front.result(&target, Duration::from_mins(5)).await.expect("a result");
                    assert_eq!(result.status.as_str(), "Completed", "{result:?}");
                })
            });
            for run in runs.collect::<Vec<_>>() {
                run.await.expect("a run");
            }
        });
        began.elapsed()
    }

    /// The time between a step and the next of its workflow, in microseconds: execution, commit, decision.
    fn latencies(&self) -> Vec<f64> {
        let Some(stopwatch) = self.app.tools().get::<Stopwatch>() else { return Vec::new() };
        let runs = stopwatch.0.lock().expect("no step panics");
        runs.iter().flat_map(|run| run.windows(2)).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e6).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.runtime.block_on(engine.shutdown(Duration::from_secs(5)));
        }
    }
}

/// Throughput and latency.
pub fn run(kind: Kind, workflows: usize, steps: u32) -> Figures {
    let mut bench = Bench::new(kind, workflows);
    let cpu = cpu_seconds();
    let elapsed = bench.run(workflows, steps);
    let all_steps = workflows * steps as usize;
    let mut figures = figures(all_steps, elapsed, bench.latencies());
    figures.insert("steps_cpu_s".into(), json!((cpu_seconds() - cpu) * 10_000.0 / all_steps as f64));
    figures.insert("cpu_by_thread".into(), json!(cpu_by_thread()));
    figures
}

/// Requests and bytes per step, counted at the store.
pub fn requests(kind: Kind, steps: u32) -> Figures {
    let mut bench = Bench::new(kind, 1);
    bench.store.reset();
    bench.run(1, steps);
    let counts = bench.store.counts();
    let mut figures = Figures::new();
    figures.insert("creates".into(), json!(counts.creates));
    figures.insert("claims".into(), json!(counts.swaps));
    figures.insert("bytes_per_step".into(), json!(counts.bytes_written as f64 / f64::from(steps)));
    figures
}

/// How the time for a whole workflow grows with its length: the exponent of a power law, fitted by least squares.
pub fn growth(kind: Kind) -> Figures {
    let lengths = [10u32, 50, 200, 1000, 5000];
    let mut figures = Figures::new();
    let mut points = Vec::new();
    for length in lengths {
        let repeats = (2000 / length).max(1) as usize;
        let mut bench = Bench::new(kind, repeats + 1);
        bench.run(1, length);
        let total: Duration = (0..repeats).map(|_| bench.run(1, length)).sum();
        let each = total.as_secs_f64() / repeats as f64;
        figures.insert(format!("s_{length}"), json!(each));
        points.push((f64::from(length).ln(), each.ln()));
    }
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    figures.insert("exponent".into(), json!(covariance / variance));
    figures
}
