//! What DynamoDB's errors mean for a write: surely not there and refused for good, or unknown (rule C1).

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::errors::Service;
use dormouse_engine::store::StoreError;

/// Nothing was written, and the same request may succeed at once.
const BUSY: &[&str] = &[
    "TransactionConflictException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "ThrottlingError",
    "RequestLimitExceeded",
    "TransactionConflict",
    "ProvisionedThroughputExceeded",
];

/// Whether this code says that others were in the way.
pub(super) fn is_busy(code: Option<&str>) -> bool {
    code.is_some_and(|code| BUSY.contains(&code))
}

/// An error of the SDK as the engine sees it, in words alone: the error itself may hold payloads.
pub(crate) fn failed<E>(error: SdkError<E>) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    Service::DynamoDb.error("the table", &error)
}
