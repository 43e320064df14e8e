//! `workflow result`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dormouse_core::Status;
use dormouse_core::api::ResultBody;
use dormouse_http::parse_duration;

use crate::error::CliError;
use crate::exit::{EXIT_DONE, EXIT_PARKED, EXIT_RUNNING, EXIT_WORKFLOW_FAILED};
use crate::output::{Format, quoted, say, say_json, tame};
use crate::parked;
use crate::remote::Which;
use crate::verb::{Context, Verb};

/// Wait for a workflow to end, and print its result
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow result example-1               however long it takes
  workflow result example-1 --wait 60s    a minute at most
  workflow result example-1 --wait 0s     as it stands

Exits with 0 when the workflow completed, with 5 when it failed, was canceled or terminated, with 6 when it was still
running when the time was up, with 7 when its run is parked then, or was found so with --fail-if-parked.")]
pub(crate) struct Result {
    /// How long to wait at most, such as 500ms, 60s or 2h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Do not wait for a run that is parked: its code cannot go on
    #[arg(long)]
    fail_if_parked: bool,
    #[command(flatten)]
    which: Which,
}

impl Verb for Result {
    async fn run(self, cx: Context) -> std::result::Result<ExitCode, CliError> {
        let outcome = parked::outcome(&self.which.handle()?, self.wait, self.fail_if_parked, cx.format).await?;
        say_outcome(&self.which.workflow_id, &outcome, cx.format)
    }
}

/// Prints a result to standard output, or why there is none to standard error.
pub(crate) fn say_outcome(
    workflow_id: &str,
    outcome: &ResultBody,
    format: Format,
) -> std::result::Result<ExitCode, CliError> {
    let code = match outcome.status {
        Status::Completed => EXIT_DONE,
        Status::Running if outcome.parked.is_some() => EXIT_PARKED,
        Status::Running => EXIT_RUNNING,
        _ => EXIT_WORKFLOW_FAILED,
    };
    match format {
        Format::Json => say_json(outcome)?,
        Format::Table if code == EXIT_DONE => say(&outcome.result.clone().unwrap_or_default().to_string())?,
        Format::Table => return Err(no_result(workflow_id, outcome, code)),
    }
    Ok(ExitCode::from(code))
}

fn no_result(workflow_id: &str, outcome: &ResultBody, code: u8) -> CliError {
    let id = tame(workflow_id);
    if let Some(parked) = &outcome.parked {
        return parked::error(workflow_id, parked);
    }
    if outcome.status == Status::Running {
        return CliError::new(format!("workflow {id} is still running")).code(code).hint(format!(
            "wait longer with --wait, or see what it does with `workflow show {}`",
            quoted(workflow_id)
        ));
    }
    let said = outcome.failure.as_ref().filter(|failure| !failure.to_string().is_empty());
    let why = said.map_or_else(String::new, |failure| {
        let place = failure.innermost_place();
        format!(
            ": {}{}",
            tame(&failure.to_string()),
            place.map_or_else(String::new, |place| format!(" (at {})", tame(place)))
        )
    });
    CliError::new(format!("workflow {id} ended as {}{why}", outcome.status))
        .code(code)
        .hint(format!("`workflow show {}` shows how it came to that", quoted(workflow_id)))
}
