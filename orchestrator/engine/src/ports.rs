//! Everything that the engine reaches, in one place.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{CommitId, Declared, Limits, Timestamp};

use crate::parkings::Parkings;
use crate::seams::{ActivityQueue, Alarms, Closings, Host, RunQueue};
use crate::states::States;
use crate::stop::Stop;
use crate::store::Store;

/// The engine's surroundings. Cloning is cheap.
#[derive(Clone)]
pub struct Ports {
    /// Histories, index rows, attempt records.
    pub store: Arc<dyn Store>,
    /// What is known of runs without their code.
    pub states: Arc<States>,
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
    /// That this process stops.
    pub stop: Stop,
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
    /// Other processes take in and decide the same runs: what is remembered is often behind, so the store is asked
    /// before rather than after a write is lost.
    pub shared: bool,
    /// The largest input, signal or query argument, in bytes.
    pub max_payload_bytes: usize,
    /// What bounds each run.
    pub limits: Limits,
    /// What this build knows of names and types: other workflows, and JSON that does not fit, are refused before anything
    /// is written.
    pub declared: Arc<Declared>,
}

impl Ports {
    /// The same for a thread that may hang, and would take what it holds in hand along: it remembers runs by itself.
    #[must_use]
    pub fn with_states_of_its_own(&self) -> Self {
        Self { states: Arc::new(States::new(Arc::clone(&self.store), Arc::clone(&self.host))), ..self.clone() }
    }

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
