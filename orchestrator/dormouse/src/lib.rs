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
//! | starting them from other programs | [`Client`] |
//! | the binary and its command line | [`main`], [`cli`], [`Verb`] |
//! | running the engine inside a program | [`Server`], [`Embedded`], [`Settings`] |

use std::process::ExitCode;

pub use dormouse_cli::{Cli, CliError, Context, Format, Timeline, Verb, timeline};
#[cfg(feature = "aws")]
pub use dormouse_client::AwsSigner;
pub use dormouse_client::{
    Auth, BearerToken, Client, ClientError, ListFilter, RawClient, RawHandle, StartCall, WorkflowHandle,
};
pub use dormouse_core::{
    Activity, ActivityFunction, ActivityInfo, ActivityOptions, App, BlockingFunction, CancelReason, Canceled, Failure,
    FailureKind, IdConflictPolicy, IdReusePolicy, LocalActivityOptions, OrFail, Payload, Pending, Published, Query,
    Random, RemoteActivity, RetryPolicy, RetryState, RunId, Signal, Signals, Status, TimeoutKind, Timestamp, Workflow,
    WorkflowFunction, WorkflowInfo, api, join, select,
};
pub use dormouse_engine::embedded::{Embedded, OpenError, Settings};
pub use dormouse_engine::store::Store;
#[cfg(feature = "s3")]
pub use dormouse_engine::stores::object::{ObjectStore, OwnError, OwnerSettings, Ownership};
pub use dormouse_engine::stores::sqlite::SqliteStore;
pub use dormouse_http::{AllowedHost, Hosts, InvalidHost, Limits, Listen, Server, StartError, openapi_json, router};

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
