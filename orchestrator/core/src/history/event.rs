//! What a history is made of. Numbers (`#[n(..)]`) are the stored form: never change or reuse one, only add.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::failure::{Failure, RetryState};
use crate::ids::RunId;
use crate::options::RecordedOptions;
use crate::payload::Payload;
use crate::time::Timestamp;

/// Names a command within its run, in the order in which the workflow issued them, from 1.
/// An activity's is its activity id.
pub type CommandId = u64;

/// One entry of a history.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Event {
    /// Something came from outside. In an accepted batch it waits to be delivered; in a decided one, the turn
    /// before it has delivered it already.
    #[n(0)]
    Input(#[n(0)] Input),
    /// The workflow's future was polled once, after these inputs; the commands that follow are what it asked for.
    #[n(1)]
    Turn(#[n(0)] Turn),
    /// What the workflow asked for.
    #[n(2)]
    Command(#[n(0)] Command),
}

/// One poll of the workflow's future.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Turn {
    /// What `now()` was, in milliseconds relative to the batch's time: negative when the batch was written later.
    #[n(0)]
    pub at_offset_ms: i64,
    /// How many waiting inputs were delivered, oldest first.
    #[n(1)]
    pub taken: u32,
    /// An input that was recorded and delivered at once, after those.
    #[n(2)]
    pub input: Option<Input>,
}

/// What comes from outside.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Input {
    /// The run began.
    #[n(0)]
    Started(#[n(0)] Box<Started>),
    /// A signal arrived.
    #[n(1)]
    Signaled {
        /// Deduplicates repeats.
        #[n(0)]
        request_id: String,
        /// Its name.
        #[n(1)]
        name: String,
        /// Its argument.
        #[n(2)]
        payload: Payload,
    },
    /// Somebody asked the workflow to stop.
    #[n(2)]
    CancelRequested {
        /// Deduplicates repeats.
        #[n(0)]
        request_id: String,
        /// Why, for people.
        #[n(1)]
        reason: String,
    },
    /// Somebody ended the run. Runs no code.
    #[n(3)]
    Terminated {
        /// Deduplicates repeats.
        #[n(0)]
        request_id: String,
        /// Why, for people.
        #[n(1)]
        reason: String,
        /// The run that takes its place, when a start terminated it.
        #[n(2)]
        next: Option<Box<NextRun>>,
    },
    /// A queued activity succeeded.
    #[n(4)]
    ActivityCompleted {
        /// The activity.
        #[n(0)]
        id: CommandId,
        /// The attempt that succeeded, from 1.
        #[n(1)]
        attempt: u32,
        /// What it returned.
        #[n(2)]
        result: Payload,
    },
    /// A queued activity failed, and no further attempt is made.
    #[n(5)]
    ActivityFailed {
        /// The activity.
        #[n(0)]
        id: CommandId,
        /// The last attempt.
        #[n(1)]
        attempt: u32,
        /// Its failure.
        #[n(2)]
        failure: Failure,
        /// Why no further attempt is made.
        #[n(3)]
        retry_state: RetryState,
    },
    /// The worker of this attempt is gone; the next one may begin. Ends the attempt's lease (rule A1).
    #[n(6)]
    AttemptLost {
        /// The activity.
        #[n(0)]
        id: CommandId,
        /// The attempt that was lost.
        #[n(1)]
        attempt: u32,
        /// When the next may begin.
        #[n(2)]
        retry_at: Timestamp,
    },
    /// A timer's time has come.
    #[n(7)]
    TimerFired {
        /// The timer.
        #[n(0)]
        id: CommandId,
    },
    /// A local activity ended.
    #[n(8)]
    LocalCompleted {
        /// The local activity.
        #[n(0)]
        id: CommandId,
        /// The last attempt.
        #[n(1)]
        attempt: u32,
        /// What it returned.
        #[n(2)]
        result: Payload,
    },
    /// A local activity failed for good.
    #[n(9)]
    LocalFailed {
        /// The local activity.
        #[n(0)]
        id: CommandId,
        /// The last attempt.
        #[n(1)]
        attempt: u32,
        /// Its failure.
        #[n(2)]
        failure: Failure,
        /// Why no further attempt is made.
        #[n(3)]
        retry_state: RetryState,
    },
    /// An attempt of a local activity failed and the next is over a second away: a durable timer.
    #[n(10)]
    LocalBackoff {
        /// The local activity.
        #[n(0)]
        id: CommandId,
        /// The attempt that failed.
        #[n(1)]
        attempt: u32,
        /// Its failure.
        #[n(2)]
        failure: Failure,
        /// When the next may begin.
        #[n(3)]
        retry_at: Timestamp,
    },
}

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Started {
    /// The identity of the run.
    #[n(0)]
    pub run_id: RunId,
    /// The workflow's wire name.
    #[n(1)]
    pub workflow_type: String,
    /// Its argument.
    #[n(2)]
    pub input: Payload,
    /// Deduplicates repeats of the start.
    #[n(3)]
    pub request_id: String,
    /// The run that this one continues or replaces.
    #[n(4)]
    pub continued_from: Option<RunId>,
    /// Signals that the predecessor had not consumed.
    #[n(5)]
    pub carried: Vec<CarriedSignal>,
    /// Requests that earlier runs of this workflow id have answered (rule F3), oldest first.
    #[n(6)]
    pub earlier: Vec<EarlierRequest>,
}

/// A signal on its way from a run to the one that continues it.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct CarriedSignal {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its argument.
    #[n(1)]
    pub payload: Payload,
}

