//! One process, one data directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::App;

use crate::front::FrontDoor;

/// How the embedded runtime is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The namespace that requests without one mean.
    pub namespace: String,
    /// How often the sweep looks for overdue runs.
    pub sweep_interval: Duration,
    /// Threads that run workflow code; the number of processors unless told otherwise.
    pub workflow_threads: usize,
    /// Activities that may run at the same time.
    pub concurrent_activities: usize,
    /// Runs kept in memory.
    pub warm_runs: usize,
    /// The longest a workflow's code may hold a turn.
    pub turn_limit: Duration,
    /// The largest input, signal or result, in bytes.
    pub max_payload_bytes: usize,
}

impl Settings {
    /// The defaults, with everything kept in this directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            namespace: "default".into(),
            sweep_interval: Duration::from_secs(60),
            workflow_threads: std::thread::available_parallelism().map_or(2, usize::from),
            concurrent_activities: 200,
            warm_runs: 10_000,
            turn_limit: Duration::from_secs(2),
            max_payload_bytes: 2 * 1024 * 1024,
        }
    }
}

/// Why the embedded runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// See the message.
    #[error("{0}")]
    Other(String),
}

/// The running engine.
pub struct Embedded {}

impl Embedded {
    /// Opens the data directory, picks up all outstanding work and begins. Call inside a tokio runtime.
    pub async fn open(app: Arc<App>, settings: Settings) -> Result<Self, OpenError> {
        let _ = (app, settings);
        Err(OpenError::Other("soon".into()))
    }
    /// The front door.
    pub fn front(&self) -> Arc<FrontDoor> {
        Arc::new(FrontDoor {})
    }
    /// Stops gracefully: takes nothing new, lets what runs end for up to `grace`, and closes the store.
    pub async fn shutdown(self, grace: Duration) {
        let _ = grace;
    }
}
