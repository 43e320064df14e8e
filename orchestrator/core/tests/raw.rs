//! The raw surface: a program that is no Rust future, through two turns and a replay.

mod common;

use bytes::Bytes;
use common::{World, completed, json, signal};
use dormouse_core::program::{Ended, Place, Program, Raw, Turned};
use dormouse_core::{App, Failure, Payload, RecordedOptions, RecordedRetry, RetryPolicy, TurnFailure};

/// A guest: a state machine written by hand. It calls the activity that its argument names, waits for a signal, and
/// gives both.
struct Guest {
    raw: Raw,
    at: State,
}

enum State {
    Begun(String),
    Calling(u64),
    Listening(Payload),
}

impl Program for Guest {
    fn turn(&mut self) -> Turned {
        loop {
            match &mut self.at {
                State::Begun(activity) => {
                    let options = RecordedOptions {
                        start_to_close_ms: Some(1_000),
                        schedule_to_close_ms: None,
                        schedule_to_start_ms: None,
                        heartbeat_ms: None,
                        retry: RecordedRetry::from(&RetryPolicy::max_attempts(3)),
                        task_queue: Some("guests".to_owned()),
                    };
                    match self.raw.activity(activity, json("1"), options, Place::named("guest.ts:3")) {
                        Ok(id) => self.at = State::Calling(id),
                        Err(failure) => return Turned::Ended(Err(failure)),
                    }
                }
                State::Calling(id) => match self.raw.outcome(*id) {
                    None => return Turned::Waits,
                    Some(Ended::Value(value)) => self.at = State::Listening(value),
                    Some(other) => return Turned::Ended(Err(Failure::application(format!("{other:?}")))),
                },
                State::Listening(value) => {
                    let Some(word) = self.raw.take_signal("word") else { return Turned::Waits };
                    let both = [b"[", value.as_bytes(), b",", word.as_bytes(), b"]"].concat();
                    return Turned::Ended(Ok(Payload::from_json(Bytes::from(both))));
                }
            }
        }
    }
}

/// An application whose guest calls the activity of this name, which nobody knew when this was compiled.
fn guests(activity: &str) -> App {
    let activity = activity.to_owned();
    App::new().program(format!("guest-{activity}"), move |raw, _| {
        Ok(Box::new(Guest { raw, at: State::Begun(activity.clone()) }) as Box<dyn Program>)
    })
}

#[test]
fn a_program_of_another_kind_is_decided_and_replayed() {
    let mut world = World::idle(guests("resize"), "guest-resize", json("null"));
    assert_eq!(world.settle(), ["activity 1 resize(1)"]);
    assert_eq!(world.state().task(1).unwrap().options.task_queue.as_deref(), Some("guests"));
    world.reload();
    assert_eq!(world.arrive(completed(1, "2")), [""; 0]);
    world.reload();
    assert_eq!(world.arrive(signal("s", "word", "\"go\"")), ["complete [2,\"go\"]"]);
    world.reload();
}

#[test]
fn its_divergence_names_its_own_places() {
    let mut world = World::idle(guests("resize"), "guest-resize", json("null"));
    world.settle();
    let other = App::new().program("guest-resize", |raw, _| {
        Ok(Box::new(Guest { raw, at: State::Begun("rotate".to_owned()) }) as Box<dyn Program>)
    });
    world.app = other.into();
    let failure: TurnFailure = world.replay().map(|_| ()).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("attempted: activity \"rotate\" (id 1) at guest.ts:3\n"), "{text}");
}

#[test]
fn options_that_make_no_sense_are_a_typed_failure() {
    let world = World::idle(
        App::new().program("odd", |raw, _| {
            let mut retry = RecordedRetry::from(&RetryPolicy::DEFAULT);
            retry.initial_interval_ms = 0;
            let options = RecordedOptions {
                start_to_close_ms: Some(1_000),
                schedule_to_close_ms: None,
                schedule_to_start_ms: None,
                heartbeat_ms: None,
                retry,
                task_queue: None,
            };
            match raw.activity("x", json("1"), options, Place::named("odd.ts:1")) {
                Ok(_) => panic!("a loop without pauses"),
                Err(failure) => Err(failure),
            }
        }),
        "odd",
        json("null"),
    );
    let mut world = world;
    assert!(world.settle()[0].starts_with("fail the initial interval"), "{:?}", world.last_commands());
}
