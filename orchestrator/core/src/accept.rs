//! `accept`: what arrives, held against the history. Deduplication lives here alone.

use std::time::Duration;

use crate::failure::{Failure, FailureKind, RetryState, TimeoutKind};
use crate::history::{Batch, BatchKind, CommandId, Event, Input, NextRun, RunState, Started};
use crate::ids::{BatchHash, CommitId, RunId, RunKey};
use crate::options::Verdict;
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::status::Status;
use crate::time::Timestamp;

/// Something that arrives for a run. Everything here may come twice, late, or never.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// A signal.
    Signal {
        /// Deduplicates repeats.
        request_id: String,
        /// Its name.
        name: String,
        /// Its argument.
        payload: Payload,
    },
    /// A request to stop.
    Cancel {
        /// Deduplicates repeats.
        request_id: String,
        /// Why, for people.
        reason: String,
    },
    /// An order to end at once.
    Terminate {
        /// Deduplicates repeats.
        request_id: String,
        /// Why, for people.
        reason: String,
        /// The run that takes its place.
        next: Option<Box<NextRun>>,
    },
    /// A worker reports success.
    ActivityCompleted {
        /// The activity.
        id: CommandId,
        /// The attempt, from 1.
        attempt: u32,
        /// What it returned.
        result: Payload,
    },
    /// A worker reports a failure that is final.
    ActivityFailed {
        /// The activity.
        id: CommandId,
        /// The attempt, from 1.
        attempt: u32,
        /// Its failure.
        failure: Failure,
        /// Why no further attempt is made.
        retry_state: RetryState,
    },
    /// Somebody found that the worker of this attempt is gone.
    AttemptLost {
        /// The activity.
        id: CommandId,
        /// The attempt, from 1.
        attempt: u32,
        /// Which time limit the silence stands for.
        timeout: TimeoutKind,
        /// The details of its last heartbeat.
        last_heartbeat: Option<Payload>,
    },
    /// No worker took the activity up in time, and the attempt record is closed so that none can.
    NeverTaken {
        /// The activity.
        id: CommandId,
    },
    /// A local activity succeeded.
    LocalCompleted {
        /// The local activity.
        id: CommandId,
        /// The attempt, from 1.
        attempt: u32,
        /// What it returned.
        result: Payload,
    },
    /// A local activity failed for good.
    LocalFailed {
        /// The local activity.
        id: CommandId,
        /// The attempt, from 1.
        attempt: u32,
        /// Its failure.
        failure: Failure,
        /// Why no further attempt is made.
        retry_state: RetryState,
    },
    /// A local activity failed, and the next attempt is far enough away to be recorded.
    LocalBackoff {
        /// The local activity.
        id: CommandId,
        /// The attempt that failed.
        attempt: u32,
        /// Its failure.
        failure: Failure,
        /// When the next may begin.
        retry_at: Timestamp,
    },
    /// Time has passed: whatever is due by the clock.
    Alarm,
}

/// Why an arrival changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It was taken in before, by the run with this ordinal.
    Duplicate(u64),
    /// Nothing is due.
    NothingDue,
    /// The run handed over to the next: the message follows it (rule F4).
    MovedOn,
    /// The run is closed.
    Closed(Status),
    /// The activity, attempt or timer is no longer waited for.
    Superseded,
    /// It is meant for another run of this ordinal's place (rule C5).
    OtherRun,
}

