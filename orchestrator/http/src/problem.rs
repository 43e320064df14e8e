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
    ($($name:ident $status:ident $slug:literal $title:literal $advice:literal)+) => {
        /// The kinds of refusal. A caller who acts differently on two of them finds two kinds here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($name),+ }

        impl Kind {
            /// All of them.
            pub(crate) const ALL: &[Kind] = &[$(Self::$name),+];

            fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, concat!("/problems/", $slug), $title)),+
                }
            }

            /// What to do about it, for whoever follows the address that is its type.
            fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice),+
                }
            }
        }
    };
}

kinds! {
    InvalidRequest BAD_REQUEST "invalid-request" "The request makes no sense"
        "An id, a name, a parameter or a header is not as it must be; the detail says which, and how it is written. \
         Sending the same again does not help. /openapi.json describes every route."
    MalformedJson BAD_REQUEST "malformed-json" "The body is not JSON"
        "The body must be one JSON value in UTF-8, with nothing behind it. The detail says at which line and column it \
         ceases to be one. On a command line, quotes around JSON are a common cause: -d '{\"a\": 1}'."
    UnexpectedJson BAD_REQUEST "unexpected-json" "The body does not fit"
        "The body is JSON, but not what this route reads: a field is missing, unknown, double or of another type. \
         /openapi.json describes the body of every route."
    NestedTooDeeply BAD_REQUEST "nested-too-deeply" "The JSON is nested too deeply"
        "Arrays and objects may be nested 64 deep. Send a flatter value, or the deep part as a string."
    Unauthorized UNAUTHORIZED "unauthorized" "The token is missing or another one"
        "This server can be reached by other machines, so it asks for a token: `Authorization: Bearer TOKEN`. `dev` said at \
         its start where the token is: in the file dormouse.token of its data directory, readable by its owner alone, or \
         in the variable DORMOUSE_TOKEN that it was started with. On a command line: --token-file FILE, or --auth bearer \
         with DORMOUSE_TOKEN."
    CrossSite FORBIDDEN "cross-site" "Another site's page sent this"
        "A browser sent this on behalf of a page of another site. `dev` trusts whoever reaches it, so such pages must \
         not. Send the request from your own backend; if the page is your own, start the server with --allow-host and \
         the name that the page comes from."
    ForeignHost MISDIRECTED_REQUEST "foreign-host" "The host is not this server's"
        "The request names a host (the header Host, or the address in the request line) that this server does not answer \
         to. Any name can be made to lead to this machine, and a page under it could then do here whatever it likes (DNS \
         rebinding). Ask for localhost or 127.0.0.1; if the name is your own, start the server with --allow-host NAME."
    NotFound NOT_FOUND "not-found" "Not found"
        "There is no such workflow or run; the detail says which. `workflow list` shows the workflows that there \
         are. Ids are case-sensitive, and in paths a `/` within one is written ~2F."
    NoSuchQuery NOT_FOUND "no-such-query" "No such query"
        "The workflow is there, and answers no query of this name: its code neither publishes a value nor has a handler \
         under it, or has not come to that yet. The detail says which queries it answers. Names are case-sensitive."
    NotHere NOT_FOUND "not-here" "Not on this server"
        "Only APIs that are deployed to AWS have this. Ask one of those: --address."
    NoSuchRoute NOT_FOUND "no-such-route" "No such route"
        "/openapi.json lists the routes that exist. A `/` within a workflow id is written ~2F, or it begins another part \
         of the path."
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "The route has no such method"
        "The header Allow names the methods that the route has."
    TooSlow REQUEST_TIMEOUT "too-slow" "The body took too long"
        "A body must arrive within 30 seconds. Send it again, with the same Idempotency-Key."
    AlreadyStarted CONFLICT "already-started" "The workflow id is taken"
        "A run of this workflow id is open, or has been and may not be again; the member run_id names it. Choose another \
         id; or say with id_conflict_policy what shall happen to an open run (UseExisting joins it, TerminateExisting \
         ends it), and with id_reuse_policy whether an id may be used again. A repeat of one and the same start should \
         carry the same Idempotency-Key: then it gets the first answer."
    Closed CONFLICT "closed" "The run is closed"
        "The run has ended, so it takes nothing in. Its result and history can still be read. Without run_id, a request \
         goes to the latest run of the workflow."
    Parked CONFLICT "parked" "The run is parked"
        "The workflow's code cannot go on from its history: it panicked, never gave a turn back, or was changed in a way \
         that does not follow what is recorded. `workflow describe` shows the reason. It goes on when good code is \
         deployed; signals are kept until then, and terminating the run needs none of its code."
    TooLarge PAYLOAD_TOO_LARGE "too-large" "The body is too large"
        "A value may be 2 MiB of JSON (max_payload_bytes, which a server may lower). Keep large data elsewhere and send \
         a reference to it."
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body is not JSON"
        "Send JSON, with the header `Content-Type: application/json`."
    DoesNotFit UNPROCESSABLE_ENTITY "does-not-fit" "A value does not fit its type"
        "The application declares which type the input of this workflow, or the argument of this signal or query, must \
         have, and the value is not of it. The member pointer is the way to the place (a JSON Pointer, from the value's \
         root; empty for all of it), the detail says what was expected. Nothing was written: correct it and send it \
         again."
    KeyReused UNPROCESSABLE_ENTITY "key-reused" "The Idempotency-Key was used before"
        "The workflow has answered a request with this Idempotency-Key, and that was another one: of another kind, or with \
         another type, name, input, argument or reason. Nothing was written. A key names one request: repeat that very \
         request with it, and give every other request a key of its own. Keys are told apart within a workflow id; the \
         policies of a start, and the input of one that joined an open run, are not compared."
    QueryFailed UNPROCESSABLE_ENTITY "query-failed" "The query failed"
        "The workflow has a handler for this query, and the handler failed; the member failure says how. Nothing has \
         changed."
    Internal INTERNAL_SERVER_ERROR "internal" "A defect in the server"
        "This is not your fault. The server's log says more under the x-request-id of the response. Repeating the \
         request with the same Idempotency-Key is safe."
    Unavailable SERVICE_UNAVAILABLE "unavailable" "Not available now"
        "The storage did not answer, or the server is stopping. The request may have taken effect: repeat it with the \
         same Idempotency-Key, after the time that the header Retry-After gives."
}

