//! Retry policies and time limits, and the one rule that decides whether another attempt is made.

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::failure::{Failure, FailureKind, RetryState, TimeoutKind};
use crate::time::{Timestamp, millis};

/// How often and how fast a failed activity is tried again. Temporal's rules and defaults:
/// first delay 1 s, doubling, at most 100 times the first, attempts without limit.
///
/// Every attempt costs money where you pay per use: bound them with [`RetryPolicy::max_attempts`] or a
/// schedule-to-close limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    initial_interval: Duration,
    backoff_coefficient: f64,
    maximum_interval: Option<Duration>,
    maximum_attempts: u32,
    non_retryable_types: &'static [&'static str],
}

impl RetryPolicy {
    /// Temporal's defaults, attempts without limit.
    pub const DEFAULT: Self = Self {
        initial_interval: Duration::from_secs(1),
        backoff_coefficient: 2.0,
        maximum_interval: None,
        maximum_attempts: 0,
        non_retryable_types: &[],
    };

    /// The defaults with at most this many attempts in all. 1 means that nothing is ever tried twice; 0, no limit.
    #[must_use]
    pub const fn max_attempts(attempts: u32) -> Self {
        Self { maximum_attempts: attempts, ..Self::DEFAULT }
    }

    /// The delay before the second attempt; at least a millisecond, and no longer than a maximum set before.
    ///
    /// # Panics
    /// When it is not; in a `const`, that is a compile error.
    #[must_use]
    pub const fn initial_interval(self, interval: Duration) -> Self {
        assert!(millis(interval) > 0, "the initial interval must be at least a millisecond");
        let policy = Self { initial_interval: interval, ..self };
        policy.assert_order();
        policy
    }

    const fn assert_order(&self) {
        if let Some(maximum) = self.maximum_interval {
            assert!(
                maximum.as_nanos() >= self.initial_interval.as_nanos(),
                "the maximum interval must be at least the initial one; set the initial one first"
            );
        }
    }

    /// By how much each delay exceeds the one before; at least 1.
    ///
    /// # Panics
    /// When the coefficient is below 1 or not finite; in a `const`, that is a compile error.
    #[must_use]
    pub const fn backoff_coefficient(self, coefficient: f64) -> Self {
        assert!(coefficient >= 1.0 && coefficient.is_finite(), "the backoff coefficient must be at least 1");
        Self { backoff_coefficient: coefficient, ..self }
    }

    /// No delay is longer than this; at least the first one, so set that before. Default: 100 times the first.
    ///
    /// # Panics
    /// When it is shorter than the first; in a `const`, that is a compile error.
    #[must_use]
    pub const fn maximum_interval(self, interval: Duration) -> Self {
        let policy = Self { maximum_interval: Some(interval), ..self };
        policy.assert_order();
        policy
    }

    /// Failures whose type is one of these are final.
    #[must_use]
    pub const fn non_retryable(self, types: &'static [&'static str]) -> Self {
        Self { non_retryable_types: types, ..self }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The task queue of activities that name none.
pub const DEFAULT_TASK_QUEUE: &str = "default";

/// Options of a queued activity. One of the two close limits is required, so there is no other way to begin.
///
/// ```
/// # use dormouse_core::{ActivityOptions, RetryPolicy};
/// # use std::time::Duration;
/// const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1))
///     .retry(RetryPolicy::max_attempts(5).initial_interval(Duration::from_secs(1)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivityOptions {
    pub(crate) start_to_close: Option<Duration>,
    pub(crate) schedule_to_close: Option<Duration>,
    pub(crate) schedule_to_start: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) task_queue: Option<&'static str>,
}

impl ActivityOptions {
    const NONE: Self = Self {
        start_to_close: None,
        schedule_to_close: None,
        schedule_to_start: None,
        heartbeat: None,
        retry: RetryPolicy::DEFAULT,
        task_queue: None,
    };

    /// Each attempt may take this long.
    #[must_use]
    pub const fn start_to_close(limit: Duration) -> Self {
        Self { start_to_close: Some(limit), ..Self::NONE }
    }

