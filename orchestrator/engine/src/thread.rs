//! The workflow thread, the same in every kind of process: a decider and a small executor, and no tokio runtime, so that
//! tokio's timers and tasks panic in workflow code instead of escaping the history.
//!
//! | | here | left to the process (its [`Desk`], and whoever watches) |
//! | --- | --- | --- |
//! | what comes | queries are answered | messages: one after another, or by invocations |
//! | code that does not give the thread back | is noticed, its run parked, its query's caller told | others get another thread, or the process ends |
//! | local activities | are handed over | run for themselves, or within an invocation |

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task;
use std::time::Duration;

use dormouse_core::{App, Failure, Payload, RunKey, TurnFailure, millis};
use futures::channel::{mpsc, oneshot};
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use futures::{FutureExt, StreamExt};

use crate::decider::{Decider, OnThread, Surroundings};
use crate::error::ApiError;
use crate::intake::Intake;
use crate::parking::park;
use crate::ports::Ports;
use crate::seams::{Host, Instant};
use crate::store::StoreError;
use crate::worker::LocalTask;

/// What every thread needs.
#[derive(Clone)]
pub struct Context {
    /// The application.
    pub app: Arc<App>,
    /// What its engine reaches.
    pub ports: Ports,
    /// Runs kept in memory.
    pub warm_runs: NonZeroUsize,
    /// The longest that a user's code may hold the thread.
    pub turn_limit: Duration,
}

/// What a kind of process does with what its thread is told. It lives on the thread.
pub trait Desk: Sized + 'static {
    /// What the thread is told, besides queries.
    type Work: Send + 'static;
    /// Begins with this. Work for a longer time is [spawned](Inside::spawn).
    fn take(inside: &Rc<Inside<Self>>, work: Self::Work);
    /// As [`Surroundings::run_local`].
    fn run_local(&self, task: LocalTask);
    /// A user's code begins to run on the thread. Called before each turn, also before those of a replay.
    fn code_begins(&self, _what: &OnThread) {}
    /// It gave the thread back.
    fn code_ends(&self) {}
    /// Code over which the thread was [left to itself](WorkflowThread::leave) has given it back after all.
    fn came_back(&self, what: OnThread);
}

/// What a thread is sent.
pub enum Letter<W> {
    /// Something for its [`Desk`].
    Work(W),
    /// A query to be answered.
    Query(Question),
    /// End what was begun, then the thread.
    Stop,
}

/// Where letters are put in.
pub type Slot<W> = mpsc::UnboundedSender<Letter<W>>;

/// Where a thread takes its letters from.
pub type Inbox<W> = mpsc::UnboundedReceiver<Letter<W>>;

/// A query for a workflow's own handler.
pub struct Question {
    run: RunKey,
    name: String,
    input: Payload,
    reply: oneshot::Sender<Result<Payload, ApiError>>,
}

impl Question {
    /// A question, and what is answered.
    pub fn new(
        run: RunKey,
        name: String,
        input: Payload,
    ) -> (Self, impl Future<Output = Result<Payload, ApiError>> + Send + use<>) {
        let (reply, answer) = oneshot::channel();
        let stopped = || Err(ApiError::Unavailable("the workflow's thread stopped while it answered".into()));
        (Self { run, name, input, reply }, answer.map(move |answer| answer.unwrap_or_else(|_| stopped())))
    }

    /// Whoever asked may have gone.
    fn answer(self, answer: Result<Payload, ApiError>) {
        drop(self.reply.send(answer));
    }
}

/// What runs on a thread.
struct Running {
    what: OnThread,
    since: Instant,
    /// For this question, by its number.
    question: Option<u64>,
    left: bool,
}

