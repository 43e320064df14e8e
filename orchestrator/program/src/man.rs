//! `man`: manual pages, made from what `--help` says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man as Page;
use dormouse_cli::{CliError, Context, Verb};

/// Print the manual page of a verb, or write the pages of all
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  {program} man workflow start | man -l -                  read one
  {program} man --dir ~/.local/share/man/man1              keep all; then `man {program}-workflow-start`")]
pub(crate) struct Man {
    /// The verb; without it, the program
    verb: Vec<String>,
    /// Write the pages of all verbs into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    dir: Option<PathBuf>,
}

impl Verb for Man {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let mut command = cx.command().disable_help_subcommand(true);
        command.build();
        match &self.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                clap_mangen::generate_to(command, dir)?;
                cx.say(&format!("Wrote the pages into {}", dir.display()))?;
            }
            None => {
                let mut page = Vec::new();
                Page::new(below(&command, &self.verb)?.clone()).render(&mut page)?;
                cx.say(String::from_utf8_lossy(&page).trim_end())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The verb that these words name.
fn below<'c>(command: &'c Command, words: &[String]) -> Result<&'c Command, CliError> {
    words.iter().try_fold(command, |command, word| {
        command.find_subcommand(word).ok_or_else(|| {
            let there: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            CliError::usage(format!("there is no verb {word:?}")).hint(format!("there are {}", there.join(", ")))
        })
    })
}
