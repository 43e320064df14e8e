//! What travels on the queues: one JSON object per message, the same for senders and receivers in every language.
//!
//! Every message has `"v"`, the version of this contract (now 1), and `"kind"`. Readers ignore fields that they do not
//! know. A version or kind that they do not know makes the message a dead letter: nobody guesses. Fields are only
//! added; what would change the meaning of old ones gets a new version. Ids are strings, times are milliseconds since
//! the Unix epoch, payloads are JSON values and arrive byte for byte as they were sent.
//!
//! # For workers in any language
//!
//! A task, on the task queue that the workflow named (or on `default`):
//!
//! ```json
//! {
//!   "v": 1, "kind": "activity_task",
//!   "run": {"namespace": "default", "workflow_id": "order-1", "ordinal": 0,
//!           "run_id": "0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77"},
//!   "activity_id": "3", "activity_type": "charge", "input": {"order_id": "order-1"},
//!   "options": {"start_to_close_ms": 60000, "heartbeat_ms": 5000,
//!               "retry": {"initial_interval_ms": 1000, "backoff_coefficient": 2.0, "maximum_interval_ms": 100000,
//!                         "maximum_attempts": 5, "non_retryable_types": ["CardDeclined"]}},
//!   "scheduled_at_ms": 1763820000000, "not_before_ms": 1763820000000, "not_after_ms": 1765029600000,
//!   "lost_attempts": 0, "reply_group": "199833d958b78baa734e995e0da5d2b4"
//! }
//! ```
//!
//! - After `not_after_ms` run nothing: the record of attempts may be gone (rule C4). The engine sends a fresh task if
//!   the activity is still wanted.
//! - Before `not_before_ms` run nothing: send the message to the same queue again, with a delay.
//! - `run.run_id` and `activity_id` together are the idempotency key towards the world outside.
//! - `lost_attempts`: attempts up to this one are over, whatever their record says.
//! - Claim the next attempt in the attempt record before anything else (`attempts.rs` has its states). The record and
//!   this message are all that a worker needs.
//!
//! A final outcome goes to the run queue, with `reply_group` as the message group and a fresh deduplication id. `run`
//! and `activity_id` are copied from the task, `attempt` is the one that was claimed:
//!
//! ```json
//! {"v": 1, "kind": "activity_completed", "run": {}, "activity_id": "3", "attempt": 1, "result": {"receipt": "r-1"}}
//! ```
//! ```json
//! {"v": 1, "kind": "activity_failed", "run": {}, "activity_id": "3", "attempt": 1,
//!  "failure": {"message": "the card was declined", "type": "CardDeclined", "non_retryable": true},
//!  "retry_state": "non_retryable_failure"}
//! ```
//!
//! Nothing else is taken from a worker: a message of another kind on the run queue goes into quarantine, unless it was
//! sent by the engine's own functions.
//!
//! In a failure only `message` is needed; `details` may hold any JSON, `cause` another failure. `retry_state` says why
//! no further attempt is made: `non_retryable_failure` (also when it is left out), `maximum_attempts_reached`,
//! `timeout`, `cancel_requested`. A failure that is to be tried again is no message: it is written to the record, and
//! the task is sent again with a later `not_before_ms`.
//!
//! What is larger than [`LARGEST_BODY`], or holds text that a queue cannot carry, lies in the bucket, and a pointer
//! travels: `{"v": 1, "kind": "stored", "key": "messages/...", "bytes": 300000}`.
//!
//! # Between the engine's own functions
//!
//! | kind | besides `v` and `kind` |
//! | --- | --- |
//! | `start` | `run`, `workflow_type`, `input`, `request_id`, `reuse`, `conflict` |
//! | `take` | `run`, `pinned`, `arrival`: an object with a `kind` of those marked * |
//! | `accepted` | `run`, `sequence`, `record`: the stored batch in base64 |
//! | `sweep` | `run` |
//! | `join` * | `run`, `request_id` |
//! | `signal` * | `run`, `request_id`, `name`, `payload` |
//! | `cancel` * | `run`, `request_id`, `reason` |
//! | `terminate` * | `run`, `request_id`, `reason`, `next` or nothing |
//! | `activity_completed` *, `activity_failed` * | see above |
//! | `attempt_lost` * | `run`, `activity_id`, `attempt`, `timeout`, `last_heartbeat` or nothing |
//! | `never_taken` * | `run`, `activity_id` |
//! | `local_completed` *, `local_failed` * | as those of activities |
//! | `local_backoff` * | `run`, `activity_id`, `attempt`, `failure`, `retry_at_ms` |
//! | `alarm_rang` * | `run` |
//! | `alarm` | on the alarm queue: `run`, `due_ms` |
//! | `deferred` | on the alarm queue: `task_queue`, `due_ms`, `body`: the message to forward then |
//!
//! `run` has a `run_id` wherever the message is for one run and no other; `start`, `take`, `accepted` and `sweep` do
//! without.

