//! The engine's workflow thread, as an invocation uses it. It handles what the invocation hands it, and local activities
//! with it, until both are done or time is up.
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
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::operations;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{App, Arrival, Failure, Payload, RetryState, RunKey};
use dormouse_engine::ApiError;
use dormouse_engine::decider::OnThread;
use dormouse_engine::host::Task;
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::{Delivery, Instant, RunMessage};
use dormouse_engine::store::StoreError;
use dormouse_engine::thread::{
    Context, Desk, Inside, Letter, Question, Slot, WorkflowThread, look_interval, park_endless,
};
use dormouse_engine::worker::{LocalTask, run_local};
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

/// Runs kept in memory between invocations.
const WARM_RUNS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// The longest a workflow's code may hold a turn.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Messages of one run, for an invocation that lasts until then.
struct Order {
    run: RunKey,
    messages: Vec<RunMessage>,
    delivery: Delivery,
    until: Instant,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The thread, from outside.
pub(crate) struct Invoked {
    letters: Slot<Order>,
}

impl Invoked {
    /// Begins the thread, and watches it: the process ends with it.
    pub(crate) fn begin(app: Arc<App>, ports: Ports) -> std::io::Result<Self> {
        let (letters, inbox) = mpsc::unbounded();
        let context =
            Context { app: Arc::clone(&app), ports: ports.clone(), warm_runs: WARM_RUNS, turn_limit: TURN_LIMIT };
        let desk = {
            let ports = ports.clone();
            move || Invocations { app, ports, locals: RefCell::default() }
        };
        let thread = WorkflowThread::begin(context, inbox, desk)?;
        let host = Arc::clone(&ports.host);
        host.spawn(watch(ports, thread).boxed());
        Ok(Self { letters })
    }

