//! Sending: repeated while that is safe and may help, then turned into an answer or an error.

use std::error::Error;
use std::time::Duration;

use dormouse_core::api::Problem;
use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::ClientError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long one try may take; longer than the longest wait that the server grants.
pub(crate) const TRY_LIMIT: Duration = Duration::from_secs(40);

/// An answer in full.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
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
pub(crate) async fn send(address: &str, tries: u32, build: impl Fn() -> RequestBuilder) -> Result<Answer, ClientError> {
    let mut pause = FIRST_PAUSE;
    let mut tried = 0;
    loop {
        tried += 1;
        let (error, asked_pause) = match once(build()).await {
            Ok(Outcome::Answer(answer)) => return Ok(answer),
            Ok(Outcome::Unavailable(error, pause)) => (error, pause),
            Err(error) if error.is_builder() => return Err(ClientError::Invalid(explain(&error))),
            Err(error) => (ClientError::Transport { address: address.to_owned(), message: explain(&error) }, None),
        };
        if tried >= tries {
            return Err(error);
        }
        tokio::time::sleep(asked_pause.map_or(pause, |asked| asked.min(LONGEST_PAUSE))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Outcome {
    Answer(Answer),
    Unavailable(ClientError, Option<Duration>),
}

async fn once(request: RequestBuilder) -> Result<Outcome, reqwest::Error> {
    let response = request.timeout(TRY_LIMIT).send().await?;
    let status = response.status();
    let asked_pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.bytes().await?.to_vec();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let error = ClientError::from_problem(problem(status, &body));
        return Ok(Outcome::Unavailable(error, asked_pause.map(Duration::from_secs)));
    }
    Ok(Outcome::Answer(Answer { status, body }))
}

/// The answer, if the server did what was asked.
pub(crate) fn accepted(answer: Answer) -> Result<Answer, ClientError> {
    if answer.status.is_success() {
        Ok(answer)
    } else {
        Err(ClientError::from_problem(problem(answer.status, &answer.body)))
    }
}

/// The problem that the server describes; something in between may have answered in another form.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        problem_type: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("an error").into(),
        status: status.as_u16(),
        detail: format!("the answer is {status}, and not from a Dormouse server; check the address"),
        run_id: None,
        failure: None,
    })
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
