//! The JSON of messages. One struct holds the fields of all kinds; each kind says which it needs.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dormouse_core::history::{CarriedSignal, NextRun};
use dormouse_core::{
    ActivityTask, Arrival, IdConflictPolicy, IdReusePolicy, Payload, RecordedOptions, RecordedRetry, RetryState, RunId,
    RunKey, StartRequest, TimeoutKind, Timestamp, WorkflowKey,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::{self, FailureFields};
use super::json::{Id, Nested, exact, malformed, payload, present, raw};
use super::{Alarm, Deferred, Message, Stored, Task, VERSION, WireError, group};
use dormouse_engine::seams::{Intent, RunMessage, Wish};

#[derive(Deserialize)]
struct Head<'a> {
    v: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// The fields of every kind, in the order in which they are written. Payloads tell `null` from nothing.
#[derive(Default, Serialize, Deserialize)]
struct Fields<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<u64>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activity_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activity_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workflow_type: Option<String>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduled_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    failure: Option<FailureFields<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_state: Option<RetryState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<TimeoutKind>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reuse: Option<IdReusePolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<IdConflictPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    next: Option<Next<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<bool>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    arrival: Option<Nested<'a, Fields<'a>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    namespace: String,
    workflow_id: String,
    ordinal: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
}

#[derive(Serialize, Deserialize)]
struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_to_close_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule_to_close_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule_to_start_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat_ms: Option<u64>,
    retry: Retry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_queue: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Retry {
    initial_interval_ms: u64,
    #[serde(deserialize_with = "exact")]
    backoff_coefficient: f64,
    maximum_interval_ms: u64,
    #[serde(default)]
    maximum_attempts: u32,
    #[serde(default)]
    non_retryable_types: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Next<'a> {
    workflow_type: String,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    carried: Vec<Carried<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Carried<'a> {
    name: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

fn run_out(run: &RunKey, run_id: Option<RunId>) -> Option<Run> {
    Some(Run {
        namespace: run.workflow.namespace.to_string(),
        workflow_id: run.workflow.workflow_id.to_string(),
        ordinal: run.ordinal,
        run_id,
    })
}

pub(super) fn write(message: &Message) -> Result<String, WireError> {
    let mut fields = match message {
        Message::Run(message) => run_message_out(message)?,
        Message::Task(task) => task_out(task)?,
        Message::Alarm(Alarm { run, run_id, due }) => Fields {
            kind: "alarm".into(),
            run: run_out(run, Some(*run_id)),
            due_ms: Some(due.as_millis()),
            ..Fields::default()
        },
        Message::Deferred(Deferred { task_queue, due, body }) => Fields {
            kind: "deferred".into(),
            task_queue: Some(task_queue.clone()),
            due_ms: Some(due.as_millis()),
            body: Some(serde_json::from_str(body).map_err(malformed)?),
            ..Fields::default()
        },
        Message::Stored(Stored { key, bytes }) => {
            Fields { kind: "stored".into(), key: Some(key.clone()), bytes: Some(*bytes), ..Fields::default() }
        }
    };
    fields.v = Some(VERSION);
    serde_json::to_string(&fields).map_err(malformed)
}

fn run_message_out(message: &RunMessage) -> Result<Fields<'_>, WireError> {
    Ok(match message {
        RunMessage::Intent(Intent { run, wish: Wish::Start(request) }) => Fields {
            kind: "start".into(),
            run: run_out(run, None),
            workflow_type: Some(request.workflow_type.clone()),
            input: Some(raw(&request.input)?),
            request_id: Some(request.request_id.clone()),
            reuse: Some(request.reuse),
            conflict: Some(request.conflict),
            ..Fields::default()
        },
        RunMessage::Intent(Intent { run, wish: Wish::Take { arrival, pinned } }) => Fields {
            kind: "take".into(),
            run: run_out(run, None),
            pinned: Some(*pinned),
            arrival: Some(Nested::Ours(Box::new(arrival_out(arrival)?))),
            ..Fields::default()
        },
        RunMessage::Accepted { run, sequence, record } => Fields {
            kind: "accepted".into(),
            run: run_out(run, None),
            sequence: Some(*sequence),
            record: Some(BASE64.encode(record)),
            ..Fields::default()
        },
        RunMessage::Arrived { run, run_id, arrival } => {
            Fields { run: run_out(run, Some(*run_id)), ..arrival_out(arrival)? }
        }
        RunMessage::Sweep { run } => Fields { kind: "sweep".into(), run: run_out(run, None), ..Fields::default() },
    })
}

