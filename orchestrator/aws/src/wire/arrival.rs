//! What arrives for a run: by itself with the run that it is for, or within a `take`.

use std::borrow::Cow;

use dormouse_core::history::{CarriedSignal, NextRun};
use dormouse_core::operations;
use dormouse_core::{Arrival, Call, CommandId, Failure, Payload, RetryState, RunId, RunKey, TimeoutKind, Timestamp};
use dormouse_engine::seams::RunMessage;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::WireError;
use super::call::plain;
use super::json::{Id, fields, payload, present, raw};
use super::run::Run;

#[derive(Serialize, Deserialize)]
pub(super) struct Join<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Signal<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Cancel<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Terminate<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    next: Option<Next<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Next<'a> {
    #[serde(borrow)]
    workflow_type: Cow<'a, str>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    carried: Vec<Carried<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Carried<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Completed<'a> {
    activity_id: Id,
    attempt: u32,
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Failed<'a> {
    activity_id: Id,
    attempt: u32,
    failure: Cow<'a, Failure>,
    #[serde(default)]
    retry_state: Option<RetryState>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Lost<'a> {
    activity_id: Id,
    attempt: u32,
    timeout: TimeoutKind,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct NeverTaken {
    activity_id: Id,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Backoff<'a> {
    activity_id: Id,
    attempt: u32,
    failure: Cow<'a, Failure>,
    retry_at_ms: u64,
}

#[derive(Serialize)]
pub(super) struct Rang {}

/// What an arrival of some kind is written as.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Fields<'a> {
    Join(Join<'a>),
    Signal(Signal<'a>),
    Cancel(Cancel<'a>),
    Terminate(Terminate<'a>),
    Completed(Completed<'a>),
    Failed(Failed<'a>),
    Lost(Lost<'a>),
    NeverTaken(NeverTaken),
    Backoff(Backoff<'a>),
    Rang(Rang),
}

/// An arrival for one run.
#[derive(Serialize)]
pub(super) struct Arrived<'a> {
    run: Run<'a>,
    #[serde(flatten)]
    fields: Fields<'a>,
}

/// Whom it is for. [`read`] reads the rest, by its kind.
#[derive(Deserialize)]
pub(super) struct Addressed<'a> {
    #[serde(borrow)]
    run: Run<'a>,
}

impl<'a> Arrived<'a> {
    pub(super) fn of(run: &'a RunKey, run_id: RunId, fields: Fields<'a>) -> Self {
        Self { run: Run::of(run, run_id), fields }
    }
}

impl Addressed<'_> {
    pub(super) fn message(self, kind: &str, arrival: Arrival) -> Result<RunMessage, WireError> {
        let (run, run_id) = self.run.identified(kind)?;
        Ok(RunMessage::Arrived { run, run_id, arrival })
    }
}

/// An arrival within a `take`.
#[derive(Serialize)]
pub(super) struct Nested<'a> {
    kind: &'static str,
    #[serde(flatten)]
    fields: Fields<'a>,
}

impl<'a> Nested<'a> {
    pub(super) fn of(arrival: &'a Arrival) -> Result<Self, WireError> {
        let (kind, fields) = Fields::of(arrival)?;
        Ok(Self { kind, fields })
    }
}

/// Reads an arrival within a `take`.
pub(super) fn nested(text: &RawValue) -> Result<Arrival, WireError> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    let head: Head<'_> = fields(text.get())?;
    read(&head.kind, text.get())
}

impl<'a> Fields<'a> {
    /// Which kind it is, and what it needs.
    pub(super) fn of(arrival: &'a Arrival) -> Result<(&'static str, Self), WireError> {
        let completed = |id: &u64, attempt: &u32, result| {
            Ok::<_, WireError>(Self::Completed(Completed {
                activity_id: Id(*id),
                attempt: *attempt,
                result: raw(result)?,
            }))
        };
        let failed = |id: &u64, attempt: &u32, failure, retry_state: &RetryState| {
            let (failure, retry_state) = (Cow::Borrowed(failure), Some(*retry_state));
            Ok::<_, WireError>(Self::Failed(Failed { activity_id: Id(*id), attempt: *attempt, failure, retry_state }))
        };
        Ok(match arrival {
            Arrival::Join(operations::Joined { request_id }) => {
                ("join", Self::Join(Join { request_id: request_id.into() }))
            }
            Arrival::Signal(operations::Signaled { request_id, name, payload }) => {
                let payload = raw(payload)?;
                ("signal", Self::Signal(Signal { request_id: request_id.into(), name: name.into(), payload }))
            }
            Arrival::Cancel(operations::CancelRequested { request_id, reason }) => {
                ("cancel", Self::Cancel(Cancel { request_id: request_id.into(), reason: reason.into() }))
            }
            Arrival::Terminate(operations::Terminated { request_id, reason, next }) => {
                let next = next.as_deref().map(Next::of).transpose()?;
                ("terminate", Self::Terminate(Terminate { request_id: request_id.into(), reason: reason.into(), next }))
            }
            Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt, result }) => {
                ("activity_completed", completed(id, attempt, result)?)
            }
            Arrival::LocalCompleted(operations::LocalCompleted { id, attempt, result }) => {
                ("local_completed", completed(id, attempt, result)?)
            }
            Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state }) => {
                ("activity_failed", failed(id, attempt, failure, retry_state)?)
            }
            Arrival::LocalFailed(operations::LocalFailed { id, attempt, failure, retry_state }) => {
                ("local_failed", failed(id, attempt, failure, retry_state)?)
            }
            Arrival::AttemptLost(operations::WorkerGone { id, attempt, timeout, last_heartbeat }) => {
                let (activity_id, attempt, timeout) = (Id(*id), *attempt, *timeout);
                let last_heartbeat = last_heartbeat.as_ref().map(raw).transpose()?;
                ("attempt_lost", Self::Lost(Lost { activity_id, attempt, timeout, last_heartbeat }))
            }
            Arrival::NeverTaken(operations::NeverTaken { id }) => {
                ("never_taken", Self::NeverTaken(NeverTaken { activity_id: Id(*id) }))
            }
            Arrival::LocalBackoff(operations::LocalBackoff { id, attempt, failure, retry_at }) => (
                "local_backoff",
                Self::Backoff(Backoff {
                    activity_id: Id(*id),
                    attempt: *attempt,
                    failure: Cow::Borrowed(failure),
                    retry_at_ms: retry_at.as_millis(),
                }),
            ),
            Arrival::Alarm => ("alarm_rang", Self::Rang(Rang {})),
        })
    }
}

