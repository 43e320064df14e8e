//! A world for the engine, driven by hand: one thread, no runtime, and nothing happens unless the test says so.
//!
//! ```
//! # use dormouse_core::{App, Failure, Signal, Workflow};
//! # use dormouse_testing::world::{World, drive};
//! const NAME: Signal<String> = Signal::new("name");
//! async fn greeting(cx: Workflow, _: ()) -> Result<String, Failure> {
//!     Ok(format!("Hello {}", cx.signal(NAME).await?))
//! }
//! let world = World::new(App::new().workflow("greeting", greeting));
//! let (one, other) = (world.process(), world.process());
//! let run = one.start("greeting", "w", "r1", &());
//! one.deliver();
//! one.signal("w", "r2", "name", &"Ann");
//! world.mail.drop_messages(); // Nobody hears of it ...
//! world.pass_sweeps(1);
//! world.sweep(); // ... until the sweep looks.
//! other.deliver();
//! assert_eq!(world.result(&run).unwrap(), "Hello Ann");
//! ```
//!
//! [`World::process`] begins a process: a decider, an intake and a front door of its own, with caches of their own,
//! over the objects that all processes share. What the engine sends lands in [`World::mail`], where the test
//! delivers it, in this process or that one, twice or never. A process dies when a request never answers
//! ([`Fault::CrashBefore`](crate::Fault), [`Fault::CrashAfter`](crate::Fault)): drop it and begin another.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::api::StartBody;
use dormouse_core::history::{Batch, Closed};
use dormouse_core::operations;
use dormouse_core::{
    ActivityTask, App, Arrival, Failure, IdConflictPolicy, IdReusePolicy, Limits, Payload, RunId, RunKey, Timestamp,
    WorkflowKey,
};
use dormouse_engine::ApiError;
use dormouse_engine::commit::LoadError;
use dormouse_engine::decider::{Decider, OnThread, Surroundings};
use dormouse_engine::front::{FrontDoor, Target};
use dormouse_engine::intake::Intake;
use dormouse_engine::parkings::Parkings;
use dormouse_engine::ports::{Choices, Ports};
use dormouse_engine::seams::{
    ActivityQueue, Alarms, Closings, Delivery, Host, Intent, Overdue, QueryRunner, RunMessage, RunQueue, SeamFuture,
    Sweeping, Ticket,
};
use dormouse_engine::states::{States, read_history, read_state};
use dormouse_engine::stop::Stop;
use dormouse_engine::store::{Parked, RunRow, Store, StoreError};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::worker::LocalTask;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::counting::{CountingStore, Counts};
use crate::faulty::FaultyStore;

/// How often the sweep looks.
pub const SWEEP: Duration = Duration::from_mins(1);
/// The namespace of everything here.
pub const NAMESPACE: &str = "default";
/// Messages that one call of [`Process::deliver`] handles at most: a loop in the engine ends here.
const MANY: usize = 10_000;

/// Drives a future as far as it goes by itself. `None`: it waits for something that never comes.
pub fn drive<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..MANY).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

/// What the engine has sent: what a queue would be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// To deciders.
    pub messages: u64,
    /// To workers.
    pub tasks: u64,
    /// Alarms set.
    pub alarms: u64,
}

#[derive(Default)]
struct Kept {
    sent: Sent,
    messages: Vec<(u64, RunMessage)>,
    numbered: u64,
    tasks: Vec<ActivityTask>,
    alarms: BTreeMap<RunKey, (RunId, Timestamp)>,
    locals: Vec<LocalTask>,
    failing_tasks: usize,
    /// The only task queue that there is besides the default one, once that is said.
    only_queue: Option<String>,
    /// The queue delivers by itself: what it was told of stays as it is, whatever becomes of its caller.
    delivers_intents: bool,
}

/// Everything that the processes sent, until the test takes it. It survives them, as queues do.
#[derive(Clone, Default)]
pub struct Mail(Arc<Mutex<Kept>>);

