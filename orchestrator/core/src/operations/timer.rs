//! Timers.
//!
//! | what happens | in the history | pending before | pending after |
//! | --- | --- | --- | --- |
//! | the code asks | `StartTimer` | (new id) | open; an alarm |
//! | its time has come | `TimerFired` | open | gone |
//! | the code drops it | `CancelTimer` | open or gone | gone |
//! | the run closes | | open | gone |

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::kind::{About, Ask, Delivery, Kind, News, Outcome, View, attributes};
use crate::ids::CommandId;
use crate::time::{Moment, Timestamp};

/// Wake up later.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StartTimer {
    /// Its id within the run.
    #[n(0)]
    pub id: CommandId,
    /// When it fires, by the clock of whoever decided it.
    #[n(1)]
    pub fire_at: Timestamp,
    /// Where the workflow asked for it.
    #[n(2)]
    pub place: String,
}

/// The timer is no longer needed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CancelTimer {
    /// The timer.
    #[n(0)]
    pub id: CommandId,
}

/// A timer's time has come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TimerFired {
    /// The timer.
    #[n(0)]
    pub id: CommandId,
}

/// The timers of a run.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Timers {
    /// When those that have not fired do.
    #[n(0)]
    pub open: BTreeMap<CommandId, Timestamp>,
    /// The same, the earliest first.
    #[n(1)]
    ahead: BTreeSet<(Timestamp, CommandId)>,
    /// Of timers that were asked for when the clock was behind what `now()` was: what it will be when they have fired.
    #[n(2)]
    promised: BTreeMap<CommandId, Timestamp>,
    /// The latest of these that has come: `now()` is no earlier than this.
    #[n(3)]
    slept_until: Timestamp,
}

impl Timers {
    /// When it was to fire, and what was promised of it.
    fn remove(&mut self, id: CommandId) -> Option<(Timestamp, Option<Timestamp>)> {
        let at = self.open.remove(&id)?;
        self.ahead.remove(&(at, id));
        Some((at, self.promised.remove(&id)))
    }

    /// What `now()` is at least, since timers have fired by a clock that was behind it.
    pub(crate) fn slept_until(&self) -> Timestamp {
        self.slept_until
    }
}

impl Kind for Timers {
    type Due = TimerFired;

    fn alarm(&self, _: Timestamp) -> Option<Timestamp> {
        self.ahead.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Timestamp) -> Vec<(Timestamp, CommandId, TimerFired)> {
        self.ahead.range(..=(now, CommandId::MAX)).map(|(at, id)| (*at, *id, TimerFired { id: *id })).collect()
    }

    fn weight(&self) -> usize {
        self.open.len() * 64
    }

    fn close(&mut self) {
        self.open.clear();
        self.ahead.clear();
        self.promised.clear();
    }
}

impl Ask for StartTimer {
    type Of = Timers;
    const KIND: &'static str = "timer";

    fn id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    fn same_arguments(&self, other: &Self) -> bool {
        self.fire_at == other.fire_at
    }

    fn fold(&self, of: &mut Timers, at: Moment) -> Result<(), String> {
        of.remove(self.id);
        if at.behind_ms().is_some() {
            of.promised.insert(self.id, self.fire_at + at.now.since(at.clock));
        }
        of.open.insert(self.id, self.fire_at);
        of.ahead.insert((self.fire_at, self.id));
        Ok(())
    }

    fn view(&self) -> View {
        let Self { id, fire_at, place } = self;
        ("TimerStarted", attributes! { "timer_id": id, "fire_at": fire_at, "place": place })
    }
}

impl Ask for CancelTimer {
    type Of = Timers;
    const KIND: &'static str = "cancel timer";

    fn id(&self) -> Option<CommandId> {
        Some(self.id)
    }

    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, of: &mut Timers, _: Moment) -> Result<(), String> {
        of.remove(self.id);
        Ok(())
    }

    fn view(&self) -> View {
        ("TimerCanceled", attributes! { "timer_id": self.id })
    }
}

impl News for TimerFired {
    type Of = Timers;
    const DELIVERED: bool = true;

    fn about(&self) -> About<'_> {
        About::Command(self.id)
    }

    fn note(&self, of: &mut Timers) -> Result<(), String> {
        let (_, promised) = of.remove(self.id).ok_or_else(|| format!("timer {} is not pending", self.id))?;
        of.slept_until = of.slept_until.max(promised.unwrap_or_default());
        Ok(())
    }

    fn now_at_least(&self, of: &Timers) -> Option<Timestamp> {
        of.promised.get(&self.id).copied()
    }

    fn fits(&self, of: &Timers) -> bool {
        of.open.contains_key(&self.id)
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Outcome(self.id, Outcome::Fired)
    }

    fn view(&self) -> View {
        ("TimerFired", attributes! { "timer_id": self.id })
    }
}
