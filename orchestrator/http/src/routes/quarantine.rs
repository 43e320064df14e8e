//! The quarantine: messages that nobody could handle.

use axum::Json;
use axum::extract::State;
use dormouse_core::api::{
    DiscardBody, DiscardedBody, LetterShownBody, Problem, QuarantineBody, RedriveBody, RedrivenBody,
};
use dormouse_core::check_id;
use serde::Deserialize;

use crate::body::{JsonBody, OptionalJsonBody};
use crate::extract::{NoQuery, Params, Query, page_limit};
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
    operation_id = "listQuarantine",
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

/// One message that nobody could handle, with what it says.
#[utoipa::path(
    get,
    path = "/v1/quarantine/{letter_id}",
    operation_id = "showQuarantined",
    tag = "quarantine",
    params(("letter_id" = String, Path, description = "The letter's id, written as described above")),
    responses(
        (status = 200, description = "The letter", body = LetterShownBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such letter, or this server has no quarantine", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show(
    State(api): State<Api>,
    Params(letter_id): Params<String>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Json<LetterShownBody>, Refused> {
    check_id("the letter's id", &letter_id)?;
    Ok(Json(api.front()?.quarantined(letter_id).await?))
}

/// Throws messages away. No workflow waits for one: the sweep hands out again what a run still needs.
#[utoipa::path(
    post,
    path = "/v1/quarantine/discard",
    operation_id = "discardQuarantined",
    tag = "quarantine",
    request_body = DiscardBody,
    responses(
        (status = 200, description = "What became of each", body = DiscardedBody),
        (status = 400, description = "The request makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This server has no quarantine", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Repeat it", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn discard(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
    JsonBody(body): JsonBody<DiscardBody>,
) -> Result<Json<DiscardedBody>, Refused> {
    check_ids(&body.ids, "")?;
    Ok(Json(DiscardedBody { letters: api.front()?.discard(body.ids).await? }))
}

/// As many ids as one request may name. `or`: what else it may do.
fn check_ids(ids: &[String], or: &str) -> Result<(), Refused> {
    if ids.is_empty() || ids.len() > MOST_IDS {
        let there_are = ids.len();
        return Err(Kind::InvalidRequest.because(format!("there are {there_are} ids; send 1 to {MOST_IDS}{or}")));
    }
    ids.iter().try_for_each(|id| Ok(check_id("an id", id)?))
}

/// Sends messages to the queues that they were meant for, and takes them out of quarantine.
///
/// Without ids, it goes on with `next_page_token` until there is none. What is sent twice does no harm.
#[utoipa::path(
    post,
    path = "/v1/quarantine/redrive",
    operation_id = "redriveQuarantined",
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
    if body.page_token.is_some() {
        return Err(Kind::InvalidRequest.because("ids and page_token do not go together; send one of them"));
    }
    check_ids(&ids, ", or none at all to mean every letter")?;
    let letters = api.front()?.redrive_these(ids).await?;
    Ok(Json(RedrivenBody { letters, next_page_token: None }))
}
