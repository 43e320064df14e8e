//! What an activity sees of its surroundings.

use std::panic::Location;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::history::CommandId;
use crate::ids::{RunId, RunKey};
use crate::payload::Payload;
use crate::place::Place;
use crate::time::Timestamp;
use crate::tools::Tools;

/// The longest details of a heartbeat, in bytes of JSON: they are written often, and beside other things.
pub const MAX_HEARTBEAT_BYTES: usize = 64 * 1024;

/// Which attempt of which activity this is.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivityInfo {
    /// The run that asked for it.
    pub run: RunKey,
    /// The run's identity.
    pub run_id: RunId,
    /// Its wire name.
    pub activity_type: String,
    /// Its id within the run.
    pub activity_id: CommandId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When the workflow asked for it.
    pub scheduled_at: Timestamp,
    /// The details of the last heartbeat of an earlier attempt.
    pub last_heartbeat: Option<Payload>,
}

/// Why an activity should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Its workflow gave it up, or has closed: nobody wants its outcome. Known by heartbeats.
    Requested,
    /// A newer attempt took over: this one's outcome is not taken. Known by heartbeats.
    Superseded,
    /// A time limit has passed; the code ends at its next await.
    TimedOut,
    /// The program stops. There is a moment left (`dev --grace`) to end, or to say by a heartbeat how far the work got; what is
    /// not done by then is cut off and counts as a lost attempt. Whoever returns a failure has used up an attempt, too.
    WorkerShutdown,
}

/// What the surroundings of a running activity must offer.
pub trait ActivityHost: Send + Sync {
    /// The activity is alive and got this far.
    fn heartbeat(&self, details: Payload);
    /// Why it should stop, if it should.
    fn cancel_reason(&self) -> Option<CancelReason>;
    /// Resolves when it should stop.
    fn canceled(&self) -> BoxFuture<'_, CancelReason>;
}

/// The context of an activity: who it is, its tools, and its line to the engine. Cloning is cheap.
#[derive(Clone)]
pub struct Activity {
    info: Arc<ActivityInfo>,
    tools: Tools,
    host: Arc<dyn ActivityHost>,
}

impl Activity {
    /// A context; for those who run activities.
    #[must_use]
    pub fn new(info: ActivityInfo, tools: Tools, host: Arc<dyn ActivityHost>) -> Self {
        Self { info: Arc::new(info), tools, host }
    }

    /// Which attempt of which activity this is.
    #[must_use]
    pub fn info(&self) -> &ActivityInfo {
        &self.info
    }

    /// The workflow that asked for it.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        &self.info.run.workflow.workflow_id
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.info.attempt
    }

    /// The same for every attempt of this activity, and for no other: give it to whoever must not act twice.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.info.run_id, self.info.activity_id)
    }

    /// A tool that was given to [`App::provide`](crate::App::provide).
    ///
    /// # Panics
    /// When none of this type was provided; the attempt then fails with that message.
    #[must_use]
    #[track_caller]
    pub fn get<T: Send + Sync + 'static>(&self) -> &T {
        match self.tools.get() {
            Some(tool) => tool,
            None => panic!("no {} was provided; add `.provide(...)` to the App", std::any::type_name::<T>()),
        }
    }

    /// Tells the engine that the activity is alive and how far it got. The details reach the next attempt.
    /// Cheap: the engine writes at most one heartbeat per 0.8 of the heartbeat limit (30 s when there is none).
    ///
    /// # Errors
    /// When the details do not serialize; the type `HeartbeatTooLarge` beyond [`MAX_HEARTBEAT_BYTES`]. The sign of life
    /// is then not given: give smaller details, and keep what is large elsewhere.
    #[track_caller]
    pub fn heartbeat<T: Serialize + ?Sized>(&self, details: &T) -> Result<(), Failure> {
        let place = Place::from(Location::caller());
        let details =
            Payload::encode(details).map_err(|failure| failure.about("the details of a heartbeat", Some(&place)))?;
        if details.len() > MAX_HEARTBEAT_BYTES {
            let length = details.len();
            let message =
                format!("the details of a heartbeat are {length} bytes of JSON; the limit is {MAX_HEARTBEAT_BYTES}");
            return Err(Failure::unplaced(message).with_type("HeartbeatTooLarge").non_retryable().at(Some(&place)));
        }
        self.host.heartbeat(details);
        Ok(())
    }

    /// How far the last attempt got.
    ///
    /// # Errors
    /// When the recorded details do not fit `T`.
    #[track_caller]
    pub fn last_heartbeat<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let place = Place::from(Location::caller());
        let read = self.info.last_heartbeat.as_ref().map(Payload::decode).transpose();
        read.map_err(|failure| failure.about("the details of the last heartbeat", Some(&place)))
    }

    /// Whether the activity should stop, for any [`CancelReason`].
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.cancel_reason().is_some()
    }

    /// Why the activity should stop, if it should: the first reason that there was.
    #[must_use]
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        self.host.cancel_reason()
    }

    /// Resolves when the activity should stop, with the reason.
    pub async fn canceled(&self) -> CancelReason {
        self.host.canceled().await
    }
}