    /// All attempts and the waits between them may take this long together.
    #[must_use]
    pub const fn schedule_to_close(limit: Duration) -> Self {
        Self { schedule_to_close: Some(limit), ..Self::NONE }
    }

    /// Bounds all attempts together as well.
    #[must_use]
    pub const fn within(self, schedule_to_close: Duration) -> Self {
        Self { schedule_to_close: Some(schedule_to_close), ..self }
    }

    /// A worker must take the activity up this soon. Passing it is final: it is never retried.
    #[must_use]
    pub const fn schedule_to_start(self, limit: Duration) -> Self {
        Self { schedule_to_start: Some(limit), ..self }
    }

    /// The activity must heartbeat at least this often.
    #[must_use]
    pub const fn heartbeat(self, limit: Duration) -> Self {
        Self { heartbeat: Some(limit), ..self }
    }

    /// Replaces the retry policy.
    #[must_use]
    pub const fn retry(self, policy: RetryPolicy) -> Self {
        Self { retry: policy, ..self }
    }

    /// Sends the task to the workers of this task queue instead of the default one: to functions with other rights,
    /// other sizes, or in another language. Where there is one kind of workers only, as embedded, they run it.
    #[must_use]
    pub const fn task_queue(self, name: &'static str) -> Self {
        Self { task_queue: Some(name), ..self }
    }

    pub(crate) fn recorded(&self) -> RecordedOptions {
        RecordedOptions {
            start_to_close_ms: self.start_to_close.map(millis),
            schedule_to_close_ms: self.schedule_to_close.map(millis),
            schedule_to_start_ms: self.schedule_to_start.map(millis),
            heartbeat_ms: self.heartbeat.map(millis),
            retry: RecordedRetry::from(&self.retry),
            task_queue: self.task_queue.map(str::to_owned),
        }
    }
}

/// Options of a local activity: it runs where the workflow is decided, so it should be short.
/// A delay of over a second between attempts becomes a durable timer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalActivityOptions {
    pub(crate) start_to_close: Duration,
    pub(crate) retry: RetryPolicy,
}

/// The longest start-to-close limit of a local activity: beyond it, use a queued one.
pub const MAX_LOCAL_START_TO_CLOSE: Duration = Duration::from_mins(5);

impl LocalActivityOptions {
    /// Each attempt may take this long, [`MAX_LOCAL_START_TO_CLOSE`] at most.
    #[must_use]
    pub const fn start_to_close(limit: Duration) -> Self {
        Self { start_to_close: limit, retry: RetryPolicy::DEFAULT }
    }

    /// Replaces the retry policy. A local activity is at-least-once per attempt, so a policy of a single attempt
    /// promises what cannot be kept: awaiting it fails with the type `InvalidOptions`.
    #[must_use]
    pub const fn retry(self, policy: RetryPolicy) -> Self {
        Self { retry: policy, ..self }
    }

    /// What is wrong with these options, if anything.
    pub(crate) fn problem(&self) -> Option<Failure> {
        let message = if self.retry.maximum_attempts == 1 {
            "a local activity may run more than once per attempt, so max_attempts(1) cannot be promised; \
             use a queued activity (cx.activity) for at-most-once"
                .to_owned()
        } else if self.start_to_close > MAX_LOCAL_START_TO_CLOSE {
            format!(
                "start-to-close of {:?} is beyond the {MAX_LOCAL_START_TO_CLOSE:?} of a local activity; \
                 use a queued activity (cx.activity)",
                self.start_to_close
            )
        } else {
            return None;
        };
        Some(Failure::unplaced(message).with_type("InvalidOptions").non_retryable())
    }
}

impl Default for LocalActivityOptions {
    /// Ten seconds for each attempt, the default retry policy.
    fn default() -> Self {
        Self::start_to_close(Duration::from_secs(10))
    }
}

/// A retry policy as the history holds it. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Encode, Decode)]
pub struct RecordedRetry {
    /// Delay before the second attempt.
    #[n(0)]
    pub initial_interval_ms: u64,
    /// Growth of the delay.
    #[n(1)]
    pub backoff_coefficient: f64,
    /// Upper bound of the delay.
    #[n(2)]
    pub maximum_interval_ms: u64,
    /// Attempts in all; 0 for no limit.
    #[n(3)]
    pub maximum_attempts: u32,
    /// Failure types that are final.
    #[n(4)]
    pub non_retryable_types: Vec<String>,
}

