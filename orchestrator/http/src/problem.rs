//! Refusals: every error leaves as `application/problem+json` (RFC 9457), with a detail that says what to do.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use dormouse_core::api::Problem;
use dormouse_core::{Failure, InvalidId, RunId};
use dormouse_engine::ApiError;

/// The media type of problems.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! kinds {
    ($($name:ident $status:ident $slug:literal $title:literal)+) => {
        /// The kinds of refusal. A caller who acts differently on two of them finds two kinds here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($name),+ }

        impl Kind {
            fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (
                        StatusCode::$status,
                        concat!("https://dormouse.dev/problems/", $slug),
                        $title,
                    )),+
                }
            }
        }
    };
}

kinds! {
    InvalidRequest BAD_REQUEST "invalid-request" "The request makes no sense"
    MalformedJson BAD_REQUEST "malformed-json" "The body is not JSON"
    UnexpectedJson BAD_REQUEST "unexpected-json" "The body does not fit"
    NestedTooDeeply BAD_REQUEST "nested-too-deeply" "The JSON is nested too deeply"
    CrossSite FORBIDDEN "cross-site" "Another site's page sent this"
    NotFound NOT_FOUND "not-found" "Not found"
    NotHere NOT_FOUND "not-here" "Not on this server"
    NoSuchRoute NOT_FOUND "no-such-route" "No such route"
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "The route has no such method"
    TooSlow REQUEST_TIMEOUT "too-slow" "The body took too long"
    AlreadyStarted CONFLICT "already-started" "The workflow id is taken"
    Closed CONFLICT "closed" "The run is closed"
    Parked CONFLICT "parked" "The run is parked"
    TooLarge PAYLOAD_TOO_LARGE "too-large" "The body is too large"
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body is not JSON"
    QueryFailed UNPROCESSABLE_ENTITY "query-failed" "The query failed"
    Internal INTERNAL_SERVER_ERROR "internal" "A defect in the server"
    Unavailable SERVICE_UNAVAILABLE "unavailable" "Not available now"
}

impl Kind {
    /// A refusal of this kind, with what happened this time.
    pub(crate) fn because(self, detail: impl Into<String>) -> Refused {
        Refused { kind: self, detail: detail.into(), run_id: None, failure: None }
    }
}

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    kind: Kind,
    detail: String,
    run_id: Option<RunId>,
    failure: Option<Box<Failure>>,
}

impl Refused {
    /// The body.
    pub(crate) fn problem(self) -> Problem {
        let (status, problem_type, title) = self.kind.parts();
        Problem {
            problem_type: problem_type.into(),
            title: title.into(),
            status: status.as_u16(),
            detail: self.detail,
            run_id: self.run_id,
            failure: self.failure.map(|failure| *failure),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let unavailable = self.kind == Kind::Unavailable;
        let (status, ..) = self.kind.parts();
        let mut response = (status, Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let kind = match &error {
            ApiError::Invalid(_) => Kind::InvalidRequest,
            ApiError::NotFound(_) => Kind::NotFound,
            ApiError::NotHere(_) => Kind::NotHere,
            ApiError::AlreadyStarted { .. } => Kind::AlreadyStarted,
            ApiError::Closed(_) => Kind::Closed,
            ApiError::TooLarge(_) => Kind::TooLarge,
            // Not 503: repeating helps nobody until another build is deployed.
            ApiError::Parked(_) => Kind::Parked,
            ApiError::QueryFailed(_) => Kind::QueryFailed,
            ApiError::Unavailable(_) => Kind::Unavailable,
        };
        let mut refused = kind.because(error.to_string());
        match error {
            ApiError::AlreadyStarted { run_id, .. } => refused.run_id = Some(run_id),
            ApiError::QueryFailed(failure) => refused.failure = Some(failure),
            _ => {}
        }
        refused
    }
}

impl From<InvalidId> for Refused {
    fn from(error: InvalidId) -> Self {
        Kind::InvalidRequest.because(error.to_string())
    }
}

/// The answer where there is no route.
pub(crate) async fn no_such_route(uri: Uri) -> Refused {
    let path: String = uri.path().chars().take(200).collect();
    Kind::NoSuchRoute.because(format!(
        "there is no route {path}; /openapi.json lists those that exist. A `/` within a workflow id is written ~2F"
    ))
}

/// The answer where the route has other methods; the header `Allow` names them.
pub(crate) async fn method_not_allowed(method: Method) -> Refused {
    Kind::MethodNotAllowed
        .because(format!("this route has no method {method}; the header Allow names those that it has"))
}
