//! Activities that run where the workflow is decided.
//!
//! | what happens | in the history | pending before | pending after |
//! | --- | --- | --- | --- |
//! | the code asks | `ScheduleLocal` | (new id) | open, no attempts |
//! | it succeeds | `LocalCompleted` | open, attempt > `attempts` | gone |
//! | it fails for good | `LocalFailed` | open, attempt > `attempts` | gone |
//! | it fails, the next attempt is far away | `LocalBackoff` | open, attempt > `attempts` | open, `attempts` = attempt; an alarm |
//! | the code gives it up | `CancelLocal` | open or gone | gone |
//! | the run closes | | open | gone |
//!
//! Nothing is handed out for it: whoever decides the run runs it. A turn that asked for nothing else is committed with
//! the first outcome.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::kind::{About, Arrives, Ask, Delivery, Kind, News, Outcome, Refusal, View, attributes};
use super::tried::{Ending, Tried};
use crate::failure::{Failure, RetryState};
use crate::ids::CommandId;
use crate::payload::Payload;
use crate::time::{Moment, Timestamp};

/// Run an activity right here.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ScheduleLocal {
    /// Its id within the run.
    #[n(0)]
    pub id: CommandId,
    /// Its wire name.
    #[n(1)]
    pub activity_type: String,
    /// Tells changed arguments; the arguments themselves are recomputed.
    #[n(2)]
    pub fingerprint: u64,
    /// Where the workflow asked for it.
    #[n(3)]
    pub place: String,
}

/// The workflow no longer waits for this local activity.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CancelLocal {
    /// The local activity.
    #[n(0)]
    pub id: CommandId,
}

/// A local activity succeeded.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LocalCompleted {
    /// The local activity.
    #[n(0)]
    pub id: CommandId,
    /// The last attempt, from 1.
    #[n(1)]
    pub attempt: u32,
    /// What it returned.
    #[n(2)]
    pub result: Payload,
}

/// A local activity failed for good.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LocalFailed {
    /// The local activity.
    #[n(0)]
    pub id: CommandId,
    /// The last attempt, from 1.
    #[n(1)]
    pub attempt: u32,
    /// Its failure.
    #[n(2)]
    pub failure: Failure,
    /// Why no further attempt is made.
    #[n(3)]
    pub retry_state: RetryState,
}

/// An attempt of a local activity failed and the next is over a second away: a durable timer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LocalBackoff {
    /// The local activity.
    #[n(0)]
    pub id: CommandId,
    /// The attempt that failed.
    #[n(1)]
    pub attempt: u32,
    /// Its failure.
    #[n(2)]
    pub failure: Failure,
    /// When the next may begin.
    #[n(3)]
    pub retry_at: Timestamp,
}

/// A recorded local activity without an outcome.
#[derive(Clone, Debug, PartialEq, Default, Encode, Decode)]
pub struct PendingLocal {
    /// Its wire name.
    #[n(0)]
    pub activity_type: String,
    /// Failed attempts that the history knows of.
    #[n(1)]
    pub attempts: u32,
    /// The next attempt begins no earlier than this.
    #[n(2)]
    pub retry_at: Timestamp,
    /// Why the last attempt failed.
    #[n(3)]
    pub last_failure: Option<Failure>,
}

/// The local activities of a run, as far as they are recorded.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Locals {
    /// Those without an outcome.
    #[n(0)]
    pub open: BTreeMap<CommandId, PendingLocal>,
    /// When those that back off may go on, the earliest first.
    #[n(1)]
    ahead: BTreeSet<(Timestamp, CommandId)>,
}

impl Locals {
    fn remove(&mut self, id: CommandId) -> Option<PendingLocal> {
        let pending = self.open.remove(&id)?;
        self.ahead.remove(&(pending.retry_at, id));
        Some(pending)
    }
}

impl Tried for Locals {
    fn settle(&mut self, id: CommandId) -> Result<(), String> {
        self.remove(id).map(drop).ok_or_else(|| format!("local activity {id} is not pending"))
    }

    fn is_live(&self, id: CommandId, attempt: u32) -> bool {
        self.open.get(&id).is_some_and(|pending| attempt > pending.attempts)
    }
}

impl Kind for Locals {
    type Due = std::convert::Infallible;

