//! Queries.

use axum::Json;
use axum::extract::State;
use dormouse_core::api::{Problem, QueryBody};
use dormouse_core::check_id;

use crate::Api;
use crate::body::PayloadBody;
use crate::extract::{Params, Query, RunQuery, target};
use crate::problem::Refused;

/// Asks a query; the body is its argument, any JSON value. Changes nothing.
#[utoipa::path(
    post,
    path = "/v1/workflows/{workflow_id}/queries/{name}",
    operation_id = "queryWorkflow",
    tag = "workflows",
    params(
        ("workflow_id" = String, Path, description = "The workflow's id, written as described above"),
        ("name" = String, Path, description = "The query's name, written as described above"),
        RunQuery,
    ),
    request_body(content = Option<serde_json::Value>, description = "The argument; nothing at all means `null`"),
    responses(
        (status = 200, description = "The answer", body = QueryBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow, run or query", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run is parked: its code cannot answer", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The argument does not fit its declared type, or the query's handler failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn query(
    State(api): State<Api>,
    Params((workflow_id, name)): Params<(String, String)>,
    Query(query): Query<RunQuery>,
    PayloadBody(argument): PayloadBody,
) -> Result<Json<QueryBody>, Refused> {
    let target = target(workflow_id, query.run_id)?;
    check_id("the query's name", &name)?;
    let result = api.front()?.query(&target, &name, argument).await?;
    Ok(Json(QueryBody { result }))
}
