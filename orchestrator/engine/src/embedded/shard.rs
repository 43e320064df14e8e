//! The workflow threads of the embedded engine.
//!
//! A thread whose code does not give it back is replaced: its run is parked from outside, its other runs are read afresh,
//! and what it was told and had not done is told to the new one. The old thread cannot be ended; should it ever come
//! back, its commits are fenced like any stranger's. Until then its run is not tried again: each try would cost a
//! thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{App, RunKey};
use futures::FutureExt;

use super::OpenError;
use super::mailroom::{Inbox, Letter, Mailroom};
use super::trials::{Trial, Trials};
use crate::decider::OnThread;
use crate::ports::Ports;
use crate::seams::{Delivery, Instant, RunMessage};
use crate::store::StoreError;
use crate::sweep::DueRows;
use crate::thread::{Context, Desk, Inside, WorkflowThread, look_interval, park_endless};
use crate::worker::{LocalTask, run_local};

/// The first pause before messages are handled again after the store did not answer; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Messages for one run.
#[derive(Default)]
struct Pile {
    /// Being handled.
    taken: Vec<RunMessage>,
    /// Next.
    waiting: Vec<RunMessage>,
}

/// Messages that a thread has taken up, by run, until they are done. Others can reach them when the thread hangs.
#[derive(Default)]
struct Piles(Mutex<HashMap<RunKey, Pile>>);

impl Piles {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, Pile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes away whatever is not done.
    fn take_all(&self) -> impl Iterator<Item = RunMessage> + use<> {
        let piles = std::mem::take(&mut *self.lock());
        piles.into_values().flat_map(|pile| pile.taken.into_iter().chain(pile.waiting))
    }
}

struct Shard {
    thread: WorkflowThread<RunMessage>,
    piles: Arc<Piles>,
}

impl Shard {
    fn begin(
        context: &Context,
        mailroom: &Arc<Mailroom>,
        trials: Option<&Arc<Trials>>,
        inbox: Inbox,
    ) -> std::io::Result<Self> {
        let piles = Arc::<Piles>::default();
        let (app, ports, here) = (Arc::clone(&context.app), context.ports.clone(), Arc::clone(&piles));
        let mailroom = Arc::clone(mailroom);
        let trials = trials.cloned();
        let desk = move || Messages { app, ports, mailroom, piles: here, trials, trial: RefCell::default() };
        Ok(Self { thread: WorkflowThread::begin(context.clone(), inbox, desk)?, piles })
    }
}

/// All workflow threads.
pub(super) struct Shards {
    context: Context,
    mailroom: Arc<Mailroom>,
    trials: Option<Arc<Trials>>,
    shards: Mutex<Vec<Shard>>,
}

impl Shards {
    pub(super) fn begin(
        context: Context,
        mailroom: Arc<Mailroom>,
        trials: Option<Arc<Trials>>,
        inboxes: Vec<Inbox>,
    ) -> Result<Arc<Self>, OpenError> {
        let begin = |inbox| Shard::begin(&context, &mailroom, trials.as_ref(), inbox);
        let shards = inboxes.into_iter().map(begin).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { context, mailroom, trials, shards: Mutex::new(shards) }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces threads that hang, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            self.context.ports.host.sleep(look_interval(self.context.turn_limit)).await;
            for (thread, stuck) in self.stuck() {
                if let Err(error) = self.replace(thread, stuck).await {
                    tracing::error!(thread, %error, "a stuck workflow thread could not be replaced; trying again");
                }
            }
        }
    }

    /// Threads on which code runs for too long, or that have died.
    fn stuck(&self) -> Vec<(usize, Option<OnThread>)> {
        let look = |(number, shard): (usize, &mut Shard)| match shard.thread.has_ended() {
            true => Some((number, None)),
            false => shard.thread.overdue().map(|what| (number, Some(what))),
        };
        self.lock().iter_mut().enumerate().filter_map(look).collect()
    }

    async fn replace(&self, thread: usize, stuck: Option<OnThread>) -> Result<(), OpenError> {
        let Context { ports, turn_limit, .. } = &self.context;
        if let Some(what) = stuck {
            park_endless(ports, &what, *turn_limit).await?;
            self.give_up(thread, &what);
        }
        let shard = Shard::begin(&self.context, &self.mailroom, self.trials.as_ref(), self.mailroom.replace(thread))?;
        let mut old = std::mem::replace(&mut self.lock()[thread], shard);
        for letter in old.piles.take_all().map(Letter::Work).chain(old.thread.take_back()) {
            self.mailroom.post(thread, letter)?;
        }
        // Whatever else the old thread knew is in the histories.
        let mut pages = DueRows::all();
        loop {
            let rows = pages.next(&*ports.store).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows.into_iter().filter(|row| self.mailroom.home(&row.run.workflow) == thread) {
                ports.runs.send(RunMessage::Sweep { run: row.run }).await?;
            }
        }
    }

    /// The run stands still until its thread gives the turn back, if it has not done so by now.
    fn give_up(&self, thread: usize, what: &OnThread) {
        let shards = self.lock();
        match what {
            OnThread::Turn(run) => {
                // Held before the thread can come back and let it go.
                self.context.ports.parkings.hold(run.clone());
                if !shards[thread].thread.give_up(what) {
                    self.context.ports.parkings.let_go(run);
                }
            }
            OnThread::Query => {
                self.mailroom.query_hangs();
                if !shards[thread].thread.give_up(what) {
                    self.mailroom.query_came_back();
                }
            }
        }
    }

    /// Lets the threads end what they handle, and waits for that until `by`. Those on which code does not end are left
    /// behind.
    pub(super) async fn stop(&self, by: Instant) {
        let shards = std::mem::take(&mut *self.lock());
        let host = &self.context.ports.host;
        let told = |thread: &usize| self.mailroom.post(*thread, Letter::Stop).is_ok();
        let told: Vec<_> = shards.into_iter().enumerate().filter(|(thread, _)| told(thread)).collect();
        for (thread, mut shard) in told {
            if host.timeout(by.since(host.instant()), shard.thread.ended()).await.is_none() {
                tracing::warn!(thread, "a workflow thread did not end; its runs are picked up at the next start");
            }
        }
    }
}

