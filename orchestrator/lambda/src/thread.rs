//! The workflow thread: a decider and a small executor, without a tokio runtime, as in the embedded engine. It handles
//! what the invocation hands it, and local activities with it, until both are done or time is up.
//!
//! **Time is up**: what a local activity has not ended is handed over. The run is forgotten here, and a message on the
//! run queue lets a fresh invocation go on from the history.
//!
//! **A turn that does not end** cannot be interrupted: the run is parked from outside, and the process ends. What it
//! had not acknowledged is delivered again, and finds the run parked. A query that does not end parks nothing: its
//! caller gets an error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_core::operations;

use dormouse_core::planted::{Bug, planted};
use dormouse_core::{App, Arrival, Failure, Payload, RetryState, RunKey, TurnFailure, millis};
use dormouse_engine::ApiError;
use dormouse_engine::handle::{Decider, Surroundings};
use dormouse_engine::intake::Intake;
use dormouse_engine::parking::park;
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::StoreError;
use dormouse_engine::worker::{LocalTask, run_local};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Runs kept in memory between invocations.
const WARM_RUNS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// The longest a workflow's code may hold a turn.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// What the thread is asked.
enum Order {
    Handle { run: RunKey, messages: Vec<RunMessage>, until: Instant, reply: oneshot::Sender<Result<(), StoreError>> },
    Query { run: RunKey, name: String, input: Payload, reply: oneshot::Sender<Result<Payload, ApiError>> },
}

/// What runs on the thread, and since when: a turn of this run, or a query.
type Turn = Arc<Mutex<Option<(Option<RunKey>, Instant)>>>;

/// The thread, from outside.
pub(crate) struct WorkflowThread {
    orders: mpsc::UnboundedSender<Order>,
}

