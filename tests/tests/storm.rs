//! A workflow of local steps in a storm of signals: every result is recorded once, every signal arrives, and losing
//! commits to the signals costs time only.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dormouse::api::StartBody;
use dormouse::prelude::*;
use dormouse::{
    Activity, App, Embedded, Failure, IdConflictPolicy, IdReusePolicy, Payload, Settings, Status, Workflow,
};
use dormouse_core::history::{Batch, BatchKind, Event, Input, Turn};
use dormouse_core::operations;
use dormouse_core::{LiveRun, WorkflowKey};
use dormouse_engine::ApiError;
use dormouse_engine::front::Target;
use dormouse_engine::states::read_history;
use dormouse_engine::store::{Around, Creation, Op, Store, StoreFuture};
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::{CountingStore, Fault, FaultyStore, On};
use serde_json::json;

const STEPS: usize = 50;
const SIGNALS: usize = 1000;
const DROP: Signal<u64> = Signal::new("drop");

/// How often each step was executed.
struct Executions([AtomicU64; STEPS]);

async fn step(cx: Activity, n: usize) -> Result<usize, Failure> {
    cx.get::<Arc<Executions>>().0[n].fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(n * n)
}

/// The sums of what the steps gave and of what the signals brought.
async fn weather(cx: Workflow, _: ()) -> Result<(usize, u64), Failure> {
    let mut squares = 0;
    for n in 0..STEPS {
        squares += cx.local_activity(step, &n).await?;
    }
    let (mut drops, mut signals) = (0, cx.signals(DROP));
    for _ in 0..SIGNALS {
        drops += signals.next().await?;
    }
    Ok((squares, drops))
}

async fn one_step(cx: Workflow, _: ()) -> Result<usize, Failure> {
    cx.local_activity(step, &7).await
}

/// Holds the deciders' commits back for a moment: in a storm, whoever is slow loses.
struct SlowDeciders {
    inner: Arc<dyn Store>,
    pause: Duration,
    tried: AtomicU64,
    lost: AtomicU64,
}

impl Around for SlowDeciders {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn around<'a, T: Send + 'static>(
        &'a self,
        op: Op<'a>,
        call: impl Fn() -> StoreFuture<'a, T> + Send + Sync + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let decided = match &op {
                Op::Append { sequence, record, .. } => {
                    Batch::decode(sequence.get(), record).is_ok_and(|batch| batch.kind == BatchKind::Decided)
                }
                Op::Open { record, .. } => Batch::decode(0, record).is_ok_and(|batch| batch.kind == BatchKind::Decided),
                _ => false,
            };
            if !decided {
                return call().await;
            }
            self.tried.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(self.pause);
            let answer = call().await;
            let creation = answer.as_ref().ok().and_then(|answer| (answer as &dyn Any).downcast_ref());
            if let Some(Creation::Exists(_)) = creation {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            answer
        })
    }
}

