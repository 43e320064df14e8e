//! Why a turn did not come to an end: the code disagrees with the history, or broke a rule, or broke down.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::Damage;
use crate::operations::{Command, RecordPatch};
use crate::panics::Panic;
use crate::payload::Payload;

/// What the history holds, or what the code asked for, at the place where the two part.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A command.
    For {
        /// The command.
        command: Box<Command>,
        /// Where in the source it was asked for, as `file:line`, where that is known.
        place: Option<String>,
    },
    /// Nothing more in this turn.
    Nothing {
        /// Where in the source the code waits instead, as `file:line`; empty for the history's side.
        waits_at: Vec<String>,
    },
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, place) = match self {
            Self::For { command, place } => (command, place),
            Self::Nothing { waits_at } => {
                f.write_str("nothing more in this turn")?;
                return if waits_at.is_empty() { Ok(()) } else { write!(f, "; it waits at {}", waits_at.join(", ")) };
            }
        };
        f.write_str(command.kind())?;
        if let Some(name) = command.name() {
            write!(f, " {name:?}")?;
        }
        if let Some(id) = command.id() {
            write!(f, " (id {id})")?;
        }
        if let Some(place) = place {
            write!(f, " at {place}")?;
        }
        Ok(())
    }
}

/// One field in which a recorded and an attempted command differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// The field, as histories show it to people.
    pub field: String,
    /// Its recorded value, as JSON text, shortened.
    pub recorded: String,
    /// Its attempted value, as JSON text, shortened.
    pub attempted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: recorded {}, attempted {}", self.field, self.recorded, self.attempted)
    }
}

/// How much of a value a difference shows, in characters.
const SHOWN: usize = 120;

/// The fields in which two commands of one kind differ; none when the kinds do, which says enough. Their places are
/// told apart from this.
pub(crate) fn differences(recorded: &Command, attempted: &Command) -> Vec<Difference> {
    let ((kind, recorded), (other, attempted)) = (recorded.view(), attempted.view());
    if kind != other {
        return Vec::new();
    }
    let shown = |value: Option<&Payload>| {
        let text = value.map_or_else(|| "nothing".to_owned(), Payload::to_string);
        match text.char_indices().nth(SHOWN) {
            Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], text.len()),
            None => text,
        }
    };
    let fields: BTreeSet<_> = recorded.keys().chain(attempted.keys()).filter(|field| *field != "place").collect();
    let differ = fields.into_iter().filter(|field| recorded.get(*field) != attempted.get(*field));
    differ
        .map(|field| Difference {
            field: field.clone(),
            recorded: shown(recorded.get(field)),
            attempted: shown(attempted.get(field)),
        })
        .collect()
}

struct Lines<'a>(&'a [Difference]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|difference| writeln!(f, "  differs in {difference}"))
    }
}

/// What to do about code that asks for something else than the history holds.
struct Help<'a>(&'a Asked);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Asked::For { command, .. } = self.0
            && let Command::RecordPatch(RecordPatch { id, .. }) = &**command
        {
            return write!(
                f,
                "The history holds patch {id:?} at this point, and the code does not ask for it: put `cx.patched({id:?})` \
                 back there. Where the new way is the only one left, call `cx.deprecate_patch({id:?})` there instead, \
                 until no open run holds the patch, unless as a deprecated one (`workflow describe` tells)."
            );
        }
        f.write_str(
            "Deploy code that does at this point what the history holds, or let this run finish on the build that began it.",
        )
    }
}

/// Why a workflow's turn failed. The run is parked; nothing of the turn is recorded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TurnFailure {
    /// The code asks for something else than the history holds.
    #[error(
        "the workflow's code no longer matches its history (turn {turn}):\n  recorded:  {recorded}\n  attempted: {attempted}\n{lines}{help}",
        lines = Lines(.differences),
        help = Help(.recorded)
    )]
    Diverged {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What the history holds.
        recorded: Asked,
        /// What the code asked for.
        attempted: Asked,
        /// In which fields the two differ, when they are of one kind.
        differences: Vec<Difference>,
    },
    /// The code panicked.
    #[error("the workflow's code panicked (turn {turn}): {panic}{hint}")]
    Panicked {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What it said, and where.
        panic: Panic,
        /// What to do about it, for panics that we know.
        hint: &'static str,
    },
    /// The code waits for a future that is not the workflow's own.
    #[error(
        "the workflow waits for a future that its context did not give (turn {turn}): nothing of the workflow's own is \
         awaited, so no event can ever wake it. Use cx.sleep, cx.activity, cx.signal and their like; move other I/O into an activity."
    )]
    ForeignFuture {
        /// Which turn of the run, from 1.
        turn: u64,
    },
    /// This build has no workflow of that name.
    #[error(
        "no workflow {workflow_type:?} is registered in this build; add `.workflow({workflow_type:?}, ...)` to the App"
    )]
    UnknownWorkflow {
        /// The name.
        workflow_type: String,
    },
    /// The turn, or the history, is larger than it may be. Nothing of the turn is written.
    #[error(
        "the limit {limit} of {at_most} is reached (turn {turn}): do less in one turn, continue as new earlier, or raise \
         the limit and let the run go on"
    )]
    TooLarge {
        /// Which turn of the run, from 1.
        turn: u64,
        /// The limit's name, as its setting has it.
        limit: &'static str,
        /// Its value.
        at_most: u64,
    },
    /// The turn went on for longer than a turn may.
    #[error(
        "the workflow's code did not give the turn back within {limit_ms} ms: it loops or blocks. Await something in the loop, or move the work into an activity."
    )]
    Endless {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// What the turn led to is refused by the store, and would be refused again.
    #[error("what the workflow's code decided cannot be stored: {reason}")]
    NotStored {
        /// What the store says.
        reason: String,
    },
    /// The history is damaged.
    #[error("the history cannot be read: {0}")]
    Damaged(#[from] Damage),
}

impl TurnFailure {
    pub(crate) fn panicked(turn: u64, panic: Panic) -> Self {
        let Panic { message, .. } = &panic;
        let hint = if message.contains("no reactor running") || message.contains("Tokio") {
            "\nWorkflow code runs without a tokio runtime: use cx.sleep for time, and activities for I/O and tasks."
        } else {
            ""
        };
        Self::Panicked { turn, panic, hint }
    }
}
