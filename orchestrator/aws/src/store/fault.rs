//! What DynamoDB's errors mean for a write: surely not there and refused for good, or unknown (rule C1).

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use dormouse_engine::store::StoreError;

/// Nothing was written, and the same request would meet the same answer.
const REFUSALS: &[&str] = &[
    "ValidationException",
    "SerializationException",
    "ResourceNotFoundException",
    "ItemCollectionSizeLimitExceededException",
];

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
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    match code {
        Some(code) if REFUSALS.contains(&code) => StoreError::refused(text(&error)),
        // Also what never left this process, and what was answered for want of credentials or of a right: those expire
        // and are renewed, a new policy takes its time. Whoever is refused may give up what it has in hand.
        _ => StoreError::unknown(text(&error)),
    }
}

fn text<E>(error: &SdkError<E>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    match error.as_service_error().map(|service| (service.code(), service.message())) {
        Some((Some(code), message)) => format!("DynamoDB: {code}: {}", message.unwrap_or("without a message")),
        // Without what was sent or received: that may hold payloads.
        _ => match error {
            SdkError::ResponseError(_) | SdkError::ServiceError(_) => match error.raw_response() {
                Some(response) => format!("DynamoDB answered with status {}", response.status().as_u16()),
                None => "DynamoDB's answer made no sense".into(),
            },
            _ => format!("DynamoDB: {}", DisplayErrorContext(error)),
        },
    }
}