fn arrival_out(arrival: &Arrival) -> Result<Fields<'_>, WireError> {
    let kind = |kind: &'static str| Fields { kind: kind.into(), ..Fields::default() };
    let of =
        |name, id: &u64, attempt: &u32| Fields { activity_id: Some(Id(*id)), attempt: Some(*attempt), ..kind(name) };
    Ok(match arrival {
        Arrival::Signal { request_id, name, payload } => Fields {
            request_id: Some(request_id.clone()),
            name: Some(name.clone()),
            payload: Some(raw(payload)?),
            ..kind("signal")
        },
        Arrival::Cancel { request_id, reason } => {
            Fields { request_id: Some(request_id.clone()), reason: Some(reason.clone()), ..kind("cancel") }
        }
        Arrival::Terminate { request_id, reason, next } => Fields {
            request_id: Some(request_id.clone()),
            reason: Some(reason.clone()),
            next: next.as_deref().map(next_out).transpose()?,
            ..kind("terminate")
        },
        Arrival::ActivityCompleted { id, attempt, result } => {
            Fields { result: Some(raw(result)?), ..of("activity_completed", id, attempt) }
        }
        Arrival::ActivityFailed { id, attempt, failure, retry_state } => Fields {
            failure: Some(failure::write(failure)?),
            retry_state: Some(*retry_state),
            ..of("activity_failed", id, attempt)
        },
        Arrival::AttemptLost { id, attempt, timeout, last_heartbeat } => Fields {
            timeout: Some(*timeout),
            last_heartbeat: last_heartbeat.as_ref().map(raw).transpose()?,
            ..of("attempt_lost", id, attempt)
        },
        Arrival::NeverTaken { id } => Fields { activity_id: Some(Id(*id)), ..kind("never_taken") },
        Arrival::LocalCompleted { id, attempt, result } => {
            Fields { result: Some(raw(result)?), ..of("local_completed", id, attempt) }
        }
        Arrival::LocalFailed { id, attempt, failure, retry_state } => Fields {
            failure: Some(failure::write(failure)?),
            retry_state: Some(*retry_state),
            ..of("local_failed", id, attempt)
        },
        Arrival::LocalBackoff { id, attempt, failure, retry_at } => Fields {
            failure: Some(failure::write(failure)?),
            retry_at_ms: Some(retry_at.as_millis()),
            ..of("local_backoff", id, attempt)
        },
        Arrival::Alarm => kind("alarm_rang"),
    })
}

fn next_out(next: &NextRun) -> Result<Next<'_>, WireError> {
    Ok(Next {
        workflow_type: next.workflow_type.clone(),
        input: raw(&next.input)?,
        request_id: next.request_id.clone(),
        carried: next
            .carried
            .iter()
            .map(|signal| Ok(Carried { name: signal.name.clone(), payload: raw(&signal.payload)? }))
            .collect::<Result<_, WireError>>()?,
    })
}

fn task_out(Task { task, not_after }: &Task) -> Result<Fields<'_>, WireError> {
    let options = &task.options;
    Ok(Fields {
        kind: "activity_task".into(),
        run: run_out(&task.run, Some(task.run_id)),
        activity_id: Some(Id(task.id)),
        activity_type: Some(task.activity_type.clone()),
        input: Some(raw(&task.input)?),
        options: Some(Options {
            start_to_close_ms: options.start_to_close_ms,
            schedule_to_close_ms: options.schedule_to_close_ms,
            schedule_to_start_ms: options.schedule_to_start_ms,
            heartbeat_ms: options.heartbeat_ms,
            retry: Retry {
                initial_interval_ms: options.retry.initial_interval_ms,
                backoff_coefficient: options.retry.backoff_coefficient,
                maximum_interval_ms: options.retry.maximum_interval_ms,
                maximum_attempts: options.retry.maximum_attempts,
                non_retryable_types: options.retry.non_retryable_types.clone(),
            },
            task_queue: options.task_queue.clone(),
        }),
        scheduled_at_ms: Some(task.scheduled_at.as_millis()),
        not_before_ms: Some(task.not_before.as_millis()),
        not_after_ms: Some(not_after.as_millis()),
        lost_attempts: Some(task.lost),
        reply_group: Some(group(&task.run.workflow)),
        ..Fields::default()
    })
}

