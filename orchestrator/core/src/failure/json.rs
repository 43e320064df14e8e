//! Failures as JSON: one flat object a link, details and heartbeats as they came. Whoever writes one by hand, a worker in
//! another language, need say no more than a message.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Failure, FailureKind, RetryState, TimeoutKind};
use crate::payload::Payload;

/// A longer chain is told in one sentence: a reader's stack is spared, and so is ours.
const MOST_LINKS: usize = 64;

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    #[default]
    Application,
    Timeout,
    Canceled,
    Terminated,
    Activity,
}

/// All that a failure of any kind may say. Not a tagged enum: reading one would make a tree of the details.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "Cause: Deserialize<'de>"))]
struct Fields<Cause> {
    message: String,
    #[serde(default)]
    kind: KindName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r#type: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    non_retryable: Option<bool>,
    #[serde(default, deserialize_with = "Payload::some", skip_serializing_if = "Option::is_none")]
    details: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_retry_delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<TimeoutKind>,
    #[serde(default, deserialize_with = "Payload::some", skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<Payload>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

impl<Cause> Default for Fields<Cause> {
    fn default() -> Self {
        Self {
            message: String::new(),
            kind: KindName::Application,
            r#type: None,
            non_retryable: None,
            details: None,
            next_retry_delay_ms: None,
            timeout: None,
            last_heartbeat: None,
            activity_type: None,
            activity_id: None,
            attempt: None,
            retry_state: None,
            place: None,
            cause: None,
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = Fields { place: self.place.clone(), ..Fields::default() };
        let fields = if self.chain().count() > MOST_LINKS {
            Fields { message: self.to_string(), ..fields }
        } else {
            Fields { message: self.message.clone(), cause: self.cause.as_deref(), ..fields }
        };
        let fields = match self.kind.clone() {
            FailureKind::Application { r#type, non_retryable, details, next_retry_delay_ms } => {
                Fields { r#type, non_retryable: Some(non_retryable), details, next_retry_delay_ms, ..fields }
            }
            FailureKind::Timeout { timeout, last_heartbeat } => {
                Fields { kind: KindName::Timeout, timeout: Some(timeout), last_heartbeat, ..fields }
            }
            FailureKind::Canceled {} => Fields { kind: KindName::Canceled, ..fields },
            FailureKind::Terminated {} => Fields { kind: KindName::Terminated, ..fields },
            FailureKind::Activity { activity_type, activity_id, attempt, retry_state } => Fields {
                kind: KindName::Activity,
                activity_type: Some(activity_type),
                activity_id: Some(activity_id),
                attempt: Some(attempt),
                retry_state: Some(retry_state),
                ..fields
            },
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::<Box<Failure>>::deserialize(deserializer)?;
        let needed = de::Error::missing_field;
        let kind = match fields.kind {
            KindName::Application => FailureKind::Application {
                r#type: fields.r#type,
                non_retryable: fields.non_retryable.unwrap_or_default(),
                details: fields.details,
                next_retry_delay_ms: fields.next_retry_delay_ms,
            },
            KindName::Timeout => FailureKind::Timeout {
                timeout: fields.timeout.ok_or_else(|| needed("timeout"))?,
                last_heartbeat: fields.last_heartbeat,
            },
            KindName::Canceled => FailureKind::Canceled {},
            KindName::Terminated => FailureKind::Terminated {},
            KindName::Activity => FailureKind::Activity {
                activity_type: fields.activity_type.ok_or_else(|| needed("activity_type"))?,
                activity_id: fields.activity_id.ok_or_else(|| needed("activity_id"))?,
                attempt: fields.attempt.ok_or_else(|| needed("attempt"))?,
                retry_state: fields.retry_state.ok_or_else(|| needed("retry_state"))?,
            },
        };
        Ok(Self { message: fields.message, kind, place: fields.place, cause: fields.cause })
    }
}
