//! Attempt records (rule A1): one small record per queued activity, beside the history.
//!
//! | state | who may move it | to |
//! | --- | --- | --- |
//! | none | a worker, before user code | claimed 1 |
//! | claimed n | its worker: a failure with a retry | waiting n |
//! | claimed n | a worker, once the history has ended n's lease | claimed n+1 |
//! | waiting n | a worker, when the time has come | claimed n+1 |
//! | none, waiting, lost | the run: no queue takes its task | waiting n, n as before, or 0 |
//! | any | the run: given up or closed | marked; closed unless claimed |
//!
//! Only the history ends a lease: whoever finds one expired tells the run, and waits for its word.

use bytes::Bytes;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{ActivityTask, CommitId, Failure, Payload, TimeoutKind, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::ports::Ports;
use crate::store::{AttemptKey, Cause, Patience, StoreError, Swap, Try, Versioned, insist};

/// How much longer than its limits a claim is believed to live: clocks differ.
pub(crate) const SKEW: Duration = Duration::from_secs(5);

/// What is known of an activity's attempts. JSON: workers in any language need this record and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The latest attempt, from 1; 0 when none began.
    pub attempt: u32,
    /// How it stands.
    #[serde(flatten)]
    pub state: AttemptState,
    /// Why the last ended attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// The details of the last heartbeat of any attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Payload>,
    /// The workflow no longer wants it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
}

/// How the latest attempt stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AttemptState {
    /// A worker runs it.
    Claimed {
        /// Unique per claim: a repeated write knows its own.
        claim: CommitId,
        /// The store's epoch at the claim: a process of an earlier epoch is dead.
        epoch: u64,
        /// Until when it is believed alive, in milliseconds since the Unix epoch.
        lease_until_ms: u64,
    },
    /// It failed; the next may be claimed from this time on.
    Waiting {
        /// Milliseconds since the Unix epoch.
        retry_at_ms: u64,
        /// The store's epoch when it failed: a queue in the memory of a process of an earlier epoch is gone.
        #[serde(default, skip_serializing_if = "is_zero")]
        epoch: u64,
    },
    /// No further attempt may be claimed.
    Closed,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(epoch: &u64) -> bool {
    *epoch == 0
}

impl AttemptRecord {
    fn encode(&self) -> Result<Bytes, StoreError> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|e| StoreError::Refused(Cause::told(format!("attempt record: {e}"), e)))
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the bytes are no attempt record.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|e| StoreError::Refused(Cause::told(format!("an attempt record does not decode: {e}"), e)))
    }

    /// Whether it is claimed and its worker is gone: its lease is over, or its process did not live to see this epoch.
    #[must_use]
    pub fn is_dead(&self, epoch: u64, now: Timestamp) -> bool {
        match self.state {
            AttemptState::Claimed { epoch: claimed_in, lease_until_ms, .. } => {
                claimed_in < epoch || lease_until_ms < now.as_millis()
            }
            AttemptState::Waiting { .. } | AttemptState::Closed => false,
        }
    }
}

/// What came of trying to claim.
#[derive(Debug)]
pub enum Claiming {
    /// Run it.
    Claimed(Box<Claim>),
    /// Nobody may run it: do nothing.
    Nothing,
    /// The next attempt is not due before this.
    NotYet(Timestamp),
    /// Another worker has this attempt, and is believed alive until then.
    Held(Timestamp),
    /// The worker of this attempt is gone: tell the run.
    Lost {
        /// The attempt.
        attempt: u32,
        /// The details of its last heartbeat.
        last_heartbeat: Option<Payload>,
    },
}

/// A claimed attempt: the right to run user code once.
#[derive(Debug, Clone)]
pub struct Claim {
    key: AttemptKey,
    claim: CommitId,
    epoch: u64,
    version: u64,
    /// When the process that made it ends.
    pub(crate) deadline: Option<Timestamp>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The details of the last heartbeat of an earlier attempt.
    pub last_heartbeat: Option<Payload>,
    last_failure: Option<Failure>,
    /// The workflow no longer wants it; whatever is written from now on says so.
    unwanted: bool,
}

