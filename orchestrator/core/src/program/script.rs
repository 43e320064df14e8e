//! What a history says that a turn asks for: given to the machine before the code runs, and compared as it asks.

use std::collections::{BTreeMap, VecDeque};

use super::divergence::{Asked, Difference, TurnFailure, differences};
use crate::history::ChangedArguments;
use crate::operations::{Command, RecordPatch};
use crate::place::Place;

/// The recorded commands of the turn that is being run again.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Whether a recorded turn is being run again; else the code is free to ask for anything.
    recorded: bool,
    expected: VecDeque<Command>,
    /// Where history and code part, for the first time.
    diverged: Option<Parting>,
    /// Commands that were repeated with other arguments.
    changed: Option<ChangedArguments>,
    /// Whether other arguments are divergence too.
    strict: bool,
    /// Patches that the code has deprecated: it does not mind where the history holds them. And whether it does.
    deprecated: BTreeMap<String, bool>,
}

/// Where history and code part.
#[derive(Debug)]
struct Parting {
    recorded: Asked,
    attempted: Asked,
    differences: Vec<Difference>,
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
    /// The script of a run whose code must ask for the very arguments that are recorded, or need not.
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// A recorded turn begins: these are its commands.
    pub(crate) fn begin(&mut self, expected: VecDeque<Command>) {
        self.recorded = true;
        self.expected = expected;
    }

    /// The recorded turn is over. What is left of its commands is divergence too: the code waits at these places
    /// instead of asking for them.
    pub(crate) fn end(&mut self, turn: u64, waits_at: impl FnOnce() -> Vec<String>) -> Result<(), TurnFailure> {
        self.pass_over_patches();
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

    /// Commands that were repeated with other arguments, so far.
    pub(crate) fn changed(&self) -> Option<&ChangedArguments> {
        self.changed.as_ref()
    }

    /// Whether the history holds this patch at this point of a recorded turn: behind the commands that the code has asked
    /// for, before the next one. The code has asked for it, then.
    pub(crate) fn take_patch(&mut self, id: &str) -> bool {
        let mut here = self.expected.iter().map_while(patch);
        match here.position(|patch| patch.id == id) {
            Some(at) if self.diverged.is_none() => self.expected.remove(at).is_some(),
            Some(_) | None => false,
        }
    }

    /// The code does not mind any more where the history holds this patch. Whether it does, as far as it was read.
    pub(crate) fn deprecate(&mut self, id: &str) -> bool {
        let is_here = self.take_patch(id);
        let held = self.deprecated.entry(id.to_owned()).or_default();
        *held |= is_here;
        *held
    }

    /// Leaves out what the history holds next of patches that code need not ask for.
    fn pass_over_patches(&mut self) {
        while let Some(next) = self.expected.front().and_then(patch) {
            match self.deprecated.get_mut(&next.id) {
                Some(held) => *held = true,
                None if next.deprecated => {}
                None => return,
            }
            self.expected.pop_front();
        }
    }

    /// The code asks for this, at this place.
    pub(crate) fn ask(&mut self, attempted: Command, place: Option<&Place>) -> Asking {
        if !self.recorded {
            return Asking::New(attempted);
        }
        if self.diverged.is_some() {
            return Asking::Diverged;
        }
        self.pass_over_patches();
        match self.expected.pop_front() {
            Some(recorded) if recorded.is_same(&attempted) && !recorded.arguments_differ(&attempted) => {
                Asking::Recorded(recorded)
            }
            Some(recorded) if recorded.is_same(&attempted) && !self.strict => {
                let first = || first_change(&recorded, attempted, place);
                let changed = self.changed.get_or_insert_with(|| ChangedArguments { commands: 0, first: first() });
                changed.commands += 1;
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

fn patch(command: &Command) -> Option<&RecordPatch> {
    match command {
        Command::RecordPatch(patch) => Some(patch),
        _ => None,
    }
}

/// How a command was repeated with other arguments, in one line.
fn first_change(recorded: &Command, attempted: Command, place: Option<&Place>) -> String {
    let differences: Vec<_> = differences(recorded, &attempted).iter().map(ToString::to_string).collect();
    let (recorded, attempted) = (Asked::command(recorded.clone(), None), Asked::command(attempted, place));
    format!("recorded {recorded}, attempted {attempted}: {}", differences.join("; "))
}

impl Asked {
    fn command(command: Command, place: Option<&Place>) -> Self {
        let place = command.place().map(str::to_owned).or_else(|| place.map(ToString::to_string));
        Self::For { command: Box::new(command), place }
    }
}
