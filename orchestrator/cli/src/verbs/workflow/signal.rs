//! `workflow signal`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::input::payload;
use crate::output::{Format, say, say_json, tame, tame_lines};
use crate::remote::{Which, told};
use crate::verb::{Context, Verb};

/// Send a signal to a workflow
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow signal expense-7 approval --input true
  workflow signal expense-7 approval --input true --request-id answer-1    safe to repeat

Done when the signal is in the history. An argument that does not fit the type which the application declares for the
signal is refused, and nothing is written (exit code 1). A name that the application does not declare, while it declares
others, is warned of on standard error.")]
pub(crate) struct Signal {
    #[command(flatten)]
    which: Which,
    /// The signal's name
    name: String,
    /// Its argument: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Names this request: the same name again sends nothing more
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
}

impl Verb for Signal {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let argument = payload(self.input.as_deref())?;
        let parked = self.which.parked().await;
        let answer = self.which.handle()?.signal(&self.name, &argument, self.request_id.as_deref()).await?;
        if let Some(warning) = &answer.warning {
            eprintln!("warning: {}", tame(warning));
        }
        let sent = format!("Sent {} to {}", tame(&self.name), tame(&self.which.workflow_id));
        match (cx.format, parked) {
            (Format::Json, parked) => {
                let mut told = told(&self.which, parked);
                told["signal"] = self.name.into();
                if let Some(warning) = answer.warning {
                    told["warning"] = warning.into();
                }
                say_json(&told)?;
            }
            (Format::Table, None) => say(&sent)?,
            (Format::Table, Some(parked)) => say(&format!(
                "{sent}; it is parked and sees the signal when its code can go on. It stands still because:\n  {}",
                tame_lines(&parked.reason, "  ")
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
