//! Histories: what they are made of, how they are stored, what they amount to.

mod event;
mod record;
mod state;
mod view;

pub use event::{CarriedSignal, Command, CommandId, EarlierRequest, Event, Input, NextRun, Started, Turn};
pub use record::{Batch, BatchKind, Damage, VERSION};
pub use state::{
    Closed, EARLIER_REQUESTS, PendingActivity, PendingLocal, REQUEST_WINDOW, RunState, request_hash, turn_time,
};
pub(crate) use view::command_view;
pub use view::readable;
