//! `workflow terminate`.

use std::process::ExitCode;

use clap::Args;

use crate::error::CliError;
use crate::output::{Format, say, say_json, tame};
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// End a workflow at once, without asking its code
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  workflow terminate order-1 --reason 'started by mistake'")]
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
        self.which.handle()?.terminate(&self.reason, self.request_id.as_deref()).await?;
        match cx.format {
            Format::Json => say_json(&serde_json::json!({ "workflow_id": self.which.workflow_id }))?,
            Format::Table => say(&format!("Terminated {}", tame(&self.which.workflow_id)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
