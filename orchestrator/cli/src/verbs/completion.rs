//! `completion`: lets the shell complete verbs and options.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::error::CliError;
use crate::output::say;
use crate::verb::{Context, Verb};

/// Print a script that lets a shell complete verbs and options
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <({program} completion bash)                                  for this shell
  {program} completion zsh > ~/.zfunc/_{program}                       where zsh looks for it ($fpath)
  {program} completion fish > ~/.config/fish/completions/{program}.fish")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Verb for Completion {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let mut command = cx.command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        say(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