    /// Handles messages of one run, and the local activities that they lead to.
    pub(crate) async fn handle(
        &self,
        run: RunKey,
        messages: Vec<RunMessage>,
        delivery: Delivery,
        until: Instant,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Unknown("the workflow thread has ended".into());
        let order = Order { run, messages, delivery, until, reply };
        self.letters.unbounded_send(Letter::Work(order)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks a run's query handler.
    pub(crate) async fn query(&self, run: RunKey, name: String, input: Payload) -> Result<Payload, ApiError> {
        let (question, answer) = Question::new(run, name, input);
        let gone = |_| ApiError::Unavailable("the workflow thread has ended".into());
        self.letters.unbounded_send(Letter::Query(question)).map_err(gone)?;
        answer.await
    }
}

/// Ends the process when code does not give the thread back, after parking its run; and when the thread has panicked:
/// without it the process would fail whatever it is invoked with, and the next one is better off.
async fn watch(ports: Ports, mut thread: WorkflowThread<Order>) {
    loop {
        let look = ports.host.sleep(look_interval(TURN_LIMIT));
        match select(look, Box::pin(thread.ended())).await {
            Either::Left(_) => {}
            // Nobody has letters for it any more.
            Either::Right((true, _)) => return,
            Either::Right((false, _)) => break,
        }
        let Some(what) = thread.overdue() else { continue };
        match park_endless(&ports, &what, TURN_LIMIT).await {
            Ok(()) => break,
            Err(error) => tracing::error!(?what, %error, "it could not be parked; trying again"),
        }
    }
    std::process::exit(1);
}

/// Local activities of one run that this invocation runs. Dropped, they end: nothing runs when the invocation is over.
struct Locals {
    until: Instant,
    /// One was cut off, or not begun, for lack of time.
    short: bool,
    running: FuturesUnordered<Task<Option<RunMessage>>>,
}

/// What invocations have handed over, and local activities for them.
struct Invocations {
    app: Arc<App>,
    ports: Ports,
    locals: RefCell<HashMap<RunKey, Locals>>,
}

async fn handle(
    inside: &Inside<Invocations>,
    run: &RunKey,
    mut messages: Vec<RunMessage>,
    mut delivery: Delivery,
    until: Instant,
) -> Result<(), StoreError> {
    let locals = &inside.desk.locals;
    locals.borrow_mut().insert(run.clone(), Locals { until, short: false, running: FuturesUnordered::new() });
    let handled = loop {
        if let Err(error) = inside.decider.handle(run, messages, delivery).await {
            break Err(error);
        }
        match inside.desk.ended_locals(run).await {
            Some(ended) if ended.is_empty() => break Ok(()),
            Some(ended) => (messages, delivery) = (ended, Delivery::First),
            None => break hand_over(inside, run).await,
        }
    };
    locals.borrow_mut().remove(run);
    if handled.is_err() {
        // What local activities have told and was not recorded is lost with it: they run again.
        inside.decider.forget(run);
    }
    handled
}

/// A fresh invocation goes on from the history.
async fn hand_over(inside: &Inside<Invocations>, run: &RunKey) -> Result<(), StoreError> {
    inside.decider.forget(run);
    tracing::info!(%run, "handed over to another invocation: a local activity needs more time than is left");
    if planted(Bug::F6NoHandOver) {
        return Ok(());
    }
    inside.ports.runs.send(RunMessage::Sweep { run: run.clone() }).await
}

impl Invocations {
    /// Waits for local activities: what those that have ended tell. Empty: none is left. `None`: time is up.
    async fn ended_locals(&self, run: &RunKey) -> Option<Vec<RunMessage>> {
        let mut locals = self.locals.borrow_mut().remove(run)?;
        let mut told = Vec::new();
        // Several that have ended together share a write.
        while let Some(ended) =
            if told.is_empty() { locals.running.next().await } else { locals.running.next().now_or_never().flatten() }
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
}

/// How long a local activity may take at most: an invocation of the orchestrator is hardly longer.
const LONGEST_LOCAL: Duration = Duration::from_secs(25);

fn too_long(limit: Duration) -> Failure {
    Failure::unplaced(format!(
        "a local activity may take {limit:?}, and an invocation of the orchestrator has {LONGEST_LOCAL:?} at most: \
         lower its start-to-close limit, or make it an activity"
    ))
    .with_type("LocalActivityTooLong")
}

impl Desk for Invocations {
    type Work = Order;

    fn take(inside: &Rc<Inside<Self>>, Order { run, messages, delivery, until, reply }: Order) {
        let here = Rc::clone(inside);
        inside.spawn(async move {
            // Whoever asked may have gone.
            drop(reply.send(handle(&here, &run, messages, delivery, until).await));
        });
    }

    fn run_local(&self, task: LocalTask) {
        let mut locals = self.locals.borrow_mut();
        let Some(locals) = locals.get_mut(&task.run) else { return };
        let host = &*self.ports.host;
        let (run, run_id, limit) = (task.run.clone(), task.run_id, task.call.start_to_close());
        let arrived = move |arrival| RunMessage::Arrived { run: run.clone(), run_id, arrival };
        if limit > LONGEST_LOCAL {
            let (id, attempt) = (task.id, task.attempt);
            let retry_state = RetryState::NonRetryableFailure;
            let failure = too_long(limit);
            let failed = arrived(Arrival::LocalFailed(operations::LocalFailed { id, attempt, failure, retry_state }));
            locals.running.push(Task::spawn(host, std::future::ready(Some(failed))));
            return;
        }
        let until = locals.until;
        if host.instant() + limit > until {
            locals.short = true;
            return;
        }
        let (app, ports) = (Arc::clone(&self.app), self.ports.clone());
        let work = async move {
            let left = until.since(ports.host.instant());
            // Cut off when time is up: a fresh invocation runs it again.
            let ended = run_local(&app, &ports, task, Some(ports.now() + left));
            ports.host.timeout(left, ended).await.map(arrived)
        };
        locals.running.push(Task::spawn(host, work));
    }

    /// The process ends before that.
    fn came_back(&self, _: OnThread) {}
}