impl Kind {
    /// A refusal of this kind, with what happened this time.
    pub(crate) fn because(self, detail: impl Into<String>) -> Refused {
        Refused { kind: self, detail: detail.into(), run_id: None, failure: None, pointer: None }
    }

    /// The kind whose page this is.
    pub(crate) fn of_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.address().strip_prefix("/problems/") == Some(slug))
    }

    /// Where its page is: its type (RFC 9457), relative to this server.
    pub(crate) fn address(self) -> &'static str {
        self.parts().1
    }

    /// The page about it, as plain text.
    pub(crate) fn page(self) -> String {
        let (status, address, title) = self.parts();
        format!("{title}\n\nHTTP status {status}\nproblem type {address}\n\n{}\n", self.advice())
    }
}

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    kind: Kind,
    detail: String,
    run_id: Option<RunId>,
    failure: Option<Box<Failure>>,
    pointer: Option<String>,
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
            pointer: self.pointer,
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
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
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
            ApiError::NoSuchQuery(_) => Kind::NoSuchQuery,
            ApiError::NotHere(_) => Kind::NotHere,
            ApiError::AlreadyStarted { .. } => Kind::AlreadyStarted,
            ApiError::Closed(_) => Kind::Closed,
            ApiError::TooLarge(_) => Kind::TooLarge,
            // Not 503: repeating helps nobody until another build is deployed.
            ApiError::Parked(_) => Kind::Parked,
            ApiError::DoesNotFit { .. } => Kind::DoesNotFit,
            ApiError::KeyReused(_) => Kind::KeyReused,
            ApiError::QueryFailed(_) => Kind::QueryFailed,
            ApiError::Unavailable(_) => Kind::Unavailable,
        };
        let mut refused = kind.because(error.to_string());
        match error {
            ApiError::AlreadyStarted { run_id, .. } => refused.run_id = Some(run_id),
            ApiError::QueryFailed(failure) => refused.failure = Some(failure),
            ApiError::DoesNotFit { misfit, .. } => refused.pointer = Some(misfit.pointer),
            ApiError::Invalid(_)
            | ApiError::NotFound(_)
            | ApiError::NoSuchQuery(_)
            | ApiError::KeyReused(_)
            | ApiError::NotHere(_)
            | ApiError::Closed(_)
            | ApiError::TooLarge(_)
            | ApiError::Parked(_)
            | ApiError::Unavailable(_) => {}
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
