//! The command line: an application's binary with its verbs, one file each.
//!
//! [`Cli`] is the program: `dev`, `replay`, `workflow ...`, `quarantine ...` and `completion`, and whatever [`Verb`]s the
//! application adds. [`Cli::client`] is the same for no application, without the first two.

mod cli;
mod error;
mod examples;
mod exit;
mod format;
mod input;
mod key;
mod output;
mod parked;
mod place;
mod remote;
mod timeline;
mod verb;
mod verbs;

use std::process::ExitCode;

use dormouse_core::App;

pub use cli::Cli;
pub use error::CliError;
pub use exit::{
    EXIT_DOES_NOT_FIT, EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOT_FOUND, EXIT_PARKED, EXIT_REFUSED, EXIT_RUNNING,
    EXIT_UNREACHABLE, EXIT_USAGE, EXIT_WORKFLOW_FAILED,
};
pub use format::Format;
pub use remote::{AuthKind, Remote};
pub use timeline::{Timeline, timeline};
pub use verb::{Context, Verb};

/// Runs the command line of this application, without verbs of its own.
#[must_use]
pub fn run(app: App) -> ExitCode {
    Cli::new(app).main()
}
