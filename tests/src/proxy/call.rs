//! What a request asks for.

use std::collections::BTreeSet;
use std::fmt;

use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Uri};
use serde_json::Value;

/// What a request asks for. Printed, it is `service/operation/detail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The request.
    pub kind: Kind,
    /// The messages that it sends.
    pub messages: Vec<Kind>,
    /// Its body, where that is JSON and the proxy reads it.
    pub body: Value,
}

/// One kind of request, or of message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// `dynamodb`, `s3`, `sqs`, `scheduler`, `lambda`, `lambda-runtime`, `http`.
    pub service: String,
    /// The service's name for it: `PutItem`, `SendMessageBatch`, `PutObject`.
    pub operation: String,
    /// What the engine means by it:
    /// - DynamoDB: the kinds of the items, `batch+row` for a transaction; a write without a condition says so:
    ///   `row(unconditional)`. Queries: `history`, `newest`, `attempts`, or the name of their index.
    /// - S3: what kind of thing the key names; `batch(conditional)` for a put with a condition; `large` for records
    ///   too large for DynamoDB.
    /// - SQS: `kind@queue` of what is sent, else `@queue`. Scheduler: the kind of what will be sent. A message that
    ///   holds another says so: `take.signal`.
    pub detail: String,
    /// The name of the thing itself: key, queue, schedule; the text of a message. For rules, not for counts.
    pub about: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.operation, self.detail)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Kind {
    fn new(service: &str, operation: &str, detail: String, about: String) -> Self {
        Self { service: service.into(), operation: operation.into(), detail, about }
    }
}

/// Whether a text fits a pattern, in which `*` stands for anything, also for nothing. A pattern that names only the
/// first parts of a path fits all that continue it.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    fits(pattern, text) || fits(&format!("{pattern}/*"), text)
}

fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.split_once(part) {
            Some((_, behind)) => text = behind,
            None => return false,
        }
    }
    text.ends_with(last)
}

impl Call {
    /// Reads a request.
    #[must_use]
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let path = uri.path();
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let json = || serde_json::from_slice(body).unwrap_or(Value::Null);
        if let Some((target, operation)) = header("x-amz-target").and_then(|target| target.split_once('.')) {
            let body: Value = json();
            return match target {
                "AmazonSQS" => sqs(operation, body),
                _ if target.starts_with("DynamoDB_") => Self::plain(dynamodb(operation, &body), body),
                _ => Self::plain(Kind::new(target, operation, String::new(), path.into()), body),
            };
        }
        let signed = signed_for(headers);
        if let Some(rest) = path.strip_prefix("/2018-06-01/runtime/") {
            return Self::plain(runtime(rest), Value::Null);
        }
        if path.starts_with("/schedules/") || path.starts_with("/schedule-groups") {
            let body = json();
            return Self::plain(scheduler(method, path, &body), body);
        }
        if let Some(rest) = path.strip_prefix("/2015-03-31/") {
            let name = rest.trim_start_matches("functions/").trim_end_matches("/invocations").trim_end_matches('/');
            let operation = if rest.ends_with("/invocations") { "Invoke" } else { method.as_str() };
            return Self::plain(Kind::new("lambda", operation, name.into(), path.into()), Value::Null);
        }
        if signed == Some("s3") || (signed.is_none() && header("x-amz-content-sha256").is_some()) {
            return Self::plain(s3(method, uri, headers), Value::Null);
        }
        let host = header("host").unwrap_or_default();
        let service = signed.unwrap_or("http");
        Self::plain(Kind::new(service, method.as_str(), String::new(), format!("{host}{path}")), Value::Null)
    }

    const fn plain(kind: Kind, body: Value) -> Self {
        Self { kind, messages: Vec::new(), body }
    }
}

/// The service in the scope of the signature: `Credential=<key>/<day>/<region>/<service>/aws4_request`.
fn signed_for(headers: &HeaderMap) -> Option<&str> {
    let (_, scope) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once("Credential=")?;
    scope.split(',').next()?.split('/').rev().nth(1)
}

