//! The role `api`: the HTTP API behind API Gateway or a function URL. It accepts, reads, and sends again what is in
//! quarantine; no user code runs here.

use std::sync::Arc;

use dormouse_aws::redrive::Redriver;
use dormouse_engine::front::FrontDoor;
use dormouse_engine::intake::Intake;
use dormouse_http::{Limits, router};
use lambda_http::request::RequestContext;
use lambda_http::tower::ServiceExt;
use lambda_http::{Request, RequestExt, service_fn};
use lambda_runtime::Error;

use crate::cloud::Cloud;
use crate::query::Orchestrator;

pub(crate) async fn serve(cloud: Cloud) -> Result<(), Error> {
    let queries = Arc::new(Orchestrator {
        lambda: aws_sdk_lambda::Client::new(&cloud.config),
        function: cloud.settings.orchestrator_function.clone(),
    });
    let intake = Arc::new(Intake::new(cloud.ports.clone()));
    let limits = Limits { max_payload_bytes: cloud.ports.choices.max_payload_bytes };
    let redriver = Arc::new(Redriver::new(cloud.quarantine, cloud.queues));
    let front = Arc::new(FrontDoor::new(cloud.ports, intake, queries).with_quarantine(redriver));
    let routes = router(front, limits);
    lambda_http::run(service_fn(move |request| routes.clone().oneshot(without_stage(request)))).await
}

/// The request as the routes know it: an API with named stages has the stage before each path.
fn without_stage(mut request: Request) -> Request {
    let stage = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => context.stage.as_deref(),
        Some(RequestContext::ApiGatewayV2(context)) => context.stage.as_deref().filter(|stage| *stage != "$default"),
        _ => None,
    };
    let uri = request.uri();
    let rest = stage.and_then(|stage| uri.path().strip_prefix('/')?.strip_prefix(stage));
    if let Some(path) = rest.filter(|rest| rest.starts_with('/')) {
        let rest = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        // A part of one that was a URI is one.
        if let Ok(rest) = rest.parse() {
            *request.uri_mut() = rest;
        }
    }
    request
}