/// Whether a claim still stands after a write to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Go on.
    Held,
    /// Go on, but the workflow no longer wants it.
    Unwanted,
    /// Another attempt took over, or the activity is closed.
    Superseded,
}

/// Where the attempt record of a queued activity stands.
#[must_use]
pub fn key_of(task: &ActivityTask) -> AttemptKey {
    AttemptKey { run: task.run.clone(), activity: task.id }
}

/// How long a claim made or renewed now is believed in.
fn lease(task: &ActivityTask, now: Timestamp, started: Timestamp, deadline: Option<Timestamp>) -> Timestamp {
    let millis = Duration::from_millis;
    let limits = [
        task.options.start_to_close_ms.map(|ms| started + millis(ms)),
        task.options.schedule_to_close_ms.map(|ms| task.scheduled_at + millis(ms)),
        task.options.heartbeat_ms.map(|ms| now + millis(ms)),
        deadline,
    ];
    limits.into_iter().flatten().min().unwrap_or(now) + SKEW
}

/// Replaces a record, sending the same bytes again while the outcome is unknown.
async fn swap(ports: &Ports, key: &AttemptKey, expected: Option<u64>, record: &Bytes) -> Result<Swap, StoreError> {
    insist(Patience::COMMIT, Some(&|pause| ports.host.back_off(pause)), || async {
        Ok(Try::Done(match ports.store.swap(key, expected, record.clone()).await? {
            // Ours stands there: an earlier try landed and its answer was lost.
            Swap::Stale(Some(found)) if found.record == *record => Swap::Done(found.version),
            answer => answer,
        }))
    })
    .await
}

/// Tries to claim the next attempt of a task: one conditional write when nothing stands in the way. `deadline`: when
/// this process ends whatever it does.
///
/// # Errors
/// [`StoreError`]: the attempt may have been claimed, and is then lost in time.
pub async fn claim(ports: &Ports, task: &ActivityTask, deadline: Option<Timestamp>) -> Result<Claiming, StoreError> {
    let store = &*ports.store;
    // Queues may be early; the pause between two attempts is the policy's.
    if ports.now() < task.not_before {
        return Ok(Claiming::NotYet(task.not_before));
    }
    let first = Claim {
        key: key_of(task),
        claim: CommitId::from_bytes(ports.host.fresh_id()),
        epoch: store.epoch(),
        version: 0,
        deadline,
        attempt: task.lost + 1,
        last_heartbeat: None,
        last_failure: None,
        unwanted: false,
    };
    let (mut claim, mut expected) = (first.clone(), None);
    loop {
        let now = ports.now();
        let lease_until_ms = lease(task, now, now, deadline).as_millis();
        let record = AttemptRecord {
            attempt: claim.attempt,
            state: AttemptState::Claimed { claim: claim.claim, epoch: claim.epoch, lease_until_ms },
            last_failure: claim.last_failure.clone(),
            heartbeat: claim.last_heartbeat.clone(),
            cancel_requested: false,
        };
        match swap(ports, &claim.key, expected, &record.encode()?).await? {
            Swap::Done(version) => return Ok(Claiming::Claimed(Box::new(Claim { version, ..claim }))),
            Swap::Stale(Some(Versioned { version, .. })) if planted(Bug::A1SkipClaim) => {
                return Ok(Claiming::Claimed(Box::new(Claim { version, ..claim })));
            }
            Swap::Stale(Some(Versioned { version, record })) => {
                let found = AttemptRecord::decode(&record)?;
                let attempt = match over(task, &found, claim.epoch, now) {
                    Ok(over) => over + 1,
                    Err(why) => return Ok(why),
                };
                let AttemptRecord { heartbeat: last_heartbeat, last_failure, .. } = found;
                (claim, expected) = (Claim { attempt, last_heartbeat, last_failure, ..claim }, Some(version));
            }
            Swap::Stale(None) => (claim, expected) = (first.clone(), None),
        }
    }
}