// ---- DynamoDB

/// What an item is, by its key: see the engine's `aws/store/keys.rs`.
fn item_kind(partition: &str, sort: &str) -> String {
    let kind = match partition.split_once('#') {
        Some(("run", _)) => match sort.split_once('#') {
            Some((_, "row")) => "row",
            Some((_, sequence)) if sequence.parse::<u64>().is_ok() => "batch",
            _ => "other",
        },
        Some((kind, _)) => kind,
        None => "other",
    };
    kind.to_owned()
}

fn key_of(item: &Value) -> (&str, &str) {
    (item["p"]["S"].as_str().unwrap_or_default(), item["s"]["S"].as_str().unwrap_or_default())
}

/// A part of a request: what it writes or reads, and where.
struct Piece {
    kind: String,
    key: String,
}

impl Piece {
    fn new(key: &Value, conditional: Option<bool>) -> Self {
        let (partition, sort) = key_of(key);
        let note = if conditional == Some(false) { "(unconditional)" } else { "" };
        Self { kind: item_kind(partition, sort) + note, key: format!("{partition}/{sort}") }
    }

    /// A write, in the request's own form or as a part of a transaction or of a batch of requests.
    fn write(request: &Value) -> Self {
        let key = if request["Item"].is_object() { &request["Item"] } else { &request["Key"] };
        Self::new(key, Some(request["ConditionExpression"].is_string()))
    }
}

