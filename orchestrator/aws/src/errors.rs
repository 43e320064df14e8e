//! What errors of AWS mean, one table for each service.
//!
//! A refusal ends the matter: whoever asked gives up what it held, which may be all that is left of finished work. So an
//! error is one only when the same request would meet the same answer whenever it is sent, and nothing has happened.
//! Everything else is unknown, and asked again:
//!
//! - time-outs, broken connections, answers that make no sense, 5xx, and what never left this process (credentials may
//!   still come);
//! - throttling, quotas and conflicts: what was too much, or in the way, passes;
//! - 401 and 403, whatever they are called (`AccessDenied`, `ExpiredToken`, `UnrecognizedClient`, `InvalidSignature`,
//!   KMS's): rights, keys, tokens and clocks are mended without the request's changing.
//!
//! S3 is reached through the crate `object_store`; its table is
//! [`failed`](dormouse_engine::stores::object::failed).

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use dormouse_engine::store::StoreError;

/// A service that is reached with an SDK of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    DynamoDb,
    Sqs,
    Scheduler,
}

/// A code, and why the same request is never taken.
type Refusal = (&'static str, &'static str);

const DYNAMODB: &[Refusal] = &[
    ("ValidationException", "the request breaks a rule: a size, a key, an expression"),
    ("SerializationException", "the request is not read"),
    ("ItemCollectionSizeLimitExceededException", "what is to be written does not fit"),
    ("ResourceNotFoundException", "the table is not there"),
];

/// Without the prefix `AWS.SimpleQueueService.` that some of them have in the older protocol.
const SQS: &[Refusal] = &[
    ("QueueDoesNotExist", "the queue is not there"),
    ("NonExistentQueue", "the queue is not there"),
    ("InvalidAddress", "the URL is no queue's"),
    ("InvalidMessageContents", "characters that it does not carry"),
    ("BatchRequestTooLong", "the request is too long"),
    ("TooManyEntriesInBatchRequest", "the request has too many entries"),
    ("EmptyBatchRequest", "the request has no entries"),
    ("BatchEntryIdsNotDistinct", "entries have the same name"),
    ("InvalidBatchEntryId", "an entry's name is none"),
    ("InvalidParameterValue", "a parameter out of its range, such as a message too long or a delay"),
    ("InvalidParameterCombination", "parameters that exclude each other"),
    ("MissingParameter", "a parameter is missing"),
    ("InvalidAttributeValue", "an attribute out of its range"),
    ("UnsupportedOperation", "not with a queue of this kind"),
    ("ReceiptHandleIsInvalid", "the receipt is none of this queue's"),
];

const SCHEDULER: &[Refusal] = &[
    ("ValidationException", "the schedule breaks a rule: a name, a time, a size"),
    ("ResourceNotFoundException", "the group of schedules is not there"),
];

/// What is too much for now, as the services call it. Nothing has happened.
const TOO_MUCH: &[&str] = &[
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServiceQuotaExceededException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingError",
    "ThrottlingException",
    "TooManyRequestsException",
];

impl Service {
    /// Why this code is a refusal for good. `None`: it is none.
    pub(crate) fn refusal(self, code: &str) -> Option<&'static str> {
        let (table, code) = match self {
            Self::DynamoDb => (DYNAMODB, code),
            Self::Sqs => (SQS, code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)),
            Self::Scheduler => (SCHEDULER, code),
        };
        table.iter().find(|(refused, _)| *refused == code).map(|(_, why)| *why)
    }

    fn name(self) -> &'static str {
        match self {
            Self::DynamoDb => "DynamoDB",
            Self::Sqs => "SQS",
            Self::Scheduler => "EventBridge Scheduler",
        }
    }

    /// An error of this service as the engine sees it. `about`: what was asked for.
    pub(crate) fn error<E>(self, about: &str, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let told = self.told(about, error);
        match error.as_service_error().and_then(ProvideErrorMetadata::code).and_then(|code| self.refusal(code)) {
            Some(why) => StoreError::refused(format!("{told} ({why})")),
            None => StoreError::unknown(told),
        }
    }

    /// Without what was sent or received: that may hold payloads.
    fn told<E>(self, about: &str, error: &SdkError<E, HttpResponse>) -> String
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let name = self.name();
        if let Some((Some(code), message)) = error.as_service_error().map(|service| (service.code(), service.message()))
        {
            return format!("{about}: {name}: {code}: {}", message.unwrap_or("without a message"));
        }
        match (error, error.raw_response()) {
            (SdkError::ResponseError(_) | SdkError::ServiceError(_), Some(response)) => {
                format!("{about}: {name} answered with status {}", response.status().as_u16())
            }
            (SdkError::ResponseError(_) | SdkError::ServiceError(_), None) => {
                format!("{about}: {name}'s answer made no sense")
            }
            _ => format!("{about}: {name}: {}", DisplayErrorContext(error)),
        }
    }
}

