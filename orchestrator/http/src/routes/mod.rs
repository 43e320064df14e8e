//! The routes, a file for each noun. To add one: write its function, name it here, and renew `openapi.json`.

mod history;
mod outcomes;
mod problems;
mod quarantine;
mod queries;
mod records;
mod server;
mod signals;
mod stops;
mod workflows;

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::problem::PROBLEM_JSON;

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
                       the address of a page that says what to do. \
                       Who asks: `dev` asks nobody on the loopback interface, elsewhere for a bearer token; an API on AWS \
                       for a signature (AWS Signature Version 4 of the service `execute-api`; with curl: `--aws-sigv4 \
                       aws:amz:REGION:execute-api --user KEY:SECRET`), or for a token of the issuer it was deployed with."
    ),
    servers(
        (url = "/", description = "The server that this document comes from"),
        (
            url = "https://{api}.execute-api.{region}.amazonaws.com",
            description = "An API that is deployed to AWS",
            variables(
                ("api" = (default = "a1b2c3", description = "Its id, the output ApiId of the stack")),
                ("region" = (default = "us-east-1", description = "The region of the stack")),
            ),
        ),
    ),
    security((), ("token" = []), ("sigv4" = [])),
    modifiers(&Common),
    tags(
        (name = "workflows", description = "Begin, look at and influence workflows"),
        (name = "quarantine", description = "Messages that nobody could handle: only where the API is deployed to AWS"),
        (name = "server", description = "The server itself"),
    ),
    components(schemas(dormouse_core::api::Problem)),
)]
struct Document;

/// What holds for every operation.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token")).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        // As API Gateway's own documents say it: OpenAPI knows no signatures.
        let signature =
            ApiKeyValue::with_description("Authorization", "AWS Signature Version 4, service `execute-api`");
        components.add_security_scheme("sigv4", SecurityScheme::ApiKey(ApiKey::Header(signature)));
    }
}

/// Any other refusal, such as 401, 403, 421 or 500.
fn any_refusal(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let refusal = ResponseBuilder::new().description("Any other refusal").content(PROBLEM_JSON, content).build();
    operation.responses.responses.insert("default".into(), RefOr::T(refusal));
}

/// Every route, with its description.
pub(crate) fn all() -> OpenApiRouter<Api> {
    let mut all = described();
    for path in all.get_openapi_mut().paths.paths.values_mut() {
        [&mut path.get, &mut path.post].into_iter().filter_map(Option::as_mut).for_each(any_refusal);
    }
    all
}

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(workflows::start, workflows::list))
        .routes(routes!(workflows::describe))
        .routes(routes!(history::history))
        .routes(routes!(records::records))
        .routes(routes!(outcomes::result))
        .routes(routes!(signals::signal))
        .routes(routes!(queries::query))
        .routes(routes!(stops::cancel))
        .routes(routes!(stops::terminate))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::redrive))
        .routes(routes!(quarantine::discard))
        .routes(routes!(quarantine::show))
        .routes(routes!(problems::problems))
        .routes(routes!(problems::problem))
        .routes(routes!(server::healthz))
        .routes(routes!(server::openapi))
}