/// The last attempt that is over, so that the next may be claimed; else why it may not.
fn over(task: &ActivityTask, found: &AttemptRecord, epoch: u64, now: Timestamp) -> Result<u32, Claiming> {
    if found.cancel_requested {
        return Err(Claiming::Nothing);
    }
    match found.state {
        AttemptState::Closed => Err(Claiming::Nothing),
        AttemptState::Waiting { retry_at_ms, .. } if now.as_millis() < retry_at_ms && found.attempt > task.lost => {
            Err(Claiming::NotYet(Timestamp::from_millis(retry_at_ms)))
        }
        AttemptState::Waiting { .. } => Ok(found.attempt.max(task.lost)),
        // The history has ended this lease.
        AttemptState::Claimed { .. } if found.attempt <= task.lost => Ok(task.lost),
        AttemptState::Claimed { lease_until_ms, .. }
            if planted(Bug::A1EndLease) && lease_until_ms < now.as_millis() =>
        {
            Ok(found.attempt)
        }
        AttemptState::Claimed { .. } if found.is_dead(epoch, now) => {
            Err(Claiming::Lost { attempt: found.attempt, last_heartbeat: found.heartbeat.clone() })
        }
        AttemptState::Claimed { lease_until_ms, .. } => {
            Err(Claiming::Held(Timestamp::from_millis(lease_until_ms.saturating_add(1))))
        }
    }
}

impl Claim {
    /// Records a sign of life, and extends the lease.
    ///
    /// # Errors
    /// [`StoreError`] when it may or may not have been recorded.
    pub async fn heartbeat(
        &mut self,
        ports: &Ports,
        task: &ActivityTask,
        started: Timestamp,
        details: &Payload,
    ) -> Result<Standing, StoreError> {
        self.last_heartbeat = Some(details.clone());
        let lease_until_ms = lease(task, ports.now(), started, self.deadline).as_millis();
        let state = AttemptState::Claimed { claim: self.claim, epoch: self.epoch, lease_until_ms };
        self.write(ports, state).await
    }

    /// The attempt failed and another one will be made: the next may be claimed from then on.
    ///
    /// # Errors
    /// [`StoreError`] when it may or may not have been recorded.
    pub async fn wait(&mut self, ports: &Ports, retry_at: Timestamp, failure: Failure) -> Result<Standing, StoreError> {
        self.last_failure = Some(failure);
        self.write(ports, AttemptState::Waiting { retry_at_ms: retry_at.as_millis(), epoch: self.epoch }).await
    }

    async fn write(&mut self, ports: &Ports, state: AttemptState) -> Result<Standing, StoreError> {
        loop {
            let cancel_requested = self.unwanted;
            let record = AttemptRecord {
                attempt: self.attempt,
                state: match (&state, cancel_requested) {
                    (AttemptState::Waiting { .. }, true) => AttemptState::Closed,
                    _ => state.clone(),
                },
                last_failure: self.last_failure.clone(),
                heartbeat: self.last_heartbeat.clone(),
                cancel_requested,
            };
            match swap(ports, &self.key, Some(self.version), &record.encode()?).await? {
                Swap::Done(version) => {
                    self.version = version;
                    return Ok(if cancel_requested { Standing::Unwanted } else { Standing::Held });
                }
                Swap::Stale(None) => return Ok(Standing::Superseded),
                Swap::Stale(Some(found)) => {
                    let record = AttemptRecord::decode(&found.record)?;
                    let ours = matches!(record.state, AttemptState::Claimed { claim, .. } if claim == self.claim);
                    if !ours {
                        return Ok(Standing::Superseded);
                    }
                    self.version = found.version;
                    self.unwanted |= record.cancel_requested;
                }
            }
        }
    }
}

