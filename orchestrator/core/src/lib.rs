//! The pure core of Dormouse: what users import, and how a history becomes a decision.
//!
//! Nothing here reads a clock, draws a random number, starts a thread or does I/O. The engine does, and hands the
//! results in.

mod failure;
pub mod history;
mod ids;
mod names;
mod options;
mod payload;
pub mod planted;
mod status;
mod time;

pub use failure::{Canceled, Failure, FailureKind, MAX_CAUSES, OrFail, RetryState, TimeoutKind};
pub use ids::{BatchHash, CommitId, InvalidId, MAX_ID_BYTES, RunId, RunKey, WorkflowKey, check_id, derive};
pub use names::{Query, Signal};
pub use options::{
    ActivityOptions, LocalActivityOptions, MAX_LOCAL_START_TO_CLOSE, RecordedOptions, RecordedRetry, RetryPolicy, Verdict,
};
pub use payload::Payload;
pub use status::{Status, UnknownStatus};
pub use time::{Timestamp, millis};
