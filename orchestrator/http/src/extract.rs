//! Paths, queries and headers: decoded and checked, or refused with what would have been right.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use dormouse_core::{InvalidPathPart, RunId, check_id, read_path_part};
use dormouse_engine::front::Target;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Refused};

/// The header that makes a write safe to repeat.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The variable parts of a path, percent-decoded exactly once, then read as [`read_path_part`] does.
pub(crate) struct Params<T>(pub(crate) T);

/// What a route's path holds: an id, or an id and a name.
pub(crate) trait PathParts: DeserializeOwned + Send + 'static {
    fn read(self) -> Result<Self, InvalidPathPart>;
}

impl PathParts for String {
    fn read(self) -> Result<Self, InvalidPathPart> {
        read_path_part(&self)
    }
}

impl PathParts for (String, String) {
    fn read(self) -> Result<Self, InvalidPathPart> {
        Ok((read_path_part(&self.0)?, read_path_part(&self.1)?))
    }
}

impl<S: Send + Sync, T: PathParts> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let cannot = |why: &str| {
            Kind::InvalidRequest.because(format!(
                "the path cannot be read ({why}); in ids and names, every byte of UTF-8 outside A-Z a-z 0-9 . _ - is \
                 written ~XX"
            ))
        };
        let Path(params) = parts.extract::<Path<T>>().await.map_err(|rejection| cannot(&rejection.body_text()))?;
        params.read().map_err(|error| cannot(&error.to_string())).map(Self)
    }
}

/// The query parameters of a route; those it does not know are refused, as a typing error would otherwise go unseen.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        // The parser below would replace what is not UTF-8, and look for something else than was asked for.
        if percent_decode_str(parts.uri.query().unwrap_or_default()).decode_utf8().is_err() {
            return Err(
                Kind::InvalidRequest.because("the query parameters are not UTF-8; percent-encode them as UTF-8")
            );
        }
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                Err(Kind::InvalidRequest
                    .because(format!("the query parameters cannot be read: {}", rejection.body_text())))
            }
        }
    }
}

/// A route without query parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// The query parameters of routes that are about one run.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunQuery {
    /// The run that is meant; the latest of the workflow when missing.
    #[param(value_type = Option<String>, format = "uuid")]
    pub(crate) run_id: Option<RunId>,
}

/// What identifies a repeated write.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(Kind::InvalidRequest.because("the header Idempotency-Key comes more than once; send one"));
        }
        let key = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            Kind::InvalidRequest.because("the Idempotency-Key is not UTF-8; use letters, digits and dashes")
        })?;
        check_id("the Idempotency-Key", key)?;
        Ok(Self(Some(key.to_owned())))
    }
}

/// The run that a request means, its id checked.
pub(crate) fn target(workflow_id: String, run_id: Option<RunId>) -> Result<Target, Refused> {
    check_id("the workflow id", &workflow_id)?;
    is_about(&workflow_id);
    Ok(Target { workflow_id, run_id })
}

/// Names the workflow in the log of this request.
pub(crate) fn is_about(workflow_id: &str) {
    tracing::Span::current().record("workflow", workflow_id);
}

/// How many entries a page shall have.
pub(crate) fn page_limit(asked: Option<u32>, default: usize) -> Result<usize, Refused> {
    match asked {
        None => Ok(default),
        Some(size @ 1..=1000) => Ok(size as usize),
        Some(size) => Err(Kind::InvalidRequest.because(format!("limit is {size}; it may be 1 to 1000"))),
    }
}
