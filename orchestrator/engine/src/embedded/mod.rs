//! The embedded runtime: one process, one store, queues and alarms in memory.
//!
//! Nothing in memory needs to survive. At start-up every open run is found through its index row, and what is
//! outstanding is derived from its history, so `kill -9` at any instant loses nothing that was acknowledged.

mod alarms;
mod closings;
mod mailroom;
mod pick_up;
mod shard;
mod trials;
mod workers;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{App, InvalidApp, MAX_PAYLOAD_BYTES};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::FrontDoor;
use crate::host::Machine;
use crate::intake::Intake;
use crate::parkings::Parkings;
use crate::ports::{Choices, Ports};
use crate::seams::Host;
use crate::states::States;
use crate::stop::Stop;
use crate::store::{Store, StoreError};
use crate::sweep::sweep_once;
use crate::thread::Context;

use alarms::AlarmClock;
use closings::Notices;
use mailroom::{Mailroom, Post};
use pick_up::{
    begin_trials, end_probations, end_trials, pick_up, suspects_among, tell_what_stands_still, try_suspects,
};
use shard::Shards;
use trials::Trials;
use workers::Workers;

/// The namespace of an engine that is told no other.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How the embedded runtime is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespace that requests mean.
    pub namespace: String,
    /// Names this build of the code: another one tries parked runs at once.
    pub build: String,
    /// How often the sweep looks for overdue runs.
    pub sweep_interval: Duration,
    /// Threads that run workflow code; as many as processors unless told otherwise.
    pub workflow_threads: usize,
    /// Activities that may run at the same time.
    pub concurrent_activities: usize,
    /// Runs kept in memory.
    pub warm_runs: usize,
    /// The longest a workflow's code may hold a turn.
    pub turn_limit: Duration,
    /// The largest input, signal or result, in bytes of JSON; [`MAX_PAYLOAD_BYTES`] at most.
    pub max_payload_bytes: usize,
    /// A file that stands while the process lives, of this store alone: in it the next process finds whose code ran when
    /// this one ended without being told to, and tries those runs alone and under suspicion. None: it does not find out,
    /// and a run whose code ends the process ends each next one.
    pub trials: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: DEFAULT_NAMESPACE.into(),
            build: default_build(),
            sweep_interval: Duration::from_mins(1),
            workflow_threads: std::thread::available_parallelism().map_or(2, usize::from),
            concurrent_activities: 1000,
            warm_runs: 10_000,
            turn_limit: Duration::from_secs(10),
            max_payload_bytes: MAX_PAYLOAD_BYTES,
            trials: None,
        }
    }
}

/// `DORMOUSE_BUILD_ID`, or a name that changes whenever the program file does.
fn default_build() -> String {
    if let Ok(build) = std::env::var("DORMOUSE_BUILD_ID") {
        return build;
    }
    let changed = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified());
    let changed = changed.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{}-{}", env!("CARGO_PKG_VERSION"), changed.map_or(0, |at| at.as_millis()))
}