    /// One that may begin already rings no more.
    fn alarm(&self, now: Timestamp) -> Option<Timestamp> {
        self.ahead.range((now, CommandId::MAX)..).find(|(at, _)| *at > now).map(|(at, _)| *at)
    }

    fn waits(&self) -> bool {
        !self.open.is_empty()
    }

    fn weight(&self) -> usize {
        self.open.len() * 128
    }

    fn close(&mut self) {
        self.open.clear();
        self.ahead.clear();
    }
}

impl Ask for ScheduleLocal {
    type Of = Locals;
    const KIND: &'static str = "local activity";

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
        self.fingerprint == other.fingerprint
    }

    fn fold(&self, of: &mut Locals, _: Moment) -> Result<(), String> {
        let pending = PendingLocal { activity_type: self.activity_type.clone(), ..PendingLocal::default() };
        of.open.insert(self.id, pending);
        Ok(())
    }

    fn view(&self) -> View {
        let Self { id, activity_type, place, fingerprint } = self;
        (
            "LocalActivityScheduled",
            attributes! {
                "activity_id": id,
                "activity_type": activity_type,
                "input_hash": format!("{fingerprint:016x}"),
                "place": place,
            },
        )
    }

    fn may_wait(&self) -> bool {
        true
    }
}

impl Ask for CancelLocal {
    type Of = Locals;
    const KIND: &'static str = "cancel local activity";

    fn id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, of: &mut Locals, _: Moment) -> Result<(), String> {
        of.remove(self.id);
        Ok(())
    }

    fn view(&self) -> View {
        ("LocalActivityCancelRequested", attributes! { "activity_id": self.id })
    }
}

impl Ending for LocalCompleted {
    type Of = Locals;

    fn attempt(&self) -> (CommandId, u32) {
        (self.id, self.attempt)
    }

    fn outcome(&self) -> Outcome<'_> {
        Outcome::Value(&self.result)
    }

    fn view(&self) -> View {
        let Self { id, attempt, result } = self;
        ("LocalActivityCompleted", attributes! { "activity_id": id, "attempt": attempt, "result": result })
    }

    fn bytes(&self) -> usize {
        self.result.len()
    }
}

impl Ending for LocalFailed {
    type Of = Locals;

    fn attempt(&self) -> (CommandId, u32) {
        (self.id, self.attempt)
    }

    fn outcome(&self) -> Outcome<'_> {
        Outcome::Failed(self.attempt, self.retry_state, &self.failure)
    }

    fn storable(self) -> Self {
        Self { failure: self.failure.storable(), ..self }
    }

    fn view(&self) -> View {
        let Self { id, attempt, failure, retry_state } = self;
        (
            "LocalActivityFailed",
            attributes! { "activity_id": id, "attempt": attempt, "failure": failure, "retry_state": retry_state },
        )
    }
}

impl News for LocalBackoff {
    type Of = Locals;
    const DELIVERED: bool = false;

    fn about(&self) -> About<'_> {
        About::Command(self.id)
    }

    fn note(&self, of: &mut Locals) -> Result<(), String> {
        let Self { id, attempt, failure, retry_at } = self;
        let pending = of.open.get_mut(id).ok_or_else(|| format!("local activity {id} is not pending"))?;
        of.ahead.remove(&(pending.retry_at, *id));
        of.ahead.insert((*retry_at, *id));
        pending.attempts = *attempt;
        pending.retry_at = *retry_at;
        pending.last_failure = Some(failure.clone());
        Ok(())
    }

    fn fits(&self, of: &Locals) -> bool {
        of.is_live(self.id, self.attempt)
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Nothing
    }

    fn view(&self) -> View {
        let Self { id, attempt, failure, retry_at } = self;
        (
            "LocalActivityBackoff",
            attributes! { "activity_id": id, "attempt": attempt, "failure": failure, "retry_at": retry_at },
        )
    }
}

impl<Input: From<Self>> Arrives<Input> for LocalBackoff {
    type Of = Locals;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        None
    }

    fn accept(self, of: &Locals, _: Timestamp) -> Result<Input, Refusal> {
        if !of.is_live(self.id, self.attempt) {
            return Err(Refusal::Superseded);
        }
        Ok(Self { failure: self.failure.storable(), ..self }.into())
    }
}
