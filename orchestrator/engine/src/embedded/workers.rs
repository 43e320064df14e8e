//! The activity queue in memory: a task waits until it is due, then for a free place, then runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{ActivityTask, App, DEFAULT_TASK_QUEUE};
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
    /// Task queues that activities have named and the application has not, as far as people were told.
    undeclared: Mutex<BTreeSet<String>>,
}

/// So many of them are told.
const MOST_TOLD: usize = 100;

impl Workers {
    pub(super) fn new(host: Arc<dyn Host>, app: Arc<App>, places: usize) -> Self {
        Self {
            host,
            app,
            ports: Mutex::default(),
            places: Arc::new(Semaphore::new(places.max(1))),
            undeclared: Mutex::default(),
        }
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
            if let Some(warning) = self.undeclared_queue(&task) {
                tracing::warn!(run = %task.run, activity_type = task.activity_type, "{warning}");
            }
            self.begin_task(ports.clone(), task);
        }
        futures::future::ready(Ok(())).boxed()
    }

    /// One process serves every queue, whatever it is called.
    fn no_such_queue(&self, _: Option<&str>) -> Option<String> {
        None
    }
}

impl Workers {
    /// What to say of the task's queue when it comes for the first time, and may be misspelled: here that does no harm,
    /// where queues are deployed the activity waits for ever.
    fn undeclared_queue(&self, task: &ActivityTask) -> Option<String> {
        let name = task.options.task_queue.as_deref().filter(|name| *name != DEFAULT_TASK_QUEUE)?;
        let declared: Vec<_> = self.app.declared().task_queues().collect();
        if declared.contains(&name) {
            return None;
        }
        let mut told = self.undeclared.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_TOLD || !told.insert(name.to_owned()) {
            return None;
        }
        let known = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
        Some(format!(
            "an activity is for the task queue {name:?}, and the App names: {known}. Here one process serves all; \
             deployed, the activity waits for as long as there is no queue of that name. If it is right, add \
             `.task_queue({name:?})` to the App"
        ))
    }

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

#[cfg(test)]
mod tests {
    use dormouse_core::{Payload, RecordedOptions, RecordedRetry, RetryPolicy, RunId, WorkflowKey};

    use super::*;
    use crate::host::Machine;

    fn task(task_queue: Option<&str>) -> ActivityTask {
        ActivityTask {
            run: WorkflowKey::new("default", "w").unwrap().run(0),
            run_id: RunId::from_bytes([1; 16]),
            id: 1,
            activity_type: "resize".into(),
            input: Payload::NULL,
            options: RecordedOptions {
                start_to_close_ms: Some(1),
                schedule_to_close_ms: None,
                schedule_to_start_ms: None,
                heartbeat_ms: None,
                retry: RecordedRetry::from(&RetryPolicy::DEFAULT),
                task_queue: task_queue.map(str::to_owned),
            },
            scheduled_at: dormouse_core::Timestamp::from_millis(1),
            lost: 0,
            not_before: dormouse_core::Timestamp::from_millis(1),
        }
    }

    #[tokio::test]
    async fn a_task_queue_that_the_app_does_not_name_is_told_once() {
        let app = Arc::new(App::new().task_queue("gpu"));
        let workers = Workers::new(Arc::new(Machine::here()), app, 1);
        for queue in [None, Some("default"), Some("gpu")] {
            assert_eq!(workers.undeclared_queue(&task(queue)), None);
        }
        let told = workers.undeclared_queue(&task(Some("gpuu"))).expect("a warning");
        assert!(told.contains("\"gpuu\"") && told.contains("names: gpu."), "{told}");
        assert_eq!(workers.undeclared_queue(&task(Some("gpuu"))), None, "once");
    }
}