/// Why the embedded runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The application is registered wrongly.
    #[error(transparent)]
    App(#[from] InvalidApp),
    /// The store did not answer while outstanding work was picked up.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The file of [trials](Settings::trials) cannot be read or written.
    #[error("the file {} can not be used: {error}", .path.display())]
    Trials {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// However little of the grace is left, turns under way have so long to end. Other than activities they are short.
const TURNS_END: Duration = Duration::from_millis(500);

/// The running engine.
pub struct Embedded {
    front: Arc<FrontDoor>,
    shards: Arc<Shards>,
    workers: Arc<Workers>,
    trials: Option<Arc<Trials>>,
    /// What goes on for ever: alarms, the sweep, the watch over threads.
    rounds: TaskTracker,
    stopping: CancellationToken,
    ports: Ports,
}

impl Embedded {
    /// Begins over this store, and picks up all outstanding work. Call it inside a tokio runtime: activities run
    /// there; workflow code runs on threads of its own, without one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(app: Arc<App>, store: Arc<dyn Store>, mut settings: Settings) -> Result<Self, OpenError> {
        app.check()?;
        let (trials, found) = begin_trials(settings.trials.take())?;
        let (mailroom, inboxes) = Mailroom::new(settings.workflow_threads.max(1));
        let alarms = Arc::new(AlarmClock::new());
        let host: Arc<dyn Host> = Arc::new(Machine::here());
        let workers = Arc::new(Workers::new(Arc::clone(&host), Arc::clone(&app), settings.concurrent_activities));
        let ports = Ports {
            states: Arc::new(States::new(Arc::clone(&store), Arc::clone(&host))),
            store,
            runs: Arc::new(Post(Arc::clone(&mailroom))),
            activities: Arc::clone(&workers) as _,
            alarms: Arc::clone(&alarms) as _,
            host: Arc::clone(&host),
            closings: Arc::new(Notices::default()),
            parkings: Arc::new(match &trials {
                Some(trials) => Parkings::remembered_by(Arc::clone(trials) as _),
                None => Parkings::default(),
            }),
            stop: Stop::default(),
            choices: Choices {
                namespace: settings.namespace.into(),
                build: settings.build.into(),
                sweep_interval: settings.sweep_interval,
                shared: false,
                max_payload_bytes: settings.max_payload_bytes.min(MAX_PAYLOAD_BYTES),
                limits: dormouse_core::Limits::DEFAULT,
                declared: Arc::new(app.declared().clone()),
            },
        };
        workers.begin(ports.clone());
        let intake = Arc::new(Intake::new(ports.clone()));
        let warm_runs = NonZeroUsize::new(settings.warm_runs.div_ceil(settings.workflow_threads.max(1)))
            .unwrap_or(NonZeroUsize::MIN);
        let context = Context { app, ports: ports.clone(), warm_runs, turn_limit: settings.turn_limit };
        let shards = Shards::begin(context, Arc::clone(&mailroom), trials.clone(), inboxes)?;
        let front = Arc::new(FrontDoor::new(ports.clone(), intake, Arc::clone(&mailroom) as _));

        let suspects = suspects_among(&ports, found).await?;
        tell_what_stands_still(&ports).await?;
        pick_up(&ports, &mailroom, &suspects).await?;
        let (rounds, stopping) = (TaskTracker::new(), CancellationToken::new());
        let alarms = alarms.ring(Arc::clone(&ports.runs), Arc::clone(&host));
        let begun = [
            alarms.boxed(),
            try_suspects(ports.clone(), suspects).boxed(),
            end_probations(ports.clone()).boxed(),
            sweep(ports.clone()).boxed(),
            Arc::clone(&shards).watch().boxed(),
        ];
        for round in begun {
            let round = stopping.clone().run_until_cancelled_owned(round).map(drop);
            ports.host.spawn(rounds.track_future(round).boxed());
        }
        Ok(Self { front, shards, workers, trials, rounds, stopping, ports })
    }

    /// The front door.
    #[must_use]
    pub fn front(&self) -> Arc<FrontDoor> {
        Arc::clone(&self.front)
    }

    /// Stops: nothing new begins, activities that run may end within `grace`, then the threads end. Whatever is cut
    /// off is picked up at the next start, so `grace` zero is safe too. The store is let go, unless something was cut off
    /// or somebody holds on to the front door.
    pub async fn shutdown(self, grace: Duration) {
        self.stopping.cancel();
        self.rounds.close();
        // Gone, with what they held.
        self.rounds.wait().await;
        self.workers.stop();
        let Ports { host, stop, .. } = &self.ports;
        let by = host.instant() + grace.max(TURNS_END);
        stop.stop(host, grace).await;
        self.shards.stop(by.max(host.instant() + TURNS_END)).await;
        if let Some(trials) = self.trials {
            if host.timeout(TURNS_END, end_trials(&self.ports)).await.is_none() {
                tracing::warn!("the store does not answer; suspects are tried again at their time");
            }
            trials.end();
        }
    }
}

/// Looks for overdue runs, for ever (rule F6).
async fn sweep(ports: Ports) {
    loop {
        ports.host.sleep(ports.choices.sweep_interval).await;
        if let Err(error) = sweep_once(&ports, || true).await {
            tracing::warn!(%error, "the sweep was cut short; it looks again in {:?}", ports.choices.sweep_interval);
        }
    }
}