/// Runs the storm. The deciders hold each commit back for `pause`; of all commits, `faults` go wrong.
async fn storm(name: &str, pause: Duration, faults: &[Fault]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let executions = Arc::new(Executions(std::array::from_fn(|_| AtomicU64::new(0))));
    let app = Arc::new(App::new().workflow("weather", weather).activity("step", step).provide(Arc::clone(&executions)));
    let sqlite: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let counting = Arc::new(CountingStore::new(sqlite));
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&counting) as _));
    let store = Arc::new(SlowDeciders { inner: Arc::clone(&faulty) as _, pause, tried: 0.into(), lost: 0.into() });
    let engine = Embedded::open(Arc::clone(&app), Arc::clone(&store) as _, Settings::default()).await.unwrap();
    let front = engine.front();
    let target = Target { workflow_id: "storm".into(), run_id: None };
    let body = StartBody {
        workflow_type: "weather".into(),
        workflow_id: Some("storm".into()),
        input: Payload::NULL,
        id_reuse_policy: IdReusePolicy::default(),
        id_conflict_policy: IdConflictPolicy::default(),
    };
    front.start(None, body).await.unwrap();
    for fault in faults {
        faulty.plan(On::Create(None), *fault);
    }
    counting.reset();
    let began = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..SIGNALS {
        let (front, target) = (Arc::clone(&front), target.clone());
        callers.spawn(async move {
            // Spread over the steps, many at a time.
            tokio::time::sleep(Duration::from_micros(n as u64 / 20 * 20 * 250)).await;
            let (id, payload) = (format!("drop-{n}"), Payload::encode(&n).unwrap());
            // As any client does whose request meets more faults than a commit has tries.
            while let Err(error) = front.signal(&target, Some(&id), "drop", payload.clone()).await {
                assert!(matches!(error, ApiError::Unavailable(_)), "{error:?}");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let stormed = began.elapsed();
    let result = loop {
        let result = front.result(&target, Duration::from_secs(20)).await.unwrap();
        if result.status.is_closed() || began.elapsed() > Duration::from_secs(120) {
            break result;
        }
    };
    assert_eq!(result.status, Status::Completed, "{result:?}");
    let squares: usize = (0..STEPS).map(|n| n * n).sum();
    assert_eq!(result.result.unwrap().to_value(), json!([squares, SIGNALS * (SIGNALS - 1) / 2]));
    engine.shutdown(Duration::from_secs(5)).await;
    assert_eq!(faulty.outstanding(), 0, "every planned fault has happened");

    // Each once: executed, recorded, taken in.
    for (n, times) in executions.0.iter().enumerate() {
        assert_eq!(times.load(Ordering::Relaxed), 1, "step {n}");
    }
    let run = WorkflowKey::new("default", "storm").unwrap().run(0);
    let records = read_history(&*store, &run).await.unwrap();
    LiveRun::replay(&app, &run, &records).unwrap();
    let (mut locals, mut signals): (BTreeMap<u64, u32>, HashSet<String>) = Default::default();
    for (sequence, record) in records.iter().enumerate() {
        for event in Batch::decode(sequence as u64, record).unwrap().events {
            let (Event::Input(input) | Event::Turn(Turn { input: Some(input), .. })) = event else { continue };
            match input {
                Input::LocalCompleted(operations::LocalCompleted { id, .. }) => *locals.entry(id).or_default() += 1,
                Input::Signaled(operations::Signaled { request_id, .. }) => {
                    assert!(signals.insert(request_id.clone()), "{request_id} twice")
                }
                _ => {}
            }
        }
    }
    assert_eq!(locals.values().copied().collect::<Vec<_>>(), [1; STEPS]);
    assert_eq!(signals.len(), SIGNALS);

    let counts = counting.counts();
    let lost = store.lost.load(Ordering::Relaxed);
    dormouse_tests::tell!(
        "{name}: {SIGNALS} signals in {} ms, all over after {} ms; {} batches from {} puts ({:.3} attempts per signal); \
         deciders tried {} and lost {lost}",
        stormed.as_millis(),
        began.elapsed().as_millis(),
        records.len(),
        counts.creates,
        counts.creates as f64 / SIGNALS as f64,
        store.tried.load(Ordering::Relaxed),
    );
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn local_steps_finish_in_a_storm_of_signals() {
    storm("as it comes", Duration::ZERO, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deciders_that_lose_their_commits_lose_nothing_else() {
    let lost = storm("slow deciders", Duration::from_millis(4), &[]).await;
    assert!(lost > 0, "the deciders never lost: this proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_whose_outcome_is_unknown_lose_nothing_either() {
    let faults: Vec<_> =
        [Fault::FailBefore, Fault::FailAfter, Fault::RetriedHidden].into_iter().cycle().take(90).collect();
    storm("faults", Duration::from_millis(1), &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_longer_than_a_commit_tries_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let executions = Arc::new(Executions(std::array::from_fn(|_| AtomicU64::new(0))));
    let app =
        Arc::new(App::new().workflow("oneStep", one_step).activity("step", step).provide(Arc::clone(&executions)));
    let faulty = Arc::new(FaultyStore::new(Arc::new(SqliteStore::open(dir.path()).unwrap())));
    let engine = Embedded::open(app, Arc::clone(&faulty) as _, Settings::default()).await.unwrap();
    let body = StartBody {
        workflow_type: "oneStep".into(),
        workflow_id: Some("patient".into()),
        input: Payload::NULL,
        id_reuse_policy: IdReusePolicy::default(),
        id_conflict_policy: IdConflictPolicy::default(),
    };
    // The engine gets over a workflow thread's death, but should not need to.
    static DEATHS: AtomicU64 = AtomicU64::new(0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("workflows") {
            DEATHS.fetch_add(1, Ordering::Relaxed);
        }
        hook(panic);
    }));
    // Every commit of the run's own fails more often than it is tried in one go.
    for _ in 0..12 {
        faulty.plan(On::Create(Some(1)), Fault::FailBefore);
    }
    engine.front().start(None, body).await.unwrap();
    let target = Target { workflow_id: "patient".into(), run_id: None };
    let result = engine.front().result(&target, Duration::from_secs(20)).await.unwrap();
    assert_eq!(result.status, Status::Completed, "{result:?}");
    assert_eq!(faulty.outstanding(), 0);
    assert_eq!(DEATHS.load(Ordering::Relaxed), 0, "a workflow thread has panicked");
    // Its result was kept while the store was away.
    assert_eq!(executions.0[7].load(Ordering::Relaxed), 1);
    engine.shutdown(Duration::from_secs(5)).await;
}
