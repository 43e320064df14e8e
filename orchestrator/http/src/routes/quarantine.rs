//! The quarantine: messages that nobody could handle.

use axum::Json;
use axum::extract::State;
use dormouse_core::api::{Problem, QuarantineBody, RedriveBody, RedrivenBody};
use dormouse_core::check_id;
use serde::Deserialize;

use crate::body::OptionalJsonBody;
use crate::extract::{NoQuery, Query, page_limit};
use crate::problem::{Kind, Refused};
use crate::{Api, page_token};

/// Letters that one request names. Each costs requests of its own, and the answer has its limit in time.
const MOST_IDS: usize = 50;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most so many; a page may hold fewer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Lists messages that nobody could handle, the oldest first, without what they say.
#[utoipa::path(
    get,
    path = "/v1/quarantine",
    tag = "quarantine",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of letters", body = QuarantineBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This server has no quarantine", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<QuarantineBody>, Refused> {
    let limit = page_limit(query.limit, 100)?;
    let after = query.page_token.as_deref().map(page_token::read_quarantine).transpose()?;
    let (letters, next) = api.front()?.quarantine(after, limit).await?;
    Ok(Json(QuarantineBody { letters, next_page_token: next.as_deref().map(page_token::quarantine) }))
}

/// Sends messages to the queues that they were meant for, and takes them out of quarantine. Without ids, it goes on
/// with `next_page_token` until there is none. What is sent twice does no harm.
#[utoipa::path(
    post,
    path = "/v1/quarantine/redrive",
    tag = "quarantine",
    request_body = Option<RedriveBody>,
    responses(
        (status = 200, description = "What became of each", body = RedrivenBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This server has no quarantine", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn redrive(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
    OptionalJsonBody(body): OptionalJsonBody<RedriveBody>,
) -> Result<Json<RedrivenBody>, Refused> {
    let Some(ids) = body.ids else {
        let after = body.page_token.as_deref().map(page_token::read_quarantine).transpose()?;
        let (letters, next) = api.front()?.redrive(after).await?;
        return Ok(Json(RedrivenBody { letters, next_page_token: next.as_deref().map(page_token::quarantine) }));
    };
    let refused = |why: String| Err(Kind::InvalidRequest.because(why));
    if body.page_token.is_some() {
        return refused("ids and page_token do not go together; send one of them".into());
    }
    if ids.is_empty() || ids.len() > MOST_IDS {
        return refused(format!(
            "there are {} ids; send 1 to {MOST_IDS}, or none at all to mean every letter",
            ids.len()
        ));
    }
    for id in &ids {
        check_id("an id", id)?;
    }
    let letters = api.front()?.redrive_these(ids).await?;
    Ok(Json(RedrivenBody { letters, next_page_token: None }))
}
