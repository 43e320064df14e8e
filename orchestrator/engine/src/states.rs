//! The one way to know a run without its code, and to extend its history with inputs: its state, remembered, caught up
//! with what stands behind it, or folded from the beginning. Nobody else folds a history, but a run that is replayed.
//!
//! What is remembered proves nothing (rule C3): whoever is about to refuse something, or to answer a reader,
//! [`refresh`](Held::refresh)es first. That costs one read of what is new, however long the history is.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dormouse_core::history::{Batch, Damage};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, RunState, TurnFailure};
use futures::FutureExt;
use futures::lock::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::cache::Cache;
use crate::commit::{LoadError, Outcome, commit};
use crate::journal;
use crate::seams::Host;
use crate::store::{Entry, Store, StoreError};

/// How many runs' states are remembered, at most.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// How much memory remembered states take, in bytes, at most (about).
const REMEMBERED_BYTES: usize = 16 * 1024 * 1024;

type Slot = Arc<AsyncMutex<Option<Arc<RunState>>>>;

/// States of runs, as their histories tell them.
pub struct States {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    remembered: Mutex<Cache<RunKey, Slot>>,
}

impl States {
    /// States of the runs in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, host: Arc<dyn Host>) -> Self {
        Self { store, host, remembered: Mutex::new(Cache::new(REMEMBERED, REMEMBERED_BYTES)) }
    }

    fn remembered(&self) -> MutexGuard<'_, Cache<RunKey, Slot>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a run, held: who wants it meanwhile, to read it or to extend it, waits.
    pub async fn hold(&self, run: &RunKey) -> Held<'_> {
        let slot = self.remembered().get_or_insert_with(run, Slot::default);
        let known = slot.lock_owned().await;
        Held { states: self, run: run.clone(), known, fresh: false }
    }

    /// Keeps a snapshot of a state, aside: nobody waits for it, and nothing is wrong without it.
    pub(crate) fn keep(&self, state: &RunState) {
        let (store, run, snapshot) = (Arc::clone(&self.store), state.run.clone(), state.snapshot());
        let kept = async move {
            if let Err(error) = store.keep_snapshot(&run, snapshot).await {
                tracing::debug!(%run, %error, "its snapshot is not kept; a longer look at its history is all it costs");
            }
        };
        self.host.spawn(kept.boxed());
    }

    /// The state of a run, as fresh as the store. `None`: there is no such run.
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or the history is damaged.
    pub async fn fresh(&self, run: &RunKey) -> Result<Option<Arc<RunState>>, LoadError> {
        let mut held = self.hold(run).await;
        held.refresh().await?;
        Ok(held.known.clone())
    }
}

/// A snapshot is kept at least so many events after the last.
const SNAPSHOT_EVENTS: u64 = 256;

/// A state of more than this many bytes is kept the more rarely: what is written stays in proportion to the history, at
/// most 2 KiB for each event.
const SNAPSHOT_BYTES: u64 = 512 * 1024;

/// Whether a snapshot of this state is to be kept, now that its history has grown from so many events to those it has.
pub(crate) fn is_kept(state: &RunState, before: u64) -> bool {
    let interval = SNAPSHOT_EVENTS * (1 + state.weight() as u64 / SNAPSHOT_BYTES);
    state.is_committed() && before / interval < state.events / interval
}

/// A run's state in hand.
pub struct Held<'s> {
    states: &'s States,
    run: RunKey,
    known: OwnedMutexGuard<Option<Arc<RunState>>>,
    fresh: bool,
}