impl Mail {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: RunMessage) -> u64 {
        let mut kept = self.lock();
        kept.numbered += 1;
        let number = kept.numbered;
        kept.messages.push((number, message));
        number
    }

    /// Puts a message on the run queue.
    pub fn put(&self, message: RunMessage) {
        self.push(message);
    }

    /// Puts an arrival for this run on the queue.
    pub fn arrive(&self, run: &RunKey, run_id: RunId, arrival: Arrival) {
        self.put(RunMessage::Arrived { run: run.clone(), run_id, arrival });
    }

    /// The messages on the run queue, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<RunMessage> {
        self.lock().messages.iter().map(|(_, message)| message.clone()).collect()
    }

    /// Whether there is no message on the run queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    /// Loses all messages on the run queue; answers them, as they may yet come late.
    pub fn drop_messages(&self) -> Vec<RunMessage> {
        std::mem::take(&mut self.lock().messages).into_iter().map(|(_, message)| message).collect()
    }

    /// Takes one message off the run queue, wherever it stands there.
    ///
    /// # Panics
    /// When there is none at that place.
    pub fn take_message(&self, at: usize) -> RunMessage {
        self.lock().messages.remove(at).1
    }

    /// Takes the activity tasks that were sent.
    pub fn take_tasks(&self) -> Vec<ActivityTask> {
        std::mem::take(&mut self.lock().tasks)
    }

    /// The next so many tasks are not taken by the queue.
    pub fn fail_tasks(&self, tasks: usize) {
        self.lock().failing_tasks = tasks;
    }

    /// From now on there is no task queue but this one and the default one.
    pub fn only_queue(&self, name: &str) {
        self.lock().only_queue = Some(name.to_owned());
    }

    /// Takes the local activities that were asked for.
    pub fn take_locals(&self) -> Vec<LocalTask> {
        std::mem::take(&mut self.lock().locals)
    }

    /// What the engine has sent so far; what the test has put here does not count.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.lock().sent
    }

    /// When this run's alarm rings.
    #[must_use]
    pub fn alarm(&self, run: &RunKey) -> Option<Timestamp> {
        self.lock().alarms.get(run).map(|(_, at)| *at)
    }

    /// When the next alarm rings.
    #[must_use]
    pub fn next_alarm(&self) -> Option<Timestamp> {
        self.lock().alarms.values().map(|(_, at)| *at).min()
    }

    /// Loses messages, tasks, local activities and alarms: they were in the memory of a process that has died.
    pub fn lose_everything(&self) {
        let mut kept = self.lock();
        kept.messages.clear();
        kept.tasks.clear();
        kept.locals.clear();
        kept.alarms.clear();
    }

    /// Loses all alarms.
    pub fn drop_alarms(&self) {
        self.lock().alarms.clear();
    }
}

impl RunQueue for Mail {
    /// The intent is on the queue at once, and stays there if its caller dies; in a shared world, always.
    fn announce(&self, intent: Intent) -> SeamFuture<'_, Ticket> {
        self.lock().sent.messages += 1;
        let number = self.push(RunMessage::Intent(intent));
        let mail = self.clone();
        let ticket = Ticket::new(move |instead| {
            if let Some(instead) = instead.filter(|_| !mail.lock().delivers_intents)
                && let Some((_, message)) = mail.lock().messages.iter_mut().find(|(at, _)| *at == number)
            {
                *message = instead;
            }
        });
        std::future::ready(Ok(ticket)).boxed()
    }

    fn send(&self, message: RunMessage) -> SeamFuture<'_, ()> {
        self.lock().sent.messages += 1;
        self.push(message);
        std::future::ready(Ok(())).boxed()
    }

    fn sweep(&self, overdue: Vec<Overdue>) -> SeamFuture<'_, Sweeping> {
        for Overdue { run, .. } in overdue {
            self.lock().sent.messages += 1;
            self.push(RunMessage::Sweep { run });
        }
        std::future::ready(Ok(Sweeping::Sent)).boxed()
    }
}

