//! `workflow describe`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, Table};
use dormouse_core::api::{DescribeBody, ParkedBody, PatchBody};
use dormouse_core::{Failure, Timestamp};

use crate::error::CliError;
use crate::output::{Format, cell, fitted, one_line, quoted, render, say, say_json, status_cell, table, tame, wrapped};
use crate::remote::Which;
use crate::timeline::elapsed;
use crate::verb::{Context, Verb};

/// Show how a workflow stands: status, activities under way, timers, published values
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow describe example-1
  workflow describe example-1 --full    values and failures however long they are")]
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
            Format::Table => say(&sections(&run, cx.colour, self.full, now()).join("\n\n"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sections(body: &DescribeBody, colour: bool, full: bool, now: Timestamp) -> Vec<String> {
    let mut sections = vec![render(&facts(body, colour, full, now))];
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

/// A value or a failure, cut off unless all is wanted; then it is said how to see it.
fn bounded(text: &str, full: bool) -> String {
    let shown = fitted(text, 200, full);
    if full || text.chars().count() <= 200 { shown } else { shown + " (all of it: --full)" }
}

/// A line about those that the server did not list.
fn more(listed: usize, total: u64) -> String {
    match total.saturating_sub(listed as u64) {
        0 => String::new(),
        more => format!("\n ... and {more} more"),
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond().try_into().unwrap_or_default())
}

fn next_try(parked: &ParkedBody, now: Timestamp) -> String {
    let ParkedBody { build, retry_at, .. } = parked;
    if *retry_at > now {
        return format!("build {build}; tried again at {retry_at}");
    }
    format!("build {build}; due to be tried again since {retry_at}: in its turn, at the latest after a restart")
}

fn patches(patches: &[PatchBody]) -> String {
    let named = patches.iter().map(|PatchBody { patch_id, deprecated }| {
        format!("{patch_id}{}", if *deprecated { " (deprecated)" } else { "" })
    });
    named.collect::<Vec<_>>().join(", ")
}

fn facts(body: &DescribeBody, colour: bool, full: bool, now: Timestamp) -> Table {
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
    fact("input", Cell::new(bounded(&one_line(&body.input), full)));
    if let Some(result) = &body.result {
        fact("result", Cell::new(bounded(&one_line(result), full)));
    }
    if let Some(failure) = body.failure.as_ref().map(ToString::to_string).filter(|why| !why.is_empty()) {
        fact("failure", Cell::new(bounded(&failure, full)));
    }
    fact("history", Cell::new(format!("{} events, {} bytes", body.history_events, body.history_bytes)));
    if let Some(changed) = &body.changed_arguments {
        let commands = changed.commands;
        fact(
            "arguments",
            Cell::new(format!("recorded commands asked for with others: {commands}; the recorded ones stand")),
        );
        fact("", Cell::new(fitted(&tame(&changed.first), 200, full)));
    }
    if !body.patches.is_empty() {
        fact("patches", Cell::new(wrapped(&patches(&body.patches), "")));
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
        fact("parked", Cell::new(wrapped(&parked.reason, "")));
        fact("", cell(&next_try(parked, now)));
        let id = quoted(&run.workflow_id);
        fact("", cell(&format!("deploy code that can go on from its history, or end it: workflow terminate {id}")));
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
            "patches": [{"patch_id": "a\u{1b}", "deprecated": true}, {"patch_id": "b"}],
        }))
        .unwrap();
        let text = sections(&body, false, false, Timestamp::default()).join("\n\n");
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
 patches    a\\u{1b} (deprecated), b
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
    fn no_try_is_announced_for_a_time_that_has_passed() {
        let at = Timestamp::from_millis;
        let parked =
            ParkedBody { reason: "r".into(), cause: None, build: "b".into(), retry_at: at(1_000), since: None };
        assert_eq!(next_try(&parked, at(999)), "build b; tried again at 1970-01-01T00:00:01.000Z");
        assert!(next_try(&parked, at(1_000)).contains("due to be tried again since 1970-01-01T00:00:01.000Z"));
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
            "published": {"status": long.clone() + "p"}, "result": long.clone() + "r",
        }))
        .unwrap();
        let (cut, full) = (
            sections(&body, false, false, Timestamp::default()).concat(),
            sections(&body, false, true, Timestamp::default()).concat(),
        );
        assert_eq!(cut.matches("--full").count(), 2, "{cut}");
        for end in ["i", "f", "p", "r"] {
            let whole = long.clone() + end;
            assert!(full.contains(&whole) && !cut.contains(&whole), "{end}");
        }
    }
}
