//! What a kind of operation consists of: one trait for what comes from outside, one for what the code asks for, one
//! for what arrives before it is recorded, one for what is pending of it.
//!
//! A kind's file implements them for its own structs and knows no other kind; the list in `mod.rs` does the rest.

use std::collections::BTreeMap;

use serde::Serialize;

use super::call::{CarriedSignal, NextRun};
use crate::failure::{Failure, RetryState};
use crate::ids::CommandId;
use crate::payload::Payload;
use crate::status::Status;
use crate::time::{Moment, Timestamp};

/// A kind of event as people see it: its type and its particulars.
pub(crate) type View = (&'static str, Attributes);

/// What is told of an event: names and JSON, which is as it came where it is a user's.
pub(crate) type Attributes = BTreeMap<String, Payload>;

/// An event's particulars.
macro_rules! attributes {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::operations::kind::Attributes::from([
            $(($name.to_owned(), $crate::operations::kind::attribute(&$value))),*
        ])
    };
}
pub(crate) use attributes;

/// One of an event's particulars, which are the engine's own, or JSON already.
pub(crate) fn attribute<T: Serialize + ?Sized>(value: &T) -> Payload {
    serde_json::to_vec(value).map_or(Payload::NULL, |bytes| Payload::from_json(bytes.into()))
}

/// What an input is about: the request that it answers, or the command that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    /// A caller's request, by the id that deduplicates it.
    Request(&'a str),
    /// A command of the run.
    Command(CommandId),
}

/// Something that comes from outside, as a history holds it.
pub(crate) trait News {
    /// What is pending of its kind.
    type Of: Kind;
    /// Whether the workflow is told. What is not is the engine's business alone.
    const DELIVERED: bool;

    /// What it is about.
    fn about(&self) -> About<'_>;
    /// Folds it in. Refused when the history does not know what it is about.
    fn note(&self, of: &mut Self::Of) -> Result<(), String>;
    /// Whether it still changes something, having been accepted a moment ago.
    fn fits(&self, of: &Self::Of) -> bool;
    /// What the machine gets.
    fn deliver(&self) -> Delivery<'_>;
    /// For people.
    fn view(&self) -> View;
    /// About how many bytes it takes, beyond what every event takes.
    fn bytes(&self) -> usize {
        0
    }
    /// What it leaves to be done, as far as that is still pending.
    fn chore(&self) -> Option<Chore> {
        None
    }
    /// How it ends the run, if it does.
    fn closes(&self) -> Option<Closed> {
        None
    }
    /// What `now()` is at least when the workflow is told.
    fn now_at_least(&self, _of: &Self::Of) -> Option<Timestamp> {
        None
    }
}

/// Something that a workflow asks for, as a history holds it.
pub(crate) trait Ask: PartialEq {
    /// What is pending of its kind.
    type Of: Kind;
    /// The kind, as people read it.
    const KIND: &'static str;

    /// The wire name, if it carries one.
    fn name(&self) -> Option<&str> {
        None
    }
    /// The id that it introduces or refers to.
    fn id(&self) -> Option<CommandId> {
        None
    }
    /// Where in the source the workflow asked for it, if that is recorded.
    fn place(&self) -> Option<&str> {
        None
    }
    /// Whether its arguments are those of another one of the same kind, name and id.
    fn same_arguments(&self, other: &Self) -> bool;
    /// Folds it in, as asked for at this moment.
    fn fold(&self, of: &mut Self::Of, at: Moment) -> Result<(), String>;
    /// For people.
    fn view(&self) -> View;
    /// What it leaves to be done, as far as that is still pending.
    fn chore(&self) -> Option<Chore> {
        None
    }
    /// About how many bytes it takes, beyond what every event takes.
    fn bytes(&self) -> usize {
        0
    }
    /// Whether a turn that asked for nothing else waits for its outcome before it is committed.
    fn may_wait(&self) -> bool {
        false
    }
    /// How it ends the run, if it does.
    fn closes(&self) -> Option<Closed> {
        None
    }
}