impl RunState {
    /// Holds an arrival against the history: what to record, or why nothing.
    ///
    /// # Errors
    /// [`Refusal`]. Unless this state was just read from the store, a refusal proves nothing (rule C3).
    pub fn accept(&self, arrival: &Arrival, now: Timestamp) -> Result<Vec<Input>, Refusal> {
        let request_id = match arrival {
            Arrival::Signal { request_id, .. }
            | Arrival::Cancel { request_id, .. }
            | Arrival::Terminate { request_id, .. } => Some(request_id),
            _ => None,
        };
        if let Some(ordinal) = request_id.and_then(|id| self.answered_in(id)).filter(|_| !planted(Bug::F4ForgetIds)) {
            return Err(Refusal::Duplicate(ordinal));
        }
        if let Some(closed) = &self.closed {
            let follows = matches!(arrival, Arrival::Signal { .. } | Arrival::Cancel { .. });
            return Err(match closed.status() {
                Status::ContinuedAsNew if follows => Refusal::MovedOn,
                status => Refusal::Closed(status),
            });
        }
        match arrival.clone() {
            Arrival::Signal { request_id, name, payload } => Ok(vec![Input::Signaled { request_id, name, payload }]),
            Arrival::Cancel { request_id, reason } => Ok(vec![Input::CancelRequested { request_id, reason }]),
            Arrival::Terminate { request_id, reason, next } => Ok(vec![Input::Terminated { request_id, reason, next }]),
            Arrival::ActivityCompleted { id, attempt, result } => {
                self.live_attempt(id, attempt)?;
                Ok(vec![Input::ActivityCompleted { id, attempt, result }])
            }
            Arrival::ActivityFailed { id, attempt, failure, retry_state } => {
                self.live_attempt(id, attempt)?;
                Ok(vec![Input::ActivityFailed { id, attempt, failure: failure.storable(), retry_state }])
            }
            Arrival::AttemptLost { id, attempt, timeout, last_heartbeat } => {
                self.live_attempt(id, attempt)?;
                let pending = &self.activities[&id];
                let failure = Failure::timeout(timeout, last_heartbeat);
                Ok(vec![match pending.options.retry.after_failure(attempt, &failure, now, pending.close_deadline()) {
                    Verdict::RetryAt(retry_at) => Input::AttemptLost { id, attempt, retry_at },
                    Verdict::GiveUp(retry_state) => Input::ActivityFailed { id, attempt, failure, retry_state },
                }])
            }
            Arrival::NeverTaken { id } => {
                self.live_attempt(id, u32::MAX)?;
                let failure = Failure::timeout(TimeoutKind::ScheduleToStart, None);
                Ok(vec![Input::ActivityFailed { id, attempt: 0, failure, retry_state: RetryState::Timeout }])
            }
            Arrival::LocalCompleted { id, attempt, result } => {
                self.live_local(id, attempt)?;
                Ok(vec![Input::LocalCompleted { id, attempt, result }])
            }
            Arrival::LocalFailed { id, attempt, failure, retry_state } => {
                self.live_local(id, attempt)?;
                Ok(vec![Input::LocalFailed { id, attempt, failure: failure.storable(), retry_state }])
            }
            Arrival::LocalBackoff { id, attempt, failure, retry_at } => {
                self.live_local(id, attempt)?;
                Ok(vec![Input::LocalBackoff { id, attempt, failure: failure.storable(), retry_at }])
            }
            Arrival::Alarm => self.due_by(now),
        }
    }

    /// The attempt may still report: its activity is pending and its lease was not ended.
    fn live_attempt(&self, id: CommandId, attempt: u32) -> Result<(), Refusal> {
        match self.activities.get(&id) {
            Some(pending) if attempt > pending.lost || planted(Bug::A1TakeLate) => Ok(()),
            _ => Err(Refusal::Superseded),
        }
    }

    fn live_local(&self, id: CommandId, attempt: u32) -> Result<(), Refusal> {
        match self.locals.get(&id) {
            Some(pending) if attempt > pending.attempts => Ok(()),
            _ => Err(Refusal::Superseded),
        }
    }

    /// Whether an input that was accepted a moment ago still changes something. What was decided since may have settled
    /// it (the workflow dropped a timer that was due together with another), and of two copies that were accepted
    /// together, only the first counts.
    pub(crate) fn still_fits(&self, input: &Input) -> bool {
        match input {
            Input::Started(_) => false,
            Input::Signaled { request_id, .. }
            | Input::CancelRequested { request_id, .. }
            | Input::Terminated { request_id, .. } => self.answered_in(request_id).is_none(),
            Input::ActivityCompleted { id, attempt, .. } | Input::AttemptLost { id, attempt, .. } => {
                self.live_attempt(*id, *attempt).is_ok()
            }
            // A time limit ends an activity whatever its attempts do.
            Input::ActivityFailed { id, attempt, failure, .. } => match failure.kind {
                FailureKind::Timeout {
                    timeout: TimeoutKind::ScheduleToClose | TimeoutKind::ScheduleToStart, ..
                } => self.activities.contains_key(id),
                _ => self.live_attempt(*id, *attempt).is_ok(),
            },
            Input::TimerFired { id } => self.timers.contains_key(id),
            Input::LocalCompleted { id, attempt, .. }
            | Input::LocalFailed { id, attempt, .. }
            | Input::LocalBackoff { id, attempt, .. } => self.live_local(*id, *attempt).is_ok(),
        }
    }