impl ActivityQueue for Mail {
    /// A planned failure comes after those before it were sent.
    fn send(&self, tasks: Vec<ActivityTask>) -> SeamFuture<'_, ()> {
        let mut kept = self.lock();
        for task in tasks {
            if let Some(left) = kept.failing_tasks.checked_sub(1) {
                kept.failing_tasks = left;
                let planned = StoreError::Unknown("planned: the queue does not answer".into());
                return std::future::ready(Err(planned)).boxed();
            }
            kept.sent.tasks += 1;
            kept.tasks.push(task);
        }
        std::future::ready(Ok(())).boxed()
    }

    fn no_such_queue(&self, task_queue: Option<&str>) -> Option<String> {
        let kept = self.lock();
        let (only, name) = (kept.only_queue.as_deref()?, task_queue?);
        (name != only).then(|| format!("there is no task queue {name:?}; there are: default, {only}"))
    }
}

impl Alarms for Mail {
    fn set(&self, run: &RunKey, run_id: RunId, at: Option<Timestamp>) -> SeamFuture<'_, ()> {
        let mut kept = self.lock();
        kept.sent.alarms += u64::from(at.is_some());
        match at {
            Some(at) => kept.alarms.insert(run.clone(), (run_id, at)),
            None => kept.alarms.remove(run),
        };
        std::future::ready(Ok(())).boxed()
    }
}

impl Surroundings for Mail {
    fn run_local(&self, task: LocalTask) {
        self.lock().locals.push(task);
    }

    fn code_begins(&self, _: OnThread) {}

    fn code_ends(&self) {}
}

/// Nobody waits for runs here, and nobody computes queries.
struct Nobody;

impl Closings for Nobody {
    fn closed(&self, _: &RunKey) {}

    fn wait(&self, _: &RunKey) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }
}

impl QueryRunner for Nobody {
    fn query(&self, _: RunKey, name: String, _: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        std::future::ready(Err(ApiError::NotFound(name))).boxed()
    }
}

/// The world. See the module's documentation.
pub struct World {
    app: Arc<App>,
    /// A way of its own to the store, for each process.
    stores: Box<dyn Fn() -> Arc<dyn Store>>,
    /// What the processes sent.
    pub mail: Mail,
    /// The clock of every process.
    pub clock: Clock,
    /// What a reader of today sees.
    store: Arc<dyn Store>,
    shared: bool,
    limits: Limits,
}

/// One process: what it holds in memory, and its own view of the store.
pub struct Process {
    /// Everything that its engine reaches.
    pub ports: Ports,
    /// Takes inputs in.
    pub intake: Arc<Intake>,
    /// Its front door.
    pub front: FrontDoor,
    /// Makes its requests fail.
    pub faults: Arc<FaultyStore>,
    counting: Arc<CountingStore>,
    uncounted: Arc<dyn Store>,
    decider: Decider<Mail>,
    mail: Mail,
}

