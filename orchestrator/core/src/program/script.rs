//! What a history says that a turn asks for: given to the machine before the code runs, and compared as it asks.

use std::collections::VecDeque;

use super::divergence::{Asked, Difference, TurnFailure, differences};
use crate::operations::Command;
use crate::place::Place;

/// The recorded commands of the turn that is being run again.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Whether a recorded turn is being run again; else the code is free to ask for anything.
    recorded: bool,
    expected: VecDeque<Command>,
    /// Where history and code part, for the first time.
    diverged: Option<Parting>,
    /// The first command that was repeated with other arguments.
    changed: Option<Changed>,
    told_of_changed: bool,
}

/// Where history and code part.
#[derive(Debug)]
struct Parting {
    recorded: Asked,
    attempted: Asked,
    differences: Vec<Difference>,
}

/// A command that was repeated with other arguments: the recorded ones stand.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) command: Asked,
    pub(crate) differences: Vec<Difference>,
}

/// What becomes of a command that the code asks for.
pub(crate) enum Asking {
    /// No history speaks of this turn: the command is new.
    New(Command),
    /// The history holds it: this is the recorded one.
    Recorded(Command),
    /// It does not follow the history, or something before it did not: nothing comes of it.
    Diverged,
}

impl Script {
    /// A recorded turn begins: these are its commands.
    pub(crate) fn begin(&mut self, expected: VecDeque<Command>) {
        self.recorded = true;
        self.expected = expected;
    }

    /// The recorded turn is over. What is left of its commands is divergence too: the code waits at these places
    /// instead of asking for them.
    pub(crate) fn end(&mut self, turn: u64, waits_at: impl FnOnce() -> Vec<String>) -> Result<(), TurnFailure> {
        if self.recorded
            && self.diverged.is_none()
            && let Some(recorded) = self.expected.pop_front()
        {
            self.diverged = Some(Parting {
                recorded: Asked::command(recorded, None),
                attempted: Asked::Nothing { waits_at: waits_at() },
                differences: Vec::new(),
            });
        }
        self.recorded = false;
        match self.diverged.take() {
            None => Ok(()),
            Some(Parting { recorded, attempted, differences }) => {
                Err(TurnFailure::Diverged { turn, recorded, attempted, differences })
            }
        }
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    pub(crate) fn has_diverged(&self) -> bool {
        self.diverged.is_some()
    }

    /// The first command that was repeated with other arguments, once.
    pub(crate) fn take_changed(&mut self) -> Option<Changed> {
        self.changed.take()
    }

    /// The code asks for this, at this place.
    pub(crate) fn ask(&mut self, attempted: Command, place: Option<&Place>) -> Asking {
        if !self.recorded {
            return Asking::New(attempted);
        }
        if self.diverged.is_some() {
            return Asking::Diverged;
        }
        match self.expected.pop_front() {
            Some(recorded) if recorded.is_same(&attempted) => {
                if !self.told_of_changed && recorded.arguments_differ(&attempted) {
                    self.told_of_changed = true;
                    let differences = differences(&recorded, &attempted);
                    self.changed = Some(Changed { command: Asked::command(attempted, place), differences });
                }
                Asking::Recorded(recorded)
            }
            recorded => {
                let differences =
                    recorded.as_ref().map(|recorded| differences(recorded, &attempted)).unwrap_or_default();
                let nothing = Asked::Nothing { waits_at: Vec::new() };
                let recorded = recorded.map_or(nothing, |recorded| Asked::command(recorded, None));
                self.diverged = Some(Parting { recorded, attempted: Asked::command(attempted, place), differences });
                Asking::Diverged
            }
        }
    }
}

impl Asked {
    fn command(command: Command, place: Option<&Place>) -> Self {
        let place = command.place().map(str::to_owned).or_else(|| place.map(ToString::to_string));
        Self::For { command: Box::new(command), place }
    }
}
