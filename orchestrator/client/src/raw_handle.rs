//! A workflow from afar, without types.

use std::ops::ControlFlow;
use std::time::Duration;

use dormouse_core::api::{
    DescribeBody, HistoryBody, HistoryEvent, ParkedBody, QueryBody, ReasonBody, RecordsBody, ResultBody, SignaledBody,
};
use dormouse_core::{Payload, RunId, Status};

use crate::connection::Connection;
use crate::error::ClientError;
use crate::patience::Patience;

/// How long one request for a result waits; a next one follows.
const POLL: Duration = Duration::from_secs(20);

/// The longest that the server grants one request.
const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// A workflow, or one run of it, in names and JSON. Making one sends nothing.
#[derive(Debug, Clone)]
pub struct RawHandle {
    connection: Connection,
    workflow_id: String,
    run_id: Option<RunId>,
}

/// *Influence*: [`signal`](RawHandle::signal), [`cancel`](RawHandle::cancel), [`terminate`](RawHandle::terminate).
/// *Look*: [`query`](RawHandle::query), [`describe`](RawHandle::describe), [`history`](RawHandle::history),
/// [`history_page`](RawHandle::history_page), [`history_after`](RawHandle::history_after),
/// [`records_page`](RawHandle::records_page). *Wait*: [`result`](RawHandle::result),
/// [`result_or_parked`](RawHandle::result_or_parked), [`outcome`](RawHandle::outcome),
/// [`outcome_with`](RawHandle::outcome_with).
impl RawHandle {
    pub(crate) fn new(connection: Connection, workflow_id: String, run_id: Option<RunId>) -> Self {
        Self { connection, workflow_id, run_id }
    }

