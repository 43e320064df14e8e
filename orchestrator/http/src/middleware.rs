//! What holds for every request: it is logged without its payloads, a panic is an answer like others, it names a host
//! of ours, shows the token where one is asked for, and a page of another site cannot write.

use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dormouse_core::{catch_async, check_id};
use tracing::Instrument;

use crate::hosts::{Hosts, only_ours};
use crate::problem::{Kind, Refused};
use crate::token::{Token, only_with_token};

/// Names a request in the logs of both sides.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds all of it, the log outermost.
pub(crate) fn wrap(router: Router, hosts: Hosts, token: Option<Token>) -> Router {
    router
        .layer(from_fn(no_cross_site_writes))
        .layer(from_fn_with_state(token, only_with_token))
        .layer(from_fn_with_state(hosts, only_ours))
        .layer(from_fn(catch_panics))
        .layer(from_fn(log))
}

async fn log(request: Request, next: Next) -> Response {
    let (id, header_value) = request_id(request.headers());
    let method = request.method().clone();
    let bytes = length(request.headers());
    // The workflow's id is known once the path, or the body, is read.
    let workflow = tracing::field::Empty;
    let span = tracing::info_span!("request", %id, %method, path = request.uri().path(), workflow);
    let began = tokio::time::Instant::now();
    async move {
        let mut response = next.run(request).await;
        let (status, millis) = (response.status(), began.elapsed().as_millis() as u64);
        let answer_bytes = response.body().size_hint().exact();
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), millis, bytes, answer_bytes, "answered with an error");
        } else if method == Method::GET {
            tracing::debug!(status = status.as_u16(), millis, bytes, answer_bytes, "answered");
        } else {
            tracing::info!(status = status.as_u16(), millis, bytes, answer_bytes, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, header_value);
        response
    }
    .instrument(span)
    .await
}

/// The caller's name for the request if it gave a sound one, else one of our own.
fn request_id(headers: &HeaderMap) -> (String, HeaderValue) {
    let given = headers.get(REQUEST_ID).and_then(|value| Some((value.to_str().ok()?, value)));
    if let Some((text, value)) = given.filter(|(text, _)| check_id("the request id", text).is_ok()) {
        return (text.to_owned(), value.clone());
    }
    let id = fresh_id();
    let value = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"));
    (id, value)
}

/// For logs alone; nothing that is stored depends on it.
#[expect(clippy::disallowed_methods, reason = "names a line in a log, outside of workflows and engine alike")]
fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn catch_panics(request: Request, next: Next) -> Response {
    match catch_async(next.run(request)).await {
        Ok(response) => response,
        Err(panic) => {
            tracing::error!(%panic, "a handler panicked");
            Kind::Internal
                .because(
                    "the server met a defect of its own; its log says more under this response's x-request-id. \
                     Repeating the request with the same Idempotency-Key is safe",
                )
                .into_response()
        }
    }
}

/// Browsers say where a request comes from, and send bodies without a type across sites without asking first. The
/// server trusts whoever reaches it, so pages that merely run in the same browser must not.
async fn no_cross_site_writes(request: Request, next: Next) -> Result<Response, Refused> {
    let cross_site = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if cross_site && !request.method().is_safe() {
        return Err(Kind::CrossSite
            .because("a page of another site may not write here; send the request from your own backend"));
    }
    Ok(next.run(request).await)
}
