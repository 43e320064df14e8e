//! Why a call did not give what was asked for. One kind wherever callers act differently.

use dormouse_core::api::{ParkedBody, Problem};
use dormouse_core::{Failure, RunId, Status};

/// The type of problems that no Dormouse server described.
pub(crate) const FOREIGN: &str = "about:blank";

/// Why a call did not give what was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no such workflow, run or query.
    #[error("{}", .0.detail)]
    NotFound(Box<Problem>),
    /// The workflow id has an open run, or may not be used again. The problem's `run_id` is the run in the way.
    #[error("{}", .0.detail)]
    AlreadyStarted(Box<Problem>),
    /// The run is closed.
    #[error("{}", .0.detail)]
    Closed(Box<Problem>),
    /// An input or an argument does not have the type that the application declares for it; nothing was written. The
    /// problem's `pointer` is the way to the place in it.
    #[error("{}", .0.detail)]
    DoesNotFit(Box<Problem>),
    /// The run's code cannot go on, so it answers no query and comes to no end; the detail says why. It goes on when
    /// code that can is deployed, and terminating it needs none of its code.
    #[error("{}", .0.detail)]
    Parked(Box<Problem>),
    /// The server refused for another reason; the problem says which, and what to do.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Whatever guards the server (401, 403) does not let this request through; the problem says what may help.
    #[error("{}", .0.detail)]
    Denied(Box<Problem>),
    /// There are no credentials to sign the request with; nothing was sent.
    #[error(
        "no AWS credentials ({0}); name a profile (AWS_PROFILE), renew its session (aws sso login), or set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials(String),
    /// The workflow closed without a result.
    #[error("workflow {workflow_id:?} ended as {status}{}", failure_text(.failure.as_deref()))]
    WorkflowFailed {
        /// The workflow.
        workflow_id: String,
        /// Its run.
        run_id: RunId,
        /// How it ended.
        status: Status,
        /// Why, with its causes.
        failure: Option<Box<Failure>>,
    },
    /// The server could not be reached, or did not answer to the end. Whether a write took effect is unknown; repeating
    /// it with the same request id is safe.
    #[error("{address} could not be reached: {message}")]
    Transport {
        /// Where the server was looked for.
        address: String,
        /// What went wrong.
        message: String,
        /// Whether the server was there, on this try or one before: it took the connection.
        reached: bool,
    },
    /// An answer or a result did not have the expected type.
    #[error("{0}")]
    Decode(String),
    /// The call makes no sense; nothing was sent.
    #[error("{0}")]
    Invalid(String),
}

impl ClientError {
    /// Whether a write may have taken effect all the same: repeat it with the same request id.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Transport { reached, .. } => *reached,
            Self::Problem(problem) => problem.status >= 500,
            _ => false,
        }
    }

    /// Whether the server could not be reached at all, as against having refused.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport { .. })
    }

    /// Somebody waited for this run, and waits no more.
    pub(crate) fn parked(workflow_id: &str, run_id: RunId, parked: &ParkedBody) -> Self {
        Self::Parked(Box::new(Problem {
            problem_type: "/problems/parked".into(),
            title: "The run is parked".into(),
            status: 409,
            detail: format!("workflow {workflow_id:?} is parked: {}", parked.line()),
            run_id: Some(run_id),
            failure: None,
            pointer: None,
        }))
    }

    pub(crate) fn from_problem(problem: Problem) -> Self {
        let kind = problem.problem_type.rsplit('/').next().unwrap_or_default();
        let wrap = match kind {
            "not-found" | "no-such-query" => Self::NotFound,
            "already-started" => Self::AlreadyStarted,
            "closed" => Self::Closed,
            "does-not-fit" => Self::DoesNotFit,
            "parked" => Self::Parked,
            "unauthorized" => Self::Denied,
            // The server itself has no such opinion; this comes from something before it.
            FOREIGN if matches!(problem.status, 401 | 403) => Self::Denied,
            _ => Self::Problem,
        };
        wrap(Box::new(problem))
    }
}

fn failure_text(failure: Option<&Failure>) -> String {
    // Whoever terminates need not say why.
    failure.map(ToString::to_string).filter(|why| !why.is_empty()).map_or_else(String::new, |why| format!(": {why}"))
}
