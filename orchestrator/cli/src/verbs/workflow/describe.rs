//! `workflow describe`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, Table};
use dormouse_core::Failure;
use dormouse_core::api::DescribeBody;

use crate::error::CliError;
use crate::output::{Format, cell, fitted, one_line, render, say, say_json, status_cell, table, tame, tame_lines};
use crate::remote::Which;
use crate::timeline::elapsed;
use crate::verb::{Context, Verb};

/// Show how a workflow stands: status, activities under way, timers, published values
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow describe order-1
  workflow describe order-1 --full    input, failures and published values however long they are")]
pub(crate) struct Describe {
    /// Show values and failures however long they are
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    which: Which,
}

impl Verb for Describe {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let run = self.which.handle()?.describe().await?;
        match cx.format {
            Format::Json => say_json(&run)?,
            Format::Table => say(&sections(&run, cx.colour, self.full).join("\n\n"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sections(body: &DescribeBody, colour: bool, full: bool) -> Vec<String> {
    let mut sections = vec![render(&facts(body, colour, full))];
    if !body.pending_activities.is_empty() {
        let mut table = table(&["ACTIVITY", "ID", "STATE", "ATTEMPT", "NEXT ATTEMPT", "LAST FAILURE"], colour);
        for activity in &body.pending_activities {
            let next = activity.next_attempt_at.map_or_else(String::new, |at| at.to_string());
            let failure = activity.last_failure.as_ref().map_or_else(String::new, told);
            let queue = activity.task_queue.as_ref().map_or_else(String::new, |queue| format!(" (on {queue})"));
            table.add_row([
                cell(&(activity.activity_type.clone() + &queue)),
                cell(&activity.activity_id),
                cell(&activity.state),
                Cell::new(activity.attempt),
                cell(&next),
                Cell::new(fitted(&failure, 120, full)),
            ]);
        }
        sections.push(render(&table) + &more(body.pending_activities.len(), body.pending_activities_total));
    }
    if !body.timers.is_empty() {
        let mut table = table(&["TIMER", "FIRES"], colour);
        for timer in &body.timers {
            table.add_row([cell(&timer.timer_id), cell(&timer.fires_at.to_string())]);
        }
        sections.push(render(&table) + &more(body.timers.len(), body.timers_total));
    }
    if !body.unread_signals.is_empty() {
        let mut table = table(&["UNREAD SIGNAL", "COUNT", "BYTES", "FROM EARLIER RUNS"], colour);
        for signals in &body.unread_signals {
            table.add_row([
                cell(&signals.name),
                Cell::new(signals.count),
                Cell::new(signals.bytes),
                Cell::new(signals.carried),
            ]);
        }
        sections.push(render(&table));
    }
    if !body.published.is_empty() {
        let mut table = table(&["QUERY", "VALUE"], colour);
        for (name, value) in &body.published {
            table.add_row([cell(name), Cell::new(fitted(&one_line(value), 200, full))]);
        }
        sections.push(render(&table));
    }
    sections
}

/// What has failed, and where in the user's code.
fn told(failure: &Failure) -> String {
    failure.innermost_place().map_or_else(|| failure.to_string(), |place| format!("{failure} (at {place})"))
}

/// A line about those that the server did not list.
fn more(listed: usize, total: u64) -> String {
    match total.saturating_sub(listed as u64) {
        0 => String::new(),
        more => format!("\n ... and {more} more"),
    }
}

fn facts(body: &DescribeBody, colour: bool, full: bool) -> Table {
    let run = &body.run;
    let mut facts = table(&["WORKFLOW", ""], colour);
    facts.set_header([cell("WORKFLOW"), cell(&run.workflow_id)]);
    let mut fact = |name: &str, value: Cell| {
        facts.add_row([Cell::new(name), value]);
    };
    fact("run", Cell::new(run.run_id));
    fact("type", cell(&run.workflow_type));
    fact("status", status_cell(run.status, run.parked.is_some(), colour));
    fact("started", Cell::new(run.started_at));
    if let Some(closed) = run.closed_at {
        fact("closed", Cell::new(format!("{closed}, after {}", elapsed(closed.since(run.started_at)))));
    }
    fact("input", Cell::new(fitted(&one_line(&body.input), 200, full)));
    fact("history", Cell::new(format!("{} events, {} bytes", body.history_events, body.history_bytes)));
    if let Some(changed) = &body.changed_arguments {
        let commands = changed.commands;
        fact(
            "arguments",
            Cell::new(format!("recorded commands asked for with others: {commands}; the recorded ones stand")),
        );
        fact("", Cell::new(fitted(&tame(&changed.first), 200, full)));
    }
    if body.ordinal > 0 {
        fact("earlier runs", Cell::new(body.ordinal));
    }
    if let Some(before) = body.continued_from {
        fact("continues", Cell::new(before));
    }
    if body.cancel_requested {
        fact("cancel", Cell::new("requested"));
    }
    if let Some(parked) = &run.parked {
        fact("parked", Cell::new(tame_lines(&parked.reason, "")));
        fact("", cell(&format!("build {}; tried again at {}", parked.build, parked.retry_at)));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_matters_is_shown() {
        let body: DescribeBody = serde_json::from_value(json!({
            "workflow_id": "order-1", "run_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "workflow_type": "orderWorkflow",
            "status": "Running", "started_at": "2026-03-01T09:00:00.000Z", "ordinal": 0, "input": {"item": "tea"},
            "history_events": 4, "history_bytes": 512, "cancel_requested": true,
            "changed_arguments": {"commands": 2, "first": "input: recorded 1, attempted 2"},
            "pending_activities": [{
                "activity_id": "1", "activity_type": "charge", "local": false, "state": "backing_off", "attempt": 2,
                "last_failure": {"message": "no\u{1b}[2J money", "kind": "application", "place": "bank.rs:7"},
            }],
            "pending_activities_total": 10_000,
            "timers": [{"timer_id": "2", "fires_at": "2026-03-02T09:00:00.000Z"}],
            "published": {"status": "Paid"},
        }))
        .unwrap();
        let text = sections(&body, false, false).join("\n\n");
        assert_eq!(
            text,
            " WORKFLOW   order-1
 run        67e55044-10b1-426f-9247-bb680e5fe0c8
 type       orderWorkflow
 status     Running
 started    2026-03-01T09:00:00.000Z
 input      {\"item\":\"tea\"}
 history    4 events, 512 bytes
 arguments  recorded commands asked for with others: 2; the recorded ones stand
            input: recorded 1, attempted 2
 cancel     requested

 ACTIVITY  ID  STATE        ATTEMPT  NEXT ATTEMPT  LAST FAILURE
 charge    1   backing_off  2                      no\\u{1b}[2J money (at bank.rs:7)
 ... and 9999 more

 TIMER  FIRES
 2      2026-03-02T09:00:00.000Z

 QUERY   VALUE
 status  \"Paid\""
        );
    }

    #[test]
    fn everything_is_shown_to_whoever_asks() {
        let long = "x".repeat(500);
        let body: DescribeBody = serde_json::from_value(json!({
            "workflow_id": "order-1", "run_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "workflow_type": "orderWorkflow",
            "status": "Running", "started_at": "2026-03-01T09:00:00.000Z", "ordinal": 0, "input": long.clone() + "i",
            "history_events": 4, "history_bytes": 512, "cancel_requested": false, "timers": [],
            "pending_activities": [{
                "activity_id": "1", "activity_type": "charge", "local": false, "state": "backing_off", "attempt": 2,
                "last_failure": {"message": long.clone() + "f", "kind": "application"},
            }],
            "published": {"status": long.clone() + "p"},
        }))
        .unwrap();
        let (cut, full) = (sections(&body, false, false).concat(), sections(&body, false, true).concat());
        for end in ["i", "f", "p"] {
            let whole = long.clone() + end;
            assert!(full.contains(&whole) && !cut.contains(&whole), "{end}");
        }
    }
}
