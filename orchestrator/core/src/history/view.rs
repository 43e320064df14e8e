//! A history as people read it: JSON, one object an event.

use serde_json::{Value, json};

use super::event::{DecidedBy, Event, Turn, turn_time};
use super::record::{Batch, BatchKind};
use crate::api::HistoryEvent;
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
            Event::Input(input) => push(batch.time, input.view()),
            Event::Command(command) => push(batch.time, command.view()),
            Event::DecidedBy(DecidedBy { build, flags }) => {
                let behaviours: Vec<_> = flags.numbers().collect();
                push(batch.time, ("DecidedBy", json!({ "build": build, "behaviours": behaviours })));
            }
            Event::Turn(Turn { at_offset_ms, taken, input }) => {
                let at = turn_time(batch.time, *at_offset_ms);
                if let Some(input) = input {
                    push(at, input.view());
                }
                push(at, ("TurnTaken", json!({ "inputs": taken + u32::from(input.is_some()) })));
            }
        }
    }
    events
}
