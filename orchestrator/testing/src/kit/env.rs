//! Where workflows run in a test: one process, one thread, and time that passes when nothing else is left to do.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use dormouse_core::{ActivityTarget, App, Failure, Payload, Timestamp, WorkflowFunction};
use dormouse_engine::seams::{Delivery, Host, RunMessage};
use dormouse_engine::store::RunRow;
use dormouse_engine::worker::{handle_task, run_local};
use futures::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mocks::{ActivityCalled, Mocks};
use super::run::TestRun;
use crate::clock::Clock;
use crate::faulty::Fault;
use crate::world::{Process, World, drive, latest};

/// When every test begins: 1 January 2026, so that what workflows see of the time is the same each time.
const BEGINS: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// So many things may happen in one test: code that never comes to rest ends here.
const MANY: u32 = 1_000_000;

/// Events of a history that are looked at for the line of a crash.
const PAGE: usize = 1_000;

/// Something that a test does later.
type Errand = Box<dyn FnOnce()>;

/// Workflows in memory, in virtual time. See the [module's documentation](super).
///
/// *Activities*: [`mock`](Self::mock), [`mock_each`](Self::mock_each), [`takes`](Self::takes), [`real`](Self::real). *Harder
/// circumstances*: [`chaos`](Self::chaos). *Runs*: [`start`](Self::start), [`start_as`](Self::start_as). *Time*:
/// [`advance`](Self::advance), [`after`](Self::after), [`now`](Self::now). *Afterwards*: [`calls`](Self::calls).
pub struct TestEnv {
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    /// Until the first start.
    app: RefCell<Option<App>>,
    mocked: RefCell<BTreeSet<&'static str>>,
    real: Cell<bool>,
    pub(super) mocks: Mocks,
    pub(super) clock: Clock,
    chaos: RefCell<Option<Chaos>>,
    begun: OnceCell<Begun>,
    errands: RefCell<BTreeMap<Timestamp, VecDeque<Errand>>>,
    ids: Cell<u64>,
    has_died: Cell<bool>,
    last_started: RefCell<String>,
    /// The last place in its code that was recorded when something went wrong.
    line: RefCell<Option<String>>,
    moments: Cell<u64>,
}

/// The world, from the first start on.
struct Begun {
    world: World,
    process: RefCell<Process>,
}

/// A series of choices that is the same for the same seed.
struct Chaos(u64);

impl Chaos {
    /// Whether something happens that does so once in `so_many` times (SplitMix64).
    fn strikes(&mut self, so_many: u64) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).is_multiple_of(so_many)
    }
}

impl TestEnv {
    /// Runs the workflows of this application. Its activities are no part of the test until they are mocked, or let run.
    #[must_use]
    pub fn new(app: App) -> Self {
        let clock = Clock::at(BEGINS);
        Self {
            inner: Rc::new(Inner {
                app: RefCell::new(Some(app)),
                mocked: RefCell::default(),
                real: Cell::new(false),
                mocks: Mocks::new(clock.clone()),
                clock,
                chaos: RefCell::default(),
                begun: OnceCell::new(),
                errands: RefCell::default(),
                ids: Cell::new(0),
                has_died: Cell::new(false),
                last_started: RefCell::default(),
                line: RefCell::default(),
                moments: Cell::new(0),
            }),
        }
    }

    // --- activities ---

    /// Something else does what this activity does: named by its function (or [`RemoteActivity`](dormouse_core::RemoteActivity)),
    /// with its types. It is asked for each attempt, and what it fails with is retried by the policy of the call. An
    /// assertion in it that fails, fails the test.
    ///
    /// # Panics
    /// When the application does not have the activity, or a run has begun.
    #[must_use]
    #[track_caller]
    pub fn mock<A, F>(
        self,
        activity: F,
        mut answer: impl FnMut(F::Input) -> Result<F::Output, Failure> + Send + 'static,
    ) -> Self
    where
        F: ActivityTarget<A>,
        F::Input: DeserializeOwned,
        F::Output: Serialize,
    {
        self.stand_in(activity, Box::new(move |input| Payload::encode(&answer(input.decode()?)?)))
    }

