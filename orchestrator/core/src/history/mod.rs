//! Histories: what they are made of, how they are stored, what they amount to.

mod event;
mod record;
mod state;
mod view;

pub use event::{CarriedSignal, Command, CommandId, EarlierRequest, Event, Input, NextRun, Started, Turn};
pub use record::{Batch, BatchKind, Damage, VERSION};
pub use state::{
    Closed, EARLIER_REQUESTS, PendingActivity, PendingLocal, REQUEST_WINDOW, RunState, is_closed, request_hash,
    turn_time,
};
pub use view::readable;