impl World {
    /// A world with objects in memory, some time after the epoch.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self::over(app, Arc::new(InMemory::new()))
    }

    /// A world over these objects.
    #[must_use]
    pub fn over(app: App, objects: Arc<dyn object_store::ObjectStore>) -> Self {
        Self::on(app, move || Arc::new(ObjectStore::new(Arc::clone(&objects), "world")) as _)
    }

    /// A world over any store: `stores` is asked for a way to it by each process. It must answer at once, when it is
    /// polled: nobody waits for other threads here.
    #[must_use]
    pub fn on(app: App, stores: impl Fn() -> Arc<dyn Store> + 'static) -> Self {
        let clock = Clock::at(Timestamp::from_millis(1_000_000_000_000));
        let store = stores();
        Self {
            app: Arc::new(app),
            stores: Box::new(stores),
            mail: Mail::default(),
            clock,
            store,
            shared: false,
            limits: Limits::DEFAULT,
        }
    }

    /// The same world, where every process knows that others are at work on the same runs, as functions do, and the
    /// queue delivers intents by itself.
    #[must_use]
    pub fn shared(self) -> Self {
        self.mail.lock().delivers_intents = true;
        Self { shared: true, ..self }
    }

    /// The same world, in which these limits hold.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Begins a process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process_by(&self.clock)
    }

    /// Begins a process on a host with this clock.
    #[must_use]
    pub fn process_by(&self, clock: &Clock) -> Process {
        self.begin(clock, &self.app, "test")
    }

    /// Begins a process of another build, which has this application.
    #[must_use]
    pub fn process_of(&self, app: &Arc<App>, build: &str) -> Process {
        self.begin(&self.clock, app, build)
    }

    fn begin(&self, clock: &Clock, app: &Arc<App>, build: &str) -> Process {
        let faults = Arc::new(FaultyStore::new((self.stores)()));
        let counting = Arc::new(CountingStore::new(Arc::clone(&faults) as _));
        let ports = Ports {
            store: Arc::clone(&counting) as _,
            states: Arc::new(States::new(Arc::clone(&counting) as _, Arc::new(clock.clone()))),
            runs: Arc::new(self.mail.clone()),
            activities: Arc::new(self.mail.clone()),
            alarms: Arc::new(self.mail.clone()),
            host: Arc::new(clock.clone()),
            closings: Arc::new(Nobody),
            parkings: Arc::new(Parkings::default()),
            stop: Stop::default(),
            choices: Choices {
                namespace: NAMESPACE.into(),
                build: build.into(),
                sweep_interval: SWEEP,
                shared: self.shared,
                max_payload_bytes: 64 * 1024,
                limits: self.limits,
                declared: Arc::new(app.declared().clone()),
            },
        };
        let intake = Arc::new(Intake::new(ports.clone()));
        let front = FrontDoor::new(ports.clone(), Arc::clone(&intake), Arc::new(Nobody));
        let warm = NonZeroUsize::new(100).unwrap_or(NonZeroUsize::MIN);
        let decider = Decider::new(Arc::clone(app), ports.clone(), Arc::clone(&intake), self.mail.clone(), warm);
        let uncounted = Arc::clone(&self.store);
        Process { ports, intake, front, faults, counting, uncounted, decider, mail: self.mail.clone() }
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    // --- time ---

    /// The clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass, and what was spawned go on.
    pub fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    /// Runs a future to its end in this world's time, which passes when nothing else is left to do.
    ///
    /// # Panics
    /// When the future waits for something that no time brings.
    pub fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Some(value) = self.clock.drive(future.as_mut()) {
                return value;
            }
            self.clock.pass(self.clock.next_wake().expect("somebody who waits for time"));
        }
    }

    /// Lets so many sweep intervals pass, and a second.
    pub fn pass_sweeps(&self, sweeps: u32) {
        self.pass(SWEEP * sweeps + Duration::from_secs(1));
    }

    /// The sweep: a message for each run that is overdue by its row. Answers those runs.
    pub fn sweep(&self) -> Vec<RunKey> {
        let rows = now_or_panic(self.store.due(self.now(), None, MANY));
        let runs: Vec<_> = rows.into_iter().map(|row| row.run).collect();
        runs.iter().for_each(|run| self.mail.put(RunMessage::Sweep { run: run.clone() }));
        runs
    }

    /// When the next run is due by its row, for whoever looks then.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let rows = now_or_panic(self.store.due(Timestamp::from_millis(u64::MAX), None, MANY));
        rows.into_iter().filter_map(|row| row.due).min()
    }

    /// A process begins, as `dev` does: it looks at each run that owes something, and tries those that are parked.
    pub fn pick_up(&self, process: &Process) {
        for row in now_or_panic(self.store.due(Timestamp::from_millis(u64::MAX), None, MANY)) {
            if let Some(parked) = row.parked {
                process.ports.parkings.insert(row.run.clone(), Parked { retry_at: self.now(), ..parked });
            }
            self.mail.put(RunMessage::Sweep { run: row.run });
        }
    }

    /// Rings the alarms that are due.
    pub fn ring(&self) {
        let now = self.now();
        let due: Vec<_> = self.mail.lock().alarms.extract_if(.., |_, (_, at)| *at <= now).collect();
        for (run, (run_id, _)) in due {
            self.mail.arrive(&run, run_id, Arrival::Alarm);
        }
    }

    // --- what stands in the store ---

    /// The stored batches of a run.
    ///
    /// # Panics
    /// When one is missing.
    #[must_use]
    pub fn records(&self, run: &RunKey) -> Vec<Bytes> {
        drive(read_history(&*self.store, run)).expect("an answer").expect("an undamaged history")
    }

    /// The batches of a run, decoded.
    ///
    /// # Panics
    /// When one does not decode.
    #[must_use]
    pub fn batches(&self, run: &RunKey) -> Vec<Batch> {
        let records = self.records(run);
        let decoded = (0..).zip(&records).map(|(sequence, record)| Batch::decode(sequence, record));
        decoded.collect::<Result<_, _>>().expect("batches that decode")
    }

    /// The state of a run.
    ///
    /// # Panics
    /// When there is no such run, or its history is damaged.
    #[must_use]
    pub fn state(&self, run: &RunKey) -> RunState {
        self.try_state(run).expect("an undamaged history").expect("a run")
    }

    /// The state of a run, if there is one.
    ///
    /// # Errors
    /// When the history is damaged.
    pub fn try_state(&self, run: &RunKey) -> Result<Option<RunState>, LoadError> {
        drive(read_state(&*self.store, run)).expect("an answer")
    }

    /// The index row of a run.
    #[must_use]
    pub fn row(&self, run: &RunKey) -> Option<RunRow> {
        now_or_panic(self.store.row(run))
    }

    /// When a run is due by its index row.
    #[must_use]
    pub fn due(&self, run: &RunKey) -> Option<Timestamp> {
        self.row(run).and_then(|row| row.due)
    }

    /// What a completed run returned. `None`: it is open, or ended in another way.
    #[must_use]
    pub fn result(&self, run: &RunKey) -> Option<Value> {
        match self.state(run).closed {
            Some(Closed::Completed(result)) => Some(result.to_value()),
            _ => None,
        }
    }
}