/// Whether a service said that there was too much for now: by its code, or by the status of HTTP.
pub(crate) fn is_too_much<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    let status = error.raw_response().map(|response| response.status().as_u16());
    status == Some(429) || code.is_some_and(|code| TOO_MUCH.contains(&code))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::put_item::PutItemError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answered(status: u16, code: &str) -> SdkError<PutItemError, HttpResponse> {
        let error = PutItemError::generic(ErrorMetadata::builder().code(code).message("no").build());
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from("what was written"));
        SdkError::service_error(error, response)
    }

    const ALL: [Service; 3] = [Service::DynamoDb, Service::Sqs, Service::Scheduler];

    /// A moment's 403 must not throw a finished result away.
    #[test]
    fn what_may_be_mended_without_the_request_s_changing_is_no_refusal() {
        let rights = [
            (400, "AccessDeniedException"),
            (403, "AccessDenied"),
            (400, "ExpiredTokenException"),
            (403, "ExpiredToken"),
            (400, "UnrecognizedClientException"),
            (403, "InvalidSignatureException"),
            (400, "MissingAuthenticationTokenException"),
            (400, "IncompleteSignatureException"),
            (403, "InvalidClientTokenId"),
            (400, "KMS.AccessDeniedException"),
            (400, "KmsThrottled"),
            (401, "anything"),
            (403, "anything"),
        ];
        let others = [(400, "ThrottlingException"), (402, "ServiceQuotaExceededException"), (429, ""), (500, "x")];
        for (status, code) in rights.into_iter().chain(others) {
            for service in ALL {
                let error = service.error("it", &answered(status, code));
                assert!(matches!(error, StoreError::Unknown(_)), "{service:?} {status} {code}: {error:?}");
            }
        }
    }

    #[test]
    fn what_stays_as_it_is_is_a_refusal_with_its_reason() {
        let cases = [
            (Service::DynamoDb, "ValidationException"),
            (Service::DynamoDb, "ResourceNotFoundException"),
            (Service::Sqs, "QueueDoesNotExist"),
            (Service::Sqs, "AWS.SimpleQueueService.NonExistentQueue"),
            (Service::Sqs, "InvalidMessageContents"),
            (Service::Scheduler, "ValidationException"),
        ];
        for (service, code) in cases {
            let error = service.error("the run queue", &answered(400, code));
            let StoreError::Refused(told) = error else { panic!("{service:?} {code}: {error:?}") };
            let told = told.as_str();
            assert!(told.contains("the run queue") && told.contains(code), "{told}");
            assert!(!told.contains("what was written"), "{told}");
        }
    }

    #[test]
    fn too_much_is_known_by_code_or_status() {
        for code in ["ThrottlingException", "ServiceQuotaExceededException", "RequestThrottled"] {
            assert!(is_too_much(&answered(400, code)), "{code}");
        }
        assert!(is_too_much(&answered(429, "unheard of")));
        assert!(!is_too_much(&answered(400, "ValidationException")));
        assert!(!is_too_much(&answered(403, "AccessDenied")));
    }
}
