//! Threads on which workflows live. Each runs a decider and a small executor, and has no tokio runtime: tokio timers
//! and tasks in workflow code panic there instead of escaping the history.
//!
//! A thread whose turn does not end is replaced: its run is parked from outside, its other runs are read afresh, and
//! what it was told and had not done is told to the new one. The old thread cannot be ended; should it ever come back,
//! its commits are fenced like any stranger's. Until then its run is not tried again: each try would cost a thread.

use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task;
use std::time::{Duration, Instant};

use dormouse_core::{App, RunKey, TurnFailure, millis};
use futures::StreamExt;
use futures::channel::oneshot;
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use tokio::runtime::Handle;

use super::OpenError;
use super::mailroom::{Inbox, Letter, Mailroom};
use crate::handle::{Decider, Surroundings};
use crate::intake::Intake;
use crate::parking::park;
use crate::ports::Ports;
use crate::seams::{Delivery, RunMessage};
use crate::store::StoreError;
use crate::sweep::DueRows;
use crate::worker::{LocalTask, run_local};

/// The first pause before messages are handled again after the store did not answer; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What every thread needs.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) app: Arc<App>,
    pub(super) ports: Ports,
    pub(super) tokio: Handle,
    pub(super) warm: NonZeroUsize,
}

/// The turn that runs on a thread, since when, and whether the thread was given up over it.
#[derive(Default)]
struct Turn {
    runs: Option<(RunKey, Instant)>,
    given_up: bool,
}

/// What a thread was told: still in its inbox, or by run, until it is done. Others can reach it when the thread hangs.
struct Told {
    inbox: Mutex<Inbox>,
    piles: Mutex<HashMap<RunKey, Pile>>,
}

/// Messages for one run.
#[derive(Default)]
struct Pile {
    /// Being handled.
    taken: Vec<RunMessage>,
    /// Next.
    waiting: Vec<RunMessage>,
}

impl Told {
    fn piles(&self) -> MutexGuard<'_, HashMap<RunKey, Pile>> {
        self.piles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next letter; `None` when no more can come.
    async fn next(&self) -> Option<Letter> {
        let inbox = |context: &mut task::Context<'_>| {
            // Locked for the moment of looking, never while a turn runs.
            self.inbox.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
        };
        std::future::poll_fn(inbox).await
    }

    /// Takes away whatever is not done.
    fn take_all(&self) -> Vec<Letter> {
        let piles = std::mem::take(&mut *self.piles());
        let messages = piles.into_values().flat_map(|pile| pile.taken.into_iter().chain(pile.waiting));
        let mut letters: Vec<_> = messages.map(Letter::Run).collect();
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(letter) = inbox.try_recv() {
            letters.push(letter);
        }
        letters
    }
}

struct Shard {
    turn: Arc<Mutex<Turn>>,
    told: Arc<Told>,
    ended: oneshot::Receiver<()>,
}

/// All workflow threads.
pub(super) struct Shards {
    context: Context,
    mailroom: Arc<Mailroom>,
    turn_limit: Duration,
    shards: Mutex<Vec<Shard>>,
}

