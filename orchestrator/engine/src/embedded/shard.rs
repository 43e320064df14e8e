//! Threads on which workflows live. Each runs a decider and a small executor, and has no tokio runtime: tokio timers
//! and tasks in workflow code panic there instead of escaping the history.
//!
//! A thread whose turn does not end is replaced: its run is parked from outside, its other runs are read afresh. The
//! old thread cannot be ended; should it ever come back, its commits are fenced like any stranger's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_core::{App, RunKey, TurnFailure, millis};
use futures::StreamExt;
use futures::channel::oneshot;
use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use tokio::runtime::Handle;

use super::{DueRows, OpenError};
use super::mailroom::{Inbox, Letter, Mailroom};
use crate::handle::{Decider, Surroundings, park};
use crate::intake::Intake;
use crate::ports::Ports;
use crate::seams::RunMessage;
use crate::store::StoreError;
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
    pub(super) intake: Arc<Intake>,
    pub(super) tokio: Handle,
    pub(super) warm: NonZeroUsize,
}

/// The turn that runs on a thread, since when.
type Turn = Arc<Mutex<Option<(RunKey, Instant)>>>;

struct Shard {
    turn: Turn,
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
            match &*turn {
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
        }
        let shard = spawn(&self.context, self.mailroom.replace(thread))?;
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)[thread] = shard;
        // Whatever the old thread knew is in the histories.
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
    let turn = Turn::default();
    let (end, ended) = oneshot::channel();
    let (context, home) = (context.clone(), Arc::clone(&turn));
    std::thread::Builder::new().name("workflows".into()).spawn(move || {
        live_here(context, home, inbox);
        let _ = end.send(());
    })?;
    Ok(Shard { turn, ended })
}

fn live_here(context: Context, turn: Turn, mut inbox: Inbox) {
    let Context { app, ports, intake, tokio, warm } = context;
    let home = Home { app: Arc::clone(&app), ports: ports.clone(), tokio: tokio.clone(), turn };
    let decider = Rc::new(Decider::new(app, ports, intake, home, warm));
    let mut pool = LocalPool::new();
    let desk = Rc::new(Desk { decider, tokio, spawner: pool.spawner(), waiting: RefCell::default() });
    pool.run_until(async {
        while let Some(letter) = inbox.next().await {
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
    // What is being handled may end; it awaits nothing but the store.
    desk.waiting.borrow_mut().values_mut().for_each(Vec::clear);
    pool.run();
}

/// Messages on a thread, by run: those of one run are handled one batch after another.
struct Desk {
    decider: Rc<Decider<Home>>,
    tokio: Handle,
    spawner: LocalSpawner,
    waiting: RefCell<HashMap<RunKey, Vec<RunMessage>>>,
}

impl Desk {
    fn take(self: Rc<Self>, message: RunMessage) {
        let run = message.run().clone();
        let mut waiting = self.waiting.borrow_mut();
        if let Some(messages) = waiting.get_mut(&run) {
            messages.push(message);
            return;
        }
        waiting.insert(run.clone(), vec![message]);
        drop(waiting);
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
        loop {
            let messages = match self.waiting.borrow_mut().get_mut(&run) {
                Some(messages) => std::mem::take(messages),
                None => return,
            };
            if messages.is_empty() {
                self.waiting.borrow_mut().remove(&run);
                return;
            }
            match self.decider.handle(&run, messages.clone()).await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(StoreError::Refused(reason)) => {
                    tracing::error!(%run, %reason, "messages are given up; the sweep finds what they would have told");
                }
                Err(error) => {
                    tracing::warn!(%run, %error, "messages are delivered again in {pause:?}");
                    let slept = self.tokio.spawn(tokio::time::sleep(pause)).await;
                    if slept.is_err() {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    if let Some(waiting) = self.waiting.borrow_mut().get_mut(&run) {
                        let later = std::mem::replace(waiting, messages);
                        waiting.extend(later);
                    }
                }
            }
        }
    }
}

/// A thread, as its decider sees it.
struct Home {
    app: Arc<App>,
    ports: Ports,
    tokio: Handle,
    turn: Turn,
}

impl Surroundings for Home {
    fn run_local(&self, task: LocalTask) {
        let (app, ports) = (Arc::clone(&self.app), self.ports.clone());
        self.tokio.spawn(async move {
            let (run, run_id) = (task.run.clone(), task.run_id);
            let arrival = run_local(&app, &ports, task).await;
            if let Err(error) = ports.runs.send(RunMessage::Arrived { run, run_id, arrival }).await {
                tracing::debug!(%error, "a local activity's result finds nobody; it runs again at the next start");
            }
        });
    }

    fn turn_begins(&self, run: &RunKey) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some((run.clone(), Instant::now()));
    }

    fn turn_ends(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