    fn due_by(&self, now: Timestamp) -> Result<Vec<Input>, Refusal> {
        let timers = self
            .timers
            .iter()
            .filter(|(_, fire_at)| **fire_at <= now)
            .map(|(id, fire_at)| (*fire_at, *id, Input::TimerFired { id: *id }));
        let deadlines = self.activities.iter().filter_map(|(id, pending)| {
            let deadline = pending.close_deadline().filter(|deadline| *deadline <= now)?;
            let failure = Failure::timeout(TimeoutKind::ScheduleToClose, None);
            let retry_state = RetryState::Timeout;
            Some((deadline, *id, Input::ActivityFailed { id: *id, attempt: pending.lost, failure, retry_state }))
        });
        let mut due: Vec<_> = timers.chain(deadlines).collect();
        due.sort_by_key(|(at, id, _)| (*at, *id));
        if due.is_empty() {
            return Err(Refusal::NothingDue);
        }
        Ok(due.into_iter().map(|(_, _, input)| input).collect())
    }
}

/// A request to begin a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StartRequest {
    /// The workflow's wire name.
    pub workflow_type: String,
    /// Its argument.
    pub input: Payload,
    /// Deduplicates repeats.
    pub request_id: String,
    /// What to do when earlier runs of the id are closed.
    pub reuse: IdReusePolicy,
    /// What to do when a run of the id is open.
    pub conflict: IdConflictPolicy,
}

/// Whether an id whose runs are all closed may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IdReusePolicy {
    /// Always.
    #[default]
    AllowDuplicate,
    /// Only when the last run did not complete.
    AllowDuplicateFailedOnly,
    /// Never.
    RejectDuplicate,
}

/// What happens when the id has an open run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IdConflictPolicy {
    /// The start is refused.
    #[default]
    Fail,
    /// The open run is the answer.
    UseExisting,
    /// The open run is terminated and this one takes its place.
    TerminateExisting,
}

/// What a start comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum StartVerdict {
    /// Create batch 0 of the run with this ordinal.
    Create(u64),
    /// The request was answered before, or the open run is the answer: this ordinal.
    Existing(u64),
    /// Terminate the open run so that the next takes its place.
    Replace(Box<Arrival>),
    /// The run before is owed a successor first: create it, then ask again.
    RollForward,
    /// The id has an open run.
    AlreadyOpen,
    /// The id may not be used again.
    NotReusable,
}

impl StartRequest {
    /// Holds a start against the latest run of its id, freshly read.
    #[must_use]
    pub fn against(&self, latest: Option<&RunState>) -> StartVerdict {
        let Some(latest) = latest else {
            return StartVerdict::Create(0);
        };
        if let Some(ordinal) = latest.answered_in(&self.request_id) {
            return StartVerdict::Existing(ordinal);
        }
        let Some(closed) = &latest.closed else {
            if planted(Bug::C5IgnoreOpenRun) {
                return StartVerdict::Create(latest.run.ordinal + 1);
            }
            return match self.conflict {
                IdConflictPolicy::Fail => StartVerdict::AlreadyOpen,
                IdConflictPolicy::UseExisting => StartVerdict::Existing(latest.run.ordinal),
                IdConflictPolicy::TerminateExisting => StartVerdict::Replace(Box::new(Arrival::Terminate {
                    request_id: format!("replaced-by:{}", self.request_id),
                    reason: "terminated by a start that takes its place".into(),
                    next: Some(Box::new(NextRun {
                        workflow_type: self.workflow_type.clone(),
                        input: self.input.clone(),
                        request_id: Some(self.request_id.clone()),
                        carried: Vec::new(),
                    })),
                })),
            };
        };
        if closed.next().is_some() {
            return StartVerdict::RollForward;
        }
        match (self.reuse, closed.status()) {
            (IdReusePolicy::AllowDuplicate, _) => StartVerdict::Create(latest.run.ordinal + 1),
            (IdReusePolicy::AllowDuplicateFailedOnly, status) if status != Status::Completed => {
                StartVerdict::Create(latest.run.ordinal + 1)
            }
            _ => StartVerdict::NotReusable,
        }
    }

    /// Batch 0 of the run, at the host's time `clock`; `latest` is the run before it.
    #[must_use]
    pub fn first_batch(
        &self,
        run: &RunKey,
        run_id: RunId,
        commit_id: CommitId,
        clock: Timestamp,
        latest: Option<&RunState>,
        sweep: Duration,
    ) -> Batch {
        let time = latest.map_or(clock, |latest| latest.recorded_time(clock));
        let started = Started {
            run_id,
            workflow_type: self.workflow_type.clone(),
            input: self.input.clone(),
            request_id: self.request_id.clone(),
            continued_from: None,
            carried: Vec::new(),
            earlier: latest.map(|latest| latest.requests_to_remember(time)).unwrap_or_default(),
        };
        Batch {
            commit_id,
            previous: BatchHash::origin(run),
            time,
            kind: BatchKind::Accepted,
            events: vec![Event::Input(Input::Started(Box::new(started)))],
            due: Some(time + sweep),
        }
    }
}
