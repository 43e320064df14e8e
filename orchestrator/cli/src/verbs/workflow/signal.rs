//! `workflow signal`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::error::CliError;
use crate::input::payload;
use crate::output::tame;
use crate::remote::{Which, request_id, write_error};
use crate::verb::{Context, Verb};

/// Send a signal to a workflow
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow signal example-1 {signal} --input 'JSON'
  workflow signal example-1 {signal} --input 'JSON' --request-id answer-1    safe to repeat

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
        let request_id = request_id(self.request_id);
        let sent = self.which.handle()?.signal(&self.name, &argument, Some(&request_id)).await;
        let answer = sent.map_err(|error| write_error(error, &cx, &request_id))?;
        let what = format!("Sent {} to {}", tame(&self.name), tame(&self.which.workflow_id));
        let mut more = json!({ "signal": self.name });
        if let Some(warning) = answer.warning {
            eprintln!("warning: {}", tame(&warning));
            more["warning"] = warning.into();
        }
        self.which.told(&what, parked, more, cx.format)?;
        Ok(ExitCode::SUCCESS)
    }
}
