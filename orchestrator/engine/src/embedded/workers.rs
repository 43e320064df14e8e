//! The activity queue in memory: a task waits until it is due, then for a free place, then runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{ActivityTask, App};
use futures::FutureExt;
use tokio::sync::Semaphore;

use crate::ports::Ports;
use crate::seams::{ActivityQueue, Delivery, Host, SeamFuture};
use crate::store::StoreError;
use crate::worker::handle_task;

/// The first pause before a task is delivered again after the store did not answer; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs activities where the host runs work.
pub(super) struct Workers {
    host: Arc<dyn Host>,
    app: Arc<App>,
    /// Here while tasks may come: the ports hold us, so keeping them would keep the store open for ever.
    ports: Mutex<Option<Ports>>,
    places: Arc<Semaphore>,
}

impl Workers {
    pub(super) fn new(host: Arc<dyn Host>, app: Arc<App>, places: usize) -> Self {
        Self { host, app, ports: Mutex::default(), places: Arc::new(Semaphore::new(places.max(1))) }
    }

    /// Tasks may come from now on.
    pub(super) fn begin(&self, ports: Ports) {
        *self.ports() = Some(ports);
    }

    fn ports(&self) -> MutexGuard<'_, Option<Ports>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more tasks. What waits is left to the next start.
    pub(super) fn stop(&self) {
        self.ports().take();
    }
}

impl ActivityQueue for Workers {
    fn send(&self, tasks: Vec<ActivityTask>) -> SeamFuture<'_, ()> {
        let Some(ports) = self.ports().clone() else {
            return futures::future::ready(Err(StoreError::Refused("the engine is stopping".into()))).boxed();
        };
        for task in tasks {
            self.begin_task(ports.clone(), task);
        }
        futures::future::ready(Ok(())).boxed()
    }
}

impl Workers {
    fn begin_task(&self, ports: Ports, task: ActivityTask) {
        let (app, places, stop) = (Arc::clone(&self.app), Arc::clone(&self.places), ports.stop.clone());
        let tracked = stop.clone();
        let work = async move {
            let place = async {
                // Even an empty sleep lasts until the next millisecond.
                let wait = task.not_before.since(ports.now());
                if !wait.is_zero() {
                    ports.host.sleep(wait).await;
                }
                places.acquire().await
            };
            let Some(Ok(_place)) = stop.unless_asked(place).await else { return };
            let (mut pause, mut delivery) = (FIRST_PAUSE, Delivery::First);
            while let Err(error) = handle_task(&app, &ports, task.clone(), delivery, None).await {
                tracing::warn!(run = %task.run, activity = task.id, %error, "the task is delivered again");
                if stop.unless_asked(ports.host.sleep(pause)).await.is_none() {
                    return;
                }
                (pause, delivery) = ((pause * 2).min(LONGEST_PAUSE), Delivery::Again);
            }
        };
        self.host.attend(tracked.track(work).boxed());
    }
}
