//! Which runs are parked, as far as this process knows. The index row is the durable copy; what is done with it stands in
//! [`parking`](crate::parking).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, Timestamp};

use crate::seams::Instant;
use crate::store::Parked;

/// Runs that are parked, as far as this process knows. The index row is the durable copy.
#[derive(Debug, Default)]
pub struct Parkings {
    parked: Mutex<HashMap<RunKey, Parked>>,
    held: Mutex<HashSet<RunKey>>,
    /// And since when they are on probation: their code has run, and the process lives.
    suspects: Mutex<HashMap<RunKey, Option<Instant>>>,
}

impl Parkings {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashSet<RunKey>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread of this process hangs in this run's code: trying again would cost another one.
    pub fn hold(&self, run: RunKey) {
        self.held().insert(run);
    }

    /// The thread has come back.
    pub fn let_go(&self, run: &RunKey) {
        self.held().remove(run);
    }

    /// Whether a thread hangs in this run's code.
    #[must_use]
    pub fn is_held(&self, run: &RunKey) -> bool {
        self.held().contains(run)
    }

    /// Why a run stands still.
    #[must_use]
    pub fn get(&self, run: &RunKey) -> Option<Parked> {
        self.lock().get(run).cloned()
    }

    /// Whether a run is left alone at this time. A new input voids a parking; but where the code takes its thread or its
    /// process along, the run waits, whatever comes.
    #[must_use]
    pub fn stands_still(&self, run: &RunKey, now: Timestamp, new_input: bool) -> bool {
        let deadly = |parked: &Parked| parked.ends_process && !planted(Bug::F1TryDeadlyCode);
        let waits = |parked: Parked| now < parked.retry_at && (deadly(&parked) || !new_input);
        self.is_held(run) || self.get(run).is_some_and(waits)
    }

    /// A run stands still.
    pub fn insert(&self, run: RunKey, parked: Parked) {
        self.lock().insert(run, parked);
    }

    /// Whether this process tries a run that others may have died of.
    #[must_use]
    pub fn is_suspect(&self, run: &RunKey) -> bool {
        self.suspects().contains_key(run)
    }

    /// This process tries a run that others may have died of.
    pub(crate) fn try_suspect(&self, run: RunKey) {
        self.suspects().insert(run, None);
    }

    /// The code of this run has run, and the process lives: if it is a suspect, it is on probation from now on.
    pub(crate) fn put_on_probation(&self, run: &RunKey, now: Instant) {
        if let Some(since) = self.suspects().get_mut(run) {
            since.get_or_insert(now);
        }
    }

    /// Suspects that have been on probation for so long.
    pub(crate) fn proven(&self, now: Instant, probation: Duration) -> Vec<RunKey> {
        let suspects = self.suspects();
        let proven = |since: &Option<Instant>| since.is_some_and(|since| now.since(since) >= probation);
        suspects.iter().filter(|(_, since)| proven(since)).map(|(run, _)| run.clone()).collect()
    }

    /// Whether it is a suspect whose code has not run yet.
    pub(crate) fn is_on_trial(&self, run: &RunKey) -> bool {
        self.suspects().get(run) == Some(&None)
    }

    /// It has tried it.
    pub(crate) fn has_tried(&self, run: &RunKey) {
        self.suspects().remove(run);
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<RunKey, Option<Instant>>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run goes on.
    pub fn remove(&self, run: &RunKey) {
        self.lock().remove(run);
    }
}
