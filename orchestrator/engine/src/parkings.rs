//! Which runs are parked, as far as this process knows. The index row is the durable copy; what is done with it stands in
//! [`parking`](crate::parking).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, Timestamp};

use crate::seams::Instant;
use crate::store::Parked;

/// How far a suspect has come in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is to be tried, alone: nothing of it runs until then.
    Awaiting,
    /// It may run, and has not yet.
    OnTrial,
    /// Its code has run at this time, and the process lives: it is on probation.
    Proving(Instant),
}

/// Writes down who is suspected, for the process that comes after, should this one die.
pub(crate) trait Remembers: Send + Sync {
    /// The run is a suspect who has come so far; none: it is not suspected any more.
    fn note(&self, run: &RunKey, standing: Option<Standing>);
}

/// Runs that are parked, as far as this process knows. The index row is the durable copy.
#[derive(Default)]
pub struct Parkings {
    parked: Mutex<HashMap<RunKey, Parked>>,
    held: Mutex<HashSet<RunKey>>,
    suspects: Mutex<HashMap<RunKey, Standing>>,
    memory: Option<Arc<dyn Remembers>>,
}

impl Parkings {
    /// None are known yet; suspects are remembered here.
    pub(crate) fn remembered_by(memory: Arc<dyn Remembers>) -> Self {
        Self { memory: Some(memory), ..Self::default() }
    }

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

    /// Whether others may have died of this run, and this process tries it or is to.
    #[must_use]
    pub fn is_suspect(&self, run: &RunKey) -> bool {
        self.suspects().contains_key(run)
    }

    /// Others may have died of this run: this process is to try it, and until then it is parked like this.
    pub(crate) fn await_trial(&self, run: &RunKey, parked: Parked) {
        self.set_standing(run, Standing::Awaiting);
        self.insert(run.clone(), parked);
    }

    /// This process tries it from now on.
    pub(crate) fn try_suspect(&self, run: &RunKey, parked: Parked) {
        self.set_standing(run, Standing::OnTrial);
        self.insert(run.clone(), parked);
    }

    /// The code of this run has run, and the process lives: if it is on trial, it is on probation from now on.
    pub(crate) fn put_on_probation(&self, run: &RunKey, now: Instant) {
        if self.is_on_trial(run) {
            self.set_standing(run, Standing::Proving(now));
        }
    }

    /// All suspects, and how far they have come.
    pub(crate) fn all_suspects(&self) -> Vec<(RunKey, Standing)> {
        self.suspects().iter().map(|(run, standing)| (run.clone(), *standing)).collect()
    }

    /// Whether it is a suspect whose code may run, and has not yet.
    pub(crate) fn is_on_trial(&self, run: &RunKey) -> bool {
        self.suspects().get(run) == Some(&Standing::OnTrial)
    }

    /// It has tried it.
    pub(crate) fn has_tried(&self, run: &RunKey) {
        if self.suspects().remove(run).is_some() {
            self.note(run, None);
        }
    }

    fn set_standing(&self, run: &RunKey, standing: Standing) {
        self.suspects().insert(run.clone(), standing);
        self.note(run, Some(standing));
    }

    fn note(&self, run: &RunKey, standing: Option<Standing>) {
        if let Some(memory) = &self.memory {
            memory.note(run, standing);
        }
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<RunKey, Standing>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run goes on.
    pub fn remove(&self, run: &RunKey) {
        self.lock().remove(run);
    }
}
