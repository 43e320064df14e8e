//! Histories: what they are made of, how they are stored, what they amount to.

mod event;
mod record;

pub use event::{
    CarriedSignal, Command, CommandId, EarlierRequest, Event, Input, NextRun, Started, Turn,
};
pub use record::{Batch, BatchKind, Damage, VERSION};
