//! Histories, page by page.

use axum::Json;
use axum::extract::State;
use dormouse_core::RunId;
use dormouse_core::api::{HistoryBody, Problem};
use serde::Deserialize;

use crate::extract::{Params, Query, page_limit, target};
use crate::problem::{Kind, Refused};
use crate::{Api, page_token};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// The run that is meant; the latest of the workflow when missing.
    #[param(value_type = Option<String>, format = "uuid")]
    run_id: Option<RunId>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    limit: Option<u32>,
    /// Only events behind the one with this id: to follow a history as it grows. Not with `page_token`.
    after: Option<u64>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// The events of a run, in order.
#[utoipa::path(
    get,
    path = "/v1/workflows/{workflow_id}/history",
    operation_id = "getWorkflowHistory",
    tag = "workflows",
    params(("workflow_id" = String, Path, description = "The workflow's id, written as described above"), HistoryQuery),
    responses(
        (status = 200, description = "A page of events; the last page has no next_page_token", body = HistoryBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn history(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryBody>, Refused> {
    let target = target(workflow_id, query.run_id)?;
    let limit = page_limit(query.limit, 1000)?;
    let after = match (query.after, query.page_token) {
        (None, None) => 0,
        (Some(after), None) => after,
        (None, Some(token)) => page_token::read_history(&token)?,
        (Some(_), Some(_)) => {
            return Err(Kind::InvalidRequest.because("after and page_token both say where to begin; give one of them"));
        }
    };
    let mut page = api.front()?.history(&target, after, limit).await?;
    let more = page.next_page_token.is_some();
    page.next_page_token = page.events.last().filter(|_| more).map(|event| page_token::history(event.event_id));
    Ok(Json(page))
}
