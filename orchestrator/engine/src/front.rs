//! The front door: what callers may ask, wherever the call comes from. It accepts; it never decides (rule F1).

use std::time::Duration;

use dormouse_core::api::{DescribeBody, HistoryBody, ListBody, ResultBody, StartBody, StartedBody};
use dormouse_core::{Payload, RunId};

use crate::error::ApiError;
use crate::store::{ListCursor, RunFilter};

/// Which run a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The workflow.
    pub workflow_id: String,
    /// The run; the latest when missing.
    pub run_id: Option<RunId>,
}

/// Accepts requests, commits them, and reads what is stored.
pub struct FrontDoor {}

impl FrontDoor {
    /// Begins a run. The bool is true when this request created it, false when it is an earlier answer.
    pub async fn start(&self, request_id: Option<&str>, body: StartBody) -> Result<(StartedBody, bool), ApiError> {
        let _ = (request_id, body);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Sends a signal; when this returns, it is in the history.
    pub async fn signal(&self, target: &Target, request_id: Option<&str>, name: &str, payload: Payload) -> Result<(), ApiError> {
        let _ = (target, request_id, name, payload);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Asks a workflow to stop.
    pub async fn cancel(&self, target: &Target, request_id: Option<&str>, reason: &str) -> Result<(), ApiError> {
        let _ = (target, request_id, reason);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Ends a run at once.
    pub async fn terminate(&self, target: &Target, request_id: Option<&str>, reason: &str) -> Result<(), ApiError> {
        let _ = (target, request_id, reason);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Everything about a run but its history.
    pub async fn describe(&self, target: &Target) -> Result<DescribeBody, ApiError> {
        let _ = target;
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Events after the one with this id (0: from the beginning), at most `limit`.
    pub async fn history(&self, target: &Target, after: u64, limit: usize) -> Result<HistoryBody, ApiError> {
        let _ = (target, after, limit);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Runs that pass the filter; `next_page_token` is left empty: the caller makes it from the cursor.
    pub async fn list(&self, filter: &RunFilter, after: Option<&ListCursor>, limit: usize) -> Result<(ListBody, Option<ListCursor>), ApiError> {
        let _ = (filter, after, limit);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// How a run stands; waits up to `wait` for it to close.
    pub async fn result(&self, target: &Target, wait: Duration) -> Result<ResultBody, ApiError> {
        let _ = (target, wait);
        Err(ApiError::Unavailable("soon".into()))
    }
    /// Asks a query.
    pub async fn query(&self, target: &Target, name: &str, input: Payload) -> Result<Payload, ApiError> {
        let _ = (target, name, input);
        Err(ApiError::Unavailable("soon".into()))
    }
}
