//! What is said of replays: a table for people, JSON for scripts, JUnit for CI.

use std::path::Path;

use dormouse_core::{Asked, Difference, ReplayVerdict, Replayed, StoredKind, TurnFailure};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::source::Item;
use super::tally::{Kind, Several, Tally, shown};
use crate::error::CliError;
use crate::output::{cell, render, say, table, tame};

/// A table of what is wrong, and a line that counts.
pub(super) fn to_people(tally: &Tally, colour: bool) -> Result<(), CliError> {
    if !tally.kinds.is_empty() {
        say(&tabulate(tally, colour))?;
        say("")?;
    }
    if let Some((item, changed)) = &tally.first_changed {
        say(&format!(
            "{} ask for recorded commands with other arguments; the recorded ones stand, and --strict makes this fail. \
             The first, in {}: {}",
            counted(tally.changed, "run", "runs"),
            tame(&item.name()),
            tame(&changed.first)
        ))?;
    }
    if let Some((item, found)) = &tally.first_passed_over {
        say(&format!(
            "{} hold values that today's code cannot read, of types that the application does not declare: it passes \
             them over, as it may always have, and --strict makes this fail. The first, in {}: {}",
            counted(tally.passed_over, "run", "runs"),
            tame(&item.name()),
            tame(found)
        ))?;
    }
    let all = format!("{}, {}", counted(tally.runs, "run", "runs"), counted(tally.events, "event", "events"));
    match (tally.runs, tally.strays()) {
        (0, _) => say("No runs to replay."),
        (_, 0) => say(&format!("{all}: today's code follows each of them.")),
        (_, strays) => say(&format!(
            "{all}: {} not fit today's code. Change the code back at these places, or let these runs end first.",
            counted(strays, "does", "do")
        )),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn tabulate(tally: &Tally, colour: bool) -> String {
    let mut table = table(&["TYPE", "RUNS", "WHAT", "RECORDED", "TODAY'S CODE", "DIFFERENCE", "SUCH AS"], colour);
    for (Kind { workflow_type, verdict, recorded, today }, Several { runs, examples, differences }) in &tally.kinds {
        let more = if *runs > examples.len() as u64 { ", ..." } else { "" };
        table.add_row([
            cell(workflow_type),
            cell(&runs.to_string()),
            cell(&verdict.as_str().replace('_', " ")),
            cell(recorded),
            cell(today),
            cell(&differences.join("; ")),
            cell(&(examples.join(", ") + more)),
        ]);
    }
    render(&table)
}

/// Everything, for scripts.
pub(super) fn to_scripts(tally: &Tally, interrupted: bool) -> Value {
    let verdicts: serde_json::Map<_, _> =
        tally.verdicts.iter().map(|(verdict, runs)| (verdict.as_str().to_owned(), json!(runs))).collect();
    let changed =
        tally.first_changed.as_ref().map(|(item, changed)| json!({ "in": item.name(), "first": changed.first }));
    let passed_over =
        tally.first_passed_over.as_ref().map(|(item, found)| json!({ "in": item.name(), "first": found }));
    json!({
        "runs": tally.runs,
        "events": tally.events,
        "fit": tally.runs - tally.strays(),
        "verdicts": verdicts,
        "changed_arguments": { "runs": tally.changed, "example": changed },
        "passed_over": { "runs": tally.passed_over, "example": passed_over },
        "interrupted": interrupted,
        "do_not_fit": tally.astray.iter().map(|(item, replayed)| stray(item, replayed)).collect::<Vec<_>>(),
        "more": tally.strays() > tally.astray.len() as u64,
    })
}

fn stray(item: &Item, replayed: &Replayed) -> Value {
    let mut said = json!({
        "workflow_id": &*replayed.run.workflow.workflow_id,
        "ordinal": replayed.run.ordinal,
        "run_id": replayed.run_id,
        "workflow_type": replayed.workflow_type,
        "status": replayed.status,
        "events": replayed.events,
        "verdict": replayed.verdict().as_str(),
        "misfits": replayed.misfits.iter().map(|found| json!({
            "kind": stored(found.kind),
            "name": found.name,
            "pointer": found.misfit.pointer,
            "problem": found.misfit.problem,
            "place": found.place,
        })).collect::<Vec<_>>(),
        "message": replayed.to_string(),
    });
    if let Some(file) = item.file() {
        said["file"] = json!(file);
    }
    match &replayed.failure {
        Some(TurnFailure::Diverged { turn, recorded, attempted, differences }) => {
            said["turn"] = json!(turn);
            said["recorded"] = asked(recorded);
            said["attempted"] = asked(attempted);
            let differences = differences.iter().map(|Difference { field, recorded, attempted }| {
                json!({ "field": field, "recorded": recorded, "attempted": attempted })
            });
            said["differences"] = differences.collect();
        }
        Some(TurnFailure::Panicked { turn, panic, .. }) => {
            said["turn"] = json!(turn);
            said["place"] = json!(panic.place);
        }
        _ => {}
    }
    said
}

fn stored(kind: StoredKind) -> &'static str {
    match kind {
        StoredKind::Input => "input",
        StoredKind::Result => "result",
        StoredKind::Signal => "signal",
        StoredKind::Published => "published",
        StoredKind::SideEffect => "side_effect",
    }
}

fn asked(asked: &Asked) -> Value {
    match asked {
        Asked::For { command, place } => {
            json!({ "kind": command.kind(), "name": command.name(), "id": command.id(), "place": place })
        }
        Asked::Nothing { waits_at } => json!({ "kind": "nothing", "waits_at": waits_at }),
    }
}

/// A suite for each workflow type: one case for all runs that fit, one for each that does not.
pub(super) fn to_junit(tally: &Tally, file: &Path) -> Result<(), CliError> {
    let mut types: Vec<_> = tally.fitting.keys().cloned().collect();
    types.extend(tally.astray.iter().filter_map(|(_, replayed)| replayed.workflow_type.clone()));
    let unread = tally.astray.iter().any(|(_, replayed)| replayed.workflow_type.is_none());
    types.extend(unread.then(String::new));
    types.sort();
    types.dedup();
    let mut report = Report::new("replay");
    for workflow_type in types {
        let mut suite = TestSuite::new(if workflow_type.is_empty() { "(not read)" } else { workflow_type.as_str() });
        if let Some(fitting) = tally.fitting.get(&workflow_type) {
            let name = format!("{} fit today's code", counted(*fitting, "run", "runs"));
            suite.add_test_case(TestCase::new(name, TestCaseStatus::success()));
        }
        let of = |replayed: &Replayed| replayed.workflow_type.as_deref().unwrap_or_default() == workflow_type;
        suite.add_test_cases(tally.astray.iter().filter(|(_, replayed)| of(replayed)).map(case));
        report.add_test_suite(suite);
    }
    let unwritable = |error: String| CliError::new(format!("{} cannot be written: {error}", file.display()));
    let text = report.to_string().map_err(|error| unwritable(error.to_string()))?;
    std::fs::write(file, text).map_err(|error| unwritable(error.to_string()))
}

fn case((item, replayed): &(Item, Replayed)) -> TestCase {
    let kind = match replayed.verdict() {
        ReplayVerdict::Damaged => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    };
    let said = replayed.to_string();
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(replayed.verdict().as_str());
    status.set_message(said.lines().nth(1).unwrap_or(&said));
    status.set_description(said.as_str());
    TestCase::new(shown(item, replayed), status)
}