/// A request that an earlier run answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct EarlierRequest {
    /// Eight bytes of the request id's hash.
    #[n(0)]
    pub hash: u64,
    /// The ordinal of the run that answered it.
    #[n(1)]
    pub ordinal: u64,
    /// When it was recorded.
    #[n(2)]
    pub at: Timestamp,
}

/// The run that a closing batch calls for: with the history so far, all that batch 0 of the next run derives from (rule C6).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NextRun {
    /// The workflow's wire name.
    #[n(0)]
    pub workflow_type: String,
    /// Its argument.
    #[n(1)]
    pub input: Payload,
    /// The request id of a start that replaces the run; none when the workflow continued as new.
    #[n(2)]
    pub request_id: Option<String>,
    /// Signals that the closing run had received and not consumed.
    #[n(3)]
    pub carried: Vec<CarriedSignal>,
}

/// What a workflow asks for.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Command {
    /// Run an activity on a worker.
    #[n(0)]
    ScheduleActivity {
        /// Its id within the run.
        #[n(0)]
        id: CommandId,
        /// Its wire name.
        #[n(1)]
        activity_type: String,
        /// Its argument.
        #[n(2)]
        input: Payload,
        /// Its limits and retry policy.
        #[n(3)]
        options: RecordedOptions,
        /// Where the workflow asked for it.
        #[n(4)]
        place: String,
    },
    /// The workflow no longer waits for this activity, and wants it to stop.
    #[n(1)]
    CancelActivity {
        /// The activity.
        #[n(0)]
        id: CommandId,
    },
    /// Run an activity right here.
    #[n(2)]
    ScheduleLocal {
        /// Its id within the run.
        #[n(0)]
        id: CommandId,
        /// Its wire name.
        #[n(1)]
        activity_type: String,
        /// Tells changed arguments; the arguments themselves are recomputed.
        #[n(2)]
        fingerprint: u64,
        /// Where the workflow asked for it.
        #[n(3)]
        place: String,
    },
    /// Wake up later.
    #[n(3)]
    StartTimer {
        /// Its id within the run.
        #[n(0)]
        id: CommandId,
        /// When it fires.
        #[n(1)]
        fire_at: Timestamp,
        /// Where the workflow asked for it.
        #[n(2)]
        place: String,
    },
    /// The timer is no longer needed.
    #[n(4)]
    CancelTimer {
        /// The timer.
        #[n(0)]
        id: CommandId,
    },
    /// A query's value, answered from storage.
    #[n(5)]
    Publish {
        /// The query's name.
        #[n(0)]
        name: String,
        /// Its value.
        #[n(1)]
        value: Payload,
        /// Where the workflow published it.
        #[n(2)]
        place: String,
    },
    /// The run ends well.
    #[n(6)]
    Complete {
        /// What the workflow returned.
        #[n(0)]
        result: Payload,
    },
    /// The run fails.
    #[n(7)]
    Fail {
        /// What the workflow returned.
        #[n(0)]
        failure: Failure,
    },
    /// The run ends because it was asked to.
    #[n(8)]
    Cancel {
        /// The cancellation as it came out.
        #[n(0)]
        failure: Failure,
    },
    /// The run ends and another takes over.
    #[n(9)]
    ContinueAsNew {
        /// The run that takes over.
        #[n(0)]
        next: Box<NextRun>,
    },
}

