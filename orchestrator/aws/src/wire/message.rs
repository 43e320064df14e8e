//! From messages to JSON and back: which kind it is, then what that kind needs. Each kind has a struct of its own, by
//! purpose: [`decider`], [`arrival`], [`task`], [`detour`].

use std::borrow::Cow;

use dormouse_engine::seams::{Intent, RunMessage, Wish};
use serde::{Deserialize, Serialize};

use super::json::{fields, malformed};
use super::{Message, VERSION, WireError, arrival, decider, detour, task};

/// What every message begins with.
#[derive(Deserialize)]
struct Head<'a> {
    v: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// A message of some kind, as it is written.
#[derive(Serialize)]
struct Sealed<'a, T> {
    v: u64,
    kind: &'a str,
    #[serde(flatten)]
    fields: T,
}

fn sealed(kind: &str, fields: impl Serialize) -> Result<String, WireError> {
    serde_json::to_string(&Sealed { v: VERSION, kind, fields }).map_err(malformed)
}

pub(super) fn write(message: &Message) -> Result<String, WireError> {
    match message {
        Message::Run(RunMessage::Intent(Intent { run, wish: Wish::Start(request) })) => {
            sealed("start", decider::Start::of(run, request)?)
        }
        Message::Run(RunMessage::Intent(Intent { run, wish: Wish::Take { arrival, pinned } })) => {
            sealed("take", decider::Take::of(run, arrival, *pinned)?)
        }
        Message::Run(RunMessage::Accepted { run, sequence, record }) => {
            sealed("accepted", decider::Accepted::of(run, *sequence, record))
        }
        Message::Run(RunMessage::Sweep { run }) => sealed("sweep", decider::Sweep::of(run)),
        Message::Run(RunMessage::Arrived { run, run_id, arrival }) => {
            let (kind, fields) = arrival::Fields::of(arrival)?;
            sealed(kind, arrival::Arrived::of(run, *run_id, fields))
        }
        Message::Task(task) => sealed("activity_task", task::Fields::of(task)?),
        Message::Alarm(alarm) => sealed("alarm", detour::Alarm::of(alarm)),
        Message::Deferred(deferred) => sealed("deferred", detour::Deferred::of(deferred)?),
        Message::Stored(stored) => sealed("stored", detour::Stored::of(stored)),
    }
}

pub(super) fn read(body: &str) -> Result<Message, WireError> {
    let Head { v, kind } = serde_json::from_str(body).map_err(malformed)?;
    if v != VERSION {
        return Err(WireError::Version(v));
    }
    Ok(match &*kind {
        "start" => Message::Run(fields::<decider::Start<'_>>(body)?.message()?),
        "take" => Message::Run(fields::<decider::Take<'_, _>>(body)?.message()?),
        "accepted" => Message::Run(fields::<decider::Accepted<'_>>(body)?.message()?),
        "sweep" => Message::Run(fields::<decider::Sweep<'_>>(body)?.message()?),
        "activity_task" => Message::Task(fields::<task::Fields<'_>>(body)?.task()?),
        "alarm" => Message::Alarm(fields::<detour::Alarm<'_>>(body)?.alarm()?),
        "deferred" => Message::Deferred(fields::<detour::Deferred<'_>>(body)?.deferred()),
        "stored" => Message::Stored(fields::<detour::Stored<'_>>(body)?.stored()?),
        kind => {
            let arrival = arrival::read(kind, body)?;
            Message::Run(fields::<arrival::Addressed<'_>>(body)?.message(kind, arrival)?)
        }
    })
}
