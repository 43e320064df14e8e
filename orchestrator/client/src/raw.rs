//! The client without types: names and JSON.

use std::sync::Arc;

use dormouse_core::api::{ListBody, RunSummary, StartBody, StartedBody};
use dormouse_core::{RunId, Status};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Url};
use uuid::Uuid;

use crate::address::Address;
use crate::auth::Auth;
use crate::error::ClientError;
use crate::raw_handle::RawHandle;
use crate::send::{Answer, send};

/// How often a request is tried unless told otherwise: about three seconds in all.
const TRIES: u32 = 6;

/// Talks to a server in names and JSON. Cloning is cheap; clones share their connections.
#[derive(Debug, Clone)]
pub struct RawClient {
    address: Arc<Address>,
    http: reqwest::Client,
    auth: Auth,
    tries: u32,
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
        let address = Address::parse(address)?;
        let builder =
            reqwest::Client::builder().redirect(Policy::none()).connect_timeout(std::time::Duration::from_secs(5));
        let builder = if address.is_loopback() { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| ClientError::Invalid(format!("no HTTP client: {error}")))?;
        Ok(Self { address: Arc::new(address), http, auth: Auth::None, tries: TRIES })
    }

    /// How requests show who sends them; not at all unless told otherwise.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// How often a request is tried, with pauses between, when the server cannot be reached or is not available.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &str {
        self.address.as_str()
    }

    /// Whether the address is one of Amazon's own names (`*.execute-api.*.amazonaws.com`, `*.lambda-url.*.on.aws`),
    /// behind which requests are usually to be signed.
    #[must_use]
    pub fn is_amazon(&self) -> bool {
        self.address.is_amazon()
    }

    /// Begins a run. With the same request id as before, the answer is the earlier one.
    ///
    /// # Errors
    /// [`ClientError::AlreadyStarted`] when the id is taken; [`ClientError::DoesNotFit`] when the input is not of the
    /// workflow's type.
    pub async fn start(&self, body: &StartBody, request_id: Option<&str>) -> Result<StartedBody, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Invalid(format!("the input is no JSON: {error}")))?;
        let url = self.url(&["workflows"], &[])?;
        self.write(url, body, request_id).await?.decode()
    }

    /// A page of runs, latest start first, and the token of the next page.
    ///
    /// # Errors
    /// What the server says.
    pub async fn list_page(
        &self,
        filter: &ListFilter,
        page_size: usize,
        token: Option<&str>,
    ) -> Result<ListBody, ClientError> {
        let optional = [
            ("status", filter.status.as_ref().map(Status::as_str)),
            ("workflow_type", filter.workflow_type.as_deref()),
            ("id_prefix", filter.id_prefix.as_deref()),
            ("page_token", token),
        ];
        let mut query = vec![("page_size", page_size.clamp(1, 1000).to_string())];
        query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
        self.read(self.url(&["workflows"], &query)?).await?.decode()
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
        RawHandle::new(self.clone(), workflow_id.into(), run_id)
    }

    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        self.address.url(segments, query)
    }

    pub(crate) async fn read(&self, url: Url) -> Result<Answer, ClientError> {
        self.send(|| self.http.get(url.clone())).await
    }

    /// A request with a body that changes nothing.
    pub(crate) async fn ask(&self, url: Url, body: Vec<u8>) -> Result<Answer, ClientError> {
        self.send(|| self.post(&url, &body)).await
    }

    pub(crate) async fn write(&self, url: Url, body: Vec<u8>, request_id: Option<&str>) -> Result<Answer, ClientError> {
        let key = request_id.map_or_else(fresh_key, ToOwned::to_owned);
        self.send(|| self.post(&url, &body).header("Idempotency-Key", &key)).await
    }

    fn post(&self, url: &Url, body: &[u8]) -> RequestBuilder {
        self.http.request(Method::POST, url.clone()).header("Content-Type", "application/json").body(body.to_vec())
    }

    async fn send(&self, build: impl Fn() -> RequestBuilder) -> Result<Answer, ClientError> {
        send(&self.address, &self.auth, self.tries, build).await
    }
}

/// The one place where the client draws at random.
#[expect(clippy::disallowed_methods, reason = "a caller's request, outside of workflows and engine alike")]
fn fresh_key() -> String {
    Uuid::new_v4().to_string()
}
