//! The HTTP API: routes by noun, one function each. It checks what comes in, asks the front door, and says what came
//! of it; what a request *means* is decided behind the door, never here.
//!
//! Every refusal is a problem response (RFC 9457) whose detail says what to do. The OpenAPI document is generated from
//! the routes and kept in `openapi.json`.

mod body;
mod connections;
mod duration;
mod extract;
mod hosts;
mod json;
mod middleware;
mod page_token;
mod problem;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use axum::Router;
use dormouse_engine::ApiError;
use dormouse_engine::front::FrontDoor;

pub use connections::Connections;
pub use duration::{InvalidDuration, parse_duration};
pub use hosts::{AllowedHost, Hosts, InvalidHost};
pub use routes::MAX_WAIT;
pub use server::{Listen, Server, StartError};
pub use token::{InvalidToken, Token};

/// What a request may amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest input, signal or query argument, in bytes. Bodies around one may be a little larger.
    pub max_payload_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload_bytes: 2 * 1024 * 1024 }
    }
}

/// What handlers share.
#[derive(Clone)]
struct Api {
    /// `None` only in tests of what is refused before the engine is asked.
    front: Option<Arc<FrontDoor>>,
    limits: Limits,
}

impl Api {
    fn front(&self) -> Result<&FrontDoor, ApiError> {
        self.front.as_deref().ok_or_else(|| ApiError::Unavailable("the engine is not here".into()))
    }
}

/// All routes, in front of this engine, for requests that name one of these hosts.
pub fn router(front: Arc<FrontDoor>, limits: Limits, hosts: Hosts) -> Router {
    guarded(front, limits, hosts, None)
}

/// The same, for requests that show the token, if there is one.
fn guarded(front: Arc<FrontDoor>, limits: Limits, hosts: Hosts, token: Option<Token>) -> Router {
    build(Api { front: Some(front), limits }, hosts, token)
}

/// The OpenAPI document of [`router`], as it is kept in `openapi.json`.
#[must_use]
pub fn openapi_json() -> String {
    let (_, document) = routes::all().split_for_parts();
    let mut text =
        serde_json::to_string_pretty(&document).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text.push('\n');
    text
}

fn build(api: Api, hosts: Hosts, token: Option<Token>) -> Router {
    let (router, _) = routes::all().split_for_parts();
    middleware::wrap(
        router
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .with_state(api),
        hosts,
        token,
    )
}