impl Shards {
    pub(super) fn begin(
        context: Context,
        mailroom: Arc<Mailroom>,
        inboxes: Vec<Inbox>,
        turn_limit: Duration,
    ) -> std::io::Result<Arc<Self>> {
        let shards = inboxes.into_iter().map(|inbox| spawn(&context, inbox)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { context, mailroom, turn_limit, shards: Mutex::new(shards) }))
    }

    /// Looks for threads whose turn does not end, and replaces them, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval((self.turn_limit / 4).max(Duration::from_millis(5)));
        loop {
            ticks.tick().await;
            for (thread, stuck) in self.stuck() {
                if let Err(error) = self.replace(thread, stuck).await {
                    tracing::error!(thread, %error, "a stuck workflow thread could not be replaced; trying again");
                }
            }
        }
    }

    /// Threads that hold a turn for too long, or have died.
    fn stuck(&self) -> Vec<(usize, Option<RunKey>)> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |(thread, shard): (usize, &mut Shard)| {
            if matches!(shard.ended.try_recv(), Ok(Some(())) | Err(_)) {
                return Some((thread, None));
            }
            let turn = shard.turn.lock().unwrap_or_else(PoisonError::into_inner);
            match &turn.runs {
                Some((run, since)) if since.elapsed() > self.turn_limit => Some((thread, Some(run.clone()))),
                _ => None,
            }
        };
        shards.iter_mut().enumerate().filter_map(look).collect()
    }

    async fn replace(&self, thread: usize, stuck: Option<RunKey>) -> Result<(), OpenError> {
        let Context { ports, .. } = &self.context;
        if let Some(run) = stuck {
            let limit_ms = millis(self.turn_limit);
            park(ports, &run, &TurnFailure::Endless { limit_ms }).await?;
            self.give_up(thread, &run);
        }
        let shard = spawn(&self.context, self.mailroom.replace(thread))?;
        let old = std::mem::replace(&mut self.shards.lock().unwrap_or_else(PoisonError::into_inner)[thread], shard);
        for letter in old.told.take_all() {
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
    fn give_up(&self, thread: usize, run: &RunKey) {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = shards[thread].turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.runs.as_ref().is_some_and(|(runs, _)| runs == run) {
            turn.given_up = true;
            self.context.ports.parkings.hold(run.clone());
        }
    }

    /// Lets each thread end what it handles, and waits for it. A thread in an endless turn is left behind.
    pub(super) async fn stop(&self) {
        let shards = std::mem::take(&mut *self.shards.lock().unwrap_or_else(PoisonError::into_inner));
        for (thread, shard) in shards.into_iter().enumerate() {
            if self.mailroom.post(thread, Letter::Stop).is_ok()
                && tokio::time::timeout(self.turn_limit, shard.ended).await.is_err()
            {
                tracing::warn!(thread, "a workflow thread did not end; its runs are picked up at the next start");
            }
        }
    }
}

fn spawn(context: &Context, inbox: Inbox) -> std::io::Result<Shard> {
    let turn = Arc::<Mutex<Turn>>::default();
    let told = Arc::new(Told { inbox: Mutex::new(inbox), piles: Mutex::default() });
    let (end, ended) = oneshot::channel();
    let (context, home, desk) = (context.clone(), Arc::clone(&turn), Arc::clone(&told));
    std::thread::Builder::new().name("workflows".into()).spawn(move || {
        live_here(context, home, desk);
        let _ = end.send(());
    })?;
    Ok(Shard { turn, told, ended })
}

fn live_here(context: Context, turn: Arc<Mutex<Turn>>, told: Arc<Told>) {
    let Context { app, ports, tokio, warm } = context;
    let ports = ports.with_states_of_its_own();
    let intake = Arc::new(Intake::new(ports.clone()));
    let home = Home { app: Arc::clone(&app), ports: ports.clone(), tokio: tokio.clone(), turn };
    let decider = Rc::new(Decider::new(app, ports, intake, home, warm));
    let mut pool = LocalPool::new();
    let desk =
        Rc::new(Desk { decider, tokio, spawner: pool.spawner(), told: Arc::clone(&told), stopping: Cell::new(false) });
    pool.run_until(async {
        while let Some(letter) = told.next().await {
            match letter {
                Letter::Run(message) => Rc::clone(&desk).take(message),
                Letter::Query { run, name, input, reply } => {
                    let decider = Rc::clone(&desk.decider);
                    desk.spawn(async move {
                        // Whoever asked may have gone.
                        drop(reply.send(decider.query(&run, &name, &input).await));
                    });
                }
                Letter::Stop => break,
            }
        }
    });
    // What came before is handled to the end; it awaits nothing but the store, and gives up if that does not answer.
    desk.stopping.set(true);
    pool.run();
}

/// Messages on a thread, by run: those of one run are handled one batch after another.
struct Desk {
    decider: Rc<Decider<Home>>,
    tokio: Handle,
    spawner: LocalSpawner,
    told: Arc<Told>,
    stopping: Cell<bool>,
}

impl Desk {
    fn take(self: Rc<Self>, message: RunMessage) {
        let run = message.run().clone();
        let mut piles = self.told.piles();
        if let Some(pile) = piles.get_mut(&run) {
            pile.waiting.push(message);
            return;
        }
        piles.insert(run.clone(), Pile { taken: Vec::new(), waiting: vec![message] });
        drop(piles);
        let desk = Rc::clone(&self);
        self.spawn(async move { desk.work_through(run).await });
    }

    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        if self.spawner.spawn_local(work).is_err() {
            tracing::debug!("the workflow thread is ending");
        }
    }

    async fn work_through(&self, run: RunKey) {
        let mut pause = FIRST_PAUSE;
        let mut delivery = Delivery::First;
        loop {
            let Some(messages) = self.take_up(&run) else { return };
            match self.decider.handle(&run, messages, delivery).await {
                Ok(()) => (pause, delivery) = (FIRST_PAUSE, Delivery::First),
                Err(StoreError::Refused(reason)) => {
                    tracing::error!(%run, %reason, "messages are given up; the sweep finds what they would have told");
                }
                Err(error) if self.stopping.get() => {
                    tracing::warn!(%run, %error, "messages are left to the next start");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%run, %error, "messages are delivered again in {pause:?}");
                    // Within the runtime: this thread has none.
                    let slept = self.tokio.spawn(async move { tokio::time::sleep(pause).await }).await;
                    if slept.is_err() {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    delivery = Delivery::Again;
                    if let Some(pile) = self.told.piles().get_mut(&run) {
                        let later = std::mem::take(&mut pile.waiting);
                        pile.waiting = pile.taken.drain(..).chain(later).collect();
                    }
                }
            }
        }
    }

    /// What is to be handled next; `None` when there is nothing, or the thread was given up.
    fn take_up(&self, run: &RunKey) -> Option<Vec<RunMessage>> {
        let mut piles = self.told.piles();
        let pile = piles.get_mut(run)?;
        pile.taken = std::mem::take(&mut pile.waiting);
        if pile.taken.is_empty() {
            piles.remove(run);
            return None;
        }
        Some(pile.taken.clone())
    }
}

