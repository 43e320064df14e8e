//! A history as people read it: JSON, one object an event.

use std::collections::BTreeMap;

use super::event::{ChangedArguments, DecidedBy, Event, Turn, turn_time};
use super::record::Batch;
use crate::api::HistoryEvent;
use crate::operations::kind::attributes;
use crate::payload::Payload;
use crate::time::Timestamp;

/// What one batch says about the workflow, numbered on from `first_id` without gaps. That the code ran, by which build, or that the
/// sweep looked, is the engine's own affair and no event, unless the build asks for other arguments than the recorded ones: a turn shows as the input that it brought, if it brought one.
#[must_use]
pub fn readable(batch: &Batch, first_id: u64) -> Vec<HistoryEvent> {
    let mut events = Vec::new();
    let mut push = |time: Timestamp, (event_type, attributes): (&str, BTreeMap<String, Payload>)| {
        let event_id = first_id + events.len() as u64;
        events.push(HistoryEvent { event_id, time, event_type: event_type.to_owned(), attributes });
    };
    for event in &batch.events {
        match event {
            Event::Input(input) => push(batch.time, input.view()),
            Event::Command(command) => push(batch.time, command.view()),
            Event::Turn(Turn { at_offset_ms, input: Some(input), .. }) => {
                push(turn_time(batch.time, *at_offset_ms), input.view());
            }
            Event::DecidedBy(DecidedBy { changed: Some(changed), .. }) => {
                let ChangedArguments { commands, first } = changed;
                push(batch.time, ("ArgumentsChanged", attributes! { "commands": commands, "first": first }));
            }
            Event::Turn(Turn { input: None, .. }) | Event::DecidedBy(DecidedBy { changed: None, .. }) => {}
        }
    }
    events
}
