//! Know: what there is of a run before its code is touched. A run that is closed, or not there, has none to run.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::history::{Batch, is_closed};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{LiveRun, RunKey, Status, Terms, TurnFailure};

use crate::attempts::SKEW;
use crate::commit::LoadError;
use crate::decider::{Decider, OnThread, Surroundings};
use crate::post::Post;
use crate::states::{fold, read_history};
use crate::store::{RunRow, StoreError};

/// What a run is looked up by.
pub(crate) enum Place {
    /// It is in memory; or its first batch has just come, and nobody else can have parked it: its row is not read.
    AtHand,
    /// By its row.
    Row(Box<RunRow>),
    /// It has no row: there is no such run, or not yet.
    Nowhere,
}

/// A run, as far as it is needed.
pub(crate) enum Known {
    /// There is no such run.
    Nothing,
    /// It has ended: no code of it runs.
    Closed(Status),
    /// It goes on.
    Open(Box<LiveRun>, Belief),
}

/// How far a run in hand is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Belief {
    /// It is remembered: a commit proves it true, a refusal proves nothing (rule C3).
    Remembered,
    /// It was read, or caught up, since its messages came: what it refuses is refused.
    Fresh,
}

impl<S: Surroundings + 'static> Decider<S> {
    /// Looks a run up, at the cost of one read at most. Where processes share the runs, the message that begins a run may
    /// be a copy of one that its code has ended a process over: only the row tells.
    pub(crate) async fn look_up(&self, run: &RunKey, begins: bool) -> Result<Place, StoreError> {
        if (begins && !self.ports.choices.shared) || self.is_warm(run) {
            return Ok(Place::AtHand);
        }
        let row = self.ports.store.row(run).await?;
        Ok(row.map_or(Place::Nowhere, |row| Place::Row(Box::new(row))))
    }

    /// Whether the messages begin with the first batch of a run, which is so young that hardly anything can have followed
    /// it. Were it believed whenever it comes, a late copy of its message would have local activities run again that are
    /// long recorded.
    pub(crate) fn begins(&self, post: &Post) -> bool {
        let first = post.first_batch().filter(|_| !post.fresh).and_then(|first| Batch::decode(0, first).ok());
        let now = self.ports.now();
        // Nor can a clock that was ahead make it look young.
        let young = |at| now.since(at) < self.ports.choices.sweep_interval && at.since(now) <= SKEW;
        first.is_some_and(|first| young(first.time))
    }

    /// The run, with these batches taken in, and replayed where it is not in memory. `begins`: the first of them is all
    /// there is.
    pub(crate) async fn know(
        &self,
        run: &RunKey,
        accepted: Vec<(u64, Bytes)>,
        begins: bool,
        fresh: bool,
    ) -> Result<Known, LoadError> {
        let warm = self.warm.borrow_mut().take(run);
        let mut accepted = accepted.into_iter().peekable();
        let live = match (warm, accepted.peek()) {
            (Some(live), _) => Some(live),
            (None, Some((0, first))) if begins => {
                let first = first.clone();
                Some(self.replay(run, &[first])?)
            }
            (None, _) => None,
        };
        if let Some(mut live) = live {
            let fits = accepted.all(|(sequence, record)| live.extend(sequence, &record));
            if fits && !fresh {
                return Ok(Known::of(live, Belief::Remembered));
            }
            if fits && self.catch_up(run, &mut live).await? {
                return Ok(Known::of(live, Belief::Fresh));
            }
        }
        self.read(run).await
    }

    /// The run as the store has it.
    pub(crate) async fn read(&self, run: &RunKey) -> Result<Known, LoadError> {
        let records = read_history(&*self.ports.store, run).await?;
        if records.is_empty() {
            return Ok(Known::Nothing);
        }
        if is_closed(0, &records).map_err(TurnFailure::from)? && !planted(Bug::O1ReplayClosed) {
            let state = fold(run, &records).map_err(TurnFailure::from)?;
            return Ok(state.map_or(Known::Nothing, |state| Known::Closed(state.status())));
        }
        let live = self.replay(run, &records)?;
        Ok(Known::of(live, Belief::Fresh))
    }

    /// Reads what stands behind the last batch that a run in memory knows. `false`: it does not fit.
    pub(crate) async fn catch_up(&self, run: &RunKey, live: &mut LiveRun) -> Result<bool, StoreError> {
        loop {
            let stretch = match self.ports.store.read(run, live.state().next_sequence).await {
                Err(_) if planted(Bug::C3BelieveMemory) => return Ok(true),
                stretch => stretch?,
            };
            self.surroundings.code_begins(OnThread::Turn(run.clone()));
            let fits = live.catch_up(&stretch.records);
            self.surroundings.code_ends();
            if !fits || stretch.gap {
                return Ok(false);
            }
            if !stretch.more || stretch.records.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Replays a history, each turn watched by itself: one of many turns is not one long turn.
    pub(crate) fn replay(&self, run: &RunKey, records: &[Bytes]) -> Result<Box<LiveRun>, TurnFailure> {
        let (surroundings, this) = (Rc::clone(&self.surroundings), run.clone());
        let terms = Terms {
            build: Arc::clone(&self.ports.choices.build),
            limits: self.ports.choices.limits,
            before_turn: Some(Rc::new(move |_| surroundings.code_begins(OnThread::Turn(this.clone())))),
        };
        self.in_turn(run, || LiveRun::replay_under(&self.app, run, records, &terms).map(Box::new))
    }

    /// Runs workflow code, watched.
    pub(crate) fn in_turn<T>(
        &self,
        run: &RunKey,
        code: impl FnOnce() -> Result<T, TurnFailure>,
    ) -> Result<T, TurnFailure> {
        self.surroundings.code_begins(OnThread::Turn(run.clone()));
        let result = code();
        self.surroundings.code_ends();
        result
    }
}

impl Known {
    fn of(live: Box<LiveRun>, belief: Belief) -> Self {
        match &live.state().closed {
            Some(closed) => Self::Closed(closed.status()),
            None => Self::Open(live, belief),
        }
    }
}
