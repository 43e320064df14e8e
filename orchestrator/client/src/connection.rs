//! The line to a server: where it is, how requests show who sends them, how often they are tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Url};
use uuid::Uuid;

use crate::address::Address;
use crate::auth::Auth;
use crate::error::ClientError;
use crate::send::{Answer, send};

/// How often a request is tried unless told otherwise: about three seconds in all.
const TRIES: u32 = 6;

/// Cloning is cheap; clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    address: Arc<Address>,
    http: reqwest::Client,
    pub(crate) auth: Auth,
    pub(crate) tries: u32,
    /// The server has been there, for one of the clones.
    met: Arc<AtomicBool>,
}

impl Connection {
    /// Nothing is sent yet.
    pub(crate) fn new(address: &str) -> Result<Self, ClientError> {
        let address = Address::parse(address)?;
        let builder =
            reqwest::Client::builder().redirect(Policy::none()).connect_timeout(std::time::Duration::from_secs(5));
        let builder = if address.is_loopback() { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| ClientError::Invalid(format!("no HTTP client: {error}")))?;
        Ok(Self { address: Arc::new(address), http, auth: Auth::None, tries: TRIES, met: Arc::default() })
    }

    pub(crate) fn address(&self) -> &str {
        self.address.as_str()
    }

    pub(crate) fn is_amazon(&self) -> bool {
        self.address.is_amazon()
    }

    /// Where something is, on the server.
    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        self.address.url(segments, query)
    }

    /// A request that reads.
    pub(crate) async fn read(&self, url: Url) -> Result<Answer, ClientError> {
        self.send(|| self.http.get(url.clone())).await
    }

    /// A request with a body that changes nothing.
    pub(crate) async fn ask(&self, url: Url, body: Vec<u8>) -> Result<Answer, ClientError> {
        self.send(|| self.post(&url, &body)).await
    }

    /// A request that changes something, once, however often it is sent: by its id, or by one that is drawn.
    pub(crate) async fn write(&self, url: Url, body: Vec<u8>, request_id: Option<&str>) -> Result<Answer, ClientError> {
        let key = request_id.map_or_else(fresh_request_id, ToOwned::to_owned);
        self.send(|| self.post(&url, &body).header("Idempotency-Key", &key)).await
    }

    fn post(&self, url: &Url, body: &[u8]) -> RequestBuilder {
        self.http.request(Method::POST, url.clone()).header("Content-Type", "application/json").body(body.to_vec())
    }

    async fn send(&self, build: impl Fn() -> RequestBuilder) -> Result<Answer, ClientError> {
        let answer = send(&self.address, &self.auth, self.tries, build).await;
        let met = match &answer {
            Err(ClientError::Transport { reached, .. }) => *reached,
            Err(ClientError::Invalid(_)) => false,
            Ok(_) | Err(_) => true,
        };
        self.met.fetch_or(met, Ordering::SeqCst);
        answer
    }

    /// Whether the server has been there before: should it be away now, it may come back.
    pub(crate) fn has_met(&self) -> bool {
        self.met.load(Ordering::SeqCst)
    }
}

/// An id for a request that nobody has sent: for those who want to repeat it themselves, should its outcome be unknown.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a caller's request, outside of workflows and engine alike")]
pub fn fresh_request_id() -> String {
    Uuid::new_v4().to_string()
}
