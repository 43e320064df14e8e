//! A run: what its history amounts to, what may be added to it, what it leaves to be done, and its code, driven.

mod accept;
mod debts;
mod decide;
mod limits;
mod replay;
mod requests;
mod snapshot;
mod state;

pub use accept::{IdConflictPolicy, IdReusePolicy, StartRequest, StartVerdict};
pub use debts::{ActivityTask, Debt, Owed};
pub use decide::{Decision, LiveRun, Merge, QueryFailure, Retake, Terms};
pub use limits::Limits;
pub use replay::{Replay, Replayed, Verdict as ReplayVerdict};
pub use requests::{EARLIER_REQUESTS, REQUEST_WINDOW, request_hash};
pub use snapshot::{FOLD_VERSION, StaleSnapshot};
pub use state::{Place, RunState};