/// What is known of a thread outside of it, also when it hangs.
struct Known<W> {
    inbox: Mutex<Inbox<W>>,
    running: Mutex<Option<Running>>,
    /// Questions that were taken up and are not answered yet.
    questions: Mutex<BTreeMap<u64, Question>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W> Known<W> {
    /// The next letter; `None` when no more can come.
    async fn next(&self) -> Option<Letter<W>> {
        // Locked for the moment of looking, never while code runs.
        let inbox = |context: &mut task::Context<'_>| lock(&self.inbox).poll_next_unpin(context);
        std::future::poll_fn(inbox).await
    }
}

/// A workflow thread, from outside. Dropped, it goes on for as long as letters may come.
pub struct WorkflowThread<W> {
    known: Arc<Known<W>>,
    host: Arc<dyn Host>,
    turn_limit: Duration,
    ended: oneshot::Receiver<()>,
}

impl<W: Send + 'static> WorkflowThread<W> {
    /// Begins a thread. Its desk is made there.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin<D: Desk<Work = W>>(
        context: Context,
        inbox: Inbox<W>,
        desk: impl FnOnce() -> D + Send + 'static,
    ) -> std::io::Result<Self> {
        let known =
            Arc::new(Known { inbox: Mutex::new(inbox), running: Mutex::default(), questions: Mutex::default() });
        let (end, ended) = oneshot::channel();
        let (host, turn_limit) = (Arc::clone(&context.ports.host), context.turn_limit);
        let here = Arc::clone(&known);
        std::thread::Builder::new().name("workflows".into()).spawn(move || {
            live(context, here, desk());
            // Nobody may watch.
            let _ = end.send(());
        })?;
        Ok(Self { known, host, turn_limit, ended })
    }

    /// What has held the thread for longer than it may, if anything has.
    #[must_use]
    pub fn overdue(&self) -> Option<OnThread> {
        self.held_for(self.turn_limit)
    }

    /// What has held the thread for longer than this, if anything has.
    #[must_use]
    pub fn held_for(&self, time: Duration) -> Option<OnThread> {
        let running = lock(&self.known.running);
        let running = running.as_ref()?;
        (self.host.instant().since(running.since) > time).then(|| running.what.clone())
    }

    /// Resolves when the thread has ended: `true` when it was told to, or no more letters can come; `false` when it has
    /// panicked.
    pub async fn ended(&mut self) -> bool {
        (&mut self.ended).await.is_ok()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        matches!(self.ended.try_recv(), Ok(Some(())) | Err(oneshot::Canceled))
    }

    /// Nobody waits for this thread any more but whoever asks for what holds it. If this does so still, its desk learns
    /// when the thread has [come back](Desk::came_back), and this is `true`.
    pub fn leave(&self, what: &OnThread) -> bool {
        match &mut *lock(&self.known.running) {
            Some(running) if running.what == *what => {
                running.left = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whoever asked the question that holds the thread is told that nobody waits for it any longer.
    pub fn give_up(&self, what: &OnThread) {
        let question = match &*lock(&self.known.running) {
            Some(running) if running.what == *what => running.question,
            Some(_) | None => None,
        };
        let question = question.and_then(|number| lock(&self.known.questions).remove(&number));
        if let Some(question) = question {
            let error = match what {
                OnThread::Turn(_) => ApiError::Parked(endless(self.turn_limit).to_string()),
                OnThread::Query => query_timed_out(&question.name, self.turn_limit),
            };
            question.answer(Err(error));
        }
    }

    /// Takes back what the thread was sent and has not begun, and the questions that it has not answered but for the one
    /// that holds it: from a thread that has been left to itself. One that has died may have done so over any of its
    /// questions; whoever asked them is told.
    pub fn take_back(&mut self) -> Vec<Letter<W>> {
        let holding = lock(&self.known.running).as_ref().and_then(|running| running.question);
        let mut questions = std::mem::take(&mut *lock(&self.known.questions));
        if self.has_ended() {
            questions.clear();
        } else if let Some((number, question)) = holding.and_then(|number| questions.remove_entry(&number)) {
            lock(&self.known.questions).insert(number, question);
        }
        let mut letters: Vec<_> = questions.into_values().map(Letter::Query).collect();
        let mut inbox = lock(&self.known.inbox);
        while let Ok(letter) = inbox.try_recv() {
            letters.push(letter);
        }
        letters
    }
}

fn endless(limit: Duration) -> TurnFailure {
    TurnFailure::Endless { limit_ms: millis(limit) }
}

fn query_timed_out(name: &str, limit: Duration) -> ApiError {
    let failure = Failure::unplaced(format!(
        "the handler of query {name:?} has held its thread for {limit:?}, the longest that workflow code may (setting \
         turn_limit)"
    ));
    ApiError::QueryFailed(Box::new(failure.with_type("QueryTimedOut").non_retryable()))
}

/// Code holds a thread for too long: a run whose turn does not end is parked. A query stops no run.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn park_endless(ports: &Ports, what: &OnThread, limit: Duration) -> Result<(), StoreError> {
    match what {
        OnThread::Turn(run) => park(ports, run, &endless(limit)).await,
        OnThread::Query => {
            tracing::error!(?limit, "a query's handler does not end");
            Ok(())
        }
    }
}

/// How often a watch looks at threads within the limit, and how long it sleeps at least in between.
const LOOKS: u32 = 20;
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// How long a watch sleeps between its looks at threads.
#[must_use]
pub fn look_interval(turn_limit: Duration) -> Duration {
    (turn_limit / LOOKS).max(SHORTEST_LOOK)
}

fn live<D: Desk>(context: Context, known: Arc<Known<D::Work>>, desk: D) {
    let Context { app, ports, warm_runs, .. } = context;
    let desk = Rc::new(desk);
    let home = Home { desk: Rc::clone(&desk), host: Arc::clone(&ports.host), known, question: Cell::new(None) };
    let ports = ports.with_states_of_its_own();
    let intake = Arc::new(Intake::new(ports.clone()));
    let mut pool = LocalPool::new();
    let inside = Rc::new(Inside {
        decider: Decider::new(app, ports.clone(), intake, home, warm_runs),
        desk,
        ports,
        spawner: pool.spawner(),
        stopping: Cell::new(false),
    });
    pool.run_until(inside.serve());
    // What came before is handled to the end; it awaits nothing but the store, and gives up if that does not answer.
    inside.stopping.set(true);
    pool.run();
}

/// A workflow thread, from inside.
pub struct Inside<D: Desk> {
    /// Decides the runs that live here.
    pub decider: Decider<Home<D>>,
    /// What this kind of process does.
    pub desk: Rc<D>,
    /// What the engine reaches.
    pub ports: Ports,
    spawner: LocalSpawner,
    stopping: Cell<bool>,
}

impl<D: Desk> Inside<D> {
    async fn serve(self: &Rc<Self>) {
        let mut asked = 0;
        while let Some(letter) = self.known().next().await {
            match letter {
                Letter::Work(work) => D::take(self, work),
                Letter::Query(question) => {
                    asked += 1;
                    let (inside, number) = (Rc::clone(self), asked);
                    let Question { run, name, input, .. } = &question;
                    let (run, name, input) = (run.clone(), name.clone(), input.clone());
                    lock(&self.known().questions).insert(number, question);
                    self.spawn(async move {
                        let answer = inside.answer(number, &run, &name, &input).await;
                        // Taken away: nobody waits for this thread any more.
                        let question = lock(&inside.known().questions).remove(&number);
                        question.into_iter().for_each(|question| question.answer(answer.clone()));
                    });
                }
                Letter::Stop => break,
            }
        }
    }

    async fn answer(&self, number: u64, run: &RunKey, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        let parkings = &self.ports.parkings;
        // A thread hangs in this run's code: trying again would cost another one.
        while parkings.is_held(run) {
            if let Some(parked) = parkings.get(run) {
                return Err(ApiError::Parked(parked.reason));
            }
            self.ports.host.sleep(SHORTEST_LOOK).await;
        }
        let mut answer = pin!(self.decider.query(run, name, input));
        let question = &self.decider.surroundings.question;
        std::future::poll_fn(|context| {
            question.set(Some(number));
            let polled = answer.as_mut().poll(context);
            question.set(None);
            polled
        })
        .await
    }

    fn known(&self) -> &Known<D::Work> {
        &self.decider.surroundings.known
    }

    /// Lets work go on by itself on this thread.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        if self.spawner.spawn_local(work).is_err() {
            tracing::debug!("the workflow thread is ending");
        }
    }

    /// Whether the thread ends what it was doing, and takes nothing up any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

/// The thread, as its decider sees it.
pub struct Home<D: Desk> {
    desk: Rc<D>,
    host: Arc<dyn Host>,
    known: Arc<Known<D::Work>>,
    /// The question that is being seen to at this moment.
    question: Cell<Option<u64>>,
}

impl<D: Desk> Surroundings for Home<D> {
    fn run_local(&self, task: LocalTask) {
        self.desk.run_local(task);
    }

    fn code_begins(&self, what: OnThread) {
        self.desk.code_begins(&what);
        let mut running = lock(&self.known.running);
        let left = running.as_ref().is_some_and(|running| running.left);
        *running = Some(Running { what, since: self.host.instant(), question: self.question.get(), left });
    }

    fn code_ends(&self) {
        self.desk.code_ends();
        let ran = lock(&self.known.running).take();
        if let Some(Running { what, left: true, .. }) = ran {
            self.desk.came_back(what);
        }
    }
}