impl From<&RetryPolicy> for RecordedRetry {
    fn from(policy: &RetryPolicy) -> Self {
        let initial = millis(policy.initial_interval);
        Self {
            initial_interval_ms: initial,
            backoff_coefficient: policy.backoff_coefficient,
            maximum_interval_ms: policy.maximum_interval.map_or(initial.saturating_mul(100), millis),
            maximum_attempts: policy.maximum_attempts,
            non_retryable_types: policy.non_retryable_types.iter().map(|t| (*t).to_owned()).collect(),
        }
    }
}

/// Options of a queued activity as the history holds them. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Encode, Decode)]
pub struct RecordedOptions {
    /// Limit of each attempt.
    #[n(0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_to_close_ms: Option<u64>,
    /// Limit of all attempts together.
    #[n(1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_to_close_ms: Option<u64>,
    /// Limit until a worker takes it up.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_to_start_ms: Option<u64>,
    /// Longest silence between heartbeats.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// The retry policy.
    #[n(4)]
    pub retry: RecordedRetry,
    /// The task queue, if it is not the default one.
    #[n(5)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_queue: Option<String>,
}

impl RecordedOptions {
    /// Whether the options make sense: a close limit, and a retry policy that does.
    ///
    /// # Errors
    /// A failure of the type `InvalidOptions`, which no retry can mend.
    pub fn check(&self) -> Result<(), Failure> {
        if self.start_to_close_ms.or(self.schedule_to_close_ms).is_none() {
            let problem = "an activity needs a start-to-close or a schedule-to-close limit";
            return Err(Failure::unplaced(problem).with_type("InvalidOptions").non_retryable());
        }
        self.retry.check()
    }
}

/// Whether another attempt is made after a failed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next attempt begins no earlier than this.
    RetryAt(Timestamp),
    /// None is made.
    GiveUp(RetryState),
}

/// What a policy that makes no sense waits at least, in milliseconds: read from elsewhere, it must not become a loop
/// without pauses.
const SENSIBLE_INTERVAL_MS: u64 = 1_000;

impl RecordedRetry {
    /// Whether the policy makes sense: an interval, a growth of at least 1, a maximum not below the interval.
    ///
    /// # Errors
    /// A failure of the type `InvalidOptions`, which no retry can mend.
    pub fn check(&self) -> Result<(), Failure> {
        let problem = if self.initial_interval_ms == 0 {
            "the initial interval of a retry policy must be at least a millisecond".to_owned()
        } else if !(self.backoff_coefficient >= 1.0 && self.backoff_coefficient.is_finite()) {
            format!("the backoff coefficient must be at least 1, and is {}", self.backoff_coefficient)
        } else if self.maximum_interval_ms < self.initial_interval_ms {
            format!(
                "the maximum interval of {} ms is below the initial one of {} ms",
                self.maximum_interval_ms, self.initial_interval_ms
            )
        } else {
            return Ok(());
        };
        Err(Failure::unplaced(problem).with_type("InvalidOptions").non_retryable())
    }

