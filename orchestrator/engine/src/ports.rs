//! Everything that the engine reaches, in one place.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{CommitId, RunKey, Timestamp};

use crate::seams::{ActivityQueue, Alarms, Closings, Host, RunQueue};
use crate::store::{Parked, Store};

/// The engine's surroundings. Cloning is cheap.
#[derive(Clone)]
pub struct Ports {
    /// Histories, index rows, attempt records.
    pub store: Arc<dyn Store>,
    /// Messages to deciders.
    pub runs: Arc<dyn RunQueue>,
    /// Tasks for workers.
    pub activities: Arc<dyn ActivityQueue>,
    /// Timers and time limits.
    pub alarms: Arc<dyn Alarms>,
    /// Time and randomness.
    pub host: Arc<dyn Host>,
    /// Who waits for runs to close.
    pub closings: Arc<dyn Closings>,
    /// Runs whose code cannot go on, as far as this process knows.
    pub parkings: Arc<Parkings>,
    /// Fixed choices.
    pub choices: Choices,
}

/// Choices that do not change while the engine runs.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The namespace of requests.
    pub namespace: Arc<str>,
    /// Names this build of the code: another one tries parked runs at once.
    pub build: Arc<str>,
    /// How often the sweep looks for overdue runs (rule F6).
    pub sweep_interval: Duration,
    /// The largest input, signal or query argument, in bytes.
    pub max_payload_bytes: usize,
    /// The workflows of this build: a start of any other is refused before anything is written.
    pub workflow_types: Arc<BTreeSet<String>>,
}

impl Ports {
    /// The host's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// An id for a new commit.
    #[must_use]
    pub fn commit_id(&self) -> CommitId {
        CommitId::from_bytes(self.host.fresh_id())
    }
}

/// Runs that this process has parked. The index row is the durable copy.
#[derive(Debug, Default)]
pub struct Parkings(Mutex<HashMap<RunKey, Standstill>>);

#[derive(Debug, Clone)]
struct Standstill {
    parked: Parked,
    /// New inputs are no reason to try again: the last try cost a thread.
    dear: bool,
}

impl Parkings {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, Standstill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a run stands still.
    #[must_use]
    pub fn get(&self, run: &RunKey) -> Option<Parked> {
        self.lock().get(run).map(|standstill| standstill.parked.clone())
    }

    /// Whether a run is left alone at this time. A new input voids a parking, unless trying is dear.
    #[must_use]
    pub fn stands_still(&self, run: &RunKey, now: Timestamp, new_input: bool) -> bool {
        self.lock().get(run).is_some_and(|still| now < still.parked.retry_at && (still.dear || !new_input))
    }

    /// A run stands still; `dear` when trying it again costs a thread.
    pub fn insert(&self, run: RunKey, parked: Parked, dear: bool) {
        self.lock().insert(run, Standstill { parked, dear });
    }

    /// A run goes on. Whether it stood still.
    pub fn remove(&self, run: &RunKey) -> bool {
        self.lock().remove(run).is_some()
    }
}
