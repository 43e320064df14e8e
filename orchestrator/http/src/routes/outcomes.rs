//! Outcomes: how a run stands, with some patience.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dormouse_core::RunId;
use dormouse_core::api::{Problem, ResultBody};
use serde::Deserialize;

use crate::Api;
use crate::duration::parse_duration;
use crate::extract::{Params, Query, target};
use crate::problem::{Kind, Refused};

/// The longest that one request waits; ask again to wait longer. Below the 30 seconds at which many proxies give up.
pub const MAX_WAIT: Duration = Duration::from_secs(25);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResultQuery {
    /// The run that is meant; the latest of the workflow when missing.
    #[param(value_type = Option<String>, format = "uuid")]
    run_id: Option<RunId>,
    /// How long to wait for the run to close: `500ms`, `20s`. One request waits 25 s at most; ask again to wait longer.
    #[param(example = "20s")]
    wait: Option<String>,
    /// Wait no longer than until the run is parked: `parked` in the answer then says why.
    #[serde(default)]
    or_parked: bool,
}

/// How a run stands, and its outcome once closed.
#[utoipa::path(
    get,
    path = "/v1/workflows/{workflow_id}/result",
    operation_id = "getWorkflowResult",
    tag = "workflows",
    params(("workflow_id" = String, Path, description = "The workflow's id, written as described above"), ResultQuery),
    responses(
        (status = 200, description = "The run is closed: its result, or why there is none", body = ResultBody),
        (status = 202, description = "The run is still open: ask again. With `parked`, its code cannot go on until code that can is deployed", body = ResultBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn result(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<ResultQuery>,
) -> Result<(StatusCode, Json<ResultBody>), Refused> {
    let target = target(workflow_id, query.run_id)?;
    let wait = match query.wait.as_deref().map(parse_duration) {
        None => Duration::ZERO,
        Some(Ok(wait)) if wait > MAX_WAIT => {
            return Err(Kind::InvalidRequest.because(format!(
                "wait is {wait:?}, and one request waits {MAX_WAIT:?} at most; ask again to wait longer"
            )));
        }
        Some(Ok(wait)) => wait,
        Some(Err(error)) => return Err(Kind::InvalidRequest.because(format!("wait: {error}"))),
    };
    let result = match query.or_parked {
        true => api.front()?.result_or_parked(&target, wait).await?,
        false => api.front()?.result(&target, wait).await?,
    };
    let status = if result.status.is_closed() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(result)))
}
