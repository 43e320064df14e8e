//! Sending: repeated while that is safe and may help, then turned into an answer or an error.

use std::error::Error;
use std::time::Duration;

use dormouse_core::api::Problem;
use reqwest::header::{HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::address::Address;
use crate::auth::Auth;
use crate::error::{ClientError, FOREIGN};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long one try may take; longer than the longest wait that the server grants.
pub(crate) const TRY_LIMIT: Duration = Duration::from_secs(40);

/// A good answer in full.
pub(crate) struct Answer {
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ClientError::Decode(format!(
                "the server's answer is not as expected ({error}); do client and server have the same version?"
            ))
        })
    }
}

/// Sends the request that `build` makes, up to `tries` times. It must make the same request each time; a write's
/// idempotency key makes the repeats harmless.
pub(crate) async fn send(
    address: &Address,
    auth: &Auth,
    tries: u32,
    build: impl Fn() -> RequestBuilder,
) -> Result<Answer, ClientError> {
    let mut pause = FIRST_PAUSE;
    let (mut tried, mut met) = (0, false);
    loop {
        tried += 1;
        let (mut error, asked_pause) = match once(address, auth, build()).await? {
            Outcome::Answer(answer) => return Ok(answer),
            Outcome::Unavailable(error, pause) => (error, pause),
        };
        if let ClientError::Transport { reached, .. } = &mut error {
            *reached |= met;
            met = *reached;
        } else {
            met = true;
        }
        if tried >= tries {
            return Err(error);
        }
        tokio::time::sleep(asked_pause.map_or(pause, |asked| asked.min(LONGEST_PAUSE))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Outcome {
    Answer(Answer),
    /// Another try may help.
    Unavailable(ClientError, Option<Duration>),
}

async fn once(address: &Address, auth: &Auth, request: RequestBuilder) -> Result<Outcome, ClientError> {
    let (http, request) = request.timeout(TRY_LIMIT).build_split();
    let mut request = request.map_err(|error| ClientError::Invalid(explain(&error)))?;
    auth.authorize(address, &mut request).await?;
    let broken = |error: reqwest::Error| {
        let (address, message) = (address.as_str().to_owned(), explain(&error));
        let error = ClientError::Transport { address, message, reached: !error.is_connect() };
        Ok(Outcome::Unavailable(error, None))
    };
    let response = match http.execute(request).await {
        Ok(response) => response,
        Err(error) => return broken(error),
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let body = match response.bytes().await {
        Ok(body) => body.to_vec(),
        Err(error) => return broken(error),
    };
    if status.is_success() {
        return Ok(Outcome::Answer(Answer { body }));
    }
    let problem = problem(status, &headers, &body, auth);
    let again = status == StatusCode::SERVICE_UNAVAILABLE || problem.problem_type == FOREIGN && is_passing(status);
    let error = ClientError::from_problem(problem);
    if again { Ok(Outcome::Unavailable(error, asked_pause(&headers))) } else { Err(error) }
}

/// What a gateway says while the server behind it dies, is too slow, or has too much to do.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The problem that the server describes; something in between may have answered in another form.
fn problem(status: StatusCode, headers: &HeaderMap, body: &[u8], auth: &Auth) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let said = said(headers, body);
        let detail = if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            format!("the answer is {status}{said}: {}", auth.advice())
        } else {
            format!("the answer is {status}{said}, and not from a Dormouse server; check the address")
        };
        Problem {
            problem_type: FOREIGN.into(),
            title: status.canonical_reason().unwrap_or("an error").into(),
            status: status.as_u16(),
            detail,
            run_id: None,
            failure: None,
            pointer: None,
        }
    })
}

/// What Amazon's gateways put into their bodies, and authorizers into their header; short enough to be shown.
fn said(headers: &HeaderMap, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(alias = "Message")]
        message: String,
    }
    let message = serde_json::from_slice::<Said>(body).ok().map(|said| said.message);
    let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let parts: Vec<String> = message.into_iter().chain(challenge).collect();
    if parts.is_empty() {
        return String::new();
    }
    let shown: String = parts.join("; ").chars().filter(|c| !c.is_control()).take(500).collect();
    format!(" ({shown})")
}

/// An error with its causes: reqwest hides "connection refused" below "error sending request".
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".into();
    }
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
