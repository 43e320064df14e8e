//! The routes, a file for each noun. To add one: write its function, name it here, and renew `openapi.json`.

mod history;
mod outcomes;
mod problems;
mod quarantine;
mod queries;
mod server;
mod signals;
mod stops;
mod workflows;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;

pub use outcomes::MAX_WAIT;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dormouse",
        description = "Durable workflows. In paths, ids and names are written with every byte of their UTF-8 outside \
                       `A-Z a-z 0-9 . _ -` as `~XX`, two uppercase hexadecimal digits: a `/` is `~2F`, a `~` is \
                       `~7E`; the ids `.` and `..` are `~2E` and `~2E~2E`. That survives gateways which decode \
                       percent-encoding on the way. Percent-encoding is understood too, where nothing decodes it. \
                       A write with an `Idempotency-Key` may be repeated: the repeat changes nothing more. \
                       Every error is `application/problem+json` (RFC 9457); its `type`, relative to the server, is \
                       the address of a page that says what to do."
    ),
    tags(
        (name = "workflows", description = "Begin, look at and influence workflows"),
        (name = "quarantine", description = "Messages that nobody could handle: only where the API is deployed to AWS"),
        (name = "server", description = "The server itself"),
    ),
    components(schemas(dormouse_core::api::Problem)),
)]
struct Document;

/// Every route, with its description.
pub(crate) fn all() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(workflows::start, workflows::list))
        .routes(routes!(workflows::describe))
        .routes(routes!(history::history))
        .routes(routes!(outcomes::result))
        .routes(routes!(signals::signal))
        .routes(routes!(queries::query))
        .routes(routes!(stops::cancel))
        .routes(routes!(stops::terminate))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::redrive))
        .routes(routes!(problems::problems))
        .routes(routes!(problems::problem))
        .routes(routes!(server::healthz))
        .routes(routes!(server::openapi))
}