mod arrival;
mod call;
mod decider;
mod detour;
mod json;
mod message;
mod run;
mod task;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dormouse_core::{ActivityTask, Arrival, RunId, RunKey, Timestamp, WorkflowKey, derive};

use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::StoreError;

/// The version of the contract that this build writes, and the only one that it reads.
pub const VERSION: u64 = 1;

/// The longest body that travels on a queue itself, in bytes. SQS and EventBridge Scheduler take 256 KB; the rest is
/// for what a message is wrapped in.
pub const LARGEST_BODY: usize = 200 * 1024;

/// The longest life of a task's message: SQS keeps messages for at most 14 days. Attempt records live longer.
pub const LONGEST_LIFE: Duration = Duration::from_hours(14 * 24);

/// Anything that travels on a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// On the run queue.
    Run(RunMessage),
    /// On a task queue.
    Task(Task),
    /// On the alarm queue: ring a run.
    Alarm(Alarm),
    /// On the alarm queue: forward this to a task queue.
    Deferred(Deferred),
    /// On any queue: the message is in the bucket.
    Stored(Stored),
}

/// An activity task on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What is to be done.
    pub task: ActivityTask,
    /// Nothing is run after this (rule C4). A property of the message: each dispatch of the same task has its own.
    pub not_after: Timestamp,
}

/// An alarm on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// The run to ring.
    pub run: RunKey,
    /// Its identity.
    pub run_id: RunId,
    /// Not before this.
    pub due: Timestamp,
}

/// A message for a task queue that is too early for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Deferred {
    /// The name of the task queue.
    pub task_queue: String,
    /// Not before this.
    pub due: Timestamp,
    /// The message: JSON text.
    pub body: String,
}

/// A pointer to a message in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object: `messages/` and a hash of its content.
    pub key: String,
    /// Its length.
    pub bytes: u64,
}

/// Why a body is not a message, or a message has no body. Trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It was written by a later version of the contract.
    #[error("a message of version {0}; this build reads version {VERSION}: deploy one that knows it, then redrive")]
    Version(u64),
    /// It is of a kind that this build does not know.
    #[error("a message of the unknown kind {0:?}: deploy a build that knows it, then redrive")]
    Kind(String),
    /// It is no JSON, or not of the shape that its kind calls for.
    #[error("not a message: {0}")]
    Malformed(String),
}

impl WireError {
    /// Nobody guesses. Of a name that is no name, the beginning.
    fn of_kind(kind: &str) -> Self {
        Self::Kind(kind.chars().take(64).collect())
    }
}

impl From<WireError> for StoreError {
    fn from(error: WireError) -> Self {
        Self::refused(error.to_string())
    }
}

/// Whether this is what workers tell runs: outcomes of attempts that they have made or found lost. Nobody else's word is
/// in it, so whoever may run activities may send it.
#[must_use]
pub fn is_of_workers(message: &RunMessage) -> bool {
    match message {
        RunMessage::Intent(_) | RunMessage::Accepted { .. } | RunMessage::Sweep { .. } => false,
        RunMessage::Arrived { arrival, .. } => match arrival {
            Arrival::ActivityCompleted(_) | Arrival::ActivityFailed(_) | Arrival::AttemptLost(_) => true,
            Arrival::Join(_)
            | Arrival::Signal(_)
            | Arrival::Cancel(_)
            | Arrival::Terminate(_)
            | Arrival::NeverTaken(_)
            | Arrival::LocalCompleted(_)
            | Arrival::LocalFailed(_)
            | Arrival::LocalBackoff(_)
            | Arrival::Alarm => false,
        },
    }
}

/// Writes a message.
///
/// # Errors
/// [`WireError::Malformed`] when a payload or a deferred body is no JSON.
pub fn encode(message: &Message) -> Result<String, WireError> {
    message::write(message)
}

/// Reads a message.
///
/// # Errors
/// [`WireError`]: quarantine it.
pub fn decode(body: &str) -> Result<Message, WireError> {
    message::read(body)
}

/// The message group of a workflow on the run queue: its messages are handled one after another. The same in every
/// build; 32 hexadecimal digits, whatever the ids hold.
#[must_use]
pub fn group(workflow: &WorkflowKey) -> String {
    hex(derive("dormouse message group", &[workflow.namespace.as_bytes(), workflow.workflow_id.as_bytes()]))
}

pub(crate) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

impl Stored {
    /// Where a body belongs. A body that is stored twice is stored once.
    #[must_use]
    pub fn of(body: &str) -> Self {
        Self { key: format!("messages/{}", hash(body)), bytes: body.len() as u64 }
    }

    /// Whether this is the body that was stored.
    #[must_use]
    pub fn holds(&self, body: &str) -> bool {
        *self == Self::of(body)
    }
}

fn hash(body: &str) -> String {
    hex(derive("dormouse stored message", &[body.as_bytes()]))
}