fn dynamodb(operation: &str, body: &Value) -> Kind {
    let entries = |list: &Value, of: &dyn Fn(&Value) -> Piece| -> Vec<Piece> {
        let objects = list.as_array().into_iter().flatten().filter_map(Value::as_object);
        objects.filter_map(|entry| entry.values().next()).map(of).collect()
    };
    let by_table = |of: &dyn Fn(&Value) -> Vec<Piece>| -> Vec<Piece> {
        body["RequestItems"].as_object().into_iter().flatten().flat_map(|(_, requests)| of(requests)).collect()
    };
    let pieces = match operation {
        "PutItem" | "UpdateItem" | "DeleteItem" => vec![Piece::write(body)],
        "GetItem" => vec![Piece::new(&body["Key"], None)],
        "TransactWriteItems" => entries(&body["TransactItems"], &Piece::write),
        "TransactGetItems" => entries(&body["TransactItems"], &|get| Piece::new(&get["Key"], None)),
        "BatchWriteItem" => by_table(&|requests| entries(requests, &Piece::write)),
        "BatchGetItem" => by_table(&|requests| {
            requests["Keys"].as_array().into_iter().flatten().map(|key| Piece::new(key, None)).collect()
        }),
        "Query" => vec![query(body)],
        _ => vec![Piece { kind: String::new(), key: body["TableName"].as_str().unwrap_or_default().into() }],
    };
    let mut kinds: Vec<&str> = pieces.iter().map(|piece| piece.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let keys: Vec<&str> = pieces.iter().map(|piece| piece.key.as_str()).collect();
    Kind::new("dynamodb", operation, kinds.join("+"), keys.join(" "))
}

/// A query is about what its values name: the partition, and from where on it reads.
fn query(body: &Value) -> Piece {
    let values = body["ExpressionAttributeValues"].as_object().into_iter().flatten();
    let values: Vec<&str> = values.filter_map(|(_, value)| value["S"].as_str()).collect();
    let begins = |start: &str| values.iter().any(|value| value.starts_with(start));
    let reads = |kind: &str| values.iter().any(|value| item_kind("run#", value) == kind);
    let kind = match body["IndexName"].as_str() {
        Some(index) => index,
        None if begins("attempt#") => "attempts",
        None if begins("run#") && reads("batch") => "history",
        None if begins("run#") => "newest",
        None => "other",
    };
    Piece { kind: kind.into(), key: values.join(" ") }
}

// ---- S3

/// Which kinds of things lie under which folders.
const FOLDERS: &[(&str, &str)] = &[
    ("/.rows/", "row"),
    ("/attempts/", "attempt"),
    ("/log/", "batch"),
    ("/messages/", "message"),
    ("/batches/", "batch"),
];

fn s3(method: &Method, uri: &Uri, headers: &HeaderMap) -> Kind {
    let path = uri.path();
    let query = uri.query().unwrap_or_default();
    let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let header = |name: &str| headers.contains_key(name);
    let names_key = path.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let operation = match (method.as_str(), names_key) {
        ("PUT", true) if asks("partNumber") => "UploadPart",
        ("PUT", true) if header("x-amz-copy-source") => "CopyObject",
        ("PUT", true) => "PutObject",
        ("GET", true) => "GetObject",
        ("HEAD", true) => "HeadObject",
        ("DELETE", true) if asks("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("POST", true) if asks("uploads") => "CreateMultipartUpload",
        ("POST", true) => "CompleteMultipartUpload",
        ("POST", false) if asks("delete") => "DeleteObjects",
        ("PUT", false) if query.is_empty() => "CreateBucket",
        ("GET", false) if asks("list-type") => "ListObjectsV2",
        (method, _) => method,
    };
    // A listing names its folder in the query.
    let key = format!("{path}?{}", query.replace("%2F", "/"));
    let kind = FOLDERS.iter().find(|(folder, _)| key.contains(folder)).map_or("other", |(_, kind)| kind);
    let conditional = header("if-none-match") || header("if-match");
    let note = if conditional && operation == "PutObject" { "(conditional)" } else { "" };
    Kind::new("s3", operation, format!("{kind}{note}"), key)
}

// ---- SQS, Scheduler, Lambda

fn sqs(operation: &str, body: Value) -> Call {
    let url = body["QueueUrl"].as_str().unwrap_or_default();
    let queue = url.rsplit('/').next().unwrap_or_default().to_owned();
    let message = |entry: &Value| {
        let text = entry["MessageBody"].as_str().unwrap_or_default();
        Kind::new("sqs", "message", format!("{}@{queue}", message_kind(text)), text.into())
    };
    let messages: Vec<Kind> = match operation {
        "SendMessage" => vec![message(&body)],
        "SendMessageBatch" => body["Entries"].as_array().into_iter().flatten().map(message).collect(),
        _ => Vec::new(),
    };
    let kinds: BTreeSet<&str> = messages.iter().filter_map(|message| message.detail.split('@').next()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let kind = Kind::new("sqs", operation, format!("{}@{queue}", kinds.join("+")), url.into());
    Call { kind, messages, body }
}

/// The kind of a message, and of what it holds: `accepted`, `take.signal`, `deferred.activity_task`.
fn message_kind(text: &str) -> String {
    let message = serde_json::from_str(text).unwrap_or(Value::Null);
    let kind = |message: &Value| message["kind"].as_str().map(ToOwned::to_owned);
    let inner = ["arrival", "body"].iter().find_map(|field| kind(&message[*field]));
    match (kind(&message), inner) {
        (None, _) => "other".into(),
        (Some(kind), None) => kind,
        (Some(kind), Some(inner)) => format!("{kind}.{inner}"),
    }
}

fn scheduler(method: &Method, path: &str, body: &Value) -> Kind {
    let things = if path.starts_with("/schedule-groups") { "ScheduleGroup" } else { "Schedule" };
    let verb = match method.as_str() {
        "POST" => "Create",
        "PUT" => "Update",
        "DELETE" => "Delete",
        _ => "Get",
    };
    let detail = body["Target"]["Input"].as_str().map(message_kind).unwrap_or_default();
    Kind::new("scheduler", &format!("{verb}{things}"), detail, path.into())
}

/// The interface between Lambda and a function's process.
fn runtime(rest: &str) -> Kind {
    let operation = match rest {
        "invocation/next" => "Next",
        "init/error" => "InitError",
        _ if rest.ends_with("/response") => "Response",
        _ if rest.ends_with("/error") => "Error",
        _ => "Other",
    };
    Kind::new("lambda-runtime", operation, String::new(), rest.into())
}
