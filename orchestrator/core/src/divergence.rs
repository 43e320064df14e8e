//! Why a turn did not come to an end: the code disagrees with the history, or broke a rule, or broke down.

use std::fmt;

use crate::history::{Command, Damage};

/// What the history holds, or what the code asked for, at the place where the two part.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A command.
    For(Box<Command>),
    /// Nothing more in this turn.
    Nothing,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::For(command) = self else {
            return f.write_str("nothing more in this turn");
        };
        f.write_str(command.kind())?;
        if let Some(name) = command.name() {
            write!(f, " {name:?}")?;
        }
        if let Some(id) = command.id() {
            write!(f, " (id {id})")?;
        }
        if let Some(place) = command.place() {
            write!(f, " at {place}")?;
        }
        Ok(())
    }
}

/// Why a workflow's turn failed. The run is parked; nothing of the turn is recorded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TurnFailure {
    /// The code asks for something else than the history holds.
    #[error(
        "the workflow's code no longer matches its history (turn {turn}):\n  recorded:  {recorded}\n  attempted: {attempted}\n\
         Deploy code that does at this point what the history holds, or let this run finish on the build that began it."
    )]
    Diverged {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What the history holds.
        recorded: Asked,
        /// What the code asked for.
        attempted: Asked,
    },
    /// The code panicked.
    #[error("the workflow's code panicked (turn {turn}): {message}{hint}")]
    Panicked {
        /// Which turn of the run, from 1.
        turn: u64,
        /// What it said.
        message: String,
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
    pub(crate) fn panicked(turn: u64, payload: &(dyn std::any::Any + Send)) -> Self {
        let message = panic_message(payload);
        let hint = if message.contains("no reactor running") || message.contains("Tokio") {
            "\nWorkflow code runs without a tokio runtime: use cx.sleep for time, and activities for I/O and tasks."
        } else {
            ""
        };
        Self::Panicked { turn, message, hint }
    }
}

/// What a panic said.
#[must_use]
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(a panic without a message)".to_owned())
}
