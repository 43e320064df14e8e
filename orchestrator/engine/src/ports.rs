//! Everything that the engine reaches, in one place.

use std::collections::{HashMap, HashSet};
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

/// Runs that are parked, as far as this process knows. The index row is the durable copy.
#[derive(Debug, Default)]
pub struct Parkings {
    parked: Mutex<HashMap<RunKey, Parked>>,
    held: Mutex<HashSet<RunKey>>,
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

    /// A run stands still.
    pub fn insert(&self, run: RunKey, parked: Parked) {
        self.lock().insert(run, parked);
    }

    /// A run goes on. Whether it stood still.
    pub fn remove(&self, run: &RunKey) -> bool {
        self.lock().remove(run).is_some()
    }
}
