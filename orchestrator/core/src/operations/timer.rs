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
use crate::time::Timestamp;

/// Wake up later.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StartTimer {
    /// Its id within the run.
    #[n(0)]
    pub id: CommandId,
    /// When it fires.
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
}

impl Timers {
    fn remove(&mut self, id: CommandId) -> Option<Timestamp> {
        let at = self.open.remove(&id)?;
        self.ahead.remove(&(at, id));
        Some(at)
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

    fn fold(&self, of: &mut Timers, _: Timestamp) -> Result<(), String> {
        of.remove(self.id);
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

    fn fold(&self, of: &mut Timers, _: Timestamp) -> Result<(), String> {
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
        of.remove(self.id).map(drop).ok_or_else(|| format!("timer {} is not pending", self.id))
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
