//! Activities that workers run.
//!
//! | what happens | in the history | pending before | pending after | to be done |
//! | --- | --- | --- | --- | --- |
//! | the code asks | `ScheduleActivity` | (new id) | open, `lost` 0 | its task |
//! | an attempt succeeds | `ActivityCompleted` | open, attempt > `lost` | gone | |
//! | an attempt fails for good | `ActivityFailed` | open, attempt > `lost` | gone | |
//! | a worker is gone, attempts are left | `AttemptLost` | open, attempt > `lost` | open, `lost` = attempt | its task |
//! | a worker is gone, none is left | `ActivityFailed` | open, attempt > `lost` | gone | |
//! | nobody took it up in time | `ActivityFailed` (schedule-to-start) | open | gone | |
//! | its time is up | `ActivityFailed` (schedule-to-close) | open | gone | |
//! | the code gives it up | `CancelActivity` | open | unwanted | its attempt record is closed |
//! | | `CancelActivity` | gone | gone | |
//! | the run closes | | open | unwanted | its attempt record is closed |
//!
//! Whatever arrives for one that is not open, or for an attempt whose lease the history has ended, is superseded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::kind::{About, Arrives, Ask, Chore, Delivery, Kind, News, Outcome, Refusal, View, attributes};
use super::tried::{Ending, Tried};
use crate::failure::{Failure, FailureKind, RetryState, TimeoutKind};
use crate::ids::CommandId;
use crate::options::{RecordedOptions, Verdict};
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::time::{Moment, Timestamp};

/// Run an activity on a worker.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ScheduleActivity {
    /// Its id within the run.
    #[n(0)]
    pub id: CommandId,
    /// Its wire name.
    #[n(1)]
    pub activity_type: String,
    /// Its argument.
    #[n(2)]
    pub input: Payload,
    /// Its limits and retry policy.
    #[n(3)]
    pub options: RecordedOptions,
    /// Where the workflow asked for it.
    #[n(4)]
    pub place: String,
}

/// The workflow no longer waits for this activity, and wants it to stop.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CancelActivity {
    /// The activity.
    #[n(0)]
    pub id: CommandId,
}

/// A queued activity succeeded.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ActivityCompleted {
    /// The activity.
    #[n(0)]
    pub id: CommandId,
    /// The attempt that succeeded, from 1.
    #[n(1)]
    pub attempt: u32,
    /// What it returned.
    #[n(2)]
    pub result: Payload,
}

/// A queued activity failed, and no further attempt is made.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ActivityFailed {
    /// The activity.
    #[n(0)]
    pub id: CommandId,
    /// The last attempt; 0 when there was none.
    #[n(1)]
    pub attempt: u32,
    /// Its failure.
    #[n(2)]
    pub failure: Failure,
    /// Why no further attempt is made.
    #[n(3)]
    pub retry_state: RetryState,
}

/// The worker of this attempt is gone; the next one may begin. Ends the attempt's lease (rule A1).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttemptLost {
    /// The activity.
    #[n(0)]
    pub id: CommandId,
    /// The attempt that was lost.
    #[n(1)]
    pub attempt: u32,
    /// When the next may begin.
    #[n(2)]
    pub retry_at: Timestamp,
}

/// Somebody found that the worker of this attempt is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerGone {
    /// The activity.
    pub id: CommandId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Which time limit the silence stands for.
    pub timeout: TimeoutKind,
    /// The details of its last heartbeat.
    pub last_heartbeat: Option<Payload>,
}

/// No worker took the activity up in time, and the attempt record is closed so that none can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverTaken {
    /// The activity.
    pub id: CommandId,
}

/// A queued activity without an outcome.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PendingActivity {
    /// Its wire name.
    #[n(0)]
    pub activity_type: String,
    /// Its argument.
    #[n(1)]
    pub input: Payload,
    /// Its limits and retry policy.
    #[n(2)]
    pub options: RecordedOptions,
    /// When the workflow asked for it, by the decider's clock.
    #[n(3)]
    pub scheduled_at: Timestamp,
    /// The last attempt whose lease the history has ended; 0 when none.
    #[n(4)]
    pub lost: u32,
    /// The attempt after a lost one begins no earlier than this.
    #[n(5)]
    pub retry_at: Timestamp,
}

impl PendingActivity {
    /// When all attempts together run out of time.
    #[must_use]
    pub fn close_deadline(&self) -> Option<Timestamp> {
        self.options.schedule_to_close_ms.map(|ms| self.scheduled_at + Duration::from_millis(ms))
    }

    /// By when a worker must have taken it up.
    #[must_use]
    pub fn start_deadline(&self) -> Option<Timestamp> {
        self.options.schedule_to_start_ms.map(|ms| self.scheduled_at + Duration::from_millis(ms))
    }
}

