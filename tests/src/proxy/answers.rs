//! Answers that the proxy gives itself, in the form of the service that was asked.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;

/// An error, by what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Two writers meet. S3: 409 `ConditionalRequestConflict`. DynamoDB: `TransactionConflict`, as the reason of a
    /// canceled transaction or as an exception of its own.
    Conflict,
    /// The condition does not hold. S3: 412. DynamoDB: `ConditionalCheckFailed`, without the item that stands there.
    Precondition,
    /// 500.
    Internal,
    /// 503. S3: `SlowDown`.
    Unavailable,
    /// Too many requests, as the service puts it.
    Throttled,
    /// A canceled transaction of DynamoDB, its first item for this reason, the others for none.
    Canceled(String),
    /// Any error by status and code.
    Code(u16, String),
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    fn new(status: u16, media: &'static str, body: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))]);
        Self { status, headers, body: body.into() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }
}

impl Refusal {
    /// The status and the code of this error, as the service calls it.
    fn code(&self, call: &Call) -> (u16, &str) {
        let service = call.kind.service.as_str();
        match (self, service) {
            (Self::Code(status, code), _) => (*status, code),
            (Self::Canceled(_), _) => (400, "TransactionCanceledException"),
            (Self::Conflict, "dynamodb") if is_transaction(call) => (400, "TransactionCanceledException"),
            (Self::Conflict, "dynamodb") => (400, "TransactionConflictException"),
            (Self::Conflict, "s3") => (409, "ConditionalRequestConflict"),
            (Self::Conflict, _) => (409, "ConflictException"),
            (Self::Precondition, "dynamodb") if is_transaction(call) => (400, "TransactionCanceledException"),
            (Self::Precondition, "dynamodb") => (400, "ConditionalCheckFailedException"),
            (Self::Precondition, _) => (412, "PreconditionFailed"),
            (Self::Internal, "dynamodb") => (500, "InternalServerError"),
            (Self::Internal, "scheduler") => (500, "InternalServerException"),
            (Self::Internal, "lambda") => (500, "ServiceException"),
            (Self::Internal, _) => (500, "InternalError"),
            (Self::Unavailable | Self::Throttled, "s3") => (503, "SlowDown"),
            (Self::Unavailable, _) => (503, "ServiceUnavailable"),
            (Self::Throttled, "dynamodb") => (400, "ProvisionedThroughputExceededException"),
            (Self::Throttled, "sqs") => (400, "RequestThrottled"),
            (Self::Throttled, "lambda") => (429, "TooManyRequestsException"),
            (Self::Throttled, _) => (429, "ThrottlingException"),
        }
    }

    /// The answer to this request.
    pub(super) fn answer(&self, call: &Call) -> Answer {
        let (status, code) = self.code(call);
        let message = "the fault proxy says so";
        match call.kind.service.as_str() {
            "s3" => {
                let text = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
                     <RequestId>0</RequestId><HostId>0</HostId></Error>"
                );
                Answer::new(status, "application/xml", text)
            }
            "dynamodb" => {
                let mut body =
                    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message });
                if code == "TransactionCanceledException" {
                    let reasons = self.reasons(call);
                    body["CancellationReasons"] = reasons.iter().map(|code| json!({ "Code": code })).collect();
                    // As DynamoDB writes it: clients of other languages read the reasons from here.
                    body["Message"] = format!(
                        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
                        reasons.join(", ")
                    )
                    .into();
                }
                Answer::new(status, "application/x-amz-json-1.0", body.to_string())
            }
            "sqs" => {
                let body = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": message });
                let mut answer = Answer::new(status, "application/x-amz-json-1.0", body.to_string());
                let fault = if status < 500 { "Sender" } else { "Receiver" };
                if let Ok(value) = HeaderValue::try_from(format!("{code};{fault}")) {
                    answer.headers.insert("x-amzn-query-error", value);
                }
                answer
            }
            _ => {
                let mut answer = Answer::json(status, &json!({ "message": message, "Message": message }));
                if let Ok(value) = HeaderValue::try_from(code) {
                    answer.headers.insert("x-amzn-errortype", value);
                }
                answer
            }
        }
    }

    fn reasons(&self, call: &Call) -> Vec<&str> {
        let reason = match self {
            Self::Canceled(reason) => reason,
            Self::Precondition => "ConditionalCheckFailed",
            _ => "TransactionConflict",
        };
        let items = call.body["TransactItems"].as_array().map_or(1, Vec::len);
        std::iter::once(reason).chain(std::iter::repeat("None")).take(items.max(1)).collect()
    }

    /// The refusal of one entry of a request of SQS with several.
    pub(super) fn entry(&self, call: &Call, id: &Value) -> Value {
        let (status, code) = self.code(call);
        json!({ "Id": id, "Code": code, "Message": "the fault proxy says so", "SenderFault": status < 500 })
    }
}

fn is_transaction(call: &Call) -> bool {
    call.kind.operation.starts_with("Transact")
}

/// What SQS answers when it has taken a message.
pub(super) fn sent(entry: &Value) -> Value {
    let body = entry["MessageBody"].as_str().unwrap_or_default();
    let digest: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut answer = json!({ "MessageId": uuid(), "MD5OfMessageBody": digest });
    if entry["MessageGroupId"].is_string() {
        answer["SequenceNumber"] = "18849496460467696128".into();
    }
    answer
}

/// What the service answers to a request that was in fact swallowed; `None`: not known.
pub(super) fn swallowed(call: &Call) -> Option<Answer> {
    match (call.kind.service.as_str(), call.kind.operation.as_str()) {
        ("scheduler", "CreateSchedule") => {
            let name = call.kind.about.rsplit('/').next().unwrap_or_default();
            let arn = format!("arn:aws:scheduler:us-east-1:000000000000:schedule/default/{name}");
            Some(Answer::json(200, &json!({ "ScheduleArn": arn })))
        }
        _ => None,
    }
}

/// An id that looks like those of messages. Nobody was told it, so nobody minds that it is always the same.
const fn uuid() -> &'static str {
    "5fea7756-0ea4-451a-a703-a558b933e274"
}
