//! What goes round before it is where it belongs: `alarm`, `deferred`, `stored`.

use std::borrow::Cow;

use dormouse_core::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::WireError;
use super::json::malformed;
use super::run::Run;

#[derive(Serialize, Deserialize)]
pub(super) struct Alarm<'a> {
    #[serde(borrow)]
    run: Run<'a>,
    due_ms: u64,
}

impl<'a> Alarm<'a> {
    pub(super) fn of(alarm: &'a super::Alarm) -> Self {
        Self { run: Run::of(&alarm.run, alarm.run_id), due_ms: alarm.due.as_millis() }
    }

    pub(super) fn alarm(self) -> Result<super::Alarm, WireError> {
        let (run, run_id) = self.run.identified("alarm")?;
        Ok(super::Alarm { run, run_id, due: Timestamp::from_millis(self.due_ms) })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Deferred<'a> {
    #[serde(borrow)]
    task_queue: Cow<'a, str>,
    due_ms: u64,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl<'a> Deferred<'a> {
    pub(super) fn of(deferred: &'a super::Deferred) -> Result<Self, WireError> {
        let body = serde_json::from_str(&deferred.body).map_err(malformed)?;
        Ok(Self { task_queue: (&*deferred.task_queue).into(), due_ms: deferred.due.as_millis(), body })
    }

    pub(super) fn deferred(self) -> super::Deferred {
        super::Deferred {
            task_queue: self.task_queue.into(),
            due: Timestamp::from_millis(self.due_ms),
            body: self.body.get().to_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    bytes: u64,
}

impl<'a> Stored<'a> {
    pub(super) fn of(stored: &'a super::Stored) -> Self {
        Self { key: (&*stored.key).into(), bytes: stored.bytes }
    }

    /// Only below where messages are stored.
    pub(super) fn stored(self) -> Result<super::Stored, WireError> {
        let digits = self.key.strip_prefix("messages/").unwrap_or_default();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed("a key that no message is stored under"));
        }
        Ok(super::Stored { key: self.key.into(), bytes: self.bytes })
    }
}