/// The activities of a run.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Activities {
    /// Those without an outcome.
    #[n(0)]
    pub open: BTreeMap<CommandId, PendingActivity>,
    /// Those that the workflow gave up before they had an outcome.
    #[n(1)]
    pub unwanted: BTreeSet<CommandId>,
    /// When open ones run out of time, the earliest first.
    #[n(2)]
    close_deadlines: BTreeSet<(Timestamp, CommandId)>,
    /// By when open ones must have been taken up, the earliest first.
    #[n(3)]
    start_deadlines: BTreeSet<(Timestamp, CommandId)>,
    /// Bytes of the arguments of open ones: asked for at each commit, so it is not summed anew.
    #[n(4)]
    input_bytes: u64,
}

impl Activities {
    fn remove(&mut self, id: CommandId) -> Option<PendingActivity> {
        let pending = self.open.remove(&id)?;
        self.input_bytes -= pending.input.len() as u64;
        if let Some(at) = pending.close_deadline() {
            self.close_deadlines.remove(&(at, id));
        }
        if let Some(at) = pending.start_deadline() {
            self.start_deadlines.remove(&(at, id));
        }
        Some(pending)
    }

    /// The attempt may still report: its activity is pending and its lease was not ended.
    fn live(&self, id: CommandId, attempt: u32) -> Result<&PendingActivity, Refusal> {
        let pending = self.open.get(&id).filter(|pending| attempt > pending.lost || planted(Bug::A1TakeLate));
        pending.ok_or(Refusal::Superseded)
    }

    /// Those whose schedule-to-start limit has passed, in the order of their ids.
    pub(crate) fn start_deadlines_passed(&self, now: Timestamp) -> BTreeSet<CommandId> {
        self.start_deadlines.range(..=(now, CommandId::MAX)).map(|(_, id)| *id).collect()
    }
}

impl Tried for Activities {
    fn settle(&mut self, id: CommandId) -> Result<(), String> {
        self.remove(id).map(drop).ok_or_else(|| format!("activity {id} is not pending"))
    }

    fn is_live(&self, id: CommandId, attempt: u32) -> bool {
        self.live(id, attempt).is_ok()
    }
}

impl Kind for Activities {
    type Due = ActivityFailed;

    fn chores(&self) -> Vec<Chore> {
        self.open.keys().map(|id| Chore::Task(*id)).collect()
    }

    fn chores_closed(&self) -> Vec<Chore> {
        self.unwanted.iter().map(|id| Chore::Unwanted(*id)).collect()
    }

    /// A schedule-to-start limit that has passed rings no more: whether the activity was taken up, only its record
    /// knows.
    fn alarm(&self, now: Timestamp) -> Option<Timestamp> {
        let close = self.close_deadlines.first();
        let start = self.start_deadlines.range((now, CommandId::MAX)..).find(|(at, _)| *at > now);
        close.into_iter().chain(start).map(|(at, _)| *at).min()
    }

    fn waits(&self) -> bool {
        !self.open.is_empty()
    }

    fn due(&self, now: Timestamp) -> Vec<(Timestamp, CommandId, ActivityFailed)> {
        let passed = self.close_deadlines.range(..=(now, CommandId::MAX));
        passed
            .map(|(at, id)| {
                let attempt = self.open.get(id).map_or(0, |pending| pending.lost);
                let failure = Failure::timeout(TimeoutKind::ScheduleToClose, None);
                (*at, *id, ActivityFailed { id: *id, attempt, failure, retry_state: RetryState::Timeout })
            })
            .collect()
    }

    fn weight(&self) -> usize {
        self.open.len() * 256 + self.input_bytes as usize + self.unwanted.len() * 16
    }

    fn close(&mut self) {
        self.unwanted.extend(self.open.keys());
        self.open.clear();
        self.input_bytes = 0;
        self.close_deadlines.clear();
        self.start_deadlines.clear();
    }
}

impl Ask for ScheduleActivity {
    type Of = Activities;
    const KIND: &'static str = "activity";

    fn name(&self) -> Option<&str> {
        Some(&self.activity_type)
    }

    fn id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    fn same_arguments(&self, other: &Self) -> bool {
        self.input == other.input && self.options == other.options
    }

    fn fold(&self, of: &mut Activities, at: Moment) -> Result<(), String> {
        let pending = PendingActivity {
            activity_type: self.activity_type.clone(),
            input: self.input.clone(),
            options: self.options.clone(),
            scheduled_at: at.clock,
            lost: 0,
            retry_at: at.clock,
        };
        of.close_deadlines.extend(pending.close_deadline().map(|at| (at, self.id)));
        of.start_deadlines.extend(pending.start_deadline().map(|at| (at, self.id)));
        of.input_bytes += pending.input.len() as u64;
        match of.open.insert(self.id, pending) {
            None => Ok(()),
            Some(_) => Err(format!("activity {} is scheduled twice", self.id)),
        }
    }