pub(super) fn read(body: &str) -> Result<Message, WireError> {
    let head: Head<'_> = serde_json::from_str(body).map_err(malformed)?;
    if head.v != VERSION {
        return Err(WireError::Version(head.v));
    }
    let known = |kind: &str| {
        matches!(kind, "start" | "take" | "accepted" | "sweep" | "activity_task" | "alarm" | "deferred" | "stored")
            || ARRIVALS.contains(&kind)
    };
    if !known(&head.kind) {
        return Err(WireError::Kind(head.kind.chars().take(64).collect()));
    }
    let fields: Fields<'_> = serde_json::from_str(body).map_err(malformed)?;
    fields.message()
}

const ARRIVALS: [&str; 11] = [
    "signal",
    "cancel",
    "terminate",
    "activity_completed",
    "activity_failed",
    "attempt_lost",
    "never_taken",
    "local_completed",
    "local_failed",
    "local_backoff",
    "alarm_rang",
];

impl Fields<'_> {
    fn need<T>(&self, field: Option<T>, name: &str) -> Result<T, WireError> {
        field.ok_or_else(|| WireError::Malformed(format!("{:?} without {name:?}", self.kind)))
    }

    fn run(&self) -> Result<(RunKey, Option<RunId>), WireError> {
        let run = self.need(self.run.as_ref(), "run")?;
        let workflow = WorkflowKey::new(&run.namespace, &run.workflow_id).map_err(malformed)?;
        Ok((workflow.run(run.ordinal), run.run_id))
    }

    fn identified(&self) -> Result<(RunKey, RunId), WireError> {
        let (run, run_id) = self.run()?;
        Ok((run, self.need(run_id, "run.run_id")?))
    }

    fn payload(&self, field: Option<&RawValue>, name: &str) -> Result<Payload, WireError> {
        self.need(field, name).map(payload)
    }

    fn text(&self, field: Option<&String>, name: &str) -> Result<String, WireError> {
        self.need(field, name).cloned()
    }

    fn time(&self, field: Option<u64>, name: &str) -> Result<Timestamp, WireError> {
        self.need(field, name).map(Timestamp::from_millis)
    }

    fn message(&self) -> Result<Message, WireError> {
        Ok(match &*self.kind {
            "activity_task" => Message::Task(self.task()?),
            "alarm" => {
                let (run, run_id) = self.identified()?;
                Message::Alarm(Alarm { run, run_id, due: self.time(self.due_ms, "due_ms")? })
            }
            "deferred" => Message::Deferred(Deferred {
                task_queue: self.text(self.task_queue.as_ref(), "task_queue")?,
                due: self.time(self.due_ms, "due_ms")?,
                body: self.need(self.body, "body")?.get().to_owned(),
            }),
            "stored" => {
                let key = self.text(self.key.as_ref(), "key")?;
                let digits = key.strip_prefix("messages/").unwrap_or_default();
                if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(malformed("a key that no message is stored under"));
                }
                Message::Stored(Stored { key, bytes: self.need(self.bytes, "bytes")? })
            }
            _ => Message::Run(self.run_message()?),
        })
    }

    fn run_message(&self) -> Result<RunMessage, WireError> {
        Ok(match &*self.kind {
            "start" => {
                let request = StartRequest {
                    workflow_type: self.text(self.workflow_type.as_ref(), "workflow_type")?,
                    input: self.payload(self.input, "input")?,
                    request_id: self.text(self.request_id.as_ref(), "request_id")?,
                    reuse: self.need(self.reuse, "reuse")?,
                    conflict: self.need(self.conflict, "conflict")?,
                };
                RunMessage::Intent(Intent { run: self.run()?.0, wish: Wish::Start(request) })
            }
            "take" => {
                let nested = self.need(self.arrival.as_ref(), "arrival")?;
                let arrival = nested.read::<Fields<'_>>()?.arrival()?;
                let pinned = self.need(self.pinned, "pinned")?;
                RunMessage::Intent(Intent { run: self.run()?.0, wish: Wish::Take { arrival, pinned } })
            }
            "accepted" => {
                let record = self.need(self.record.as_ref(), "record")?;
                let record = BASE64.decode(record).map_err(malformed)?.into();
                RunMessage::Accepted { run: self.run()?.0, sequence: self.need(self.sequence, "sequence")?, record }
            }
            "sweep" => RunMessage::Sweep { run: self.run()?.0 },
            _ => {
                let (run, run_id) = self.identified()?;
                RunMessage::Arrived { run, run_id, arrival: self.arrival()? }
            }
        })
    }

    fn arrival(&self) -> Result<Arrival, WireError> {
        let id = || self.need(self.activity_id, "activity_id").map(|id| id.0);
        let attempt = || self.need(self.attempt, "attempt");
        let failure = || self.need(self.failure.as_ref(), "failure").and_then(failure::read);
        let retry_state = self.retry_state.unwrap_or(RetryState::NonRetryableFailure);
        let request_id = || self.text(self.request_id.as_ref(), "request_id");
        let reason = || self.text(self.reason.as_ref(), "reason");
        Ok(match &*self.kind {
            "signal" => Arrival::Signal {
                request_id: request_id()?,
                name: self.text(self.name.as_ref(), "name")?,
                payload: self.payload(self.payload, "payload")?,
            },
            "cancel" => Arrival::Cancel { request_id: request_id()?, reason: reason()? },
            "terminate" => Arrival::Terminate {
                request_id: request_id()?,
                reason: reason()?,
                next: self.next.as_ref().map(|next| Box::new(next.next_run())),
            },
            "activity_completed" => Arrival::ActivityCompleted {
                id: id()?,
                attempt: attempt()?,
                result: self.payload(self.result, "result")?,
            },
            "activity_failed" => {
                Arrival::ActivityFailed { id: id()?, attempt: attempt()?, failure: failure()?, retry_state }
            }
            "attempt_lost" => Arrival::AttemptLost {
                id: id()?,
                attempt: attempt()?,
                timeout: self.need(self.timeout, "timeout")?,
                last_heartbeat: self.last_heartbeat.map(payload),
            },
            "never_taken" => Arrival::NeverTaken { id: id()? },
            "local_completed" => {
                Arrival::LocalCompleted { id: id()?, attempt: attempt()?, result: self.payload(self.result, "result")? }
            }
            "local_failed" => Arrival::LocalFailed { id: id()?, attempt: attempt()?, failure: failure()?, retry_state },
            "local_backoff" => Arrival::LocalBackoff {
                id: id()?,
                attempt: attempt()?,
                failure: failure()?,
                retry_at: self.time(self.retry_at_ms, "retry_at_ms")?,
            },
            "alarm_rang" => Arrival::Alarm,
            other => return Err(WireError::Kind(other.chars().take(64).collect())),
        })
    }

    fn task(&self) -> Result<Task, WireError> {
        let (run, run_id) = self.identified()?;
        let options = self.need(self.options.as_ref(), "options")?;
        let task = ActivityTask {
            run,
            run_id,
            id: self.need(self.activity_id, "activity_id")?.0,
            activity_type: self.text(self.activity_type.as_ref(), "activity_type")?,
            input: self.payload(self.input, "input")?,
            options: RecordedOptions {
                start_to_close_ms: options.start_to_close_ms,
                schedule_to_close_ms: options.schedule_to_close_ms,
                schedule_to_start_ms: options.schedule_to_start_ms,
                heartbeat_ms: options.heartbeat_ms,
                retry: RecordedRetry {
                    initial_interval_ms: options.retry.initial_interval_ms,
                    backoff_coefficient: options.retry.backoff_coefficient,
                    maximum_interval_ms: options.retry.maximum_interval_ms,
                    maximum_attempts: options.retry.maximum_attempts,
                    non_retryable_types: options.retry.non_retryable_types.clone(),
                },
                task_queue: options.task_queue.clone(),
            },
            scheduled_at: self.time(self.scheduled_at_ms, "scheduled_at_ms")?,
            lost: self.need(self.lost_attempts, "lost_attempts")?,
            not_before: self.time(self.not_before_ms, "not_before_ms")?,
        };
        Ok(Task { task, not_after: self.time(self.not_after_ms, "not_after_ms")? })
    }
}

impl Next<'_> {
    fn next_run(&self) -> NextRun {
        let carried = self.carried.iter();
        NextRun {
            workflow_type: self.workflow_type.clone(),
            input: payload(self.input),
            request_id: self.request_id.clone(),
            carried: carried.map(|s| CarriedSignal { name: s.name.clone(), payload: payload(s.payload) }).collect(),
        }
    }
}