/// Messages on a thread, by run: those of one run are handled one batch after another.
struct Messages {
    app: Arc<App>,
    ports: Ports,
    mailroom: Arc<Mailroom>,
    piles: Arc<Piles>,
    trials: Option<Arc<Trials>>,
    /// Of the code that runs on the thread.
    trial: RefCell<Option<(RunKey, Trial)>>,
}

impl Desk for Messages {
    type Work = RunMessage;

    fn take(inside: &Rc<Inside<Self>>, message: RunMessage) {
        let run = message.run().clone();
        let mut piles = inside.desk.piles.lock();
        if let Some(pile) = piles.get_mut(&run) {
            pile.waiting.push(message);
            return;
        }
        piles.insert(run.clone(), Pile { taken: Vec::new(), waiting: vec![message] });
        drop(piles);
        let here = Rc::clone(inside);
        inside.spawn(async move { work_through(&here, run).await });
    }

    fn run_local(&self, task: LocalTask) {
        let (app, ports, trials) = (Arc::clone(&self.app), self.ports.clone(), self.trials.clone());
        if ports.stop.is_asked() {
            // The next start finds it.
            return;
        }
        let work = async move {
            let (run, run_id) = (task.run.clone(), task.run_id);
            let _trial = trials.and_then(|trials| trials.enter(&run));
            let arrival = tokio::select! {
                biased;
                arrival = run_local(&app, &ports, task, None) => arrival,
                () = ports.stop.cuts_off() => return,
            };
            if let Err(error) = ports.runs.send(RunMessage::Arrived { run, run_id, arrival }).await {
                tracing::debug!(%error, "a local activity's result finds nobody; it runs again at the next start");
            }
        };
        self.ports.host.attend(self.ports.stop.track(work).boxed());
    }

    fn code_begins(&self, what: &OnThread) {
        let (Some(trials), OnThread::Turn(run)) = (&self.trials, what) else { return };
        let mut trial = self.trial.borrow_mut();
        if trial.as_ref().is_none_or(|(other, _)| other != run) {
            *trial = trials.enter(run).map(|trial| (run.clone(), trial));
        }
    }

    fn code_ends(&self) {
        self.trial.take();
    }

    fn came_back(&self, what: OnThread) {
        let OnThread::Turn(run) = what else {
            tracing::warn!("a query's handler has ended after all");
            self.mailroom.query_came_back();
            return;
        };
        tracing::warn!(%run, "the run's code has given its turn back after all");
        self.ports.parkings.let_go(&run);
        let ports = self.ports.clone();
        let work = async move {
            if let Err(error) = ports.runs.send(RunMessage::Sweep { run }).await {
                tracing::debug!(%error, "the engine is stopping");
            }
        };
        self.ports.host.spawn(work.boxed());
    }
}

async fn work_through(inside: &Inside<Messages>, run: RunKey) {
    let desk = &inside.desk;
    let (mut pause, mut delivery) = (FIRST_PAUSE, Delivery::First);
    loop {
        let Some(messages) = desk.take_up(&run) else { return };
        let handled = inside.decider.handle(&run, messages, delivery).await;
        desk.ports.parkings.put_on_probation(&run, desk.ports.host.instant());
        match handled {
            Ok(()) => (pause, delivery) = (FIRST_PAUSE, Delivery::First),
            Err(StoreError::Refused(reason)) => {
                tracing::error!(%run, %reason, "messages are given up; the sweep finds what they would have told");
            }
            Err(error) if inside.is_stopping() => {
                tracing::warn!(%run, %error, "messages are left to the next start");
                return;
            }
            Err(error) => {
                tracing::warn!(%run, %error, "messages are delivered again in {pause:?}");
                desk.ports.host.sleep(pause).await;
                (pause, delivery) = ((pause * 2).min(LONGEST_PAUSE), Delivery::Again);
                if let Some(pile) = desk.piles.lock().get_mut(&run) {
                    let later = std::mem::take(&mut pile.waiting);
                    pile.waiting = pile.taken.drain(..).chain(later).collect();
                }
            }
        }
    }
}

impl Messages {
    /// What is to be handled next; `None` when there is nothing, or the thread was given up.
    fn take_up(&self, run: &RunKey) -> Option<Vec<RunMessage>> {
        let mut piles = self.piles.lock();
        let pile = piles.get_mut(run)?;
        pile.taken = std::mem::take(&mut pile.waiting);
        if pile.taken.is_empty() {
            piles.remove(run);
            return None;
        }
        Some(pile.taken.clone())
    }
}