/// What a worker gave. One in another language may not know how deep values may be.
fn completed(id: CommandId, attempt: u32, result: Payload) -> Arrival {
    match result.check_depth() {
        Ok(()) => Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt, result }),
        Err(failure) => {
            let retry_state = RetryState::NonRetryableFailure;
            Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state })
        }
    }
}

/// Reads an arrival of this kind.
pub(super) fn read(kind: &str, body: &str) -> Result<Arrival, WireError> {
    let never_again = RetryState::NonRetryableFailure;
    Ok(match kind {
        "join" => {
            let Join { request_id } = fields(body)?;
            Arrival::Join(operations::Joined { request_id: request_id.into() })
        }
        "signal" => {
            let Signal { request_id, name, payload: sent } = fields(body)?;
            Arrival::Signal(operations::Signaled {
                request_id: request_id.into(),
                name: name.into(),
                payload: payload(sent),
            })
        }
        "cancel" => {
            let Cancel { request_id, reason } = fields(body)?;
            Arrival::Cancel(operations::CancelRequested { request_id: request_id.into(), reason: reason.into() })
        }
        "terminate" => {
            let Terminate { request_id, reason, next } = fields(body)?;
            let next = next.map(|next| Box::new(next.next_run()));
            Arrival::Terminate(operations::Terminated { request_id: request_id.into(), reason: reason.into(), next })
        }
        "activity_completed" => {
            let Completed { activity_id: Id(id), attempt, result } = fields(body)?;
            completed(id, attempt, payload(result))
        }
        "local_completed" => {
            let Completed { activity_id: Id(id), attempt, result } = fields(body)?;
            Arrival::LocalCompleted(operations::LocalCompleted { id, attempt, result: payload(result) })
        }
        "activity_failed" => {
            let Failed { activity_id: Id(id), attempt, failure, retry_state } = fields(body)?;
            let (failure, retry_state) = (failure.into_owned(), retry_state.unwrap_or(never_again));
            Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state })
        }
        "local_failed" => {
            let Failed { activity_id: Id(id), attempt, failure, retry_state } = fields(body)?;
            let (failure, retry_state) = (failure.into_owned(), retry_state.unwrap_or(never_again));
            Arrival::LocalFailed(operations::LocalFailed { id, attempt, failure, retry_state })
        }
        "attempt_lost" => {
            let Lost { activity_id: Id(id), attempt, timeout, last_heartbeat } = fields(body)?;
            Arrival::AttemptLost(operations::WorkerGone {
                id,
                attempt,
                timeout,
                last_heartbeat: last_heartbeat.map(payload),
            })
        }
        "never_taken" => Arrival::NeverTaken(operations::NeverTaken { id: fields::<NeverTaken>(body)?.activity_id.0 }),
        "local_backoff" => {
            let Backoff { activity_id: Id(id), attempt, failure, retry_at_ms } = fields(body)?;
            let retry_at = Timestamp::from_millis(retry_at_ms);
            Arrival::LocalBackoff(operations::LocalBackoff { id, attempt, failure: failure.into_owned(), retry_at })
        }
        "alarm_rang" => Arrival::Alarm,
        other => return Err(WireError::of_kind(other)),
    })
}

impl<'a> Next<'a> {
    fn of(next: &'a NextRun) -> Result<Self, WireError> {
        let (workflow_type, input) = plain(&next.call)?;
        let carried = next.carried.iter();
        let carried = carried.map(|signal| Ok(Carried { name: (&signal.name).into(), payload: raw(&signal.payload)? }));
        Ok(Self {
            workflow_type: workflow_type.into(),
            input: raw(input)?,
            request_id: next.request_id.clone(),
            carried: carried.collect::<Result<_, WireError>>()?,
        })
    }

    fn next_run(self) -> NextRun {
        let carried = self.carried.into_iter();
        NextRun {
            call: Call::new(self.workflow_type, payload(self.input)),
            request_id: self.request_id,
            carried: carried.map(|s| CarriedSignal { name: s.name.into(), payload: payload(s.payload) }).collect(),
        }
    }
}
