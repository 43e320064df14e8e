//! `workflow list`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use dormouse_client::ListFilter;
use dormouse_core::Status;
use dormouse_core::api::RunSummary;
use serde::Serialize;

use crate::error::CliError;
use crate::output::{Format, cell, render, say, say_json, status_cell, table};
use crate::remote::Remote;
use crate::timeline::elapsed;
use crate::verb::{Context, Verb};

/// List runs, latest start first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow list --status Running
  workflow list --parked                         whose code cannot go on; `workflow describe ID` says why
  workflow list --type {type} --id-prefix example- --limit 20
  workflow list --output json | jq -r '.workflows[].workflow_id'")]
pub(crate) struct List {
    /// Only this status: Running, Completed, Failed, Canceled, Terminated, ContinuedAsNew
    #[arg(long)]
    status: Option<Status>,
    /// Only this type of workflow
    #[arg(long = "type", value_name = "NAME")]
    workflow_type: Option<String>,
    /// Only workflow ids that begin so
    #[arg(long, value_name = "PREFIX")]
    id_prefix: Option<String>,
    /// Only open runs that are parked: their code cannot go on
    #[arg(long)]
    parked: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("it must be at least 1".into()),
        limit => limit.map_err(|error| error.to_string()),
    }
}

impl Verb for List {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let filter = ListFilter {
            status: self.status,
            workflow_type: self.workflow_type,
            id_prefix: self.id_prefix,
            parked: self.parked,
        };
        let mut runs = self.remote.client()?.list(&filter, self.limit.saturating_add(1)).await?;
        let more = runs.len() > self.limit;
        runs.truncate(self.limit);
        match cx.format {
            Format::Json => say_json(&Listed { workflows: runs, more })?,
            Format::Table if runs.is_empty() => say("No workflows.")?,
            Format::Table => {
                say(&tabulate(&runs, cx.colour))?;
                if more {
                    say(&format!(" ... and more: these are the {} that began last; --limit shows more", self.limit))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What was asked for.
#[derive(Serialize)]
struct Listed {
    workflows: Vec<RunSummary>,
    /// Whether there are others, beyond the limit.
    more: bool,
}

fn tabulate(runs: &[RunSummary], colour: bool) -> String {
    let mut table = table(&["WORKFLOW", "RUN", "TYPE", "STATUS", "STARTED", "TOOK"], colour);
    for run in runs {
        table.add_row([
            cell(&run.workflow_id),
            Cell::new(run.run_id),
            cell(&run.workflow_type),
            status_cell(run.status, run.parked.is_some(), colour),
            cell(&run.started_at.to_string()),
            cell(&run.closed_at.map_or_else(String::new, |closed| elapsed(closed.since(run.started_at)))),
        ]);
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_core::{RunId, Timestamp};

    #[test]
    fn runs_are_lined_up() {
        let run = |id: &str, status, closed| RunSummary {
            workflow_id: id.into(),
            run_id: RunId::from_bytes([7; 16]),
            workflow_type: "orderWorkflow".into(),
            status,
            started_at: Timestamp::from_millis(1_772_355_600_000),
            closed_at: closed,
            parked: None,
        };
        let closed = Some(Timestamp::from_millis(1_772_355_601_250));
        let runs = [run("order-10", Status::Completed, closed), run("a\nb", Status::Running, None)];
        assert_eq!(
            tabulate(&runs, false),
            " WORKFLOW  RUN                                   TYPE           STATUS     STARTED                   TOOK
 order-10  07070707-0707-0707-0707-070707070707  orderWorkflow  Completed  2026-03-01T09:00:00.000Z  1.250s
 a\\u{a}b   07070707-0707-0707-0707-070707070707  orderWorkflow  Running    2026-03-01T09:00:00.000Z"
        );
    }
}
