//! What a history is made of. Numbers (`#[n(..)]`) are the stored form: never change or reuse one, only add.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::flags::Flags;
use crate::operations::{Command, Input};
use crate::time::{Moment, Timestamp};

/// One entry of a history.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Event {
    /// Something came from outside. In an accepted batch it waits to be delivered; in a decided one, the turn
    /// before it has delivered it already.
    #[n(0)]
    Input(#[n(0)] Input),
    /// The workflow's code ran once, after these inputs; the commands that follow are what it asked for.
    #[n(1)]
    Turn(#[n(0)] Turn),
    /// What the workflow asked for.
    #[n(2)]
    Command(#[n(0)] Command),
    /// From here on, another build decides. Stands first in its batch, and only where something differs from before.
    #[n(3)]
    DecidedBy(#[n(0)] DecidedBy),
}

impl Event {
    /// How many events people see of it (`readable`): a turn shows as the input that it brought.
    pub(crate) fn shown(&self) -> u64 {
        u64::from(match self {
            Self::Turn(turn) => turn.input.is_some(),
            Self::DecidedBy(by) => by.changed.is_some(),
            Self::Input(_) | Self::Command(_) => true,
        })
    }
}

/// One poll of the workflow's code.
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
    /// By how many milliseconds the decider's clock was behind what `now()` was, if it was: recorded time never goes
    /// back, and what a turn asks for is waited for by the clock (rule C8).
    #[n(3)]
    pub behind_ms: Option<u64>,
    /// How many signals of each name the code took, if it took any.
    #[n(4)]
    pub read: Option<BTreeMap<String, u32>>,
}

impl Turn {
    /// What `now()` was, and what the decider's clock showed, in a turn of a batch with this time.
    #[must_use]
    pub fn moment(&self, batch: Timestamp) -> Moment {
        let now = turn_time(batch, self.at_offset_ms);
        Moment { now, clock: now - Duration::from_millis(self.behind_ms.unwrap_or_default()) }
    }
}

/// Who decides, how, and by which behaviours of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DecidedBy {
    /// The build, as its host names it; empty when it has no name.
    #[n(0)]
    pub build: String,
    /// The behaviours that are in force from here on.
    #[n(1)]
    pub flags: Flags,
    /// Where its code does not ask for what is recorded, without going astray.
    #[n(2)]
    pub changed: Option<ChangedArguments>,
}

/// Recorded commands that the code asks for with other arguments: the recorded ones stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ChangedArguments {
    /// How many commands, in the replay that met most of them.
    #[n(0)]
    pub commands: u64,
    /// The first of them: what is recorded and what was asked for, with both places in the source, and each field that
    /// differs.
    #[n(1)]
    pub first: String,
}

/// What `now()` was in a turn of a batch with this time.
#[must_use]
pub fn turn_time(batch: Timestamp, offset_ms: i64) -> Timestamp {
    Timestamp::from_millis(batch.as_millis().saturating_add_signed(offset_ms))
}
