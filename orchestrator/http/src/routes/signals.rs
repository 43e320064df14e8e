//! Signals.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dormouse_core::api::{Problem, SignaledBody};
use dormouse_core::check_id;

use crate::Api;
use crate::body::PayloadBody;
use crate::extract::{IdempotencyKey, Params, Query, RunQuery, target};
use crate::problem::Refused;

/// Sends a signal; the body is its argument, any JSON value. Once answered, the signal is in the history.
#[utoipa::path(
    post,
    path = "/v1/workflows/{workflow_id}/signals/{name}",
    operation_id = "signalWorkflow",
    tag = "workflows",
    params(
        ("workflow_id" = String, Path, description = "The workflow's id, written as described above"),
        ("name" = String, Path, description = "The signal's name, written as described above"),
        RunQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat"),
    ),
    request_body(content = Option<serde_json::Value>, description = "The argument; nothing at all means `null`"),
    responses(
        (status = 202, description = "The signal is in the history", body = SignaledBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run is closed", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The argument is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The argument does not fit the type that the application declares: `pointer` says where. Or the Idempotency-Key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it with the same Idempotency-Key", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn signal(
    State(api): State<Api>,
    Params((workflow_id, name)): Params<(String, String)>,
    Query(query): Query<RunQuery>,
    IdempotencyKey(key): IdempotencyKey,
    PayloadBody(argument): PayloadBody,
) -> Result<(StatusCode, Json<SignaledBody>), Refused> {
    let target = target(workflow_id, query.run_id)?;
    check_id("the signal's name", &name)?;
    let sent = api.front()?.signal(&target, key.as_deref(), &name, argument).await?;
    Ok((StatusCode::ACCEPTED, Json(sent)))
}
