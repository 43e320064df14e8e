//! `workflow query`.

use std::process::ExitCode;

use clap::Args;
use dormouse_core::api::QueryBody;

use crate::error::CliError;
use crate::input::payload;
use crate::output::{Format, say, say_json};
use crate::parked;
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// Ask a workflow a question, and print the answer
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  workflow query example-1 {query}")]
pub(crate) struct Query {
    #[command(flatten)]
    which: Which,
    /// The query's name
    name: String,
    /// Its argument: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
}

impl Verb for Query {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let argument = payload(self.input.as_deref())?;
        let answer = self.which.handle()?.query(&self.name, &argument).await;
        let result = answer.map_err(|error| parked::with_what_helps(&self.which.workflow_id, error))?;
        match cx.format {
            Format::Json => say_json(&QueryBody { result })?,
            Format::Table => say(&result.to_string())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
