//! Workflows: begin one, list them, look at one.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dormouse_core::api::{DescribeBody, ListBody, Problem, StartBody, StartedBody};
use dormouse_core::{Status, check_id};
use dormouse_engine::store::RunFilter;
use serde::Deserialize;

use crate::body::JsonBody;
use crate::extract::{IdempotencyKey, NoQuery, Params, Query, RunQuery, is_about, page_limit, target};
use crate::problem::{Kind, Refused};
use crate::{Api, json, page_token};

/// Begins a run of a workflow. A repeat with the same Idempotency-Key gets the first answer again.
#[utoipa::path(
    post,
    path = "/v1/workflows",
    operation_id = "startWorkflow",
    tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat")),
    request_body = StartBody,
    responses(
        (status = 200, description = "A run was open, and is the answer (`UseExisting`): nothing was begun", body = StartedBody),
        (status = 201, description = "The run has begun, durably", body = StartedBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The id is taken", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The input is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The input does not fit the type that the workflow takes: `pointer` says where. Or the Idempotency-Key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it with the same Idempotency-Key", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn start(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<StartBody>,
) -> Result<(StatusCode, Json<StartedBody>), Refused> {
    check_id("the workflow type", &body.workflow_type)?;
    if let Some(id) = &body.workflow_id {
        check_id("the workflow id", id)?;
        is_about(id);
    }
    json::check(body.input.as_bytes())?;
    let unnamed = body.workflow_id.is_none();
    let (started, _) = api.front()?.start(key.as_deref(), body).await?;
    if unnamed {
        is_about(&started.workflow_id);
    }
    let status = if started.existing { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(started)))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only runs with this status.
    #[param(value_type = Option<Status>)]
    status: Option<String>,
    /// Only runs of this workflow type.
    workflow_type: Option<String>,
    /// Only workflow ids that begin so.
    id_prefix: Option<String>,
    /// Only open runs that are parked: their code cannot go on.
    #[serde(default)]
    #[param(default = false)]
    parked: bool,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Lists runs, latest start first.
#[utoipa::path(
    get,
    path = "/v1/workflows",
    operation_id = "listWorkflows",
    tag = "workflows",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of runs", body = ListBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Result<Json<ListBody>, Refused> {
    let limit = page_limit(query.limit, 100)?;
    let status = query.status.map(|text| text.parse::<Status>()).transpose();
    let filter = RunFilter {
        status: status.map_err(|error| Kind::InvalidRequest.because(format!("status: {error}")))?,
        workflow_type: query.workflow_type,
        id_prefix: query.id_prefix,
        parked: query.parked,
    };
    if let Some(name) = &filter.workflow_type {
        check_id("workflow_type", name)?;
    }
    if let Some(prefix) = filter.id_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        check_id("id_prefix", prefix)?;
    }
    let after = query.page_token.as_deref().map(page_token::read_listing).transpose()?;
    let (mut page, next) = api.front()?.list(&filter, after.as_ref(), limit).await?;
    page.next_page_token = next.as_ref().map(page_token::listing);
    Ok(Json(page))
}

/// Everything about a run but its history.
#[utoipa::path(
    get,
    path = "/v1/workflows/{workflow_id}",
    operation_id = "describeWorkflow",
    tag = "workflows",
    params(("workflow_id" = String, Path, description = "The workflow's id, written as described above"), RunQuery),
    responses(
        (status = 200, description = "The run as it stands", body = DescribeBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn describe(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<RunQuery>,
) -> Result<Json<DescribeBody>, Refused> {
    let target = target(workflow_id, query.run_id)?;
    Ok(Json(api.front()?.describe(&target).await?))
}