impl WorkflowThread {
    /// Begins the thread, and watches it. Call inside a tokio runtime.
    pub(crate) fn begin(app: Arc<App>, ports: Ports) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded();
        let turn = Turn::default();
        tokio::spawn(watch(ports.clone(), Arc::clone(&turn)));
        let tokio = Handle::current();
        std::thread::Builder::new().name("workflows".into()).spawn(move || {
            // Without its thread the process would fail whatever it is invoked with: the next one is better off.
            if catch_unwind(AssertUnwindSafe(|| live(app, ports, tokio, turn, inbox))).is_err() {
                std::process::exit(1);
            }
        })?;
        Ok(Self { orders })
    }

    /// Handles messages of one run, and the local activities that they lead to.
    pub(crate) async fn handle(
        &self,
        run: RunKey,
        messages: Vec<RunMessage>,
        until: Instant,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Unknown("the workflow thread has ended".into());
        self.orders.unbounded_send(Order::Handle { run, messages, until, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks a run's query handler.
    pub(crate) async fn query(&self, run: RunKey, name: String, input: Payload) -> Result<Payload, ApiError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ApiError::Unavailable("the workflow thread has ended".into());
        self.orders.unbounded_send(Order::Query { run, name, input, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Ends the process when a turn does not end, after parking its run.
async fn watch(ports: Ports, turn: Turn) {
    let mut ticks = tokio::time::interval(TURN_LIMIT / 20);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stuck = match &*turn.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((run, since)) if since.elapsed() > TURN_LIMIT => Some(run.clone()),
            _ => None,
        };
        let Some(stuck) = stuck else { continue };
        if let Some(run) = stuck {
            let failure = TurnFailure::Endless { limit_ms: millis(TURN_LIMIT) };
            if let Err(error) = park(&ports, &run, &failure).await {
                tracing::error!(%run, %error, "a run whose turn does not end could not be parked; trying again");
                continue;
            }
        } else {
            tracing::error!("a query's handler does not end");
        }
        std::process::exit(1);
    }
}

fn live(app: Arc<App>, ports: Ports, tokio: Handle, turn: Turn, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let home = Home { app: Arc::clone(&app), ports: ports.clone(), tokio, turn, locals: Rc::default() };
    let locals = Rc::clone(&home.locals);
    let intake = Arc::new(Intake::new(ports.clone()));
    let decider = Rc::new(Decider::new(app, ports.clone(), intake, home, WARM_RUNS));
    let mut pool = LocalPool::new();
    let desk = Rc::new(Desk { decider, ports, locals });
    let spawner = pool.spawner();
    pool.run_until(async {
        while let Some(order) = inbox.next().await {
            begin(&spawner, Rc::clone(&desk), order);
        }
    });
}

fn begin(spawner: &LocalSpawner, desk: Rc<Desk>, order: Order) {
    let work = async move {
        match order {
            // Whoever asked may have gone.
            Order::Handle { run, messages, until, reply } => drop(reply.send(desk.handle(&run, messages, until).await)),
            Order::Query { run, name, input, reply } => drop(reply.send(desk.decider.query(&run, &name, &input).await)),
        }
    };
    if spawner.spawn_local(work).is_err() {
        tracing::error!("the workflow thread takes no more work");
    }
}

/// Local activities of one run that this invocation runs. Dropped, they end: nothing runs when the invocation is over.
struct Locals {
    until: Instant,
    /// One was cut off, or not begun, for lack of time.
    short: bool,
    running: JoinSet<Option<RunMessage>>,
}

struct Desk {
    decider: Rc<Decider<Home>>,
    ports: Ports,
    locals: Rc<RefCell<HashMap<RunKey, Locals>>>,
}

impl Desk {
    async fn handle(&self, run: &RunKey, mut messages: Vec<RunMessage>, until: Instant) -> Result<(), StoreError> {
        self.locals.borrow_mut().insert(run.clone(), Locals { until, short: false, running: JoinSet::new() });
        let handled = loop {
            if let Err(error) = self.decider.handle(run, messages).await {
                break Err(error);
            }
            match self.ended_locals(run).await {
                Some(ended) if ended.is_empty() => break Ok(()),
                Some(ended) => messages = ended,
                None => break self.hand_over(run).await,
            }
        };
        self.locals.borrow_mut().remove(run);
        if handled.is_err() {
            // What local activities have told and was not recorded is lost with it: they run again.
            self.decider.forget(run);
        }
        handled
    }

    /// Waits for local activities: what those that have ended tell. Empty: none is left. `None`: time is up.
    async fn ended_locals(&self, run: &RunKey) -> Option<Vec<RunMessage>> {
        let mut locals = self.locals.borrow_mut().remove(run)?;
        let mut told = Vec::new();
        // Several that have ended together share a write.
        while let Some(ended) =
            if told.is_empty() { locals.running.join_next().await } else { locals.running.try_join_next() }
        {
            let ended = ended.ok().flatten();
            locals.short |= ended.is_none();
            told.extend(ended);
        }
        // What was told is recorded first.
        let over = told.is_empty() && locals.short;
        self.locals.borrow_mut().insert(run.clone(), locals);
        (!over).then_some(told)
    }

    /// A fresh invocation goes on from the history.
    async fn hand_over(&self, run: &RunKey) -> Result<(), StoreError> {
        self.decider.forget(run);
        tracing::info!(%run, "handed over to another invocation: a local activity needs more time than is left");
        if planted(Bug::F6NoHandOver) {
            return Ok(());
        }
        self.ports.runs.send(RunMessage::Sweep { run: run.clone() }).await
    }
}

/// The thread, as its decider sees it.
struct Home {
    app: Arc<App>,
    ports: Ports,
    tokio: Handle,
    turn: Turn,
    locals: Rc<RefCell<HashMap<RunKey, Locals>>>,
}

/// How long a local activity may take at most: an invocation of the orchestrator is hardly longer.
const LONGEST_LOCAL: Duration = Duration::from_secs(25);

fn too_long(limit: Duration) -> Failure {
    Failure::application(format!(
        "a local activity may take {limit:?}, and an invocation of the orchestrator has {LONGEST_LOCAL:?} at most: \
         lower its start-to-close limit, or make it an activity"
    ))
    .with_type("LocalActivityTooLong")
}

impl Surroundings for Home {
    fn run_local(&self, task: LocalTask) {
        let mut locals = self.locals.borrow_mut();
        let Some(locals) = locals.get_mut(&task.run) else { return };
        let (run, run_id, limit) = (task.run.clone(), task.run_id, task.call.start_to_close());
        let arrived = move |arrival| RunMessage::Arrived { run: run.clone(), run_id, arrival };
        if limit > LONGEST_LOCAL {
            let (id, attempt) = (task.id, task.attempt);
            let retry_state = RetryState::NonRetryableFailure;
            let failed = arrived(Arrival::LocalFailed(operations::LocalFailed {
                id,
                attempt,
                failure: too_long(limit),
                retry_state,
            }));
            locals.running.spawn_on(std::future::ready(Some(failed)), &self.tokio);
            return;
        }
        if Instant::now() + limit > locals.until {
            locals.short = true;
            return;
        }
        let (app, ports, until) = (Arc::clone(&self.app), self.ports.clone(), locals.until);
        let work = async move {
            let ends = ports.now() + until.saturating_duration_since(Instant::now());
            // Cut off when time is up: a fresh invocation runs it again.
            tokio::time::timeout_at(until, run_local(&app, &ports, task, Some(ends))).await.ok().map(arrived)
        };
        locals.running.spawn_on(work, &self.tokio);
    }

    fn turn_begins(&self, run: &RunKey) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some((Some(run.clone()), Instant::now()));
    }

    /// Whoever asks must not be able to stop a run.
    fn query_begins(&self, _: &RunKey) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some((None, Instant::now()));
    }

    fn turn_ends(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
