//! Bodies: read to a limit, never beyond.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use dormouse_core::Payload;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Refused};
use crate::{Api, json};

/// What a body may hold besides a payload: names, policies, white space.
const SLACK: usize = 64 * 1024;

/// How long a caller may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that is one of the API's own.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refused> {
        let bytes = read(request, api.limits.max_payload_bytes.saturating_add(SLACK)).await?;
        if bytes.is_empty() {
            return Err(
                Kind::MalformedJson.because("the body is empty; this route needs a JSON object, see /openapi.json")
            );
        }
        json::read(&bytes).map(Self)
    }
}

/// A body of the API's own that may be left away, or `null`.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Refused> {
        let bytes = read(request, SLACK).await?;
        let body = if bytes.is_empty() { None } else { json::read::<Option<T>>(&bytes)? };
        Ok(Self(body.unwrap_or_default()))
    }
}

/// A body that is a user's JSON value, kept as it came.
pub(crate) struct PayloadBody(pub(crate) Payload);

impl FromRequest<Api> for PayloadBody {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refused> {
        let bytes = read(request, api.limits.max_payload_bytes).await?;
        json::payload(bytes).map(Self)
    }
}

async fn read(request: Request, limit: usize) -> Result<Bytes, Refused> {
    check_media_type(request.headers())?;
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(PATIENCE, collect(request, limit)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(Kind::TooSlow.because(format!("the body did not arrive within {PATIENCE:?}; send it again"))),
    }
}

async fn collect(request: Request, limit: usize) -> Result<Bytes, Refused> {
    let mut chunks = request.into_body().into_data_stream();
    let mut all = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Kind::InvalidRequest
                .because(format!("the body broke off ({error}); send it again, with the same Idempotency-Key"))
        })?;
        if all.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn too_large(limit: usize) -> Refused {
    Kind::TooLarge.because(format!(
        "the body is larger than {limit} bytes, the limit here; keep large data elsewhere and send a reference to it"
    ))
}

/// A missing type is taken for JSON: `curl -d ''` and small clients leave it away, or cannot set it.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_json = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|subtype| subtype.len() > 5 && subtype.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let shown: String = essence.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(Kind::UnsupportedMediaType
        .because(format!("the body is sent as {shown:?}; send JSON, with the header `Content-Type: application/json`")))
}
