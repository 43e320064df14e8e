//! To workers: `activity_task`.

use std::borrow::Cow;

use dormouse_core::{ActivityTask, RecordedOptions, RecordedRetry, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{Id, exact, payload, raw};
use super::run::Run;
use super::{Task, WireError, group};

#[derive(Serialize, Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    run: Run<'a>,
    activity_id: Id,
    #[serde(borrow)]
    activity_type: Cow<'a, str>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    options: Options<'a>,
    scheduled_at_ms: u64,
    not_before_ms: u64,
    not_after_ms: u64,
    lost_attempts: u32,
    /// For workers in other languages: it follows from the run.
    #[serde(skip_deserializing)]
    reply_group: String,
}

#[derive(Serialize, Deserialize)]
struct Options<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_to_close_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule_to_close_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule_to_start_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat_ms: Option<u64>,
    #[serde(borrow)]
    retry: Retry<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_queue: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Retry<'a> {
    initial_interval_ms: u64,
    #[serde(deserialize_with = "exact")]
    backoff_coefficient: f64,
    maximum_interval_ms: u64,
    #[serde(default)]
    maximum_attempts: u32,
    #[serde(default, borrow)]
    non_retryable_types: Vec<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(Task { task, not_after }: &'a Task) -> Result<Self, WireError> {
        Ok(Self {
            run: Run::of(&task.run, task.run_id),
            activity_id: Id(task.id),
            activity_type: (&*task.activity_type).into(),
            input: raw(&task.input)?,
            options: Options::of(&task.options),
            scheduled_at_ms: task.scheduled_at.as_millis(),
            not_before_ms: task.not_before.as_millis(),
            not_after_ms: not_after.as_millis(),
            lost_attempts: task.lost,
            reply_group: group(&task.run.workflow),
        })
    }

    pub(super) fn task(self) -> Result<Task, WireError> {
        let (run, run_id) = self.run.identified("activity_task")?;
        let task = ActivityTask {
            run,
            run_id,
            id: self.activity_id.0,
            activity_type: self.activity_type.into(),
            input: payload(self.input),
            options: self.options.recorded(),
            scheduled_at: Timestamp::from_millis(self.scheduled_at_ms),
            lost: self.lost_attempts,
            not_before: Timestamp::from_millis(self.not_before_ms),
        };
        Ok(Task { task, not_after: Timestamp::from_millis(self.not_after_ms) })
    }
}

impl<'a> Options<'a> {
    fn of(options: &'a RecordedOptions) -> Self {
        let retry = &options.retry;
        Self {
            start_to_close_ms: options.start_to_close_ms,
            schedule_to_close_ms: options.schedule_to_close_ms,
            schedule_to_start_ms: options.schedule_to_start_ms,
            heartbeat_ms: options.heartbeat_ms,
            retry: Retry {
                initial_interval_ms: retry.initial_interval_ms,
                backoff_coefficient: retry.backoff_coefficient,
                maximum_interval_ms: retry.maximum_interval_ms,
                maximum_attempts: retry.maximum_attempts,
                non_retryable_types: retry.non_retryable_types.iter().map(|name| (&**name).into()).collect(),
            },
            task_queue: options.task_queue.clone(),
        }
    }

    fn recorded(self) -> RecordedOptions {
        let retry = self.retry;
        RecordedOptions {
            start_to_close_ms: self.start_to_close_ms,
            schedule_to_close_ms: self.schedule_to_close_ms,
            schedule_to_start_ms: self.schedule_to_start_ms,
            heartbeat_ms: self.heartbeat_ms,
            retry: RecordedRetry {
                initial_interval_ms: retry.initial_interval_ms,
                backoff_coefficient: retry.backoff_coefficient,
                maximum_interval_ms: retry.maximum_interval_ms,
                maximum_attempts: retry.maximum_attempts,
                non_retryable_types: retry.non_retryable_types.into_iter().map(Into::into).collect(),
            },
            task_queue: self.task_queue,
        }
    }
}
