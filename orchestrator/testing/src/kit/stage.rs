//! Behind a test's environment: one process, one thread, and time that passes when nothing else is left to do.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{ActivityTarget, App, Timestamp};
use dormouse_engine::seams::{Delivery, Host, RunMessage};
use dormouse_engine::store::RunRow;
use dormouse_engine::worker::{handle_task, run_local};
use futures::FutureExt;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::mocks::{Answer, Mocks};
use crate::clock::Clock;
use crate::faulty::Fault;
use crate::world::{Process, World, drive, latest};

/// When every test begins: 1 January 2026, so that what workflows see of the time is the same each time.
pub(super) const BEGINS: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// So many things may happen at one moment of a test: code that never comes to rest ends here.
const MANY: u32 = 10_000;

/// Events of a history that are looked at for the line of a crash.
const PAGE: usize = 1_000;

/// Something that a test does later.
type Errand = Box<dyn FnOnce()>;

/// What a test's environment and its runs share.
pub(super) struct Stage {
    /// Until the first start.
    app: RefCell<Option<App>>,
    mocked: RefCell<BTreeMap<&'static str, Answer>>,
    real: Cell<bool>,
    pub(super) mocks: Mocks,
    pub(super) clock: Clock,
    /// Draws what production brings.
    chaos: RefCell<Option<ChaCha8Rng>>,
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
    /// The present build, and which it is, from 1.
    build: RefCell<(u32, Arc<App>)>,
    process: RefCell<Process>,
}

impl Stage {
    pub(super) fn new(app: App) -> Self {
        let clock = Clock::at(BEGINS);
        Self {
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
        }
    }

    // --- before the first run ---

    /// # Panics
    /// When a run has begun.
    #[track_caller]
    pub(super) fn change_app(&self, change: impl FnOnce(App) -> App) {
        let app = self.app.borrow_mut().take().expect("the test is set up before its first run begins");
        *self.app.borrow_mut() = Some(change(app));
    }

    /// # Panics
    /// When a run has begun.
    #[track_caller]
    pub(super) fn mock(&self, name: &'static str, answer: Answer) {
        assert!(self.begun.get().is_none(), "activities are mocked before the first run begins");
        self.mocked.borrow_mut().insert(name, answer);
    }

    pub(super) fn run_what_is_not_mocked(&self) {
        self.real.set(true);
    }

    pub(super) fn bring_chaos(&self, seed: u64) {
        *self.chaos.borrow_mut() = Some(ChaCha8Rng::seed_from_u64(seed));
    }

