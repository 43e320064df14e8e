//! Failures in messages: the JSON that people see everywhere, with details kept byte for byte, and tolerant of workers
//! that say no more than a message.

use std::borrow::Cow;

use dormouse_core::{Failure, FailureKind, RetryState, TimeoutKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::WireError;
use super::json::{Nested, payload, present, raw};

/// Causes beyond this are told in one sentence: a reader's stack is spared.
const MOST_CAUSES: usize = 64;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct FailureFields<'a> {
    message: String,
    #[serde(default = "application", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    r#type: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    non_retryable: Option<bool>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    details: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_retry_delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<TimeoutKind>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activity_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activity_id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_state: Option<RetryState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Box<str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    cause: Option<Nested<'a, FailureFields<'a>>>,
}

fn application() -> Cow<'static, str> {
    "application".into()
}

pub(super) fn write(failure: &Failure) -> Result<FailureFields<'_>, WireError> {
    if failure.chain().count() > MOST_CAUSES {
        let mut told = write_one(failure)?;
        told.message = failure.to_string();
        return Ok(told);
    }
    let mut fields = write_one(failure)?;
    fields.cause = failure.cause.as_deref().map(write).transpose()?.map(|cause| Nested::Ours(Box::new(cause)));
    Ok(fields)
}

fn write_one(failure: &Failure) -> Result<FailureFields<'_>, WireError> {
    let fields = FailureFields { message: failure.message.clone(), place: failure.place.clone(), ..Default::default() };
    Ok(match &failure.kind {
        FailureKind::Application { r#type, non_retryable, details, next_retry_delay_ms } => FailureFields {
            kind: application(),
            r#type: r#type.clone(),
            non_retryable: Some(*non_retryable),
            details: details.as_ref().map(raw).transpose()?,
            next_retry_delay_ms: *next_retry_delay_ms,
            ..fields
        },
        FailureKind::Timeout { timeout, last_heartbeat } => FailureFields {
            kind: "timeout".into(),
            timeout: Some(*timeout),
            last_heartbeat: last_heartbeat.as_ref().map(raw).transpose()?,
            ..fields
        },
        FailureKind::Canceled {} => FailureFields { kind: "canceled".into(), ..fields },
        FailureKind::Terminated {} => FailureFields { kind: "terminated".into(), ..fields },
        FailureKind::Activity { activity_type, activity_id, attempt, retry_state } => FailureFields {
            kind: "activity".into(),
            activity_type: Some(activity_type.clone()),
            activity_id: Some(*activity_id),
            attempt: Some(*attempt),
            retry_state: Some(*retry_state),
            ..fields
        },
    })
}

/// Reads a failure and its causes, as deep as they are written.
pub(super) fn read(fields: &FailureFields<'_>) -> Result<Failure, WireError> {
    let mut chain = vec![read_one(fields)?];
    let mut next: Option<FailureFields<'_>> = fields.cause.as_ref().map(Nested::read).transpose()?;
    while let Some(fields) = next {
        if chain.len() == MOST_CAUSES {
            return Err(WireError::Malformed(format!("a failure of more than {MOST_CAUSES} causes")));
        }
        chain.push(read_one(&fields)?);
        next = fields.cause.as_ref().map(Nested::read).transpose()?;
    }
    let last = chain.pop().ok_or_else(|| WireError::Malformed("no failure".into()))?;
    let link = |cause: Failure, failure: Failure| Failure { cause: Some(Box::new(cause)), ..failure };
    Ok(chain.into_iter().rev().fold(last, link))
}

fn read_one(fields: &FailureFields<'_>) -> Result<Failure, WireError> {
    fn need<T: Clone>(field: &Option<T>, name: &str) -> Result<T, WireError> {
        field.clone().ok_or_else(|| WireError::Malformed(format!("a failure without {name:?}")))
    }
    let kind = match &*fields.kind {
        "application" => FailureKind::Application {
            r#type: fields.r#type.clone(),
            non_retryable: fields.non_retryable.unwrap_or_default(),
            details: fields.details.map(payload),
            next_retry_delay_ms: fields.next_retry_delay_ms,
        },
        "timeout" => FailureKind::Timeout {
            timeout: need(&fields.timeout, "timeout")?,
            last_heartbeat: fields.last_heartbeat.map(payload),
        },
        "canceled" => FailureKind::Canceled {},
        "terminated" => FailureKind::Terminated {},
        "activity" => FailureKind::Activity {
            activity_type: need(&fields.activity_type, "activity_type")?,
            activity_id: need(&fields.activity_id, "activity_id")?,
            attempt: need(&fields.attempt, "attempt")?,
            retry_state: need(&fields.retry_state, "retry_state")?,
        },
        _ => return Err(WireError::Malformed("a failure of unknown kind".into())),
    };
    Ok(Failure { message: fields.message.clone(), kind, place: fields.place.clone(), cause: None })
}
