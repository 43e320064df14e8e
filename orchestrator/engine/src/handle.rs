//! `handle`: the way of an event. Read this file first.
//!
//! ```text
//! messages of one run -> load -> accept -> decide -> commit -> dispatch -> acknowledge
//! ```
//!
//! Messages are sorted here; the middle of the way is a pass (`pass.rs`), its end is `dispatch.rs`.
//!
//! - **load**: the warm run, or the history read and replayed. The cache proves nothing by itself: only a won commit
//!   makes a warm run true, and whatever ends without a commit is looked at again on a fresh one (rule C3).
//! - **accept** and **decide** are pure; they live in the core.
//! - **commit**: one conditional create. Losing it is normal (rule C2): if the winner only took inputs in, they are
//!   delivered too and the commit is tried again, with the results of finished local activities kept.
//! - **dispatch**: what the history leaves to be done, after it is in the history and never before.
//! - **acknowledge**: by returning `Ok`. On an error the caller delivers the messages again.
//!
//! A crash before the commit leaves nothing; one after it leaves the outbox, which is the history.

use std::cell::RefCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::history::CommandId;
use dormouse_core::{App, Arrival, LiveRun, Payload, QueryFailure, RunKey};
use lru::LruCache;

use crate::commit::LoadError;
use crate::dispatch::Dispatch;
use crate::error::ApiError;
use crate::intake::{Intake, Taken};
use crate::parking::{park, stays_parked, take_in_only};
use crate::pass::Pass;
use crate::ports::Ports;
use crate::seams::{RunMessage, Wish};
use crate::store::StoreError;
use crate::worker::LocalTask;

/// What a decider needs of the thread that it lives on.
pub trait Surroundings {
    /// Runs a local activity and sends its outcome as a message to its run.
    fn run_local(&self, task: LocalTask);
    /// Workflow code of this run begins to run on this thread.
    fn turn_begins(&self, run: &RunKey);
    /// It gave the thread back.
    fn turn_ends(&self);
}

/// Decides runs: the only place where workflow code runs (rule F1). One per thread, for the runs that live there.
pub struct Decider<S> {
    pub(crate) app: Arc<App>,
    pub(crate) ports: Ports,
    pub(crate) intake: Arc<Intake>,
    pub(crate) surroundings: S,
    pub(crate) warm: RefCell<LruCache<RunKey, LiveRun>>,
    /// Local activities under way, so that none is begun twice.
    pub(crate) locals: RefCell<HashSet<(RunKey, CommandId)>>,
}

impl<S: Surroundings> Decider<S> {
    /// A decider that keeps up to `warm_runs` runs in memory.
    #[must_use]
    pub fn new(app: Arc<App>, ports: Ports, intake: Arc<Intake>, surroundings: S, warm_runs: NonZeroUsize) -> Self {
        let warm = RefCell::new(LruCache::new(warm_runs));
        Self { app, ports, intake, surroundings, warm, locals: RefCell::default() }
    }

    /// Handles messages of one run, in order. When it returns `Ok`, everything in them is recorded or refused, and
    /// what follows from them is handed out.
    ///
    /// # Errors
    /// [`StoreError`]: deliver the messages again, later.
    pub async fn handle(&self, run: &RunKey, messages: Vec<RunMessage>) -> Result<(), StoreError> {
        let mut dispatch = Dispatch::New;
        let mut accepted = Vec::new();
        let mut arrivals = Vec::new();
        let mut fresh = false;
        for message in messages {
            match message {
                RunMessage::Intent(intent) => {
                    // What the caller's crash left out is done here; if he did it, this finds a duplicate.
                    match self.carry_out(run, intent.wish).await {
                        Ok(Some((sequence, record))) => accepted.push((sequence, record)),
                        Ok(None) => (fresh, dispatch) = (true, Dispatch::All),
                        Err(LoadError::Store(error)) => return Err(error),
                        Err(LoadError::Turn(failure)) => return park(&self.ports, run, &failure).await,
                    }
                }
                RunMessage::Accepted { sequence, record, .. } => accepted.push((sequence, record)),
                RunMessage::Arrived { run_id, arrival, .. } => {
                    if let Arrival::LocalCompleted { id, .. }
                    | Arrival::LocalFailed { id, .. }
                    | Arrival::LocalBackoff { id, .. } = &arrival
                    {
                        self.locals.borrow_mut().remove(&(run.clone(), *id));
                    }
                    arrivals.push((run_id, arrival));
                }
                RunMessage::Sweep { .. } => (fresh, dispatch) = (true, Dispatch::All),
            }
        }
        let swept = dispatch == Dispatch::All;
        if self.ports.parkings.stands_still(run, self.ports.now(), !accepted.is_empty()) {
            let news = !accepted.is_empty() || !arrivals.is_empty();
            take_in_only(&self.intake, run, arrivals).await?;
            if !news || stays_parked(&self.ports, run).await? {
                return Ok(());
            }
            // It was terminated: no code runs for that.
            (accepted, arrivals, fresh, dispatch) = (Vec::new(), Vec::new(), true, Dispatch::All);
        }
        let done = match Pass::load(self, run, accepted, &arrivals, fresh, dispatch).await {
            Ok(Some(pass)) => pass.run().await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) if swept => self.raise_due(run).await,
            Ok(()) => Ok(()),
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Turn(failure)) => {
                take_in_only(&self.intake, run, arrivals).await?;
                park(&self.ports, run, &failure).await
            }
        }
    }

    /// Does what an intent says unless it is done. The batch, when this created one for the run itself.
    async fn carry_out(&self, run: &RunKey, wish: Wish) -> Result<Option<(u64, Bytes)>, LoadError> {
        match wish {
            // The creation sends a message of its own.
            Wish::Start(request) => {
                self.intake.start(&run.workflow, &request, Some(run.ordinal)).await?;
                Ok(None)
            }
            Wish::Take { arrival, pinned } => match self.intake.follow(run, &arrival, pinned, false).await? {
                Taken::Recorded { run: there, sequence, record } if there == *run => Ok(Some((sequence, record))),
                Taken::Recorded { run, sequence, record } => {
                    self.ports.runs.send(RunMessage::Accepted { run, sequence, record }).await?;
                    Ok(None)
                }
                Taken::Duplicate(_) | Taken::Refused(_) | Taken::NoSuchRun => Ok(None),
            },
        }
    }

    /// Answers a query by the run's handler, on its present state.
    ///
    /// # Errors
    /// [`ApiError`] when there is no such run or handler, the code cannot go on, or the store does not answer.
    pub async fn query(&self, run: &RunKey, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        let live = match self.replay(run).await {
            Ok(live) => live,
            Err(LoadError::Store(error)) => return Err(error.into()),
            Err(LoadError::Turn(failure)) => return Err(ApiError::Parked(failure.to_string())),
        };
        self.surroundings.turn_begins(run);
        let answer = live.query(name, input);
        self.surroundings.turn_ends();
        answer.map_err(|failure| match failure {
            QueryFailure::Unknown(known) => ApiError::NotFound(format!(
                "the workflow answers no query {name:?}; it answers: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )),
            QueryFailure::Failed(failure) => ApiError::QueryFailed(Box::new(failure)),
        })
    }
}
