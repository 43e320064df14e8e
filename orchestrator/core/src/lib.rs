//! The pure core of Dormouse: what users import, and how a history becomes a decision.
//!
//! Nothing here reads a clock, draws a random number, starts a thread or does I/O. The engine does, and hands the
//! results in.
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`history`] | what a history is made of, how it is stored, what it amounts to |
//! | `accept` | what arrives, held against the history |
//! | `live` | replay and decision: a run with its future |
//! | `outstanding` | what a history leaves to be done |
//! | `workflow`, `activity`, `app` | what user code sees |

mod accept;
mod activity;
pub mod api;
mod app;
mod divergence;
mod failure;
pub mod history;
mod ids;
mod live;
mod names;
mod options;
mod outstanding;
mod path_part;
mod payload;
pub mod planted;
mod status;
mod time;
mod workflow;

pub use accept::{Arrival, IdConflictPolicy, IdReusePolicy, Refusal, StartRequest, StartVerdict};
pub use activity::{Activity, ActivityHost, ActivityInfo};
pub use app::{
    ActivityFunction, ActivityFuture, ActivityTarget, App, InvalidApp, Remote, WorkflowFunction, WorkflowFuture,
};
pub use divergence::{Asked, TurnFailure, panic_message};
pub use failure::{Canceled, Failure, FailureKind, MAX_CAUSES, OrFail, RetryState, TimeoutKind};
pub use ids::{BatchHash, CommitId, InvalidId, MAX_ID_BYTES, RunId, RunKey, WorkflowKey, check_id, derive};
pub use live::{Decision, LiveRun, Merge, QueryFailure, Retake};
pub use names::{Query, RemoteActivity, Signal};
pub use options::{
    ActivityOptions, DEFAULT_TASK_QUEUE, LocalActivityOptions, MAX_LOCAL_START_TO_CLOSE, RecordedOptions,
    RecordedRetry, RetryPolicy, Verdict,
};
pub use outstanding::{ActivityTask, Debt, Owed};
pub use path_part::{InvalidPathPart, read_path_part, write_path_part};
pub use payload::{MAX_PAYLOAD_BYTES, Payload};
pub use status::{Status, UnknownStatus};
pub use time::{Timestamp, millis};
pub use workflow::{
    ActivityCall, CloseLimit, LocalActivityCall, LocalCall, NeedsCloseLimit, Pending, Published, Random, Signals,
    Sleep, Timeout, WaitSignal, WaitUntil, Workflow, WorkflowInfo,
};

/// What the macros expand to; not for direct use.
#[doc(hidden)]
pub mod __macros {
    pub use futures::future::Either;
    pub use futures::{FutureExt, join, select_biased};
}