    #[track_caller]
    pub(super) fn name_of<A, F: ActivityTarget<A>>(&self, activity: F) -> &'static str {
        match &*self.app.borrow() {
            Some(app) => activity.wire_name(app.names()),
            None => activity.wire_name(self.app().names()),
        }
    }

    // --- runs ---

    /// A caller whose server dies asks again.
    pub(super) fn start(&self, name: &str, id: &str, input: &impl Serialize) {
        id.clone_into(&mut self.last_started.borrow_mut());
        let request = format!("start-{}", self.fresh());
        self.with_process(|process| process.try_start(name, id, &request, input));
    }

    /// The process dies at its n-th request to the store, from 1, before or after that is carried out.
    pub(super) fn die_at(&self, request: u64, fault: Fault) {
        self.begun().process.borrow().faults.die_at(request, fault);
    }

    /// How many requests the process has sent to the store.
    pub(super) fn requests(&self) -> u64 {
        self.begun().process.borrow().faults.requests()
    }

    /// At how many moments anything has happened, time having passed.
    pub(super) fn moments(&self) -> u64 {
        self.moments.get()
    }

    /// Something is done so much later.
    pub(super) fn later(&self, time: Duration, errand: impl FnOnce() + 'static) {
        let at = self.clock.now() + time;
        self.errands.borrow_mut().entry(at).or_default().push_back(Box::new(errand));
    }

    pub(super) fn fresh(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    fn begun(&self) -> &Begun {
        self.begun.get_or_init(|| {
            let app = self.app.borrow_mut().take().expect("an application");
            let mut world = World::new(self.staged(app));
            world.clock = self.clock.clone();
            let process = RefCell::new(world.process());
            Begun { build: RefCell::new((1, Arc::clone(world.app()))), world, process }
        })
    }

    /// The application with the activities of the test.
    ///
    /// # Panics
    /// When it has mistakes.
    #[track_caller]
    fn staged(&self, mut app: App) -> App {
        let mocked = self.mocked.borrow();
        let rest: Vec<_> = app.activity_types().filter(|name| !mocked.contains_key(name)).collect();
        for name in rest {
            app = if self.real.get() { self.mocks.real(app, name) } else { self.mocks.refuse(app, name) };
        }
        for (name, answer) in &*mocked {
            app = self.mocks.mock(app, name, answer);
        }
        if let Err(mistakes) = app.check() {
            panic!("{mistakes}");
        }
        app
    }

    pub(super) fn world(&self) -> &World {
        &self.begun().world
    }

    /// The application of the present build.
    pub(super) fn app(&self) -> Arc<App> {
        Arc::clone(&self.begun().build.borrow().1)
    }

    /// The next build, which has this application, goes on with everything.
    #[track_caller]
    pub(super) fn deploy(&self, app: App) {
        let app = Arc::new(self.staged(app));
        {
            let mut build = self.begun().build.borrow_mut();
            *build = (build.0 + 1, app);
        }
        self.begin_process();
        self.settle();
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
        let mut left = MANY;
        while left > 0 {
            left -= 1;
            let is_still = !self.deliver(&mut left) & !self.begin_locals() & !self.begin_tasks();
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

    /// Handles the messages on the queue, and no more than are left to be handled. Whether there were any.
    fn deliver(&self, left: &mut u32) -> bool {
        let mail = &self.world().mail;
        let mut any = false;
        while !mail.is_empty() && *left > 0 {
            *left -= 1;
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
        let Begun { world, process, .. } = self.begun();
        let locals = world.mail.take_locals();
        let any = !locals.is_empty();
        for task in locals {
            let (app, ports, mail) = (self.app(), process.borrow().ports.clone(), world.mail.clone());
            let (run, run_id) = (task.run.clone(), task.run_id);
            let work = async move { mail.arrive(&run, run_id, run_local(&app, &ports, task, None).await) };
            world.clock.spawn(work.boxed());
        }
        any
    }

    fn begin_tasks(&self) -> bool {
        let Begun { world, process, .. } = self.begun();
        let tasks = world.mail.take_tasks();
        let any = !tasks.is_empty();
        for task in tasks {
            let is_first = task.not_before <= task.scheduled_at;
            if is_first && task.options.retry.maximum_attempts != 1 && self.strikes(4) {
                self.mocks.fail_once(&task.activity_type);
            }
            for _ in 0..=u32::from(self.strikes(4)) {
                let (app, ports, task) = (self.app(), process.borrow().ports.clone(), task.clone());
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

    /// The process has died where it was told to.
    fn restart_if_dead(&self) {
        if self.begun().process.borrow().faults.is_dead() {
            self.begin_process();
            self.remember_line();
        }
    }

    /// What the process held in memory is gone, and the next one looks at each open run, as `dev` does when it begins.
    fn begin_process(&self) {
        let Begun { world, build, process } = self.begun();
        self.has_died.set(true);
        world.clock.end_work();
        world.mail.lose_everything();
        let (number, app) = &*build.borrow();
        let next = world.process_of(app, &format!("build {number}"));
        world.pick_up(&next);
        process.replace(next);
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

    /// Whether something happens that does so once in so many times.
    fn strikes(&self, so_many: u64) -> bool {
        self.chaos.borrow_mut().as_mut().is_some_and(|chaos| chaos.next_u64().is_multiple_of(so_many))
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