/// Something that arrives, to be held against the history. `Input` is the list of all inputs.
pub(crate) trait Arrives<Input> {
    /// What is pending of its kind.
    type Of: Kind;
    /// Whether it follows a run that continued as new (rule F4).
    const FOLLOWS: bool;
    /// Whether callers may send any number of it, so that it is refused when the run is full.
    const BOUNDED: bool;

    /// The id that deduplicates it, if callers send it.
    fn request_id(&self) -> Option<&str>;
    /// What to record, or why nothing.
    fn accept(self, of: &Self::Of, now: Timestamp) -> Result<Input, Refusal>;
}

/// What is pending of one kind of operation: part of a run's folded history.
pub(crate) trait Kind {
    /// What comes about by itself as time passes; `Infallible` where nothing does.
    type Due;

    /// Everything that is to be done for an open run, whether it was handed out before or not.
    fn chores(&self) -> Vec<Chore> {
        Vec::new()
    }
    /// What a closed run still owes.
    fn chores_closed(&self) -> Vec<Chore> {
        Vec::new()
    }
    /// When the run must be woken after this time.
    fn alarm(&self, _now: Timestamp) -> Option<Timestamp> {
        None
    }
    /// Whether somebody must look at the run although nothing rings: something is under way elsewhere.
    fn waits(&self) -> bool {
        false
    }
    /// What has come about because time has passed, with when it was due and of which command.
    fn due(&self, _now: Timestamp) -> Vec<(Timestamp, CommandId, Self::Due)> {
        Vec::new()
    }
    /// About how much memory it takes, in bytes.
    fn weight(&self) -> usize {
        0
    }
    /// The run is closed: nothing is waited for any more.
    fn close(&mut self) {}
}

/// What a history leaves to be done for one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Its task goes to a worker.
    Task(CommandId),
    /// Its attempt record is closed: nobody wants its outcome.
    Unwanted(CommandId),
}

/// What the machine gets of an input.
#[derive(Debug)]
pub(crate) enum Delivery<'a> {
    /// Signals, in order.
    Signals(&'a [CarriedSignal]),
    /// A signal.
    Signal(&'a str, &'a Payload),
    /// Everything awaited ends.
    Cancel,
    /// A command has an outcome.
    Outcome(CommandId, Outcome<'a>),
    /// Nothing.
    Nothing,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// It gave a value.
    Value(&'a Payload),
    /// It failed for good, on this attempt.
    Failed(u32, RetryState, &'a Failure),
    /// Its time has come.
    Fired,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
pub enum Closed {
    /// With a result.
    #[n(0)]
    Completed(#[n(0)] Payload),
    /// With a failure.
    #[n(1)]
    Failed(#[n(0)] Failure),
    /// Because it was asked to.
    #[n(2)]
    Canceled(#[n(0)] Failure),
    /// From outside, perhaps to make room for a next run.
    #[n(3)]
    Terminated(#[n(0)] Failure, #[n(1)] Option<Box<NextRun>>),
    /// By handing over.
    #[n(4)]
    ContinuedAsNew(#[n(0)] Box<NextRun>),
}

impl Closed {
    /// The status that listings show.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Canceled(_) => Status::Canceled,
            Self::Terminated(..) => Status::Terminated,
            Self::ContinuedAsNew(_) => Status::ContinuedAsNew,
        }
    }

    /// The run that must follow, if any.
    #[must_use]
    pub fn next(&self) -> Option<&NextRun> {
        match self {
            Self::ContinuedAsNew(next) | Self::Terminated(_, Some(next)) => Some(next),
            Self::Completed(_) | Self::Failed(_) | Self::Canceled(_) | Self::Terminated(_, None) => None,
        }
    }
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
    /// The run takes no more of this: the limit of this name is reached.
    Full {
        /// The limit's name, as its setting has it.
        limit: &'static str,
    },
}
