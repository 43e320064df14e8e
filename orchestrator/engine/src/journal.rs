//! What the log says of runs and attempts. A line is written once, where the write that it tells of was won: what is
//! delivered or replayed again says nothing again. A step that went well has no line.

use std::fmt::Display;

use dormouse_core::history::{Batch, ChangedArguments, DecidedBy, Event, Turn};
use dormouse_core::operations::{AttemptLost, Closed, Input, Started};
use dormouse_core::{Failure, RunKey, RunState, Timestamp};

/// So many bytes of a failure stand in a line.
const SHOWN: usize = 500;

/// Batch 0 was created.
pub(crate) fn started(run: &RunKey, started: &Started) {
    let Started { run_id, call, .. } = started;
    tracing::info!(%run, %run_id, workflow_type = call.workflow_type, "a run has started");
}

/// This batch was committed, and has led to this state.
pub(crate) fn committed(state: &RunState, batch: &Batch) {
    if let Some(Event::DecidedBy(DecidedBy { changed: Some(changed), .. })) = batch.events.first() {
        let ChangedArguments { commands, first } = changed;
        let run = &state.run;
        tracing::warn!(
            %run, commands, first,
            "recorded commands are repeated with other arguments; the recorded ones stand"
        );
    }
    for event in &batch.events {
        let (Event::Input(input) | Event::Turn(Turn { input: Some(input), .. })) = event else { continue };
        if let Input::AttemptLost(AttemptLost { id, attempt, .. }) = input {
            let run = &state.run;
            tracing::warn!(%run, activity = id, attempt, "the worker of an attempt is gone: the attempt is lost");
        }
    }
    let Some(closed) = &state.closed else { return };
    let failure = match closed {
        Closed::Failed(failure) | Closed::Canceled(failure) | Closed::Terminated(failure, _) => Some(one_line(failure)),
        Closed::Completed(_) | Closed::ContinuedAsNew(_) => None,
    };
    let (run, run_id, status) = (&state.run, state.run_id(), closed.status());
    let workflow_type = &*state.started.call.workflow_type;
    tracing::info!(%run, %run_id, workflow_type, %status, failure, "a run has closed");
}

/// An attempt that has failed.
pub(crate) struct Attempted<'a> {
    pub(crate) run: &'a RunKey,
    pub(crate) activity_type: &'a str,
    pub(crate) activity: u64,
    pub(crate) attempt: u32,
}

impl Attempted<'_> {
    /// It has failed, and the next begins at this time; without one, no further is made.
    pub(crate) fn failed(&self, failure: &Failure, next_attempt_at: Option<Timestamp>) {
        let Self { run, activity_type, activity, attempt } = self;
        let (place, failure) = (failure.innermost_place(), one_line(failure));
        match next_attempt_at {
            Some(next_attempt_at) => tracing::warn!(
                %run, activity_type, activity, attempt, failure, place, %next_attempt_at,
                "an attempt has failed and is tried again"
            ),
            None => tracing::warn!(
                %run, activity_type, activity, attempt, failure, place,
                "an attempt has failed, and with it the activity: no further one is made"
            ),
        }
    }
}

/// A text that anybody may have written, as part of a line.
fn one_line(text: &impl Display) -> String {
    let mut line = text.to_string().replace(char::is_control, " ");
    let cut = line.floor_char_boundary(SHOWN);
    if cut < line.len() {
        let more = line.len() - cut;
        line.truncate(cut);
        line += &format!("... ({more} more bytes)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_and_bounded() {
        assert_eq!(one_line(&"declined:\n  no\r\tmoney\u{1b}[31m"), "declined:   no  money [31m");
        let long = one_line(&"ä".repeat(1000));
        assert!(long.ends_with("ä... (1500 more bytes)") && long.len() < 530, "{long}");
    }
}