impl Input {
    /// Whether the workflow is told: an attempt that was lost or will be repeated is the engine's business alone.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        !matches!(self, Self::Terminated { .. } | Self::AttemptLost { .. } | Self::LocalBackoff { .. })
    }

    /// About how much memory this takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let payload = match self {
            Self::Started(started) => started.input.len(),
            Self::Signaled { payload, .. } => payload.len(),
            Self::ActivityCompleted { result, .. } | Self::LocalCompleted { result, .. } => result.len(),
            Self::CancelRequested { .. }
            | Self::Terminated { .. }
            | Self::ActivityFailed { .. }
            | Self::AttemptLost { .. }
            | Self::TimerFired { .. }
            | Self::LocalFailed { .. }
            | Self::LocalBackoff { .. } => 0,
        };
        256 + payload
    }

    /// The command that it answers, if it answers one.
    #[must_use]
    pub fn about(&self) -> Option<CommandId> {
        match self {
            Self::Started(_) | Self::Signaled { .. } | Self::CancelRequested { .. } | Self::Terminated { .. } => None,
            Self::ActivityCompleted { id, .. }
            | Self::ActivityFailed { id, .. }
            | Self::AttemptLost { id, .. }
            | Self::TimerFired { id }
            | Self::LocalCompleted { id, .. }
            | Self::LocalFailed { id, .. }
            | Self::LocalBackoff { id, .. } => Some(*id),
        }
    }

    /// The id that deduplicates it, for inputs that callers send.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Started(started) => Some(&started.request_id),
            Self::Signaled { request_id, .. }
            | Self::CancelRequested { request_id, .. }
            | Self::Terminated { request_id, .. } => Some(request_id),
            _ => None,
        }
    }
}

impl Command {
    /// Whether it ends the run.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Self::Complete { .. } | Self::Fail { .. } | Self::Cancel { .. } | Self::ContinueAsNew { .. })
    }

    /// The kind, as people read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ScheduleActivity { .. } => "activity",
            Self::CancelActivity { .. } => "cancel activity",
            Self::ScheduleLocal { .. } => "local activity",
            Self::StartTimer { .. } => "timer",
            Self::CancelTimer { .. } => "cancel timer",
            Self::Publish { .. } => "publish",
            Self::Complete { .. } => "complete the workflow",
            Self::Fail { .. } => "fail the workflow",
            Self::Cancel { .. } => "close the workflow as canceled",
            Self::ContinueAsNew { .. } => "continue as new",
        }
    }

    /// The wire name, for commands that carry one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::ScheduleActivity { activity_type, .. } | Self::ScheduleLocal { activity_type, .. } => {
                Some(activity_type)
            }
            Self::Publish { name, .. } => Some(name),
            Self::ContinueAsNew { next } => Some(&next.workflow_type),
            _ => None,
        }
    }

    /// The id that it introduces or refers to.
    #[must_use]
    pub fn id(&self) -> Option<CommandId> {
        match self {
            Self::ScheduleActivity { id, .. }
            | Self::CancelActivity { id }
            | Self::ScheduleLocal { id, .. }
            | Self::StartTimer { id, .. }
            | Self::CancelTimer { id } => Some(*id),
            _ => None,
        }
    }

    /// Where in the source the workflow asked for it, where that is recorded.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::ScheduleActivity { place, .. }
            | Self::ScheduleLocal { place, .. }
            | Self::StartTimer { place, .. }
            | Self::Publish { place, .. } => Some(place),
            _ => None,
        }
    }
}
