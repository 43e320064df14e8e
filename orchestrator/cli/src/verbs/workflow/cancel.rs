//! `workflow cancel`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::output::{Format, say, say_json, tame};
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// Ask a workflow to stop; it may clean up first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  workflow cancel order-1 --reason 'the customer changed her mind'")]
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
        self.which.handle()?.cancel(&self.reason, self.request_id.as_deref()).await?;
        match cx.format {
            Format::Json => say_json(&serde_json::json!({ "workflow_id": self.which.workflow_id }))?,
            Format::Table => say(&format!("Asked {} to stop", tame(&self.which.workflow_id)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