/// The workflow gave the activity up, or closed: no further attempt may begin, and a running one learns of it by its
/// next heartbeat.
///
/// # Errors
/// [`StoreError`] when it may or may not have been recorded.
pub async fn mark_unwanted(ports: &Ports, key: &AttemptKey) -> Result<(), StoreError> {
    if planted(Bug::A1RetryForever) {
        return Ok(());
    }
    let closed = AttemptRecord {
        attempt: 0,
        state: AttemptState::Closed,
        last_failure: None,
        heartbeat: None,
        cancel_requested: true,
    };
    let (mut record, mut expected) = (closed.clone(), None);
    loop {
        match swap(ports, key, expected, &record.encode()?).await? {
            Swap::Done(_) | Swap::Stale(None) => return Ok(()),
            Swap::Stale(Some(found)) => {
                record = match AttemptRecord::decode(&found.record) {
                    Ok(record) if record.cancel_requested => return Ok(()),
                    Ok(AttemptRecord {
                        state: AttemptState::Waiting { .. }, last_failure, heartbeat, attempt, ..
                    }) => AttemptRecord { attempt, last_failure, heartbeat, ..closed.clone() },
                    Ok(record) => AttemptRecord { cancel_requested: true, ..record },
                    // Another build's, or damaged: nothing in it is wanted any more, and the run must come to its end.
                    Err(error) => {
                        tracing::warn!(run = %key.run, activity = key.activity, %error, "replaced: its run gave it up");
                        closed.clone()
                    }
                };
                expected = Some(found.version);
            }
        }
    }
}

/// The task was not sent, since nobody would ever take it: its record says why, as the last failure. No attempt is counted
/// or put off; the run is looked at by the sweep, after longer and longer pauses, and the task is sent once it can be.
///
/// # Errors
/// [`StoreError`] when it may or may not have been recorded.
pub(crate) async fn note_homeless(ports: &Ports, task: &ActivityTask, why: &str) -> Result<(), StoreError> {
    let failure = Failure::unplaced(why.to_owned()).with_type("NoSuchTaskQueue");
    tracing::error!(run = %task.run, activity = task.id, activity_type = task.activity_type, why, "a task is not sent");
    let now = ports.now().as_millis();
    let mut record = AttemptRecord {
        attempt: task.lost,
        state: AttemptState::Waiting { retry_at_ms: now, epoch: ports.store.epoch() },
        last_failure: Some(failure),
        heartbeat: None,
        cancel_requested: false,
    };
    let mut expected = None;
    loop {
        let Swap::Stale(Some(found)) = swap(ports, &key_of(task), expected, &record.encode()?).await? else {
            return Ok(());
        };
        let AttemptRecord { attempt, state, last_failure, heartbeat, cancel_requested } =
            AttemptRecord::decode(&found.record)?;
        let known = last_failure.as_ref().is_some_and(|failure| failure.message == why);
        let has_a_worker = matches!(state, AttemptState::Claimed { .. }) && attempt > task.lost;
        if known || has_a_worker || cancel_requested || state == AttemptState::Closed {
            return Ok(());
        }
        record = AttemptRecord { attempt: attempt.max(task.lost), heartbeat, ..record };
        if let (Some(failure), Some(cause)) = (&mut record.last_failure, last_failure) {
            failure.cause = Some(Box::new(cause));
        }
        expected = Some(found.version);
    }
}

/// Closes the record of an activity that no worker has taken up, so that none can. Whether it was closed: `false`
/// when an attempt had begun.
///
/// # Errors
/// [`StoreError`] when it may or may not have been closed.
pub async fn close_untaken(ports: &Ports, key: &AttemptKey) -> Result<bool, StoreError> {
    let record = AttemptRecord {
        attempt: 0,
        state: AttemptState::Closed,
        last_failure: None,
        heartbeat: None,
        cancel_requested: false,
    };
    let mut expected = None;
    loop {
        let found = match swap(ports, key, expected, &record.encode()?).await? {
            Swap::Done(_) => return Ok(true),
            Swap::Stale(None) => return Ok(false),
            Swap::Stale(Some(found)) => found,
        };
        match AttemptRecord::decode(&found.record) {
            Ok(AttemptRecord { attempt: 0, state: AttemptState::Waiting { .. }, .. }) => expected = Some(found.version),
            Ok(record) => return Ok(record.attempt == 0),
            // What this build cannot read, another build's worker has taken up.
            Err(_) => return Ok(false),
        }
    }
}

/// Which limit an expired lease stands for.
#[must_use]
pub fn lost_to(task: &ActivityTask) -> TimeoutKind {
    if task.options.heartbeat_ms.is_some() { TimeoutKind::Heartbeat } else { TimeoutKind::StartToClose }
}
