//! Runs that are parked: whoever waits, looks or asks is told why, and what helps.

use std::ops::ControlFlow;
use std::time::Duration;

use dormouse_client::{ClientError, RawHandle};
use dormouse_core::api::{ParkedBody, ResultBody};
use serde::Serialize;

use crate::error::CliError;
use crate::exit::EXIT_PARKED;
use crate::output::{Format, quoted, tame};

/// A word to people and scripts about a run that stands still.
#[derive(Serialize)]
struct Note<'a> {
    note: String,
    workflow_id: &'a str,
    parked: &'a ParkedBody,
}

/// Says on standard error that the run is parked, why, and what helps.
pub(crate) fn note(workflow_id: &str, parked: &ParkedBody, format: Format) {
    let note = format!("{}; {}", stands_still(workflow_id, parked), what_helps(workflow_id));
    match format {
        Format::Table => eprintln!("note: {note}"),
        Format::Json => {
            let note = Note { note, workflow_id, parked };
            eprintln!("{}", serde_json::to_string(&note).unwrap_or(note.note));
        }
    }
}

/// The error of whoever does not wait for it.
pub(crate) fn error(workflow_id: &str, parked: &ParkedBody) -> CliError {
    CliError::new(stands_still(workflow_id, parked)).code(EXIT_PARKED).hint(what_helps(workflow_id))
}

fn stands_still(workflow_id: &str, parked: &ParkedBody) -> String {
    format!("workflow {} is parked: {}", tame(workflow_id), tame(&parked.line()))
}

fn what_helps(workflow_id: &str) -> String {
    format!(
        "it goes on by itself once you deploy code that can go on from its history; `workflow terminate {}` ends it without \
         its code",
        quoted(workflow_id)
    )
}

/// Adds what helps to a refusal because the run is parked.
pub(crate) fn with_what_helps(workflow_id: &str, error: ClientError) -> CliError {
    let parked = matches!(error, ClientError::Parked(_));
    let error = CliError::from(error);
    if parked { error.hint(what_helps(workflow_id)) } else { error }
}

/// Waits for the end of a workflow; of a run that is parked, says so once, and waits on unless that is not wanted.
pub(crate) async fn outcome(
    handle: &RawHandle,
    limit: Option<Duration>,
    fail_if_parked: bool,
    format: Format,
) -> Result<ResultBody, CliError> {
    let id = handle.workflow_id();
    // Told by the error, or by the outcome, where there is nothing to wait for.
    let silent = fail_if_parked || limit.is_some_and(|limit| limit.is_zero());
    let on_parked = |parked: &ParkedBody| {
        if !silent {
            note(id, parked, format);
        }
        if fail_if_parked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    handle.outcome_with(limit, on_parked).await.map_err(|error| with_what_helps(id, error))
}

/// Why the run stands still at this moment, if it does; without an answer there is nothing to say.
pub(crate) async fn now(handle: &RawHandle) -> Option<ParkedBody> {
    handle.result(Duration::ZERO).await.ok()?.parked
}
