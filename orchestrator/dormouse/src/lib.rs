//! Dormouse: durable workflows without a server. The one crate that applications depend on.
//!
//! ```no_run
//! use dormouse::prelude::*;
//!
//! async fn greet(_: Activity, name: String) -> Result<String, Failure> {
//!     Ok(format!("Hello, {name}!"))
//! }
//!
//! async fn greeting_workflow(cx: Workflow, name: String) -> Result<String, Failure> {
//!     const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));
//!     Ok(cx.activity(greet, &name).options(PATIENT).await?)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     dormouse::main(App::new().workflow("greetingWorkflow", greeting_workflow).activity("greet", greet))
//! }
//! ```
//!
//! | what for | where |
//! | --- | --- |
//! | workflows and activities | [`Workflow`], [`Activity`], [`App`], [`Failure`] |
//! | what a workflow's context gives | [`ActivityCall`], [`LocalActivityCall`], [`Pending`], [`Sleep`], [`WaitSignal`], [`Timeout`] |
//! | starting them from other programs | [`Client`] |
//! | the binary and its command line | [`main`], [`cli`], [`Verb`] |
//! | running the engine inside a program | [`Server`], [`Embedded`], [`Settings`], [`FrontDoor`] |
//! | workflows that are no Rust functions | [`program`] |
//!
//! Everything that the contexts give has a name here, so that helpers can take and return it:
//!
//! ```
//! use dormouse::prelude::*;
//! use dormouse::{ActivityCall, ActivityTarget, Canceled, Pending, Sleep};
//!
//! /// How this application calls its activities.
//! fn patiently<A, F: ActivityTarget<A>>(cx: &Workflow, activity: F, input: &F::Input) -> ActivityCall<F::Output> {
//!     cx.activity(activity, input).start_to_close(Duration::from_mins(1)).retry(RetryPolicy::max_attempts(5))
//! }
//!
//! /// What is under way, once the pause is over.
//! async fn after<O: serde::de::DeserializeOwned>(pause: Sleep, work: Pending<O>) -> Result<O, Failure> {
//!     pause.await?;
//!     work.await
//! }
//!
//! async fn greet(_: Activity, name: String) -> Result<String, Failure> {
//!     Ok(format!("Hello, {name}!"))
//! }
//!
//! async fn slow_greeting(cx: Workflow, name: String) -> Result<String, Failure> {
//!     after(cx.sleep(Duration::from_secs(1)), patiently(&cx, greet, &name).start()).await
//! }
//! # let _ = App::new().workflow("slowGreeting", slow_greeting).activity("greet", greet);
//! ```

use std::process::ExitCode;

pub use dormouse_cli::{
    AuthKind, Cli, CliError, Context, EXIT_DOES_NOT_FIT, EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOT_FOUND, EXIT_PARKED,
    EXIT_REFUSED, EXIT_RUNNING, EXIT_UNREACHABLE, EXIT_USAGE, EXIT_WORKFLOW_FAILED, Format, Remote, Timeline, Verb,
    timeline,
};
#[cfg(feature = "aws")]
pub use dormouse_client::AwsSigner;
pub use dormouse_client::{
    Auth, BearerToken, Client, ClientError, ListFilter, RawClient, RawHandle, StartCall, WorkflowHandle,
};
pub use dormouse_core::{
    Activity, ActivityCall, ActivityFunction, ActivityFuture, ActivityHost, ActivityInfo, ActivityOptions,
    ActivityTarget, App, BlockingFunction, CancelReason, Canceled, CloseLimit, CommandId, DEFAULT_TASK_QUEUE, Declared,
    Failure, FailureKind, IdConflictPolicy, IdReusePolicy, InvalidApp, InvalidId, LocalActivityCall,
    LocalActivityOptions, MAX_CAUSES, MAX_FAILURE_BYTES, MAX_HEARTBEAT_BYTES, MAX_ID_BYTES, MAX_LOCAL_START_TO_CLOSE,
    MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Misfit, NeedsCloseLimit, OrFail, Panic, ParkedCause, ParkedStep, Payload,
    Pending, Published, Query, Random, RemoteActivity, ReplayVerdict, Replayed, RetryPolicy, RetryState, RunId, RunKey,
    Signal, Signals, Sleep, Status, StatusName, StdError, StoredKind, StoredMisfit, Timeout, TimeoutKind, Timestamp,
    Tools, UnknownStatus, Unregistered, WaitSignal, WaitUntil, Workflow, WorkflowFunction, WorkflowInfo, WorkflowKey,
    api, join, select,
};
pub use dormouse_engine::ApiError;
pub use dormouse_engine::embedded::{Embedded, OpenError, Settings};
pub use dormouse_engine::front::{FrontDoor, Target};
pub use dormouse_engine::seams::Letters;
pub use dormouse_engine::store::{self, Store};
#[cfg(feature = "s3")]
pub use dormouse_engine::stores::object::{ObjectStore, OwnError, OwnerSettings, Ownership};
pub use dormouse_engine::stores::sqlite::SqliteStore;
pub use dormouse_http::{
    AllowedHost, Connections, Hosts, InvalidHost, InvalidToken, Limits, Listen, MAX_WAIT, Server, StartError, Token,
    openapi_json, router,
};

#[cfg(feature = "testing")]
pub use dormouse_testing::kit as testing;

/// Workflows that are no Rust functions ([`App::program`]), and what the typed contexts stand on.
pub mod program {
    pub use dormouse_core::program::*;
    pub use dormouse_core::{Blocking, Call, FunctionNames, RecordedOptions, RecordedRetry, Remote, Verdict};
}

/// The program of this application: `dev` runs it, `workflow ...` uses it, `--help` says more. With the feature `aws`,
/// and started by Lambda, it serves invocations in the role that `DORMOUSE_ROLE` names.
#[must_use]
pub fn main(app: App) -> ExitCode {
    cli(app).main()
}

/// The same, to add verbs to: `dormouse::cli(app()).verb::<Demo>("demo").main()`.
#[must_use]
pub fn cli(app: App) -> Cli {
    let cli = Cli::new(app);
    #[cfg(feature = "aws")]
    let cli = cli.host(|app| dormouse_lambda::is_lambda().then(|| dormouse_lambda::main(app)));
    cli
}

/// What a file with workflows and activities needs.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Activity, ActivityOptions, App, Failure, LocalActivityOptions, OrFail, Query, RemoteActivity, RetryPolicy,
        Signal, Workflow, join, select,
    };
}

/// The chapters of `docs/`: their examples are tests.
#[cfg(all(doctest, feature = "testing"))]
mod docs {
    macro_rules! chapter {
        ($($name:ident: $file:literal),+ $(,)?) => {
            $(#[doc = include_str!(concat!("../../../docs/", $file))] mod $name {})+
        };
    }
    chapter! {
        changing_code: "changing-code.md",
        deterministic: "deterministic.md",
        errors: "errors.md",
        many_at_once: "many-at-once.md",
        parked: "parked.md",
        signals: "signals.md",
        testing: "testing.md",
    }
}