fn now_or_panic<T>(future: impl Future<Output = Result<T, StoreError>>) -> T {
    drive(future).expect("an answer").expect("a store without faults")
}

/// The key of a workflow's run.
#[must_use]
pub fn run(workflow_id: &str, ordinal: u64) -> RunKey {
    WorkflowKey { namespace: NAMESPACE.into(), workflow_id: workflow_id.into() }.run(ordinal)
}

/// The latest run of a workflow.
#[must_use]
pub fn latest(workflow_id: &str) -> Target {
    Target { workflow_id: workflow_id.into(), run_id: None }
}

/// The body of a start with this policy for an id that has an open run.
///
/// # Panics
/// When the input does not serialize.
#[must_use]
pub fn start_body(
    workflow_type: &str,
    workflow_id: &str,
    input: &impl Serialize,
    conflict: IdConflictPolicy,
) -> StartBody {
    StartBody {
        workflow_type: workflow_type.into(),
        workflow_id: Some(workflow_id.into()),
        input: Payload::encode(input).expect("an input that serializes"),
        id_reuse_policy: IdReusePolicy::AllowDuplicate,
        id_conflict_policy: conflict,
    }
}

fn payload(value: &impl Serialize) -> Payload {
    Payload::encode(value).expect("a value that serializes")
}

