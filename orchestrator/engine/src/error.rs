//! Why the engine did not do what a caller asked. One kind wherever callers act differently.

use dormouse_core::{Failure, Misfit, RunId};

use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense; sending it again does not help.
    #[error("{0}")]
    Invalid(String),
    /// There is no such workflow or run.
    #[error("{0}")]
    NotFound(String),
    /// The workflow answers no query of this name; the message says which it answers.
    #[error("{0}")]
    NoSuchQuery(String),
    /// This server has no such thing, whatever it is asked; another may.
    #[error("{0}")]
    NotHere(String),
    /// The id has an open run, or may not be used again.
    #[error("{detail}")]
    AlreadyStarted {
        /// The run that is in the way.
        run_id: RunId,
        /// What happened, and what to do.
        detail: String,
    },
    /// The run is closed.
    #[error("{0}")]
    Closed(String),
    /// An input is larger than the configured limit.
    #[error("{0}")]
    TooLarge(String),
    /// A value does not fit the type that the application declares for it; nothing was written.
    #[error("{what} does not fit: {misfit}")]
    DoesNotFit {
        /// Which value.
        what: String,
        /// Where in it, and why.
        misfit: Misfit,
    },
    /// The request's id was used before, for another request; nothing was written.
    #[error("{0}")]
    KeyReused(String),
    /// The workflow's code cannot answer now: its run is parked.
    #[error("{0}")]
    Parked(String),
    /// The query's handler failed.
    #[error("the query failed: {0}")]
    QueryFailed(Box<Failure>),
    /// The store did not answer, or the engine is stopping. The request may have taken effect; sending it again with
    /// the same request id is safe.
    #[error("{0}; repeat the request with the same Idempotency-Key")]
    Unavailable(String),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
