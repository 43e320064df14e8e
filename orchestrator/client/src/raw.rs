//! The client without types: names and JSON.

use dormouse_core::api::{ListBody, RunSummary, StartBody, StartedBody};
use dormouse_core::{RunId, Status};

use crate::auth::Auth;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::raw_handle::RawHandle;

/// Talks to a server in names and JSON. Cloning is cheap; clones share their connections.
#[derive(Debug, Clone)]
pub struct RawClient {
    pub(crate) connection: Connection,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this workflow type.
    pub workflow_type: Option<String>,
    /// Only workflow ids that begin so.
    pub id_prefix: Option<String>,
    /// Only open runs that are parked: their code cannot go on.
    pub parked: bool,
}

/// *Making one*: [`new`](RawClient::new), [`auth`](RawClient::auth), [`tries`](RawClient::tries). *Beginning*: [`start`](RawClient::start).
/// *Looking*: [`list_page`](RawClient::list_page), [`list`](RawClient::list). *One workflow*:
/// [`workflow`](RawClient::workflow).
impl RawClient {
    /// A client of the server at this address, such as `http://127.0.0.1:7780`, or `https://...` where TLS is built
    /// in (features `tls` and `aws`). Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] when the text is no such address.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        Ok(Self { connection: Connection::new(address)? })
    }

    /// How requests show who sends them; not at all unless told otherwise.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.connection.auth = auth;
        self
    }

    /// How often a request is tried, with pauses between, when the server cannot be reached or is not available.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.connection.tries = tries.max(1);
        self
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connection.address()
    }

    /// Whether the address is one of Amazon's own names (`*.execute-api.*.amazonaws.com`, `*.lambda-url.*.on.aws`),
    /// behind which requests are usually to be signed.
    #[must_use]
    pub fn is_amazon(&self) -> bool {
        self.connection.is_amazon()
    }

    /// Begins a run. With the same request id as before, the answer is the earlier one.
    ///
    /// # Errors
    /// [`ClientError::AlreadyStarted`] when the id is taken; [`ClientError::DoesNotFit`] when the input is not of the
    /// workflow's type.
    pub async fn start(&self, body: &StartBody, request_id: Option<&str>) -> Result<StartedBody, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Invalid(format!("the input is no JSON: {error}")))?;
        let url = self.connection.url(&["workflows"], &[])?;
        self.connection.write(url, body, request_id).await?.decode()
    }

    /// A page of runs, latest start first, and the token of the next page.
    ///
    /// # Errors
    /// What the server says.
    pub async fn list_page(
        &self,
        filter: &ListFilter,
        limit: usize,
        token: Option<&str>,
    ) -> Result<ListBody, ClientError> {
        let optional = [
            ("status", filter.status.as_ref().map(Status::as_str)),
            ("workflow_type", filter.workflow_type.as_deref()),
            ("id_prefix", filter.id_prefix.as_deref()),
            ("parked", filter.parked.then_some("true")),
            ("page_token", token),
        ];
        let mut query = vec![("limit", limit.clamp(1, 1000).to_string())];
        query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
        self.connection.read(self.connection.url(&["workflows"], &query)?).await?.decode()
    }

    /// Up to `limit` runs, over as many pages as that takes.
    ///
    /// # Errors
    /// What the server says.
    pub async fn list(&self, filter: &ListFilter, limit: usize) -> Result<Vec<RunSummary>, ClientError> {
        let mut runs = Vec::new();
        let mut token = None;
        while runs.len() < limit {
            let page = self.list_page(filter, limit - runs.len(), token.as_deref()).await?;
            runs.extend(page.workflows);
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        Ok(runs)
    }

    /// A workflow: one run of it, or the latest.
    #[must_use]
    pub fn workflow(&self, workflow_id: impl Into<String>, run_id: Option<RunId>) -> RawHandle {
        RawHandle::new(self.connection.clone(), workflow_id.into(), run_id)
    }
}
