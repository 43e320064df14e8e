//! `workflow result`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dormouse_core::Status;
use dormouse_core::api::ResultBody;
use dormouse_http::parse_duration;

use crate::error::CliError;
use crate::output::{Format, quoted, say, say_json, tame, tame_lines};
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// Wait for a workflow to end, and print its result
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow result order-1               however long it takes
  workflow result order-1 --wait 60s    a minute at most
  workflow result order-1 --wait 0s     as it stands

Exits with 0 when the workflow completed, with 1 when it failed or is still running.")]
pub(crate) struct Result {
    /// How long to wait at most, such as 500ms, 60s or 2h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    which: Which,
}

impl Verb for Result {
    async fn run(self, cx: Context) -> std::result::Result<ExitCode, CliError> {
        let outcome = self.which.handle()?.outcome(self.wait).await?;
        if let (Format::Table, Status::Running) = (cx.format, outcome.status)
            && let Some(parked) = self.which.parked().await
        {
            return Err(stands_still(&self.which.workflow_id, &parked.reason));
        }
        say_outcome(&self.which.workflow_id, &outcome, cx.format)
    }
}

/// Prints a result to standard output, or why there is none to standard error.
pub(crate) fn say_outcome(
    workflow_id: &str,
    outcome: &ResultBody,
    format: Format,
) -> std::result::Result<ExitCode, CliError> {
    let completed = outcome.status == Status::Completed;
    match format {
        Format::Json => say_json(outcome)?,
        Format::Table if completed => say(&outcome.result.clone().unwrap_or_default().to_string())?,
        Format::Table => return Err(no_result(workflow_id, outcome)),
    }
    Ok(ExitCode::from(u8::from(!completed)))
}

fn stands_still(workflow_id: &str, reason: &str) -> CliError {
    CliError::new(format!("workflow {} is parked: {}", tame(workflow_id), tame_lines(reason, "  "))).hint(format!(
        "it goes on when code is deployed that can; `workflow terminate {}` ends it without its code",
        quoted(workflow_id)
    ))
}

fn no_result(workflow_id: &str, outcome: &ResultBody) -> CliError {
    let id = tame(workflow_id);
    if outcome.status == Status::Running {
        return CliError::new(format!("workflow {id} is still running")).hint(format!(
            "wait longer with --wait, or see what it does with `workflow show {}`",
            quoted(workflow_id)
        ));
    }
    let why = outcome.failure.as_ref().map_or_else(String::new, |failure| {
        let place = failure.innermost_place();
        format!(
            ": {}{}",
            tame(&failure.to_string()),
            place.map_or_else(String::new, |place| format!(" (at {})", tame(place)))
        )
    });
    CliError::new(format!("workflow {id} ended as {}{why}", outcome.status))
        .hint(format!("`workflow show {}` shows how it came to that", quoted(workflow_id)))
}