    /// The workflow's id.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        &self.workflow_id
    }

    /// The run that is meant; `None` means the latest.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.run_id
    }

    /// The same workflow, this run of it.
    #[must_use]
    pub fn of_run(&self, run_id: Option<RunId>) -> Self {
        Self { run_id, ..self.clone() }
    }

    /// Sends a signal; when this returns, it is in the history. The answer may hold a warning: the application declares its
    /// signals, and this is none of them.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when nobody is there to hear it; [`ClientError::DoesNotFit`] when the application declares
    /// another type for it.
    pub async fn signal(
        &self,
        name: &str,
        argument: &Payload,
        request_id: Option<&str>,
    ) -> Result<SignaledBody, ClientError> {
        let url = self.url(&["signals", name], vec![])?;
        let answer = self.connection.write(url, argument.as_bytes().to_vec(), request_id).await?;
        // An older server says nothing.
        Ok(answer.decode().unwrap_or_default())
    }

    /// Asks a query.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the workflow answers no such query; [`ClientError::DoesNotFit`] when the application
    /// declares another type for its argument; [`ClientError::Problem`] with the failure when its handler failed.
    pub async fn query(&self, name: &str, argument: &Payload) -> Result<Payload, ClientError> {
        let url = self.url(&["queries", name], vec![])?;
        let answer: QueryBody = self.connection.ask(url, argument.as_bytes().to_vec()).await?.decode()?;
        Ok(answer.result)
    }

    /// Asks the workflow to stop.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when it has ended.
    pub async fn cancel(&self, reason: &str, request_id: Option<&str>) -> Result<(), ClientError> {
        self.stop("cancel", reason, request_id).await
    }

    /// Ends the run at once, without asking its code.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when it has ended.
    pub async fn terminate(&self, reason: &str, request_id: Option<&str>) -> Result<(), ClientError> {
        self.stop("terminate", reason, request_id).await
    }

    async fn stop(&self, verb: &str, reason: &str, request_id: Option<&str>) -> Result<(), ClientError> {
        let body = serde_json::to_vec(&ReasonBody { reason: reason.to_owned() })
            .map_err(|error| ClientError::Invalid(format!("the reason is no JSON: {error}")))?;
        self.connection.write(self.url(&[verb], vec![])?, body, request_id).await.map(drop)
    }

    /// Everything about the run but its history.
    ///
    /// # Errors
    /// What the server says.
    pub async fn describe(&self) -> Result<DescribeBody, ClientError> {
        self.connection.read(self.url(&[], vec![])?).await?.decode()
    }

    /// A page of the history.
    ///
    /// # Errors
    /// What the server says.
    pub async fn history_page(&self, limit: usize, token: Option<&str>) -> Result<HistoryBody, ClientError> {
        let mut query = vec![("limit", limit.clamp(1, 1000).to_string())];
        query.extend(token.map(|token| ("page_token", token.to_owned())));
        self.connection.read(self.url(&["history"], query)?).await?.decode()
    }

    /// A page of the history as it is stored. With a token, of the run that the page before was of:
    /// [`of_run`](Self::of_run).
    ///
    /// # Errors
    /// What the server says.
    pub async fn records_page(&self, token: Option<&str>) -> Result<RecordsBody, ClientError> {
        let query = token.map(|token| ("page_token", token.to_owned())).into_iter().collect();
        self.connection.read(self.url(&["records"], query)?).await?.decode()
    }

    /// Events behind the one with this id, in order: to follow a history as it grows. As many as fit a page.
    ///
    /// # Errors
    /// What the server says.
    pub async fn history_after(&self, event_id: u64) -> Result<Vec<HistoryEvent>, ClientError> {
        let url = self.url(&["history"], vec![("after", event_id.to_string())])?;
        let page: HistoryBody = self.connection.read(url).await?.decode()?;
        Ok(page.events)
    }

    /// The whole history.
    ///
    /// # Errors
    /// What the server says.
    pub async fn history(&self) -> Result<Vec<HistoryEvent>, ClientError> {
        let mut events = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.history_page(1000, token.as_deref()).await?;
            events.extend(page.events);
            match page.next_page_token {
                Some(next) => token = Some(next),
                None => return Ok(events),
            }
        }
    }

    /// How the run stands; waits up to `wait` (25 seconds at most) for it to close.
    ///
    /// # Errors
    /// What the server says.
    pub async fn result(&self, wait: Duration) -> Result<ResultBody, ClientError> {
        self.stands(wait, &[]).await
    }

    /// As [`result`](Self::result), but no longer than until the run is parked.
    ///
    /// # Errors
    /// What the server says.
    pub async fn result_or_parked(&self, wait: Duration) -> Result<ResultBody, ClientError> {
        self.stands(wait, &[("or_parked", "true")]).await
    }

    async fn stands(&self, wait: Duration, more: &[(&'static str, &str)]) -> Result<ResultBody, ClientError> {
        let mut query = vec![("wait", format!("{}ms", wait.min(LONGEST_WAIT).as_millis()))];
        query.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self.connection.read(self.url(&["result"], query)?).await?.decode()
    }

    /// Waits until the workflow has ended, or `limit` has passed; the answer tells which. A run that continued as new
    /// is followed into the run that took its place. A server that is away once it has been met is waited for, within
    /// the limit; without one, for five minutes ([`Patience`]). That a run is parked is logged, once, and waited out.
    ///
    /// Dropping the future and asking again loses nothing.
    ///
    /// # Errors
    /// What the server says.
    pub async fn outcome(&self, limit: Option<Duration>) -> Result<ResultBody, ClientError> {
        let warn = |parked: &ParkedBody| {
            tracing::warn!(
                workflow_id = self.workflow_id,
                "waiting for a run that is parked: {}. It goes on when code is deployed that can; terminating it needs \
                 none of its code",
                parked.line()
            );
            ControlFlow::Continue(())
        };
        self.outcome_with(limit, warn).await
    }

    /// As [`outcome`](Self::outcome), but asks once for each run that is found parked whether to wait on.
    ///
    /// # Errors
    /// [`ClientError::Parked`] when the answer is to break; what the server says.
    pub async fn outcome_with(
        &self,
        limit: Option<Duration>,
        mut on_parked: impl FnMut(&ParkedBody) -> ControlFlow<()>,
    ) -> Result<ResultBody, ClientError> {
        let mut run = self.clone();
        let ends = limit.map(|limit| tokio::time::Instant::now() + limit);
        let mut patience = Patience::until(ends).once_met(self.connection.has_met());
        let mut told = None;
        loop {
            let left = ends.map_or(POLL, |ends| ends.saturating_duration_since(tokio::time::Instant::now()));
            let answer = match told {
                None => run.result_or_parked(left.min(POLL)).await,
                Some(_) => run.result(left.min(POLL)).await,
            };
            let Some(result) = patience.with(answer).await? else { continue };
            if let Some(parked) = result.parked.as_ref().filter(|_| told != Some(result.run_id)) {
                told = Some(result.run_id);
                if on_parked(parked).is_break() {
                    return Err(ClientError::parked(&self.workflow_id, result.run_id, parked));
                }
            }
            let time_is_up = ends.is_some_and(|ends| tokio::time::Instant::now() >= ends);
            match result.status {
                Status::Running if !time_is_up => {}
                Status::ContinuedAsNew if !time_is_up => {
                    // The successor is the latest run; it begins with the same write, or a moment later.
                    run.run_id = None;
                    told = None;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return Ok(result),
            }
        }
    }

    fn url(&self, rest: &[&str], mut query: Vec<(&str, String)>) -> Result<reqwest::Url, ClientError> {
        let segments = [&["workflows", self.workflow_id.as_str()], rest].concat();
        query.extend(self.run_id.map(|run_id| ("run_id", run_id.to_string())));
        self.connection.url(&segments, &query)
    }
}
