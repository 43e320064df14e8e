//! The seams of the engine on AWS: [`store`] over DynamoDB, [`queues`] over SQS, [`alarms`](queues::alarms) over SQS and EventBridge Scheduler,
//! [`blobs`] for what is too large for either, [`dead_letters`], [`quarantine`] and [`redrive`] for what nobody could
//! handle, [`wire`] for what messages look like; `errors` says what each service's errors mean.
//!
//! Clients come from the standard configuration of the SDK (`AWS_ENDPOINT_URL`, profiles, regions), so the same
//! program runs against AWS and against what imitates it. They need a tokio runtime, which workflow threads do not
//! have: every request runs on the one that its part was given.

pub mod blobs;
pub mod dead_letters;
mod errors;
pub mod quarantine;
pub mod queues;
pub mod redrive;
pub mod store;
pub mod wire;

use std::future::Future;

use tokio::runtime::Handle;

use dormouse_engine::seams::SeamFuture;
use dormouse_engine::store::StoreError;

/// Runs a request where the clients live. A dropped future may leave it going on: as on any network.
fn on<T: Send + 'static>(
    runtime: &Handle,
    request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> SeamFuture<'static, T> {
    let running = runtime.spawn(request);
    Box::pin(async move { running.await.unwrap_or_else(|error| Err(StoreError::unknown(error.to_string()))) })
}
