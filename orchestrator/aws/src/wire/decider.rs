//! To whoever decides a run, from those who take in for it: `start`, `take`, `accepted`, `sweep`.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dormouse_core::{Arrival, Call, IdConflictPolicy, IdReusePolicy, RunKey, StartRequest};
use dormouse_engine::seams::{Intent, RunMessage, Wish};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::plain;
use super::json::{malformed, payload, raw};
use super::run::Run;
use super::{WireError, arrival};

#[derive(Serialize, Deserialize)]
pub(super) struct Start<'a> {
    #[serde(borrow)]
    run: Run<'a>,
    #[serde(borrow)]
    workflow_type: Cow<'a, str>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    reuse: IdReusePolicy,
    conflict: IdConflictPolicy,
}

impl<'a> Start<'a> {
    pub(super) fn of(run: &'a RunKey, request: &'a StartRequest) -> Result<Self, WireError> {
        let (workflow_type, input) = plain(&request.call)?;
        Ok(Self {
            run: Run::any(run),
            workflow_type: workflow_type.into(),
            input: raw(input)?,
            request_id: (&*request.request_id).into(),
            reuse: request.reuse,
            conflict: request.conflict,
        })
    }

    pub(super) fn message(self) -> Result<RunMessage, WireError> {
        let request = StartRequest {
            call: Call::new(self.workflow_type, payload(self.input)),
            request_id: self.request_id.into_owned(),
            reuse: self.reuse,
            conflict: self.conflict,
        };
        Ok(RunMessage::Intent(Intent { run: self.run.key()?, wish: Wish::Start(request) }))
    }
}

/// The arrival is read as text and parsed by itself: its kind comes first.
#[derive(Serialize, Deserialize)]
pub(super) struct Take<'a, A = &'a RawValue> {
    #[serde(borrow)]
    run: Run<'a>,
    pinned: bool,
    arrival: A,
}

impl<'a> Take<'a, arrival::Nested<'a>> {
    pub(super) fn of(run: &'a RunKey, arrival: &'a Arrival, pinned: bool) -> Result<Self, WireError> {
        Ok(Self { run: Run::any(run), pinned, arrival: arrival::Nested::of(arrival)? })
    }
}

impl Take<'_, &RawValue> {
    pub(super) fn message(self) -> Result<RunMessage, WireError> {
        let arrival = arrival::nested(self.arrival)?;
        Ok(RunMessage::Intent(Intent { run: self.run.key()?, wish: Wish::Take { arrival, pinned: self.pinned } }))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Accepted<'a> {
    #[serde(borrow)]
    run: Run<'a>,
    sequence: u64,
    #[serde(borrow)]
    record: Cow<'a, str>,
}

impl<'a> Accepted<'a> {
    pub(super) fn of(run: &'a RunKey, sequence: u64, record: &[u8]) -> Self {
        Self { run: Run::any(run), sequence, record: BASE64.encode(record).into() }
    }

    pub(super) fn message(self) -> Result<RunMessage, WireError> {
        let record = BASE64.decode(&*self.record).map_err(malformed)?.into();
        Ok(RunMessage::Accepted { run: self.run.key()?, sequence: self.sequence, record })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Sweep<'a> {
    #[serde(borrow)]
    run: Run<'a>,
}

impl<'a> Sweep<'a> {
    pub(super) fn of(run: &'a RunKey) -> Self {
        Self { run: Run::any(run) }
    }

    pub(super) fn message(self) -> Result<RunMessage, WireError> {
        Ok(RunMessage::Sweep { run: self.run.key()? })
    }
}
