//! The threads on which users' code is replayed: without a runtime, as where runs are decided, and watched from outside,
//! since code that never gives its turn back cannot be stopped.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use dormouse_core::{App, Replay, Replayed, RunState, Terms, TurnFailure, catch};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::Instant;

use super::source::{Item, Source, Stretch};
use crate::error::CliError;

const THREAD: &str = "dormouse-replay";

/// What became of one history.
pub(super) type Outcome = (Item, Result<Replayed, CliError>);

/// What all of them share.
pub(super) struct Work {
    pub(super) app: Arc<App>,
    pub(super) source: Arc<Source>,
    pub(super) items: Mutex<Receiver<Item>>,
    pub(super) outcomes: Sender<Outcome>,
    pub(super) runtime: Handle,
}

/// One of the threads, as it is seen from outside.
struct Worker {
    sign: Arc<Sign>,
    /// The turn that it was last seen in, and since when.
    seen: (u64, Instant),
}

/// What a thread tells of itself.
#[derive(Default)]
struct Sign {
    /// Which turn of all it is in, from 1; 0 while it is in no code of a user.
    turn: AtomicU64,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// What it replays.
    item: Option<Item>,
    /// It was given up: what it comes to is nobody's.
    given_up: bool,
}

impl Sign {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
pub(super) struct Workers {
    work: Arc<Work>,
    workers: Vec<Worker>,
    turn_limit: Duration,
}

impl Workers {
    pub(super) fn begin(work: Work, threads: usize, turn_limit: Duration) -> Result<Self, CliError> {
        quiet_panics();
        let mut workers = Self { work: Arc::new(work), workers: Vec::new(), turn_limit };
        (0..threads).try_for_each(|_| workers.hire())?;
        Ok(workers)
    }

    fn hire(&mut self) -> Result<(), CliError> {
        let sign = Arc::new(Sign::default());
        let (work, theirs) = (Arc::clone(&self.work), Arc::clone(&sign));
        thread::Builder::new().name(THREAD.into()).spawn(move || work_on(&work, &theirs))?;
        self.workers.push(Worker { sign, seen: (0, Instant::now()) });
        Ok(())
    }

    /// Gives up the threads whose turn never ends, and has others take their place. What they were at.
    pub(super) async fn give_up_endless(&mut self) -> Result<Vec<(Item, Replayed)>, CliError> {
        let limit_ms = u64::try_from(self.turn_limit.as_millis()).unwrap_or(u64::MAX);
        let mut endless = Vec::new();
        for item in self.give_up() {
            self.hire()?;
            // Whose thread was given up told nothing of its run.
            let Stretch { run, records, .. } = self.work.source.read(&item, None).await?;
            let begun = records.first().and_then(|first| RunState::begin(run.clone(), first).ok());
            let mut replayed = Replayed::nothing_of(run);
            replayed.failure = Some(TurnFailure::Endless { limit_ms });
            if let Some((state, _)) = begun {
                replayed.run_id = Some(state.run_id());
                replayed.workflow_type = Some(state.started.call.workflow_type);
            }
            endless.push((item, replayed));
        }
        Ok(endless)
    }

    fn give_up(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let limit = self.turn_limit;
        self.workers.retain_mut(|worker| {
            let turn = worker.sign.turn.load(Ordering::Relaxed);
            if turn == 0 || turn != worker.seen.0 {
                worker.seen = (turn, Instant::now());
                return true;
            }
            if worker.seen.1.elapsed() <= limit {
                return true;
            }
            let mut now = worker.sign.now();
            // It may have come back just now.
            let Some(item) = now.item.take_if(|_| worker.sign.turn.load(Ordering::Relaxed) == turn) else {
                return true;
            };
            now.given_up = true;
            items.push(item);
            false
        });
        items
    }
}

fn work_on(work: &Work, sign: &Arc<Sign>) {
    // Over all runs: a number that is seen twice is the same turn.
    let turns = Rc::new(Cell::new(0));
    loop {
        // The lock is held while it waits: the others could only wait as well.
        let next = work.items.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(item) = next else { return };
        sign.now().item = Some(item.clone());
        let replayed = catch(|| replay(work, &item, sign, &turns)).unwrap_or_else(|panic| {
            Err(CliError::new(format!("{}: the replay itself panicked: {panic}", item.name())))
        });
        sign.turn.store(0, Ordering::Relaxed);
        {
            let mut now = sign.now();
            if now.given_up {
                return;
            }
            now.item = None;
        }
        if work.outcomes.blocking_send((item, replayed)).is_err() {
            return;
        }
    }
}

fn replay(work: &Work, item: &Item, sign: &Arc<Sign>, turns: &Rc<Cell<u64>>) -> Result<Replayed, CliError> {
    let (counted, told) = (Rc::clone(turns), Arc::clone(sign));
    let before_turn = move |_| {
        counted.set(counted.get() + 1);
        told.turn.store(counted.get(), Ordering::Relaxed);
    };
    let terms = Terms { before_turn: Some(Rc::new(before_turn)), ..Terms::default() };
    let mut replay: Option<Replay> = None;
    let mut next = None;
    loop {
        let stretch = work.runtime.block_on(work.source.read(item, next))?;
        let replay = replay.get_or_insert_with(|| Replay::new(&work.app, &stretch.run, &terms));
        let goes_on = replay.follow(&stretch.records);
        sign.turn.store(0, Ordering::Relaxed);
        if stretch.gap {
            replay.lost();
        }
        next = stretch.next.filter(|_| goes_on && !stretch.gap);
        if next.is_none() {
            break;
        }
    }
    replay.map(Replay::end).ok_or_else(|| CliError::new("no history was read"))
}

/// What panics on these threads is told with the run that it is of; the rest goes where it went.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name() != Some(THREAD) {
                before(panic);
            }
        }));
    });
}
