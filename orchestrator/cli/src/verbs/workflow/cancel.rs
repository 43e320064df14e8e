//! `workflow cancel`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::output::{Format, quoted, say, say_json, tame, tame_lines};
use crate::remote::{Which, told};
use crate::verb::{Context, Verb};

/// Ask a workflow to stop; it may clean up first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  workflow cancel order-1 --reason 'the customer changed her mind'

Done when the request is in the history; what the workflow makes of it is its own affair: `workflow result order-1` tells
how it ended. Exits with 1 when it has ended already.")]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: Which,
    /// Why, for those who read the history
    #[arg(long, default_value = "")]
    reason: String,
    /// Names this request: the same name again does nothing more
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
}

impl Verb for Cancel {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let parked = self.which.parked().await;
        self.which.handle()?.cancel(&self.reason, self.request_id.as_deref()).await?;
        let id = tame(&self.which.workflow_id);
        match (cx.format, parked) {
            (Format::Json, parked) => say_json(&told(&self.which, parked))?,
            (Format::Table, None) => say(&format!("Asked {id} to stop"))?,
            (Format::Table, Some(parked)) => say(&format!(
                "Asked {id} to stop; it is parked, so its code learns of it only when that can go on. `workflow \
                 terminate {}` ends it without its code. It stands still because:\n  {}",
                quoted(&self.which.workflow_id),
                tame_lines(&parked.reason, "  ")
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
