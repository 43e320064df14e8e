//! What runs a workflow's code, and what that code stands on.
//!
//! A [`Program`] is a workflow's code of any kind: it is run turn by turn, and asks for everything through its
//! [`Raw`] context, in owned names and payloads. A Rust future on the typed [`Workflow`](crate::Workflow) is its first
//! kind; a guest in another language would be another.

mod cause;
mod divergence;
mod machine;
mod raw;
mod script;

pub use cause::{ParkedCause, ParkedStep};
pub use divergence::{Asked, Difference, TurnFailure};
pub use machine::{Ended, LocalCall};
pub(crate) use machine::{Machine, Mode, Waiter};
pub(crate) use raw::CONTINUE_AS_NEW;
pub use raw::{Raw, SideEffect, WorkflowInfo};

use crate::failure::Failure;
use crate::payload::Payload;
pub use crate::place::Place;

/// A workflow's code, begun.
pub trait Program {
    /// Runs until nothing stirs: everything that can go on with what was delivered has gone on. What it asks for, it asks
    /// of its context meanwhile, in the same order whenever the same inputs are delivered.
    fn turn(&mut self) -> Turned;
}

/// What a turn of a program came to.
#[derive(Debug)]
pub enum Turned {
    /// It waits for what its context will bring.
    Waits,
    /// It has ended, with this outcome: the run closes.
    Ended(Result<Payload, Failure>),
    /// It waits for something that its context did not give, or never comes to rest: no event can wake it.
    Stuck,
}
