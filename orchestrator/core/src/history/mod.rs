//! Histories: what they are made of, how they are stored, how people read them.

mod event;
mod file;
mod flags;
mod record;
mod view;

pub use event::{ChangedArguments, DecidedBy, Event, Turn, turn_time};
pub use file::{HISTORY_FILE_FORMAT, HistoryFile, InvalidHistoryFile};
pub use flags::Flags;
pub use record::{Batch, BatchKind, Damage, VERSION, is_closed};
pub use view::readable;

pub use crate::ids::CommandId;
pub use crate::operations::{CarriedSignal, Closed, Command, EarlierRequest, Input, NextRun, Started};
