//! The workflow threads of the embedded engine.
//!
//! Runs share threads, and must not feel it. Code that does not give its thread back keeps it for itself, a moment later:
//! a new one takes up what the old one was told and had not done. The run that holds the thread stands still meanwhile,
//! since each try would cost another one; it is parked when its turn takes longer than it may. The old thread cannot be
//! ended; when it comes back, its commits are fenced like any stranger's, and it ends.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{CommandId, RunId, RunKey};
use futures::FutureExt;

use super::OpenError;
use super::mailroom::{Inbox, Letter, Mailroom};
use super::trials::{Trial, Trials};
use crate::decider::OnThread;
use crate::ports::Ports;
use crate::seams::{Delivery, Instant, RunMessage};
use crate::store::StoreError;
use crate::thread::{Context, Desk, Inside, WorkflowThread, park_endless};
use crate::worker::{LocalTask, run_local};

/// How often it is looked whether anybody does.
const LOOK: Duration = Duration::from_millis(50);
/// Of so many threads that code holds, its neighbours are rid so soon. When there are more, they wait as long as a turn may
/// take: a build whose turns all never end is not to have thousands of threads.
const MOST_LEFT: usize = 64;

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

    /// Takes away whatever is not done; and since it may be half done, each run is to be looked at.
    fn take_all(&self) -> impl Iterator<Item = RunMessage> + use<> {
        let piles = std::mem::take(&mut *self.lock());
        piles.into_iter().flat_map(|(run, Pile { taken, waiting })| {
            taken.into_iter().chain(waiting).chain([RunMessage::Sweep { run }])
        })
    }
}

/// How long the neighbours of code wait for its thread. Where threads come back by themselves, the machine has too much to do
/// or turns are just slow, and more threads would make it worse: they wait for twice as long from then on, and less again
/// when all has been quiet.
struct Patience {
    shortest: Duration,
    longest: Duration,
    now: Duration,
    since: Instant,
}

impl Patience {
    const SHORTEST: Duration = Duration::from_millis(100);
    const QUIET: Duration = Duration::from_mins(1);

    fn new(turn_limit: Duration, at: Instant) -> Self {
        let shortest = Self::SHORTEST.min(turn_limit);
        Self { shortest, longest: turn_limit, now: shortest, since: at }
    }

    fn at(&mut self, at: Instant) -> Duration {
        if self.now > self.shortest && at.since(self.since) >= Self::QUIET {
            (self.now, self.since) = ((self.now / 2).max(self.shortest), at);
        }
        self.now
    }

    fn was_too_short(&mut self, at: Instant) {
        (self.now, self.since) = ((self.now * 2).min(self.longest), at);
    }
}

/// A local activity of some run.
type LocalKey = (RunKey, RunId, CommandId);

/// Local activities under way in this process, whichever thread asked for them, so that none is run twice at a time.
#[derive(Default)]
struct Locals(Mutex<HashSet<LocalKey>>);

impl Locals {
    fn lock(&self) -> MutexGuard<'_, HashSet<LocalKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was not under way.
    fn begin(&self, key: &LocalKey) -> bool {
        self.lock().insert(key.clone())
    }

    fn end(&self, key: &LocalKey) {
        self.lock().remove(key);
    }
}

/// What every thread of this process gets.
#[derive(Clone)]
struct Household {
    context: Context,
    mailroom: Arc<Mailroom>,
    trials: Option<Arc<Trials>>,
    locals: Arc<Locals>,
}

struct Shard {
    thread: WorkflowThread<RunMessage>,
    piles: Arc<Piles>,
}

impl Shard {
    fn begin(household: &Household, inbox: Inbox) -> std::io::Result<Self> {
        let piles = Arc::<Piles>::default();
        let (house, here) = (household.clone(), Arc::clone(&piles));
        let desk = move || Messages { house, piles: here, trial: RefCell::default() };
        Ok(Self { thread: WorkflowThread::begin(household.context.clone(), inbox, desk)?, piles })
    }
}

