//! Stopping: by asking the workflow, or over its head.

use axum::extract::State;
use axum::http::StatusCode;
use dormouse_core::api::{Problem, ReasonBody};

use crate::Api;
use crate::body::OptionalJsonBody;
use crate::extract::{IdempotencyKey, Params, Query, RunQuery, target};
use crate::problem::Refused;

/// Asks a workflow to stop; it may clean up first, or refuse.
#[utoipa::path(
    post,
    path = "/v1/workflows/{workflow_id}/cancel",
    operation_id = "cancelWorkflow",
    tag = "workflows",
    params(
        ("workflow_id" = String, Path, description = "The workflow's id, written as described above"),
        RunQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat"),
    ),
    request_body = Option<ReasonBody>,
    responses(
        (status = 202, description = "The request is in the history"),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run is closed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it with the same Idempotency-Key", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<RunQuery>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJsonBody(body): OptionalJsonBody<ReasonBody>,
) -> Result<StatusCode, Refused> {
    let target = target(workflow_id, query.run_id)?;
    api.front()?.cancel(&target, key.as_deref(), &body.reason).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Ends a run at once, without asking its code.
#[utoipa::path(
    post,
    path = "/v1/workflows/{workflow_id}/terminate",
    operation_id = "terminateWorkflow",
    tag = "workflows",
    params(
        ("workflow_id" = String, Path, description = "The workflow's id, written as described above"),
        RunQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat"),
    ),
    request_body = Option<ReasonBody>,
    responses(
        (status = 200, description = "The run is terminated"),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run is closed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it with the same Idempotency-Key", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn terminate(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<RunQuery>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJsonBody(body): OptionalJsonBody<ReasonBody>,
) -> Result<StatusCode, Refused> {
    let target = target(workflow_id, query.run_id)?;
    api.front()?.terminate(&target, key.as_deref(), &body.reason).await?;
    Ok(StatusCode::OK)
}
