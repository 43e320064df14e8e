//! `workflow terminate`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::error::CliError;
use crate::output::{Format, say, tame, wrapped};
use crate::remote::{Which, request_id, write_error};
use crate::verb::{Context, Verb};

/// End a workflow at once, without asking its code: also when that code cannot go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow terminate example-1 --reason 'started by mistake'
  workflow list --status Running                  shows which runs are parked

What was under way is told that nobody waits for it any more; nothing is undone. To let the workflow clean up first,
ask it with `workflow cancel`. Exits with 1 when the workflow has ended already.")]
pub(crate) struct Terminate {
    #[command(flatten)]
    which: Which,
    /// Why, for those who read the history
    #[arg(long, default_value = "")]
    reason: String,
    /// Names this request: the same name again does nothing more
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
}

impl Verb for Terminate {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let parked = self.which.parked().await;
        let request_id = request_id(self.request_id);
        let sent = self.which.handle()?.terminate(&self.reason, Some(&request_id)).await;
        sent.map_err(|error| write_error(error, &cx, &request_id))?;
        let id = tame(&self.which.workflow_id);
        match (cx.format, parked) {
            (Format::Table, Some(parked)) => say(&format!(
                "Terminated {id}; it was parked, and none of its code ran for this. It had stood still because:\n  {}",
                wrapped(&parked.reason, "  ")
            ))?,
            (format, parked) => self.which.told(&format!("Terminated {id}"), parked, json!({}), format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
