//! The outside world of the samples: a file that gets one line for every execution of an activity. It tells whether
//! anything was ever done twice; the engine knows nothing of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use dormouse::{Activity, Failure};
use serde::{Deserialize, Serialize};

/// One execution of an activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The workflow that asked for it.
    pub workflow_id: String,
    /// The run.
    pub run_id: String,
    /// The activity's name.
    pub activity: String,
    /// Its id within the run.
    pub activity_id: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The same for all attempts.
    pub idempotency_key: String,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// The ledger file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: Arc<PathBuf>,
}

impl Ledger {
    /// The file that `LEDGER_FILE` names, or `ledger.jsonl` in the current directory.
    #[must_use]
    pub fn from_env() -> Self {
        Self::at(std::env::var_os("LEDGER_FILE").map_or_else(|| "ledger.jsonl".into(), PathBuf::from))
    }

    /// This file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Arc::new(path.into()) }
    }

    /// Writes one line and syncs it. An activity does this before anything else.
    ///
    /// # Errors
    /// What the file system says.
    #[allow(clippy::disallowed_methods, reason = "called by activities, which may look at the clock")]
    pub async fn record(&self, cx: &Activity) -> Result<(), Failure> {
        let info = cx.info();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let entry = Entry {
            workflow_id: cx.workflow_id().into(),
            run_id: info.run_id.to_string(),
            activity: info.activity_type.clone(),
            activity_id: info.activity_id.to_string(),
            attempt: info.attempt,
            idempotency_key: cx.idempotency_key(),
            at: u64::try_from(now.as_millis())?,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let path = Arc::clone(&self.path);
        // One write to a file opened for appending: lines of concurrent activities do not mix.
        let write = move || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(&*path)?;
            file.write_all(&line)?;
            file.sync_data()
        };
        Ok(tokio::task::spawn_blocking(write).await??)
    }

    /// All lines, in order. A last line that a crash cut short is left out.
    ///
    /// # Errors
    /// What the file system says.
    pub fn entries(&self) -> std::io::Result<Vec<Entry>> {
        match std::fs::read_to_string(&*self.path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
