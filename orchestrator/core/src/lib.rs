//! The pure core of Dormouse: what users import, and how a history becomes a decision.
//!
//! Nothing here reads a clock, draws a random number, starts a thread or does I/O. The engine does, and hands the
//! results in.
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`operations`] | each kind of operation in a file: its records, what is pending of it, its transitions |
//! | [`history`] | what a history is made of, how it is stored, how people read it |
//! | [`run`] | what a history amounts to, what may be added to it, what it leaves to be done; decision |
//! | [`program`] | what runs a workflow's code; the raw context under the typed one |
//! | `activity`, `workflow`, `app` | what user code sees: the contexts, and the register of all functions |
//!
//! Arrows go one way: `app` and `workflow` stand on `program`, `run` drives programs, and all of them know
//! `operations` and `history`, which know none of them.

mod activity;
pub mod api;
mod app;
mod declared;
mod encoding;
mod failure;
mod functions;
pub mod history;
mod ids;
mod misfit;
mod names;
pub mod operations;
mod options;
mod panics;
mod path_part;
mod payload;
mod place;
pub mod planted;
pub mod program;
mod record_text;
pub mod run;
mod status;
mod time;
mod tools;
mod workflow;

pub use activity::{Activity, ActivityHost, ActivityInfo, CancelReason, MAX_HEARTBEAT_BYTES};
pub use app::{ActivityFuture, App, InvalidApp};
pub use declared::Declared;
pub use failure::{
    Canceled, Failure, FailureKind, MAX_CAUSES, MAX_FAILURE_BYTES, OrFail, RetryState, StdError, TimeoutKind,
};
pub use functions::{ActivityFunction, ActivityTarget, Blocking, BlockingFunction, FunctionNames, Remote};
pub use ids::{BatchHash, CommandId, CommitId, InvalidId, MAX_ID_BYTES, RunId, RunKey, WorkflowKey, check_id, derive};
pub use misfit::{Misfit, StoredKind, StoredMisfit};
pub use names::{Query, RemoteActivity, Signal};
pub use operations::{Arrival, Call, Refusal};
pub use options::{
    ActivityOptions, DEFAULT_TASK_QUEUE, LocalActivityOptions, MAX_LOCAL_START_TO_CLOSE, RecordedOptions,
    RecordedRetry, RetryPolicy, Verdict,
};
pub use panics::{Panic, Unregistered, catch, catch_async};
pub use path_part::{InvalidPathPart, read_path_part, write_path_part};
pub use payload::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Payload, nested_beyond};
pub use program::{Asked, Difference, LocalCall, ParkedCause, ParkedStep, TurnFailure, WorkflowInfo};
pub use run::{
    ActivityTask, Debt, Decision, IdConflictPolicy, IdReusePolicy, Limits, LiveRun, Merge, Owed, QueryFailure, Replay,
    ReplayVerdict, Replayed, Retake, RunState, StaleSnapshot, StartRequest, StartVerdict, Terms,
};
pub use status::{Status, StatusName, UnknownStatus};
pub use time::{Moment, Timestamp, millis};
pub use tools::Tools;
pub use workflow::{
    ActivityCall, CloseLimit, LocalActivityCall, NeedsCloseLimit, Pending, Published, Random, Signals, Sleep, Timeout,
    WaitSignal, WaitUntil, Workflow, WorkflowFunction,
};

/// What the macros expand to; not for direct use.
#[doc(hidden)]
pub mod __macros {
    pub use futures::future::Either;
    pub use futures::{FutureExt, join, select_biased};
}
