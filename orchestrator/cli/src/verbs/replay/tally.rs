//! What replays have come to, counted: of those that do not fit, the first ones whole, and all of them by what is wrong.

use std::collections::BTreeMap;

use dormouse_core::history::ChangedArguments;
use dormouse_core::{Asked, ReplayVerdict, Replayed, TurnFailure};

use super::source::Item;

/// So many runs that do not fit are kept whole, and so many kinds of what is wrong; all are counted.
const MOST_KEPT: usize = 1_000;
/// So many runs are named as examples of one kind.
const EXAMPLES: usize = 3;

/// The count so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) runs: u64,
    pub(super) events: u64,
    pub(super) verdicts: BTreeMap<ReplayVerdict, u64>,
    /// By workflow type, those that fit.
    pub(super) fitting: BTreeMap<String, u64>,
    /// The first that do not.
    pub(super) astray: Vec<(Item, Replayed)>,
    /// All that do not, by what is wrong with them.
    pub(super) kinds: BTreeMap<Kind, Several>,
    /// Of those that fit: runs whose code asks for other arguments than the recorded ones, and the first of them.
    pub(super) changed: u64,
    pub(super) first_changed: Option<(Item, ChangedArguments)>,
    /// Of those that fit: runs with values that do not, of types that the application does not declare, and the first.
    pub(super) passed_over: u64,
    pub(super) first_passed_over: Option<(Item, String)>,
}

/// What is wrong with some runs, so that those of one cause are told together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) workflow_type: String,
    pub(super) verdict: ReplayVerdict,
    /// What the history holds there.
    pub(super) recorded: String,
    /// What today's code does.
    pub(super) today: String,
}

/// Runs that have one thing wrong with them.
#[derive(Debug, Default)]
pub(super) struct Several {
    pub(super) runs: u64,
    pub(super) examples: Vec<String>,
    /// In the first of them, field by field.
    pub(super) differences: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, item: Item, replayed: Replayed) {
        self.runs += 1;
        self.events += replayed.events;
        let verdict = replayed.verdict();
        *self.verdicts.entry(verdict).or_default() += 1;
        if verdict != ReplayVerdict::Fits {
            return self.add_astray(item, replayed);
        }
        *self.fitting.entry(replayed.workflow_type.unwrap_or_default()).or_default() += 1;
        if let Some(found) = replayed.misfits.first() {
            self.passed_over += 1;
            self.first_passed_over.get_or_insert_with(|| (item.clone(), found.to_string()));
        }
        if let Some(changed) = replayed.changed {
            self.changed += 1;
            self.first_changed.get_or_insert((item, changed));
        }
    }

    fn add_astray(&mut self, item: Item, replayed: Replayed) {
        let kind = Kind::of(&replayed);
        if self.kinds.len() < MOST_KEPT || self.kinds.contains_key(&kind) {
            let several = self.kinds.entry(kind).or_default();
            if several.runs == 0
                && let Some(TurnFailure::Diverged { differences, .. }) = &replayed.failure
            {
                several.differences = differences.iter().map(ToString::to_string).collect();
            }
            several.runs += 1;
            if several.examples.len() < EXAMPLES {
                several.examples.push(shown(&item, &replayed));
            }
        }
        if self.astray.len() < MOST_KEPT {
            self.astray.push((item, replayed));
        }
    }

    /// How many do not fit.
    pub(super) fn strays(&self) -> u64 {
        self.runs - self.verdicts.get(&ReplayVerdict::Fits).copied().unwrap_or_default()
    }
}

/// By what people find the run again: its workflow's id, or the file.
pub(super) fn shown(item: &Item, replayed: &Replayed) -> String {
    item.file().map_or_else(|| replayed.run.workflow.workflow_id.to_string(), |file| file.display().to_string())
}

impl Kind {
    fn of(replayed: &Replayed) -> Self {
        let (recorded, today) = match (replayed.misfits.first(), &replayed.failure) {
            (Some(found), _) => (String::new(), found.to_string()),
            (None, Some(TurnFailure::Diverged { recorded, attempted, .. })) => (asked(recorded), asked(attempted)),
            (None, Some(failure)) => (String::new(), briefly(failure)),
            (None, None) => (String::new(), String::new()),
        };
        let workflow_type = replayed.workflow_type.clone().unwrap_or_default();
        Self { workflow_type, verdict: replayed.verdict(), recorded, today }
    }
}

/// As fits a table; the whole of it, with what to do, is in the other reports.
fn briefly(failure: &TurnFailure) -> String {
    match failure {
        TurnFailure::Panicked { panic, .. } => panic.to_string(),
        TurnFailure::ForeignFuture { .. } => "waits for what is not the workflow's own".to_owned(),
        TurnFailure::UnknownWorkflow { .. } => "no such workflow is registered".to_owned(),
        TurnFailure::Endless { limit_ms } => format!("holds a turn for more than {limit_ms} ms"),
        TurnFailure::Damaged(damage) => damage.to_string(),
        TurnFailure::Diverged { .. } | TurnFailure::TooLarge { .. } | TurnFailure::NotStored { .. } => {
            failure.to_string()
        }
    }
}

/// Without the id, which tells runs of one cause apart.
fn asked(asked: &Asked) -> String {
    match asked {
        Asked::Nothing { .. } => asked.to_string(),
        Asked::For { command, place } => {
            let name = command.name().map_or_else(String::new, |name| format!(" {name:?}"));
            let place = place.as_ref().map_or_else(String::new, |place| format!(" at {place}"));
            format!("{}{name}{place}", command.kind())
        }
    }
}
