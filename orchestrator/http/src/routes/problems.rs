//! What the types of problem responses mean: each is the address of a page here.

use axum::http::header;
use axum::response::IntoResponse;
use dormouse_core::api::Problem;

use crate::extract::Params;
use crate::problem::{Kind, Refused};

/// The kinds of problem that this server answers with.
#[utoipa::path(
    get,
    path = "/problems",
    operation_id = "listProblems",
    tag = "server",
    responses((status = 200, description = "A line for each", body = String, content_type = "text/plain")),
)]
pub(crate) async fn problems() -> impl IntoResponse {
    plain(Kind::ALL.iter().map(|kind| format!("{}\n", kind.address())).collect())
}

/// What a kind of problem means, and what to do about it: the page that a problem's `type` leads to.
#[utoipa::path(
    get,
    path = "/problems/{kind}",
    operation_id = "explainProblem",
    tag = "server",
    params(("kind" = String, Path, description = "The last part of the problem's type")),
    responses(
        (status = 200, description = "A short text", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such kind", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn problem(Params(kind): Params<String>) -> Result<impl IntoResponse, Refused> {
    let known = Kind::of_slug(&kind).ok_or_else(|| {
        let shown: String = kind.chars().filter(|c| !c.is_control()).take(80).collect();
        Kind::NoSuchRoute
            .because(format!("there is no kind of problem {shown:?}; /problems lists those that there are"))
    })?;
    Ok(plain(known.page()))
}

fn plain(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}
