//! Why a run is parked, as data: for programs, beside the text that people read.

use serde::{Deserialize, Serialize};

use super::divergence::{Asked, Difference, TurnFailure};
use crate::history::Damage;

/// How much of a text is kept, in characters; people are told all of it.
const KEPT: usize = 2_000;

/// Why the code of a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkedCause {
    /// The code asks for something else than the history holds.
    Divergence {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What the history holds.
        recorded: ParkedStep,
        /// What the code asks for.
        attempted: ParkedStep,
        /// In which fields the two differ, when they are of one kind.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        differences: Vec<Difference>,
    },
    /// The code panicked.
    Panic {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What it said: its first 2,000 characters.
        message: String,
        /// Where in the source, as `file:line:column`, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
    /// The code waits for a future that is not the workflow's own.
    ForeignFuture {
        /// Which turn of the run, from 1.
        turn: u64,
    },
    /// A turn did not end: the code loops or blocks.
    EndlessTurn {
        /// How long a turn may take, in milliseconds.
        limit_ms: u64,
    },
    /// The turn, or the history, is larger than it may be.
    LimitReached {
        /// Which turn of the run, from 1.
        turn: u64,
        /// The limit's name, as its setting has it.
        limit: String,
        /// Its value.
        at_most: u64,
    },
    /// The build does not have the workflow, or a function that its code calls.
    NotRegistered {
        /// What it is: `workflow` or `activity`.
        what: String,
        /// The wire name of the run's own workflow; else the function, as Rust names it.
        name: String,
        /// Where in the source it is called, as `file:line:column`; missing for the run's own workflow.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
    /// Processes have ended while they ran the code.
    ProcessEnded {
        /// How many, as far as it is known.
        times: u32,
    },
    /// The history cannot be read by this build.
    DamagedHistory {
        /// `unknown_version` or `unknown_behaviour`, when a newer build can read it; `undecodable`, `broken_chain` or
        /// `contradiction`.
        damage: String,
        /// The sequence of the batch.
        batch: u64,
        /// What does not fit: its first 2,000 characters.
        problem: String,
    },
    /// What the code decided is refused by the store, and would be refused again.
    NotStored {
        /// What the store says: its first 2,000 characters.
        problem: String,
    },
    /// Something that another build knows.
    #[serde(other)]
    Unknown,
}

/// What the history holds, or what the code asks for, at the place where the two part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParkedStep {
    /// The kind of command, as `activity`, `timer` or `patch`. Missing: nothing more in this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its wire name, or its id as with patches, for commands that carry one: its first 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id within the run, for commands that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where in the source it was asked for, as `file:line`; with nothing more in this turn, where the code waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

impl From<&Asked> for ParkedStep {
    fn from(asked: &Asked) -> Self {
        match asked {
            Asked::For { command, place } => Self {
                command: Some(command.kind().to_owned()),
                name: command.name().map(kept),
                id: command.id().map(|id| id.to_string()),
                places: place.iter().cloned().collect(),
            },
            Asked::Nothing { waits_at } => Self { places: waits_at.clone(), ..Self::default() },
        }
    }
}

impl From<&TurnFailure> for ParkedCause {
    fn from(failure: &TurnFailure) -> Self {
        match failure {
            TurnFailure::Diverged { turn, recorded, attempted, differences } => Self::Divergence {
                turn: *turn,
                recorded: recorded.into(),
                attempted: attempted.into(),
                differences: differences.clone(),
            },
            TurnFailure::Panicked { turn, panic, .. } => match &panic.unregistered {
                Some(function) => Self::NotRegistered {
                    what: function.what.to_owned(),
                    name: function.name.to_owned(),
                    place: panic.place.clone(),
                },
                None => Self::Panic { turn: *turn, message: kept(&panic.message), place: panic.place.clone() },
            },
            TurnFailure::ForeignFuture { turn } => Self::ForeignFuture { turn: *turn },
            TurnFailure::UnknownWorkflow { workflow_type } => {
                Self::NotRegistered { what: "workflow".to_owned(), name: workflow_type.clone(), place: None }
            }
            TurnFailure::TooLarge { turn, limit, at_most } => {
                Self::LimitReached { turn: *turn, limit: (*limit).to_owned(), at_most: *at_most }
            }
            TurnFailure::Endless { limit_ms } => Self::EndlessTurn { limit_ms: *limit_ms },
            TurnFailure::NotStored { reason } => Self::NotStored { problem: kept(reason) },
            TurnFailure::Damaged(damage) => Self::from(damage),
        }
    }
}

impl From<&Damage> for ParkedCause {
    fn from(damage: &Damage) -> Self {
        let (kind, batch) = match damage {
            Damage::UnknownVersion { sequence, .. } => ("unknown_version", sequence),
            Damage::UnknownBehaviour { sequence, .. } => ("unknown_behaviour", sequence),
            Damage::Undecodable { sequence, .. } => ("undecodable", sequence),
            Damage::BrokenChain { sequence } => ("broken_chain", sequence),
            Damage::Contradiction { sequence, .. } => ("contradiction", sequence),
        };
        Self::DamagedHistory { damage: kind.to_owned(), batch: *batch, problem: kept(&damage.to_string()) }
    }
}

fn kept(text: &str) -> String {
    text.chars().take(KEPT).collect()
}