    /// The same with one answer after another, one for each attempt. When they are used up, the test fails.
    ///
    /// # Panics
    /// As [`mock`](Self::mock).
    #[must_use]
    #[track_caller]
    pub fn mock_each<A, F>(self, activity: F, answers: impl IntoIterator<Item = Result<F::Output, Failure>>) -> Self
    where
        F: ActivityTarget<A>,
        F::Output: Serialize,
    {
        let encode = |answer: Result<F::Output, Failure>| answer.and_then(|output| Payload::encode(&output));
        let mut answers: VecDeque<_> = answers.into_iter().map(encode).collect();
        let (all, name) = (answers.len(), self.name_of(activity));
        let next = move |_: &Payload| match answers.pop_front() {
            Some(answer) => answer,
            None => panic!("activity {name:?} is called more often than the test has answers ({all})"),
        };
        self.stand_in(activity, Box::new(next))
    }

    /// An attempt of this activity takes so long, in virtual time: time limits and other work go on meanwhile.
    ///
    /// # Panics
    /// When the application does not have the activity.
    #[must_use]
    #[track_caller]
    pub fn takes<A, F: ActivityTarget<A>>(self, activity: F, time: Duration) -> Self {
        self.inner.mocks.takes(self.name_of(activity), time);
        self
    }

    /// Activities that are not mocked run as they are, with the tools of the application. They run on this thread, between
    /// the steps of the workflow, and nothing waits for the outside: one that needs a runtime is to be mocked.
    #[must_use]
    pub fn real(self) -> Self {
        self.inner.real.set(true);
        self
    }

    #[track_caller]
    fn stand_in<A, F: ActivityTarget<A>>(self, activity: F, answer: super::mocks::Answer) -> Self {
        let name = self.name_of(activity);
        let mut app = self.inner.app.borrow_mut();
        let given = app.take().expect("activities are mocked before the first run begins");
        *app = Some(self.inner.mocks.mock(given, name, answer));
        self.inner.mocked.borrow_mut().insert(name);
        drop(app);
        self
    }

    #[track_caller]
    fn name_of<A, F: ActivityTarget<A>>(&self, activity: F) -> &'static str {
        match (&*self.inner.app.borrow(), self.inner.begun.get()) {
            (Some(app), _) => activity.wire_name(app.names()),
            (None, Some(begun)) => activity.wire_name(begun.world.app().names()),
            (None, None) => unreachable!("an application, until a run begins"),
        }
    }

    /// Code must ask for the very arguments that are recorded when it is replayed.
    pub(super) fn strict(self) -> Self {
        let mut app = self.inner.app.borrow_mut();
        *app = app.take().map(App::strict);
        drop(app);
        self
    }

    // --- circumstances ---

    /// What production brings, in an order that the seed decides, always the same: messages come twice, runs fall out of
    /// memory and are replayed between any two steps, and first attempts of activities fail where their policy allows
    /// another one. A workflow that is written well comes to the same end.
    #[must_use]
    pub fn chaos(self, seed: u64) -> Self {
        *self.inner.chaos.borrow_mut() = Some(Chaos(seed));
        self
    }

    // --- runs ---

    /// Starts a workflow, and lets it come as far as it does without time passing.
    ///
    /// # Panics
    /// When the application does not have the workflow.
    #[track_caller]
    pub fn start<A, F: WorkflowFunction<A>>(&self, workflow: F, input: &F::Input) -> TestRun<F::Output> {
        self.start_as(&format!("run-{}", self.inner.fresh()), workflow, input)
    }

    /// The same under this workflow id.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when a run of that id is open.
    #[track_caller]
    pub fn start_as<A, F: WorkflowFunction<A>>(&self, id: &str, workflow: F, input: &F::Input) -> TestRun<F::Output> {
        let _ = workflow;
        let begun = self.inner.begun();
        let Some(name) = begun.world.app().name_of::<F>() else {
            panic!("{} is not registered; add `.workflow(\"...\", ...)` to the App", std::any::type_name::<F>());
        };
        id.clone_into(&mut self.inner.last_started.borrow_mut());
        let request = format!("start-{}", self.inner.fresh());
        // A caller whose server dies asks again.
        while begun.process.borrow().try_start(name, id, &request, input).is_none() {
            self.inner.restart_if_dead();
        }
        self.inner.settle();
        TestRun::new(Rc::clone(&self.inner), id)
    }

    /// The process dies at its n-th request to the store, from 1, before or after that is carried out.
    pub(super) fn die_at(&self, request: u64, fault: Fault) {
        self.inner.begun().process.borrow().faults.die_at(request, fault);
    }

    /// At how many moments anything has happened, time having passed.
    pub(super) fn moments(&self) -> u64 {
        self.inner.moments.get()
    }

    /// How many requests the process has sent to the store.
    pub(super) fn requests(&self) -> u64 {
        self.inner.begun().process.borrow().faults.requests()
    }

    // --- time ---

    /// The time since the beginning of the test.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.inner.clock.now().since(BEGINS)
    }

    /// Lets time pass, and everything happen that happens in it, each at its moment.
    pub fn advance(&self, time: Duration) {
        let until = self.inner.clock.now() + time;
        while self.inner.step(Some(until)) {}
        self.inner.clock.pass(until.since(self.inner.clock.now()));
        self.inner.settle();
    }

    /// Does something so much later: when a run's result is asked for, time passes by itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dormouse_core::{App, Failure, Signal, Workflow};
    /// # use dormouse_testing::kit::TestEnv;
    /// # const GO: Signal<u32> = Signal::new("go");
    /// # async fn patient(cx: Workflow, _: ()) -> Result<u32, Failure> { Ok(cx.signal(GO).await?) }
    /// let test = TestEnv::new(App::new().workflow("patient", patient));
    /// let run = test.start(patient, &());
    /// let later = run.clone();
    /// test.after(Duration::from_hours(48), move || later.signal(GO, &7));
    /// assert_eq!(run.result(), Ok(7));
    /// ```
    pub fn after(&self, time: Duration, errand: impl FnOnce() + 'static) {
        let at = self.inner.clock.now() + time;
        self.inner.errands.borrow_mut().entry(at).or_default().push_back(Box::new(errand));
    }

    // --- afterwards ---

    /// The attempts of this activity so far, in the order in which they began.
    ///
    /// # Panics
    /// When the application does not have the activity, or a recorded argument is not of its type.
    #[must_use]
    #[track_caller]
    pub fn calls<A, F>(&self, activity: F) -> Vec<ActivityCalled<F::Input>>
    where
        F: ActivityTarget<A>,
        F::Input: DeserializeOwned,
    {
        let calls = self.inner.mocks.calls(self.name_of(activity), BEGINS);
        let typed = calls.into_iter().map(|called| ActivityCalled {
            input: called.input.decode().expect("an argument of the activity's type"),
            attempt: called.attempt,
            workflow_id: called.workflow_id,
            idempotency_key: called.idempotency_key,
            at: called.at,
        });
        typed.collect()
    }
}

