//! A decider, as it stands on its thread: what it holds, and what it needs of the thread. What it does stands in the files
//! along the way of an event, which begins in [`handle`](crate::handle).

use std::cell::RefCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use dormouse_core::{App, CommandId, LiveRun, RunKey};

use crate::cache::Cache;
use crate::intake::Intake;
use crate::ports::Ports;
use crate::worker::LocalTask;

/// How much memory warm runs take on a thread, in bytes, at most (about; what the workflow's code holds is not seen).
const WARM_BYTES: usize = 64 * 1024 * 1024;

/// What of a user's code runs on a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnThread {
    /// A turn of this run. Should it never end, the run cannot go on.
    Turn(RunKey),
    /// A query's handler, on an argument of somebody's choice: whoever asks must not be able to stop a run.
    Query,
}

/// What a decider needs of the thread that it lives on.
pub trait Surroundings {
    /// Runs a local activity and sends its outcome as a message to its run.
    fn run_local(&self, task: LocalTask);
    /// A user's code begins to run on this thread. Called before each turn, also before those of a replay: then again
    /// before the end of the one before is said, whose time is over all the same.
    fn code_begins(&self, what: OnThread);
    /// It gave the thread back.
    fn code_ends(&self);
}

/// Decides runs: the only place where workflow code runs (rule F1). One per thread, for the runs that live there.
pub struct Decider<S> {
    pub(crate) app: Arc<App>,
    pub(crate) ports: Ports,
    pub(crate) intake: Arc<Intake>,
    pub(crate) surroundings: Rc<S>,
    pub(crate) warm: RefCell<Cache<RunKey, Box<LiveRun>>>,
    /// Local activities under way, so that none is begun twice.
    pub(crate) locals: RefCell<HashSet<(RunKey, CommandId)>>,
}

impl<S: Surroundings + 'static> Decider<S> {
    /// A decider that keeps up to `warm_runs` runs in memory.
    #[must_use]
    pub fn new(app: Arc<App>, ports: Ports, intake: Arc<Intake>, surroundings: S, warm_runs: NonZeroUsize) -> Self {
        let warm = RefCell::new(Cache::new(warm_runs, WARM_BYTES));
        Self { app, ports, intake, surroundings: Rc::new(surroundings), warm, locals: RefCell::default() }
    }

    /// Keeps a run in memory, unless it has ended.
    pub(crate) fn keep_warm(&self, run: &RunKey, live: Box<LiveRun>) {
        if live.state().closed.is_none() {
            let weight = live.state().weight();
            self.warm.borrow_mut().put(run.clone(), live, weight);
        }
    }

    /// Forgets a run, with what was not committed: somebody else goes on with it.
    pub fn forget(&self, run: &RunKey) {
        self.warm.borrow_mut().take(run);
        self.locals.borrow_mut().retain(|(other, _)| other != run);
    }

    /// Whether the run is in memory.
    #[must_use]
    pub fn is_warm(&self, run: &RunKey) -> bool {
        self.warm.borrow().contains(run)
    }
}