    /// The delay after this failed attempt (counted from 1), by the policy alone. Milliseconds; a second at least where
    /// the policy makes no sense.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32) -> u64 {
        let sensible = self.check().is_ok();
        let factor = self.backoff_coefficient.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        let delay = self.initial_interval_ms as f64 * factor;
        let delay = if delay.is_finite() && delay < self.maximum_interval_ms as f64 {
            delay as u64
        } else {
            self.maximum_interval_ms
        };
        if sensible { delay } else { delay.max(SENSIBLE_INTERVAL_MS) }
    }

    /// Decides after attempt `attempt` failed at `now`; `deadline` is the schedule-to-close limit.
    #[must_use]
    pub fn after_failure(
        &self,
        attempt: u32,
        failure: &Failure,
        now: Timestamp,
        deadline: Option<Timestamp>,
    ) -> Verdict {
        let mut delay = self.delay_ms(attempt);
        match &failure.kind {
            FailureKind::Application { non_retryable, r#type, next_retry_delay_ms, .. } => {
                let listed =
                    r#type.as_ref().is_some_and(|t| self.non_retryable_types.iter().any(|listed| **listed == **t));
                if *non_retryable || listed {
                    return Verdict::GiveUp(RetryState::NonRetryableFailure);
                }
                delay = next_retry_delay_ms.unwrap_or(delay);
            }
            FailureKind::Timeout { timeout: TimeoutKind::ScheduleToClose | TimeoutKind::ScheduleToStart, .. } => {
                return Verdict::GiveUp(RetryState::Timeout);
            }
            FailureKind::Canceled {} => return Verdict::GiveUp(RetryState::CancelRequested),
            FailureKind::Timeout { .. } | FailureKind::Terminated {} | FailureKind::Activity { .. } => {}
        }
        if self.maximum_attempts > 0 && attempt >= self.maximum_attempts {
            return Verdict::GiveUp(RetryState::MaximumAttemptsReached);
        }
        let at = now + Duration::from_millis(delay);
        match deadline {
            Some(deadline) if at >= deadline => Verdict::GiveUp(RetryState::Timeout),
            _ => Verdict::RetryAt(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Canceled;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn the_policy_as_a_table() {
        let policy = RecordedRetry::from(&RetryPolicy::max_attempts(5).non_retryable(&["CardDeclined"]));
        let plain = Failure::application("x");
        let cases = [
            (1, plain.clone(), None, Verdict::RetryAt(at(1_000))),
            (2, plain.clone(), None, Verdict::RetryAt(at(2_000))),
            (4, plain.clone(), None, Verdict::RetryAt(at(8_000))),
            (5, plain.clone(), None, Verdict::GiveUp(RetryState::MaximumAttemptsReached)),
            (1, plain.clone().non_retryable(), None, Verdict::GiveUp(RetryState::NonRetryableFailure)),
            (1, plain.clone().with_type("CardDeclined"), None, Verdict::GiveUp(RetryState::NonRetryableFailure)),
            (1, plain.clone().with_type("Busy"), None, Verdict::RetryAt(at(1_000))),
            (1, plain.clone().with_next_retry_delay(Duration::from_secs(9)), None, Verdict::RetryAt(at(9_000))),
            (1, plain.clone(), Some(at(1_000)), Verdict::GiveUp(RetryState::Timeout)),
            (
                1,
                plain.with_next_retry_delay(Duration::from_secs(9)),
                Some(at(5_000)),
                Verdict::GiveUp(RetryState::Timeout),
            ),
            (1, Failure::timeout(TimeoutKind::StartToClose, None), None, Verdict::RetryAt(at(1_000))),
            (1, Failure::from(Canceled), None, Verdict::GiveUp(RetryState::CancelRequested)),
            (1, Failure::timeout(TimeoutKind::ScheduleToStart, None), None, Verdict::GiveUp(RetryState::Timeout)),
        ];
        for (attempt, failure, deadline, expected) in cases {
            assert_eq!(
                policy.after_failure(attempt, &failure, at(0), deadline),
                expected,
                "attempt {attempt}, {failure}"
            );
        }
    }

    /// Histories of builds that knew of no task queues read the same, and are written the same.
    #[test]
    fn the_default_task_queue_is_not_stored() {
        let options = ActivityOptions::start_to_close(Duration::from_secs(1)).recorded();
        let plain = minicbor::to_vec(&options).unwrap();
        assert_eq!(plain[0], 0x85, "five fields, as ever: {plain:x?}");
        assert_eq!(minicbor::decode::<RecordedOptions>(&plain).unwrap(), options);
        let named = RecordedOptions { task_queue: Some("gpu".into()), ..options };
        let stored = minicbor::to_vec(&named).unwrap();
        assert_eq!(minicbor::decode::<RecordedOptions>(&stored).unwrap(), named);
    }

    #[test]
    fn delays_are_capped_and_never_overflow() {
        let policy = RecordedRetry::from(&RetryPolicy::DEFAULT);
        assert_eq!(policy.delay_ms(8), 100_000);
        assert_eq!(policy.delay_ms(u32::MAX), 100_000);
    }
}