impl Process {
    /// What its requests came to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counting.counts()
    }

    /// Begins to count anew.
    pub fn count_anew(&self) {
        self.counting.reset();
    }

    /// Starts a workflow through the front door; it must work. The run that it created or found.
    pub fn start(&self, workflow_type: &str, workflow_id: &str, request_id: &str, input: &impl Serialize) -> RunKey {
        self.try_start(workflow_type, workflow_id, request_id, input).expect("an answer")
    }

    /// The same. `None`: the process died over it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn try_start(&self, workflow_type: &str, id: &str, request_id: &str, input: &impl Serialize) -> Option<RunKey> {
        let body = start_body(workflow_type, id, input, IdConflictPolicy::Fail);
        let (started, _) = drive(self.front.start(Some(request_id), body))?.expect("a start");
        let mut rows = (0..).map_while(|ordinal| now_or_panic(self.uncounted.row(&run(id, ordinal))));
        Some(rows.find(|row| row.run_id == started.run_id).expect("the row of the run that was started").run)
    }

    /// The run falls out of this process's memory.
    pub fn forget(&self, run: &RunKey) {
        self.decider.forget(run);
    }

    /// Sends a signal through the front door; it must be taken in.
    pub fn signal(&self, workflow_id: &str, request_id: &str, name: &str, value: &impl Serialize) {
        let target = latest(workflow_id);
        drive(self.front.signal(&target, Some(request_id), name, payload(value)))
            .expect("an answer")
            .expect("a signal that is taken in");
    }

    /// Asks a computed query where the run is decided.
    ///
    /// # Errors
    /// As [`Decider::query`].
    ///
    /// # Panics
    /// When the store does not answer at once.
    pub fn query(&self, run: &RunKey, name: &str, input: &impl Serialize) -> Result<Payload, ApiError> {
        drive(self.decider.query(run, name, &payload(input))).expect("an answer")
    }

    /// Handles one message. `None`: the process died over it.
    pub fn handle(&self, message: RunMessage) -> Option<Result<(), StoreError>> {
        self.handle_together(vec![message])
    }

    /// Handles one message that was delivered before, to a process that did not come to an end with it.
    pub fn handle_again(&self, message: RunMessage) -> Option<Result<(), StoreError>> {
        let run = message.run().clone();
        drive(self.decider.handle(&run, vec![message], Delivery::Again))
    }

    /// Handles messages of one run at once. `None`: the process died over them.
    ///
    /// # Panics
    /// When there are none.
    pub fn handle_together(&self, messages: Vec<RunMessage>) -> Option<Result<(), StoreError>> {
        let run = messages.first().expect("messages").run().clone();
        drive(self.decider.handle(&run, messages, Delivery::First))
    }

    /// Handles the messages on the queue, oldest first, and what they bring about, until none is left.
    ///
    /// # Panics
    /// When a message is not handled, or there is no end to them.
    pub fn deliver(&self) {
        for _ in 0..MANY {
            let mut kept = self.mail.lock();
            if kept.messages.is_empty() {
                return;
            }
            let (_, message) = kept.messages.remove(0);
            drop(kept);
            let seen = format!("{message:?}");
            match self.handle(message) {
                Some(Ok(())) => {}
                Some(Err(error)) => panic!("{error}, over {seen}"),
                None => panic!("it died over {seen}"),
            }
        }
        panic!("there is no end to the messages");
    }

    /// An activity's attempt succeeded: handles the news.
    pub fn complete(&self, task: &ActivityTask, attempt: u32, result: &impl Serialize) {
        let arrival =
            Arrival::ActivityCompleted(operations::ActivityCompleted { id: task.id, attempt, result: payload(result) });
        self.mail.arrive(&task.run, task.run_id, arrival);
        self.deliver();
    }

    /// A local activity succeeded: handles the news.
    pub fn complete_local(&self, task: &LocalTask, result: &impl Serialize) {
        let arrival = Arrival::LocalCompleted(operations::LocalCompleted {
            id: task.id,
            attempt: task.attempt,
            result: payload(result),
        });
        self.mail.arrive(&task.run, task.run_id, arrival);
        self.deliver();
    }

    /// A local activity failed and is tried again much later: handles the news.
    pub fn put_off_local(&self, task: &LocalTask, retry_at: Timestamp) {
        let failure = Failure::application("not now");
        let arrival =
            Arrival::LocalBackoff(operations::LocalBackoff { id: task.id, attempt: task.attempt, failure, retry_at });
        self.mail.arrive(&task.run, task.run_id, arrival);
        self.deliver();
    }
}
