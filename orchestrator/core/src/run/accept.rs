//! `accept`: what arrives, held against the history. Deduplication lives here alone.

use std::time::Duration;

use super::limits::Limits;
use super::state::{RunState, reckoned};
use crate::history::{Batch, BatchKind, Event};
use crate::ids::{BatchHash, CommitId, RunId, RunKey};
use crate::operations::{Arrival, Call, Input, Joined, NextRun, Refusal, Started, Terminated};
use crate::planted::{Bug, planted};
use crate::status::Status;
use crate::time::Timestamp;

impl RunState {
    /// Holds an arrival against the history, within the default [`Limits`]: what to record, or why nothing.
    ///
    /// # Errors
    /// [`Refusal`]. Unless this state was just read from the store, a refusal proves nothing (rule C3).
    pub fn accept(&self, arrival: &Arrival, now: Timestamp) -> Result<Vec<Input>, Refusal> {
        self.accept_within(arrival, now, &Limits::DEFAULT)
    }

    /// As [`accept`](Self::accept), within these limits.
    ///
    /// # Errors
    /// [`Refusal`]. Unless this state was just read from the store, a refusal proves nothing (rule C3).
    pub fn accept_within(&self, arrival: &Arrival, now: Timestamp, limits: &Limits) -> Result<Vec<Input>, Refusal> {
        let answered = arrival.request_id().and_then(|id| self.answered_in(id));
        if let Some(ordinal) = answered.filter(|_| !planted(Bug::F4ForgetIds)) {
            return Err(Refusal::Duplicate(ordinal));
        }
        if let Some(closed) = &self.closed {
            return Err(match closed.status() {
                Status::ContinuedAsNew if arrival.follows() => Refusal::MovedOn,
                status => Refusal::Closed(status),
            });
        }
        let inputs = arrival.clone().accept(&self.pending, now)?;
        if arrival.is_bounded() {
            let more = inputs.iter().map(reckoned).sum();
            let inbox = limits.exceeded_by_inbox(self.inbox.len() as u64, self.inbox_bytes, more);
            let history = || limits.reached_by_history(self.events, self.bytes);
            let (unread, bytes) = self.pending.signals.unread_in_all();
            let unread =
                || limits.exceeded_by_unread(unread, bytes, more).filter(|_| matches!(arrival, Arrival::Signal(_)));
            if let Some((limit, _)) = inbox.or_else(history).or_else(unread) {
                return Err(Refusal::Full { limit });
            }
        }
        Ok(inputs)
    }

    /// Whether an input that was accepted a moment ago still changes something. What was decided since may have settled
    /// it (the workflow dropped a timer that was due together with another), and of two copies that were accepted
    /// together, only the first counts.
    pub(super) fn still_fits(&self, input: &Input) -> bool {
        input.request_id().is_none_or(|id| self.answered_in(id).is_none()) && input.fits(&self.pending)
    }
}

/// A request to begin a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StartRequest {
    /// What it runs.
    pub call: Call,
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
    /// The request was answered before: by the run with this ordinal.
    Existing(u64),
    /// The open run is the answer: once this has arrived there, the request is answered with it for ever.
    Join(Box<Arrival>),
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
                IdConflictPolicy::UseExisting => {
                    StartVerdict::Join(Box::new(Joined { request_id: self.request_id.clone() }.into()))
                }
                IdConflictPolicy::TerminateExisting => {
                    let next = NextRun {
                        call: self.call.clone(),
                        request_id: Some(self.request_id.clone()),
                        carried: Vec::new(),
                    };
                    StartVerdict::Replace(Box::new(Arrival::Terminate(Terminated {
                        request_id: format!("replaced-by:{}", self.request_id),
                        reason: "terminated by a start that takes its place".into(),
                        next: Some(Box::new(next)),
                    })))
                }
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
            (IdReusePolicy::AllowDuplicateFailedOnly | IdReusePolicy::RejectDuplicate, _) => StartVerdict::NotReusable,
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
            call: self.call.clone(),
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
            due: Some(clock + sweep),
        }
    }
}
