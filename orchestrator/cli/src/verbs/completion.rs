//! `completion`: lets the shell complete verbs and options.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use clap_complete::Shell;

use crate::error::CliError;
use crate::output::say;
use crate::verb::{Context, Verb};

/// The verb's name.
pub(crate) const COMPLETION: &str = "completion";

/// Print a script that lets a shell complete verbs and options
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  source <(my-app completion bash)")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Verb for Completion {
    async fn run(self, _: Context) -> Result<ExitCode, CliError> {
        Err(CliError::new("completion needs the whole command line"))
    }
}

/// The one verb that needs to see all others, so it is run from where they are known.
pub(crate) fn complete(matches: &ArgMatches, command: &mut Command) -> Result<ExitCode, CliError> {
    let Completion { shell } =
        Completion::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
