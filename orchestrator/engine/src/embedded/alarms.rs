//! Alarms in memory: one per run, rung by one task.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{Arrival, RunId, RunKey, Timestamp};
use futures::FutureExt;
use tokio::sync::Notify;

use crate::seams::{Alarms, Host, RunMessage, RunQueue, SeamFuture};

/// The longest sleep between looks at the clock: it may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Settings {
    by_time: BTreeSet<(Timestamp, RunKey)>,
    by_run: HashMap<RunKey, (Timestamp, RunId)>,
}

/// All alarms of this process.
#[derive(Default)]
pub(super) struct AlarmClock {
    settings: Mutex<Settings>,
    earlier: Notify,
}

impl AlarmClock {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings what is due, for ever.
    pub(super) async fn ring(self: Arc<Self>, runs: Arc<dyn RunQueue>, host: Arc<dyn Host>) {
        loop {
            let now = host.now();
            for (run, run_id) in self.take_due(now) {
                let message = RunMessage::Arrived { run, run_id, arrival: Arrival::Alarm };
                if let Err(error) = runs.send(message).await {
                    tracing::debug!(%error, "an alarm finds nobody");
                }
            }
            let next = self.lock().by_time.first().map(|(at, _)| at.since(host.now()));
            let sleep = host.sleep(next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP));
            tokio::select! {
                () = sleep => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn take_due(&self, now: Timestamp) -> Vec<(RunKey, RunId)> {
        let mut settings = self.lock();
        let mut due = Vec::new();
        while settings.by_time.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, run)) = settings.by_time.pop_first() else { break };
            if let Some((_, run_id)) = settings.by_run.remove(&run) {
                due.push((run, run_id));
            }
        }
        due
    }
}

impl Alarms for AlarmClock {
    fn set(&self, run: &RunKey, run_id: RunId, at: Option<Timestamp>) -> SeamFuture<'_, ()> {
        let mut settings = self.lock();
        if let Some((before, _)) = settings.by_run.remove(run) {
            settings.by_time.remove(&(before, run.clone()));
        }
        if let Some(at) = at {
            let first = settings.by_time.first().is_none_or(|(first, _)| at < *first);
            settings.by_time.insert((at, run.clone()));
            settings.by_run.insert(run.clone(), (at, run_id));
            if first {
                self.earlier.notify_one();
            }
        }
        futures::future::ready(Ok(())).boxed()
    }
}