/// A thread that was left to the code that holds it.
struct Left {
    /// Which of the shards it was.
    number: usize,
    thread: WorkflowThread<RunMessage>,
    what: OnThread,
    /// It has taken longer than it may.
    is_given_up: bool,
}

fn hung_queries(left: &[Left]) -> usize {
    left.iter().filter(|left| left.is_given_up && left.what == OnThread::Query).count()
}

/// All workflow threads.
pub(super) struct Shards {
    household: Household,
    shards: Mutex<Vec<Shard>>,
}

impl Shards {
    pub(super) fn begin(
        context: Context,
        mailroom: Arc<Mailroom>,
        trials: Option<Arc<Trials>>,
        inboxes: Vec<Inbox>,
    ) -> Result<Arc<Self>, OpenError> {
        let household = Household { context, mailroom, trials, locals: Arc::default() };
        let begin = |inbox| Shard::begin(&household, inbox);
        let shards = inboxes.into_iter().map(begin).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { household, shards: Mutex::new(shards) }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces threads that code holds, and gives up code that holds its own for too long, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let Context { ports: Ports { host, .. }, turn_limit, .. } = &self.household.context;
        let mut left: Vec<Left> = Vec::new();
        let mut patience = Patience::new(*turn_limit, host.instant());
        loop {
            host.sleep(LOOK.min(*turn_limit)).await;
            let aside = self.household.mailroom.thread_of_parked();
            let beside_others = left.iter().filter(|left| left.number != aside).count();
            let wait = if beside_others < MOST_LEFT { patience.at(host.instant()) } else { *turn_limit };
            for (thread, held) in self.held_for(wait) {
                match self.replace(thread, held) {
                    Ok(old) => left.extend(old),
                    Err(error) => {
                        tracing::error!(thread, %error, "a workflow thread could not be replaced; trying again");
                    }
                }
            }
            let came_back = |left: &mut Left| left.thread.held_for(Duration::ZERO).as_ref() != Some(&left.what);
            if left.extract_if(.., came_back).filter(|left| !left.is_given_up).count() > 0 {
                patience.was_too_short(host.instant());
            }
            self.give_up_overdue(&mut left).await;
        }
    }

    /// Gives up code that holds its thread for longer than it may: its run is parked, its query's caller is told.
    async fn give_up_overdue(&self, left: &mut [Left]) {
        let Household { context: Context { ports, turn_limit, .. }, mailroom, .. } = &self.household;
        for at in 0..left.len() {
            if left[at].is_given_up || left[at].thread.overdue().is_none() {
                continue;
            }
            if let Err(error) = park_endless(ports, &left[at].what, *turn_limit).await {
                tracing::error!(what = ?left[at].what, %error, "it could not be parked; trying again");
                continue;
            }
            left[at].is_given_up = true;
            // Counted before its caller is told, who may ask again at once.
            mailroom.queries_hang(hung_queries(left));
            left[at].thread.give_up(&left[at].what);
        }
        mailroom.queries_hang(hung_queries(left));
    }

    /// Threads that code holds for so long, or that have died. Those that were parked before wait for nobody but their like.
    fn held_for(&self, patience: Duration) -> Vec<(usize, Option<OnThread>)> {
        let aside = self.household.mailroom.thread_of_parked();
        let look = |(number, shard): (usize, &mut Shard)| match shard.thread.has_ended() {
            true => Some((number, None)),
            false if number == aside => shard.thread.overdue().map(|what| (number, Some(what))),
            false => shard.thread.held_for(patience).map(|what| (number, Some(what))),
        };
        self.lock().iter_mut().enumerate().filter_map(look).collect()
    }

    /// A new thread takes the place of one that has died, or that this holds, if it does so still.
    fn replace(&self, thread: usize, held: Option<OnThread>) -> Result<Option<Left>, OpenError> {
        if held.as_ref().is_some_and(|what| !self.leave(thread, what)) {
            return Ok(None);
        }
        let mailroom = &self.household.mailroom;
        let shard = Shard::begin(&self.household, mailroom.replace(thread))?;
        let mut old = std::mem::replace(&mut self.lock()[thread], shard);
        for letter in old.piles.take_all().map(Letter::Work).chain(old.thread.take_back()) {
            mailroom.post(thread, letter)?;
        }
        Ok(held.map(|what| Left { number: thread, thread: old.thread, what, is_given_up: false }))
    }

