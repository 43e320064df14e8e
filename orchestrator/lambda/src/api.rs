//! The role `api`: the HTTP API behind API Gateway or a function URL. It accepts, reads, and sends again what is in
//! quarantine; no user code runs here.

use std::sync::Arc;

use dormouse_engine::aws::redrive::Redriver;
use dormouse_engine::front::FrontDoor;
use dormouse_engine::intake::Intake;
use dormouse_http::{Limits, router};
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
    lambda_http::run(router(front, limits)).await
}
