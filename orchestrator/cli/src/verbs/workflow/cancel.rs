//! `workflow cancel`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::error::CliError;
use crate::output::tame;
use crate::remote::{Which, request_id, write_error};
use crate::verb::{Context, Verb};

/// Ask a workflow to stop; it may clean up first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  workflow cancel example-1 --reason 'the customer changed her mind'

Done when the request is in the history; what the workflow makes of it is its own affair: `workflow result example-1` tells
how it ended. A run that is parked hears of it when its code can go on again. Exits with 1 when it has ended already.")]
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
        let request_id = request_id(self.request_id);
        let sent = self.which.handle()?.cancel(&self.reason, Some(&request_id)).await;
        sent.map_err(|error| write_error(error, &cx, &request_id))?;
        let what = format!("Asked {} to stop", tame(&self.which.workflow_id));
        self.which.told(&what, parked, json!({}), cx.format)?;
        Ok(ExitCode::SUCCESS)
    }
}
