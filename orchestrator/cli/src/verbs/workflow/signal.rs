//! `workflow signal`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::input::payload;
use crate::output::{Format, say, say_json, tame};
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// Send a signal to a workflow
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  workflow signal expense-7 approval --input true")]
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
        self.which.handle()?.signal(&self.name, &argument, self.request_id.as_deref()).await?;
        match cx.format {
            Format::Json => {
                say_json(&serde_json::json!({ "workflow_id": self.which.workflow_id, "signal": self.name }))?
            }
            Format::Table => say(&format!("Sent {} to {}", tame(&self.name), tame(&self.which.workflow_id)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
