//! That a process stops: said twice to whoever runs activities, so that what they know is written down first.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

use crate::seams::Host;

/// How long the last heartbeats of what is cut off may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A process that may stop, and the activities that it runs. Cloning is cheap; a new one goes on for ever.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: CancellationToken,
    cut_off: CancellationToken,
    running: TaskTracker,
}

impl Stop {
    /// The same work, waited for when the process stops.
    pub(crate) fn track<F: Future>(&self, work: F) -> TrackedFuture<F> {
        self.running.track_future(work)
    }

    /// Whether activities should come to an end; no further one begins.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// What this comes to, unless activities should come to an end first.
    pub(crate) async fn unless_asked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.asked.run_until_cancelled(work).await
    }

    /// Resolves when activities should come to an end.
    pub(crate) fn asked(&self) -> impl Future<Output = ()> + '_ {
        self.asked.cancelled()
    }

    /// Resolves when they are cut off.
    pub(crate) fn cuts_off(&self) -> impl Future<Output = ()> + '_ {
        self.cut_off.cancelled()
    }

    /// The process stops: activities learn it and may end within `grace`. The rest is cut off, after its last words.
    pub(crate) async fn stop(&self, host: &Arc<dyn Host>, grace: Duration) {
        self.asked.cancel();
        self.running.close();
        if host.timeout(grace, self.running.wait()).await.is_some() {
            return;
        }
        let running = self.running.len();
        tracing::warn!(running, "activities are cut off after {grace:?}; they count as lost attempts");
        self.cut_off.cancel();
        if host.timeout(LAST_WORDS, self.running.wait()).await.is_none() {
            tracing::warn!("the last heartbeats of activities were not written within {LAST_WORDS:?}");
        }
    }
}