/// A thread, as its decider sees it.
struct Home {
    app: Arc<App>,
    ports: Ports,
    tokio: Handle,
    turn: Arc<Mutex<Turn>>,
}

impl Surroundings for Home {
    fn run_local(&self, task: LocalTask) {
        let (app, ports) = (Arc::clone(&self.app), self.ports.clone());
        self.tokio.spawn(async move {
            let (run, run_id) = (task.run.clone(), task.run_id);
            let arrival = run_local(&app, &ports, task, None).await;
            if let Err(error) = ports.runs.send(RunMessage::Arrived { run, run_id, arrival }).await {
                tracing::debug!(%error, "a local activity's result finds nobody; it runs again at the next start");
            }
        });
    }

    fn turn_begins(&self, run: &RunKey) {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).runs = Some((run.clone(), Instant::now()));
    }

    fn turn_ends(&self) {
        let Turn { runs, given_up } = std::mem::take(&mut *self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        if let (Some((run, _)), true) = (runs, given_up) {
            tracing::warn!(%run, "the run's code has given its turn back after all");
            self.ports.parkings.let_go(&run);
            let ports = self.ports.clone();
            self.tokio.spawn(async move {
                if let Err(error) = ports.runs.send(RunMessage::Sweep { run }).await {
                    tracing::debug!(%error, "the engine is stopping");
                }
            });
        }
    }
}
