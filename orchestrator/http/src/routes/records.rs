//! Histories as they are stored, page by page: what a replay needs.

use axum::Json;
use axum::extract::State;
use dormouse_core::RunId;
use dormouse_core::api::{Problem, RecordsBody};
use serde::Deserialize;

use crate::extract::{Params, Query, target};
use crate::problem::Refused;
use crate::{Api, page_token};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordsQuery {
    /// The run that is meant; the latest of the workflow when missing.
    #[param(value_type = Option<String>, format = "uuid")]
    run_id: Option<RunId>,
    /// `next_page_token` of the page before; with its `run_id`, since another run may be the latest by now.
    page_token: Option<String>,
}

/// The history of a run as it is stored: what can be replayed. For people there are its events.
#[utoipa::path(
    get,
    path = "/v1/workflows/{workflow_id}/records",
    operation_id = "getWorkflowRecords",
    tag = "workflows",
    params(("workflow_id" = String, Path, description = "The workflow's id, written as described above"), RecordsQuery),
    responses(
        (status = 200, description = "A page of batches; the last page has no next_page_token", body = RecordsBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such workflow or run", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn records(
    State(api): State<Api>,
    Params(workflow_id): Params<String>,
    Query(query): Query<RecordsQuery>,
) -> Result<Json<RecordsBody>, Refused> {
    let target = target(workflow_id, query.run_id)?;
    let from = query.page_token.map_or(Ok(0), |token| page_token::read_records(&token))?;
    let mut page = api.front()?.records(&target, from).await?;
    let next = from + page.records.len() as u64;
    page.next_page_token = page.next_page_token.map(|_| page_token::records(next));
    Ok(Json(page))
}