    fn view(&self) -> View {
        let Self { id, activity_type, input, options, place } = self;
        (
            "ActivityScheduled",
            attributes! { "activity_id": id, "activity_type": activity_type, "input": input, "options": options, "place": place },
        )
    }

    fn bytes(&self) -> usize {
        self.input.len()
    }

    fn chore(&self) -> Option<Chore> {
        Some(Chore::Task(self.id))
    }
}

impl Ask for CancelActivity {
    type Of = Activities;
    const KIND: &'static str = "cancel activity";

    fn id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, of: &mut Activities, _: Moment) -> Result<(), String> {
        // An outcome may have been taken in before the workflow gave it up.
        if of.remove(self.id).is_some() {
            of.unwanted.insert(self.id);
        }
        Ok(())
    }

    fn view(&self) -> View {
        ("ActivityCancelRequested", attributes! { "activity_id": self.id })
    }

    fn chore(&self) -> Option<Chore> {
        Some(Chore::Unwanted(self.id))
    }
}

impl Ending for ActivityCompleted {
    type Of = Activities;

    fn attempt(&self) -> (CommandId, u32) {
        (self.id, self.attempt)
    }

    fn outcome(&self) -> Outcome<'_> {
        Outcome::Value(&self.result)
    }

    fn view(&self) -> View {
        let Self { id, attempt, result } = self;
        ("ActivityCompleted", attributes! { "activity_id": id, "attempt": attempt, "result": result })
    }

    fn bytes(&self) -> usize {
        self.result.len()
    }
}

impl Ending for ActivityFailed {
    type Of = Activities;

    fn attempt(&self) -> (CommandId, u32) {
        (self.id, self.attempt)
    }

    fn outcome(&self) -> Outcome<'_> {
        Outcome::Failed(self.attempt, self.retry_state, &self.failure)
    }

    fn still_fits(&self, of: &Activities) -> bool {
        match self.failure.kind {
            // A time limit ends an activity whatever its attempts do.
            FailureKind::Timeout { timeout: TimeoutKind::ScheduleToClose | TimeoutKind::ScheduleToStart, .. } => {
                of.open.contains_key(&self.id)
            }
            _ => of.is_live(self.id, self.attempt),
        }
    }

    fn storable(self) -> Self {
        Self { failure: self.failure.storable(), ..self }
    }

    fn view(&self) -> View {
        let Self { id, attempt, failure, retry_state } = self;
        (
            "ActivityFailed",
            attributes! { "activity_id": id, "attempt": attempt, "failure": failure, "retry_state": retry_state },
        )
    }
}

impl News for AttemptLost {
    type Of = Activities;
    const DELIVERED: bool = false;

    fn about(&self) -> About<'_> {
        About::Command(self.id)
    }

    fn note(&self, of: &mut Activities) -> Result<(), String> {
        let pending = of.open.get_mut(&self.id).ok_or_else(|| format!("activity {} is not pending", self.id))?;
        pending.lost = self.attempt;
        pending.retry_at = self.retry_at;
        Ok(())
    }

    fn fits(&self, of: &Activities) -> bool {
        of.live(self.id, self.attempt).is_ok()
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Nothing
    }

    fn view(&self) -> View {
        let Self { id, attempt, retry_at } = self;
        ("ActivityAttemptLost", attributes! { "activity_id": id, "attempt": attempt, "retry_at": retry_at })
    }

    fn chore(&self) -> Option<Chore> {
        Some(Chore::Task(self.id))
    }
}

impl<Input: From<AttemptLost> + From<ActivityFailed>> Arrives<Input> for WorkerGone {
    type Of = Activities;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        None
    }

    fn accept(self, of: &Activities, now: Timestamp) -> Result<Input, Refusal> {
        let Self { id, attempt, timeout, last_heartbeat } = self;
        let pending = of.live(id, attempt)?;
        let failure = Failure::timeout(timeout, last_heartbeat).storable();
        Ok(match pending.options.retry.after_failure(attempt, &failure, now, pending.close_deadline()) {
            Verdict::RetryAt(retry_at) => AttemptLost { id, attempt, retry_at }.into(),
            Verdict::GiveUp(retry_state) => ActivityFailed { id, attempt, failure, retry_state }.into(),
        })
    }
}

impl<Input: From<ActivityFailed>> Arrives<Input> for NeverTaken {
    type Of = Activities;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        None
    }

    fn accept(self, of: &Activities, _: Timestamp) -> Result<Input, Refusal> {
        of.live(self.id, u32::MAX)?;
        let failure = Failure::timeout(TimeoutKind::ScheduleToStart, None);
        Ok(ActivityFailed { id: self.id, attempt: 0, failure, retry_state: RetryState::Timeout }.into())
    }
}
