//! `handle`: the way of an event. Read this file first.
//!
//! ```text
//! messages of one run -> know -> accept -> decide -> commit -> dispatch -> acknowledge
//! ```
//!
//! Messages are sorted (`post.rs`), and the run is looked up (`know.rs`): one that is closed, parked or not there runs no
//! code. The middle of the way is a pass (`pass.rs`), its end is `dispatch.rs`, and `close.rs` when the run has ended.
//!
//! - **know**: the warm run, or its row, and then its history read and replayed. The cache proves nothing by itself: only
//!   a won commit makes a warm run true, and whatever ends without a commit is looked at again on a fresh one (rule C3).
//! - **accept** and **decide** are pure; they live in the core.
//! - **commit**: one conditional create. Losing it is normal (rule C2): if the winner only took inputs in, they are
//!   delivered too and the commit is tried again, with the results of finished local activities kept.
//! - **dispatch**: what the history leaves to be done, after it is in the history and never before. A message that is
//!   delivered again sends nothing but what is provably lost (rule R1).
//! - **acknowledge**: by returning `Ok`. On an error the caller delivers the messages again.
//!
//! A crash before the commit leaves nothing; one after it leaves the outbox, which is the history.

use std::cell::RefCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use dormouse_core::CommandId;
use dormouse_core::operations::{LocalBackoff, LocalCompleted, LocalFailed};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{App, Arrival, LiveRun, RunKey};

use crate::cache::Cache;
use crate::commit::LoadError;
use crate::intake::Intake;
use crate::know::{Known, Place};
use crate::pass::Pass;
use crate::ports::Ports;
use crate::post::Post;
use crate::seams::{Delivery, RunMessage};
use crate::store::StoreError;
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
    pub(crate) warm: RefCell<Cache<RunKey, LiveRun>>,
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

    /// Handles messages of one run, in order. When it returns `Ok`, everything in them is recorded or refused, and
    /// what follows from them is handed out. `delivery` is [`Again`](Delivery::Again) when any of them was handled before
    /// and its handler is not known to have come to its end.
    ///
    /// # Errors
    /// [`StoreError`]: deliver the messages again, later.
    pub async fn handle(&self, run: &RunKey, messages: Vec<RunMessage>, delivery: Delivery) -> Result<(), StoreError> {
        self.note_locals(run, &messages);
        let mut post = Post::sort(messages, delivery);
        match self.look_up(run, &post).await? {
            Place::Nowhere if post.starts.is_empty() => return Ok(()),
            Place::Row(row) if row.status.is_closed() && !planted(Bug::O1ReplayClosed) => {
                return self.on_closed(run, row.status, &row, &post).await;
            }
            Place::Row(row) if self.ports.choices.shared => self.ports.parkings.learn(&self.ports, &row).await?,
            Place::Row(_) | Place::AtHand | Place::Nowhere => {}
        }
        if self.ports.parkings.stands_still(run, self.ports.now(), post.is_news()) {
            return self.on_parked(run, &post).await;
        }
        match self.on_open(run, &mut post).await {
            Ok(()) => Ok(()),
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Turn(failure)) => self.on_stuck(run, &post, &failure).await,
        }
    }

    /// The run may go on: replayed, where it is not in memory, and decided.
    async fn on_open(&self, run: &RunKey, post: &mut Post) -> Result<(), LoadError> {
        let mut accepted = std::mem::take(&mut post.accepted);
        let starts = std::mem::take(&mut post.starts);
        for tried in [false, true] {
            match self.know(run, std::mem::take(&mut accepted), post.fresh).await? {
                Known::Open(live, belief) => return Pass::new(self, run, post, *live, belief).run().await,
                Known::Closed(status) => return Ok(self.on_ended(run, status, post).await?),
                Known::Nothing if tried => break,
                // Whoever announced these starts has not made the run, and may never do so; or he has by now, and relies
                // on us.
                Known::Nothing => {
                    for request in &starts {
                        self.intake.start(&run.workflow, request, Some(run.ordinal)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A local activity that tells of its end is under way no more.
    fn note_locals(&self, run: &RunKey, messages: &[RunMessage]) {
        for message in messages {
            if let RunMessage::Arrived { arrival, .. } = message
                && let Arrival::LocalCompleted(LocalCompleted { id, .. })
                | Arrival::LocalFailed(LocalFailed { id, .. })
                | Arrival::LocalBackoff(LocalBackoff { id, .. }) = arrival
            {
                self.locals.borrow_mut().remove(&(run.clone(), *id));
            }
        }
    }

    /// Keeps a run in memory, unless it has ended.
    pub(crate) fn keep_warm(&self, run: &RunKey, live: LiveRun) {
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