    /// The run stands still until its thread gives the turn back, if it has not done so by now.
    fn leave(&self, thread: usize, what: &OnThread) -> bool {
        let shards = self.lock();
        let thread = &shards[thread].thread;
        let OnThread::Turn(run) = what else { return thread.leave(what) };
        // Held before the thread can come back and let it go.
        let parkings = &self.household.context.ports.parkings;
        parkings.hold(run.clone());
        let is_left = thread.leave(what);
        if !is_left {
            parkings.let_go(run);
        }
        is_left
    }

    /// Lets the threads end what they handle, and waits for that until `by`. Those on which code does not end are left
    /// behind.
    pub(super) async fn stop(&self, by: Instant) {
        let shards = std::mem::take(&mut *self.lock());
        let Household { context, mailroom, .. } = &self.household;
        let host = &context.ports.host;
        let told = |thread: &usize| mailroom.post(*thread, Letter::Stop).is_ok();
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
    house: Household,
    piles: Arc<Piles>,
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
        let Household { context: Context { app, ports, .. }, trials, locals, .. } = self.house.clone();
        if ports.stop.is_asked() {
            // The next start finds it.
            return;
        }
        let key = (task.run.clone(), task.run_id, task.id);
        if !locals.begin(&key) {
            // For a thread that was replaced; it tells whichever there is.
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
            // Before its run can ask for the next attempt.
            locals.end(&key);
            if let Err(error) = ports.runs.send(RunMessage::Arrived { run, run_id, arrival }).await {
                tracing::debug!(%error, "a local activity's result finds nobody; it runs again at the next start");
            }
        };
        let ports = &self.house.context.ports;
        ports.host.attend(ports.stop.track(work).boxed());
    }

    fn code_begins(&self, what: &OnThread) {
        let (Some(trials), OnThread::Turn(run)) = (&self.house.trials, what) else { return };
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
            tracing::debug!("a query's handler has ended after all");
            return;
        };
        tracing::debug!(%run, "the run's code has given its turn back after all");
        let ports = self.house.context.ports.clone();
        ports.parkings.let_go(&run);
        let work = async move {
            if let Err(error) = ports.runs.send(RunMessage::Sweep { run }).await {
                tracing::debug!(%error, "the engine is stopping");
            }
        };
        self.house.context.ports.host.spawn(work.boxed());
    }
}

async fn work_through(inside: &Inside<Messages>, run: RunKey) {
    let desk = &inside.desk;
    let ports = &desk.house.context.ports;
    let (mut pause, mut delivery) = (FIRST_PAUSE, Delivery::First);
    loop {
        let Some(messages) = desk.take_up(&run) else { return };
        let handled = inside.decider.handle(&run, messages, delivery).await;
        ports.parkings.put_on_probation(&run, ports.host.instant());
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
                ports.host.sleep(pause).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_where_threads_come_back_and_shrinks_when_all_is_quiet() {
        let at = |seconds| Instant::after(Duration::from_secs(seconds));
        let mut patience = Patience::new(Duration::from_secs(1), at(0));
        assert_eq!(patience.at(at(500)), Patience::SHORTEST);
        for _ in 0..10 {
            patience.was_too_short(at(500));
        }
        assert_eq!(patience.at(at(559)), Duration::from_secs(1), "never longer than a turn may take");
        assert_eq!(patience.at(at(560)), Duration::from_millis(500));
        assert_eq!(patience.at(at(561)), Duration::from_millis(500));
        assert_eq!((1..10).map(|minute| patience.at(at(561 + 60 * minute))).last(), Some(Patience::SHORTEST));
        assert_eq!(Patience::new(Duration::from_millis(10), at(0)).at(at(0)), Duration::from_millis(10));
    }
}