impl Held<'_> {
    /// The state, as far as it is known. `None`: nothing is remembered, or, when it [is fresh](Self::is_fresh), there is no
    /// such run.
    #[must_use]
    pub fn state(&self) -> Option<&RunState> {
        self.known.as_deref()
    }

    /// Whether the store was asked since this was taken in hand, and nobody is known to have been faster since.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Asks the store what stands behind the last batch that is known.
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or the history is damaged.
    pub async fn refresh(&mut self) -> Result<(), LoadError> {
        if self.known.is_none() {
            *self.known = self.snapshot().await?;
        }
        let known = self.known.as_ref().map(|state| state.events);
        let begun_from = if self.catch_up().await? { known } else { None };
        if begun_from.is_none() {
            *self.known = read_state(&*self.states.store, &self.run).await?.map(Arc::new);
        }
        // Whoever comes next need not go so far.
        let far = begun_from.unwrap_or(0) + SNAPSHOT_EVENTS;
        if let Some(state) = self.known.as_ref().filter(|state| state.events >= far) {
            self.states.keep(state);
        }
        self.fresh = true;
        Ok(())
    }

    /// What was kept of a long history. It proves nothing: what stands behind it must fit, or it is forgotten.
    async fn snapshot(&self) -> Result<Option<Arc<RunState>>, StoreError> {
        let Some(kept) = self.states.store.snapshot(&self.run).await? else { return Ok(None) };
        match RunState::from_snapshot(&self.run, &kept) {
            Ok(state) => Ok(Some(Arc::new(state))),
            Err(stale) => {
                tracing::debug!(run = %self.run, %stale, "its history is folded anew");
                Ok(None)
            }
        }
    }

    /// `false`: nothing is remembered; or what stands in the store does not continue it, and it is forgotten.
    async fn catch_up(&mut self) -> Result<bool, StoreError> {
        while let Some(state) = self.known.as_mut() {
            let stretch = self.states.store.read(&self.run, state.next_sequence).await?;
            let fits = stretch.records.is_empty() || {
                let state = Arc::make_mut(state);
                stretch.records.iter().all(|record| state.append(record).is_ok())
            };
            if !fits || stretch.gap {
                *self.known = None;
            } else if !stretch.more || stretch.records.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Commits a batch behind the last one known. Lost: what won is taken in, if it fits.
    ///
    /// # Errors
    /// As [`commit`]: whether it was written is then unknown, and the state is forgotten.
    pub async fn commit(&mut self, batch: &Batch, entry: &Entry) -> Result<Commit, StoreError> {
        let (States { store, host, .. }, sequence) = (self.states, entry.sequence());
        let record = batch.encode();
        match commit(&**store, &**host, &self.run, &record, entry).await {
            Ok(Outcome::Won) => {
                self.follow(&record);
                if let Some(state) = self.state() {
                    journal::committed(state, batch);
                }
                Ok(Commit::Won { sequence, record })
            }
            Ok(Outcome::Lost(found)) => {
                self.fresh = false;
                self.follow(&found);
                Ok(Commit::Lost)
            }
            Err(error) => {
                *self.known = None;
                Err(error)
            }
        }
    }

    /// Takes in what stands behind the last batch known, or forgets.
    fn follow(&mut self, record: &Bytes) {
        let fits = self.known.as_mut().is_some_and(|state| Arc::make_mut(state).append(record).is_ok());
        if !fits {
            *self.known = None;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let weight = self.known.as_ref().map(|state| state.weight());
        self.states.remembered().weigh(&self.run, weight);
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// It is in the history.
    Won {
        /// Its place.
        sequence: u64,
        /// Its bytes.
        record: Bytes,
    },
    /// Something else stands there, and is taken in.
    Lost,
}

/// Reads a whole history, page by page, for whoever replays it. Empty: there is no such run.
///
/// # Errors
/// [`LoadError`] when the store does not answer, or a batch is missing in the middle.
pub async fn read_history(store: &dyn Store, run: &RunKey) -> Result<Vec<Bytes>, LoadError> {
    let mut records: Vec<Bytes> = Vec::new();
    loop {
        let stretch = store.read(run, records.len() as u64).await?;
        let nothing = stretch.records.is_empty();
        records.extend(stretch.records);
        if stretch.gap && !planted(Bug::C7SkipChain) {
            // What follows the gap does not continue what is before it.
            return Err(TurnFailure::from(Damage::BrokenChain { sequence: records.len() as u64 + 1 }).into());
        }
        if !stretch.more || nothing {
            return Ok(records);
        }
    }
}

/// Folds a whole history, freshly read. `None`: there is no such run.
///
/// # Errors
/// [`LoadError`] when the store does not answer or the history is damaged.
pub async fn read_state(store: &dyn Store, run: &RunKey) -> Result<Option<RunState>, LoadError> {
    let records = read_history(store, run).await?;
    Ok(fold(run, &records).map_err(TurnFailure::from)?)
}

/// What a history, given whole, amounts to. `None`: it is empty.
///
/// # Errors
/// [`Damage`].
pub fn fold(run: &RunKey, records: &[Bytes]) -> Result<Option<RunState>, Damage> {
    let Some((first, rest)) = records.split_first() else { return Ok(None) };
    let (mut state, _) = RunState::begin(run.clone(), first)?;
    for record in rest {
        state.append(record)?;
    }
    Ok(Some(state))
}
