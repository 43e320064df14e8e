//! `workflow terminate`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::output::{Format, say, say_json, tame, tame_lines};
use crate::remote::{Which, told};
use crate::verb::{Context, Verb};

/// End a workflow at once, without asking its code: also when that code cannot go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow terminate order-1 --reason 'started by mistake'
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
        self.which.handle()?.terminate(&self.reason, self.request_id.as_deref()).await?;
        let id = tame(&self.which.workflow_id);
        match (cx.format, parked) {
            (Format::Json, parked) => say_json(&told(&self.which, parked))?,
            (Format::Table, None) => say(&format!("Terminated {id}"))?,
            (Format::Table, Some(parked)) => say(&format!(
                "Terminated {id}; it was parked, and none of its code ran for this. It had stood still because:\n  {}",
                tame_lines(&parked.reason, "  ")
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
