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
use dormouse_core::operations;
use dormouse_core::{App, Arrival, LiveRun, Payload, QueryFailure, RunId, RunKey, StartRequest};
use lru::LruCache;

use crate::commit::{LoadError, read_history};
use crate::error::ApiError;
use crate::intake::Intake;
use crate::parking::{park, stays_parked, take_in_only};
use crate::pass::Pass;
use crate::ports::Ports;
use crate::seams::{Intent, RunMessage, Wish};
use crate::store::StoreError;
use crate::worker::LocalTask;

/// What a decider needs of the thread that it lives on.
pub trait Surroundings {
    /// Runs a local activity and sends its outcome as a message to its run.
    fn run_local(&self, task: LocalTask);
    /// Workflow code of this run begins to run on this thread.
    fn turn_begins(&self, run: &RunKey);
    /// A query's handler begins to run, on an argument of somebody's choice.
    fn query_begins(&self, run: &RunKey) {
        self.turn_begins(run);
    }
    /// It gave the thread back.
    fn turn_ends(&self);
}

/// Messages of one run, sorted.
#[derive(Default)]
pub(crate) struct Post {
    /// Batches that somebody committed.
    pub(crate) accepted: Vec<(u64, Bytes)>,
    /// What is to be taken in.
    pub(crate) arrivals: Vec<Coming>,
    /// Starts that somebody announced.
    pub(crate) starts: Vec<StartRequest>,
    /// The store must be asked before anything is believed.
    pub(crate) fresh: bool,
    /// Everything outstanding is handed out again, and what is due is seen to.
    pub(crate) sweep: bool,
}

impl Post {
    /// Whether somebody outside has something new to say. What is delivered again is none, and is swept.
    fn is_news(&self) -> bool {
        let announced = self.arrivals.iter().any(|coming| coming.run_id.is_none()) || !self.starts.is_empty();
        !self.accepted.is_empty() || (announced && !self.sweep)
    }
}

/// Something that arrives for a run.
pub(crate) struct Coming {
    /// The run that it means; `None`: whichever has the ordinal (rule F3).
    pub(crate) run_id: Option<RunId>,
    pub(crate) arrival: Arrival,
    /// Whether it goes on to the run that this one continues as (rule F4).
    pub(crate) follows: bool,
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
        let mut post = self.sort(run, messages);
        if self.ports.choices.shared && !self.is_warm(run) {
            self.ports.parkings.learn(&self.ports, run).await?;
        }
        if self.ports.parkings.stands_still(run, self.ports.now(), post.is_news()) {
            let news = !post.accepted.is_empty() || !post.arrivals.is_empty();
            take_in_only(&self.intake, run, &post.arrivals).await?;
            if !news || stays_parked(&self.ports, run).await? {
                return Ok(());
            }
            // It was terminated: no code runs for that.
            post = Post { fresh: true, sweep: true, ..Post::default() };
        }
        match self.pass(run, &mut post).await {
            Ok(()) if post.sweep => self.raise_due(run).await,
            Ok(()) => Ok(()),
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Turn(failure)) => {
                take_in_only(&self.intake, run, &post.arrivals).await?;
                park(&self.ports, run, &failure).await
            }
        }
    }

    fn sort(&self, run: &RunKey, messages: Vec<RunMessage>) -> Post {
        let mut post = Post::default();
        for message in messages {
            match message {
                // Its caller may have recorded it by now, or died before that: the history tells.
                RunMessage::Intent(Intent { wish, .. }) => {
                    post.fresh = true;
                    match wish {
                        Wish::Start(request) => post.starts.push(request),
                        Wish::Take { arrival, pinned } => {
                            post.arrivals.push(Coming { run_id: None, arrival, follows: !pinned });
                        }
                    }
                }
                RunMessage::Accepted { sequence, record, .. } => post.accepted.push((sequence, record)),
                RunMessage::Arrived { run_id, arrival, .. } => {
                    if let Arrival::LocalCompleted(operations::LocalCompleted { id, .. })
                    | Arrival::LocalFailed(operations::LocalFailed { id, .. })
                    | Arrival::LocalBackoff(operations::LocalBackoff { id, .. }) = &arrival
                    {
                        self.locals.borrow_mut().remove(&(run.clone(), *id));
                    }
                    post.arrivals.push(Coming { run_id: Some(run_id), arrival, follows: false });
                }
                RunMessage::Sweep { .. } => (post.fresh, post.sweep) = (true, true),
            }
        }
        post
    }

    async fn pass(&self, run: &RunKey, post: &mut Post) -> Result<(), LoadError> {
        if let Some(pass) = Pass::load(self, run, post).await? {
            return pass.run().await;
        }
        if post.starts.is_empty() {
            return Ok(());
        }
        // Whoever announced these starts has not made the run, and may never do so; or he has by now, and relies on us.
        for request in &post.starts {
            self.intake.start(&run.workflow, request, Some(run.ordinal)).await?;
        }
        match Pass::load(self, run, post).await? {
            Some(pass) => pass.run().await,
            None => Ok(()),
        }
    }

    /// Forgets a run, with what was not committed: somebody else goes on with it.
    pub fn forget(&self, run: &RunKey) {
        self.warm.borrow_mut().pop(run);
        self.locals.borrow_mut().retain(|(other, _)| other != run);
    }

    /// Whether the run is in memory.
    #[must_use]
    pub fn is_warm(&self, run: &RunKey) -> bool {
        self.warm.borrow().contains(run)
    }

    /// Answers a query by the run's handler, on its present state.
    ///
    /// # Errors
    /// [`ApiError`] when there is no such run or handler, the code cannot go on, or the store does not answer.
    pub async fn query(&self, run: &RunKey, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        let refused = |error| match error {
            LoadError::Store(error) => ApiError::from(error),
            LoadError::Turn(failure) => ApiError::Parked(failure.to_string()),
        };
        let records = read_history(&*self.ports.store, run).await.map_err(refused)?;
        if records.is_empty() {
            return Err(ApiError::NotFound(format!("there is no run {run}")));
        }
        let live = self.in_turn(run, || LiveRun::replay(&self.app, run, &records));
        let live = live.map_err(|failure| refused(failure.into()))?;
        self.surroundings.query_begins(run);
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