impl Inner {
    pub(super) fn fresh(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    fn begun(&self) -> &Begun {
        self.begun.get_or_init(|| {
            let mut app = self.app.borrow_mut().take().expect("an application");
            let mocked = self.mocked.borrow();
            let rest: Vec<_> = app.activity_types().filter(|name| !mocked.contains(name)).collect();
            for name in rest {
                app = if self.real.get() { self.mocks.real(app, name) } else { self.mocks.refuse(app, name) };
            }
            if let Err(mistakes) = app.check() {
                panic!("{mistakes}");
            }
            let mut world = World::new(app);
            world.clock = self.clock.clone();
            let process = RefCell::new(world.process());
            Begun { world, process }
        })
    }

    pub(super) fn world(&self) -> &World {
        &self.begun().world
    }

    /// Does something with the process, then lets everything happen that follows from it at this moment. `None`: the
    /// process died over it, and the next one is asked.
    pub(super) fn with_process<T>(&self, what: impl Fn(&Process) -> Option<T>) -> T {
        loop {
            let done = what(&self.begun().process.borrow());
            self.restart_if_dead();
            if let Some(done) = done {
                self.settle();
                return done;
            }
        }
    }

    /// Lets everything happen that happens at this moment.
    ///
    /// # Panics
    /// When it never ends; and what the activities of the test have to tell.
    pub(super) fn settle(&self) {
        let world = self.world();
        for _ in 0..MANY {
            let is_still = !self.deliver() & !self.begin_locals() & !self.begin_tasks();
            world.clock.work();
            self.restart_if_dead();
            world.ring();
            self.mocks.tell();
            if is_still && world.mail.is_empty() {
                return;
            }
        }
        panic!("the workflow does not come to rest: something in it goes on for ever without time passing");
    }

    /// Handles the messages on the queue. Whether there were any.
    fn deliver(&self) -> bool {
        let mail = &self.world().mail;
        let mut any = false;
        for _ in 0..MANY {
            if mail.is_empty() {
                break;
            }
            any = true;
            let message = mail.take_message(0);
            for _ in 0..=u32::from(self.strikes(4)) {
                self.handle(&message);
            }
        }
        any
    }

    fn handle(&self, message: &RunMessage) {
        let begun = self.begun();
        let handled = begun.process.borrow().handle(message.clone());
        match handled {
            Some(handled) => handled.expect("a store without faults"),
            None => self.restart_if_dead(),
        }
        if self.strikes(2) {
            begun.process.borrow().forget(message.run());
        }
    }

    fn begin_locals(&self) -> bool {
        let Begun { world, process } = self.begun();
        let locals = world.mail.take_locals();
        let any = !locals.is_empty();
        for task in locals {
            let (app, ports, mail) = (world.app().clone(), process.borrow().ports.clone(), world.mail.clone());
            let (run, run_id) = (task.run.clone(), task.run_id);
            let work = async move { mail.arrive(&run, run_id, run_local(&app, &ports, task, None).await) };
            world.clock.spawn(work.boxed());
        }
        any
    }

    fn begin_tasks(&self) -> bool {
        let Begun { world, process } = self.begun();
        let tasks = world.mail.take_tasks();
        let any = !tasks.is_empty();
        for task in tasks {
            let is_first = task.not_before <= task.scheduled_at;
            if is_first && task.options.retry.maximum_attempts != 1 && self.strikes(4) {
                self.mocks.fail_once(&task.activity_type);
            }
            for _ in 0..=u32::from(self.strikes(4)) {
                let (app, ports, task) = (world.app().clone(), process.borrow().ports.clone(), task.clone());
                let work = async move {
                    ports.host.sleep(task.not_before.since(ports.host.now())).await;
                    let handled = handle_task(&app, &ports, task, Delivery::First, None).await;
                    handled.expect("a store without faults");
                };
                world.clock.spawn(work.boxed());
            }
        }
        any
    }

    /// The process has died where it was told to: what it held in memory is gone, and the next one looks at each open run,
    /// as `dev` does when it begins.
    fn restart_if_dead(&self) {
        let Begun { world, process } = self.begun();
        if !process.borrow().faults.is_dead() {
            return;
        }
        self.has_died.set(true);
        world.clock.end_work();
        world.mail.lose_everything();
        process.replace(world.process());
        self.remember_line();
        world.sweep_all();
    }

    /// The last line of the workflow's code whose command is in the history of the run that was started last.
    fn last_line(&self) -> Option<String> {
        let target = latest(&self.last_started.borrow());
        let history = drive(self.begun().process.borrow().front.history(&target, 0, PAGE))?.ok()?;
        let places = history.events.iter().rev().filter_map(|event| event.attributes.get("place"));
        places.filter_map(|place| place.decode::<Option<String>>().ok()).flatten().next()
    }

    /// Something is about to go wrong with it.
    pub(super) fn remember_line(&self) {
        self.line.replace(self.last_line());
    }

    pub(super) fn line_before_the_mishap(&self) -> Option<String> {
        self.line.borrow().clone()
    }

    fn strikes(&self, so_many: u64) -> bool {
        self.chaos.borrow_mut().as_mut().is_some_and(|chaos| chaos.strikes(so_many))
    }

    /// Lets time pass to the next moment at which anything happens, until then at most, and lets that happen. `false`:
    /// nothing does.
    pub(super) fn step(&self, until: Option<Timestamp>) -> bool {
        let now = self.clock.now();
        let world = self.world();
        let errand = self.errands.borrow().first_key_value().map(|(at, _)| *at);
        let woken = self.clock.next_wake().map(|after| now + after);
        // What a process left undone that has died is found by the sweep.
        let swept = self.has_died.get().then(|| world.next_due()).flatten().map(|due| due.max(now));
        let next = [errand, woken, world.mail.next_alarm(), swept].into_iter().flatten().min();
        let Some(next) = next.filter(|next| until.is_none_or(|until| *next <= until)) else { return false };
        self.moments.set(self.moments.get() + 1);
        self.clock.pass(next.since(now));
        loop {
            let errand = {
                let mut errands = self.errands.borrow_mut();
                let Some(mut due) = errands.first_entry().filter(|due| *due.key() <= next) else { break };
                let errand = due.get_mut().pop_front();
                if due.get().is_empty() {
                    due.remove();
                }
                errand
            };
            errand.into_iter().for_each(|errand| errand());
        }
        if swept.is_some_and(|due| due <= next) {
            world.sweep();
        }
        world.ring();
        self.settle();
        true
    }

    /// The row of the latest run of a workflow, looked for from the run with this ordinal on.
    pub(super) fn latest(&self, workflow_id: &str, from: u64) -> RunRow {
        let rows = (from..).map_while(|ordinal| self.world().row(&crate::world::run(workflow_id, ordinal)));
        rows.last().expect("a run that was started")
    }
}
