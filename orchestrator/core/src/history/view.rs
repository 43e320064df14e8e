//! A history as people read it: JSON, one object an event.

use serde_json::{Value, json};

use super::event::{Command, Event, Input, Turn};
use super::record::{Batch, BatchKind};
use crate::api::HistoryEvent;
use crate::failure::Failure;
use crate::time::Timestamp;

/// The events of one batch, numbered on from `first_id`. A turn that delivered an input on the spot shows as two.
#[must_use]
pub fn readable(batch: &Batch, first_id: u64) -> Vec<HistoryEvent> {
    let mut events = Vec::new();
    let mut push = |time: Timestamp, (event_type, attributes): (&str, Value)| {
        let event_id = first_id + events.len() as u64;
        events.push(HistoryEvent { event_id, time, event_type: event_type.to_owned(), attributes });
    };
    if batch.kind == BatchKind::Swept {
        push(batch.time, ("Swept", json!({ "due": batch.due })));
    }
    for event in &batch.events {
        match event {
            Event::Input(input) => push(batch.time, input_view(input)),
            Event::Command(command) => push(batch.time, command_view(command)),
            Event::Turn(Turn { at_offset_ms, taken, input }) => {
                let at = super::turn_time(batch.time, *at_offset_ms);
                if let Some(input) = input {
                    push(at, input_view(input));
                }
                push(at, ("TurnTaken", json!({ "inputs": taken + u32::from(input.is_some()) })));
            }
        }
    }
    events
}

fn failure_view(failure: &Failure) -> Value {
    // Every field of a failure is plain data.
    serde_json::to_value(failure).unwrap_or_else(|error| Value::String(error.to_string()))
}

fn input_view(input: &Input) -> (&'static str, Value) {
    match input {
        Input::Started(started) => (
            "WorkflowStarted",
            json!({
                "workflow_type": started.workflow_type,
                "run_id": started.run_id,
                "input": started.input,
                "request_id": started.request_id,
                "continued_from": started.continued_from,
                "carried_signals": started.carried,
            }),
        ),
        Input::Signaled { request_id, name, payload } => {
            ("SignalReceived", json!({ "name": name, "payload": payload, "request_id": request_id }))
        }
        Input::CancelRequested { request_id, reason } => {
            ("CancelRequested", json!({ "reason": reason, "request_id": request_id }))
        }
        Input::Terminated { request_id, reason, next } => {
            ("WorkflowTerminated", json!({ "reason": reason, "request_id": request_id, "replaced": next.is_some() }))
        }
        Input::ActivityCompleted { id, attempt, result } => {
            ("ActivityCompleted", json!({ "activity_id": id, "attempt": attempt, "result": result }))
        }
        Input::ActivityFailed { id, attempt, failure, retry_state } => (
            "ActivityFailed",
            json!({ "activity_id": id, "attempt": attempt, "failure": failure_view(failure), "retry_state": retry_state }),
        ),
        Input::AttemptLost { id, attempt, retry_at } => {
            ("ActivityAttemptLost", json!({ "activity_id": id, "attempt": attempt, "retry_at": retry_at }))
        }
        Input::TimerFired { id } => ("TimerFired", json!({ "timer_id": id })),
        Input::LocalCompleted { id, attempt, result } => {
            ("LocalActivityCompleted", json!({ "activity_id": id, "attempt": attempt, "result": result }))
        }
        Input::LocalFailed { id, attempt, failure, retry_state } => (
            "LocalActivityFailed",
            json!({ "activity_id": id, "attempt": attempt, "failure": failure_view(failure), "retry_state": retry_state }),
        ),
        Input::LocalBackoff { id, attempt, failure, retry_at } => (
            "LocalActivityBackoff",
            json!({ "activity_id": id, "attempt": attempt, "failure": failure_view(failure), "retry_at": retry_at }),
        ),
    }
}

pub(crate) fn command_view(command: &Command) -> (&'static str, Value) {
    match command {
        Command::ScheduleActivity { id, activity_type, input, options, place } => (
            "ActivityScheduled",
            json!({ "activity_id": id, "activity_type": activity_type, "input": input, "options": options, "place": place }),
        ),
        Command::CancelActivity { id } => ("ActivityCancelRequested", json!({ "activity_id": id })),
        Command::ScheduleLocal { id, activity_type, place, .. } => {
            ("LocalActivityScheduled", json!({ "activity_id": id, "activity_type": activity_type, "place": place }))
        }
        Command::StartTimer { id, fire_at, place } => {
            ("TimerStarted", json!({ "timer_id": id, "fire_at": fire_at, "place": place }))
        }
        Command::CancelTimer { id } => ("TimerCanceled", json!({ "timer_id": id })),
        Command::RecordMarker { name, value, place } => {
            ("MarkerRecorded", json!({ "name": name, "value": value, "place": place }))
        }
        Command::Publish { name, value, place } => {
            ("ValuePublished", json!({ "name": name, "value": value, "place": place }))
        }
        Command::Complete { result } => ("WorkflowCompleted", json!({ "result": result })),
        Command::Fail { failure } => ("WorkflowFailed", json!({ "failure": failure_view(failure) })),
        Command::Cancel { failure } => ("WorkflowCanceled", json!({ "failure": failure_view(failure) })),
        Command::ContinueAsNew { next } => (
            "WorkflowContinuedAsNew",
            json!({ "workflow_type": next.workflow_type, "input": next.input, "carried_signals": next.carried }),
        ),
    }
}
