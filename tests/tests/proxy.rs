//! The fault proxy, held against a service of a few lines: what other tests conclude from it must be true.

#[path = "proxy/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_tests::proxy::call::glob;
use dormouse_tests::proxy::{Action, Counts, Proxy, Refusal, Rule, Spoiled, Tally, read_rules};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request that has arrived: its first line, its headers, its body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrived {
    line: String,
    host: String,
    body: String,
}

/// A service that writes down what arrives, and answers with how much that is.
struct Service {
    url: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let theirs = Arc::clone(&arrived);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let arrived = Arc::clone(&theirs);
                let service = service_fn(move |request| answer(Arc::clone(&arrived), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, arrived }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    fn times(&self) -> usize {
        self.arrived().len()
    }
}

async fn answer(arrived: Arc<Mutex<Vec<Arrived>>>, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
    let host = parts.headers["host"].to_str().unwrap().to_owned();
    let number = {
        let mut arrived = arrived.lock().unwrap();
        arrived.push(Arrived { line: format!("{} {}", parts.method, parts.uri), host, body: body.clone() });
        arrived.len()
    };
    // As SQS answers a batch; others do not mind.
    let entries: Option<Value> =
        serde_json::from_str::<Value>(&body).ok().and_then(|body| body.get("Entries").cloned());
    let successful: Vec<Value> = entries
        .iter()
        .flat_map(|entries| entries.as_array().unwrap())
        .map(|entry| json!({ "Id": entry["Id"] }))
        .collect();
    let text = json!({ "number": number, "Successful": successful, "Failed": [] }).to_string();
    Ok(Response::builder().header("x-of", "service").body(Full::new(text.into())).unwrap())
}

/// What came back, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    status: u16,
    head: String,
    body: String,
}

impl Came {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request on a connection of its own. `None`: closed without an answer.
async fn send(url: &str, line: &str, headers: &[(&str, &str)], body: &str) -> Option<Came> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let mut text = format!("{line} HTTP/1.1\r\nhost: signed.example\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("connection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    let text = String::from_utf8(read).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some(Came { status, head: head.to_owned(), body: body.to_owned() })
}

fn scope(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

async fn dynamodb(proxy: &Proxy, operation: &str, body: Value) -> Option<Came> {
    let target = format!("DynamoDB_20120810.{operation}");
    send(&proxy.url(), "POST /", &[("x-amz-target", &target)], &body.to_string()).await
}

async fn sqs(proxy: &Proxy, operation: &str, body: Value) -> Option<Came> {
    let target = format!("AmazonSQS.{operation}");
    send(&proxy.url(), "POST /", &[("x-amz-target", &target)], &body.to_string()).await
}

async fn s3(proxy: &Proxy, line: &str, headers: &[(&str, &str)]) -> Option<Came> {
    let scope = scope("s3");
    let mut all = vec![("authorization", scope.as_str())];
    all.extend(headers);
    send(&proxy.url(), line, &all, "bytes").await
}

/// A conditional put of a batch.
fn put(sort: &str) -> Value {
    json!({ "TableName": "t", "Item": { "p": { "S": "run#d/w" }, "s": { "S": sort } }, "ConditionExpression": "x" })
}

async fn start() -> (Service, Proxy) {
    let service = Service::start().await;
    let proxy = Proxy::start(&service.url).await.unwrap();
    (service, proxy)
}

/// What a request is called, found by sending it.
async fn called(line: &str, headers: &[(&str, &str)], body: Value) -> String {
    let (_, proxy) = start().await;
    send(&proxy.url(), line, headers, &body.to_string()).await.unwrap();
    let counts = proxy.counts();
    assert_eq!(counts.requests.len(), 1);
    counts.requests.into_keys().next().unwrap()
}

#[test]
fn patterns_fit_what_they_say() {
    for (pattern, text, fits) in [
        ("dynamodb", "dynamodb/PutItem/batch", true),
        ("dynamodb/PutItem", "dynamodb/PutItem/batch", true),
        ("dynamodb/PutItem/batch", "dynamodb/PutItem/batch", true),
        ("dynamodb/PutItem/batch", "dynamodb/PutItem/batches", false),
        ("dynamodb/Put", "dynamodb/PutItem/batch", false),
        ("dynamodb/Put*", "dynamodb/PutItem/batch", true),
        ("*/batch", "dynamodb/PutItem/batch", true),
        ("*", "dynamodb/PutItem/batch", true),
        ("sqs/message/accepted@*-run.fifo", "sqs/message/accepted@stack-run.fifo", true),
        ("sqs/message/accepted@*-run.fifo", "sqs/message/accepted@stack-run", false),
        ("a*b*b", "ab", false),
        ("a*b*b", "abb", true),
        ("", "a", false),
    ] {
        assert_eq!(glob(pattern, text), fits, "{pattern:?} on {text:?}");
    }
}

#[tokio::test]
async fn requests_are_told_apart() {
    let target = |of: &'static str| [("x-amz-target", of)];
    let key = |p: &str, s: &str| json!({ "p": { "S": p }, "s": { "S": s } });
    for (of, body, expected) in [
        ("DynamoDB_20120810.PutItem", put("0#1"), "dynamodb/PutItem/batch"),
        (
            "DynamoDB_20120810.PutItem",
            json!({ "Item": key("attempt#d/w/0", "7") }),
            "dynamodb/PutItem/attempt(unconditional)",
        ),
        ("DynamoDB_20120810.GetItem", json!({ "Key": key("run#d/w", "0#row") }), "dynamodb/GetItem/row"),
        (
            "DynamoDB_20120810.TransactWriteItems",
            json!({ "TransactItems": [
                { "Put": put("0#1") },
                { "Update": { "Key": key("run#d/w", "0#row"), "ConditionExpression": "x" } },
            ]}),
            "dynamodb/TransactWriteItems/batch+row",
        ),
        (
            "DynamoDB_20120810.Query",
            json!({ "ExpressionAttributeValues": { ":p": { "S": "run#d/w" }, ":from": { "S": "0#7" }, ":to": { "S": "0#:" } } }),
            "dynamodb/Query/history",
        ),
        (
            "DynamoDB_20120810.Query",
            json!({ "ExpressionAttributeValues": { ":p": { "S": "run#d/w" }, ":from": { "S": "0" }, ":to": { "S": ":" } } }),
            "dynamodb/Query/newest",
        ),
        ("DynamoDB_20120810.Query", json!({ "IndexName": "by_due" }), "dynamodb/Query/by_due"),
        ("AmazonSQS.ReceiveMessage", json!({ "QueueUrl": "http://x/0/run.fifo" }), "sqs/ReceiveMessage/@run.fifo"),
        (
            "AmazonSQS.SendMessage",
            json!({ "QueueUrl": "http://x/0/run.fifo", "MessageBody": "{\"kind\":\"accepted\"}" }),
            "sqs/SendMessage/accepted@run.fifo",
        ),
        (
            "AmazonSQS.SendMessage",
            json!({ "QueueUrl": "http://x/0/q", "MessageBody": "{\"kind\":\"take\",\"arrival\":{\"kind\":\"signal\"}}" }),
            "sqs/SendMessage/take.signal@q",
        ),
        ("AWSEvents.PutEvents", json!({}), "AWSEvents/PutEvents/"),
    ] {
        assert_eq!(called("POST /", &target(of), body).await, expected);
    }
    let signed = scope("s3");
    let s3 = |more: &'static [(&'static str, &'static str)]| {
        let mut headers = vec![("authorization", signed.as_str())];
        headers.extend(more);
        headers
    };
    for (line, more, expected) in [
        ("PUT /b/p/n/w/0/log/00000000000000000001", &[("if-none-match", "*")][..], "s3/PutObject/batch(conditional)"),
        ("PUT /b/p/.rows/n/w/0", &[("if-match", "e")], "s3/PutObject/row(conditional)"),
        ("PUT /b/p/messages/x", &[], "s3/PutObject/message"),
        ("GET /b/p/n/w/0/attempts/1", &[], "s3/GetObject/attempt"),
        ("GET /b?list-type=2&prefix=p%2Fn%2Fw%2F0%2Flog%2F", &[], "s3/ListObjectsV2/batch"),
        ("POST /b?delete", &[], "s3/DeleteObjects/other"),
        ("PUT /b", &[], "s3/CreateBucket/other"),
    ] {
        assert_eq!(called(line, &s3(more), Value::Null).await, expected);
    }
    let input = json!({ "Target": { "Input": "{\"kind\":\"alarm\"}" } });
    for (line, headers, body, expected) in [
        ("POST /schedules/x", &[][..], input, "scheduler/CreateSchedule/alarm"),
        ("DELETE /schedules/x?groupName=g", &[], Value::Null, "scheduler/DeleteSchedule/"),
        ("POST /2015-03-31/functions/orchestrator/invocations", &[], Value::Null, "lambda/Invoke/orchestrator"),
        ("GET /2018-06-01/runtime/invocation/next", &[], Value::Null, "lambda-runtime/Next/"),
        ("POST /2018-06-01/runtime/invocation/1/response", &[], Value::Null, "lambda-runtime/Response/"),
        ("GET /v1/workflows", &[], Value::Null, "http/GET/"),
    ] {
        assert_eq!(called(line, headers, body).await, expected);
    }
}

#[tokio::test]
async fn what_no_rule_wants_passes_as_it_is() {
    let (service, proxy) = start().await;
    proxy.rule(Rule::every("s3", Action::Close));
    for number in 1..=5 {
        let came = dynamodb(&proxy, "PutItem", put("0#1")).await.unwrap();
        assert_eq!((came.status, &came.json()["number"]), (200, &json!(number)));
        assert!(came.head.contains("x-of: service"), "{came:?}");
    }
    let expected = Arrived { line: "POST /".into(), host: "signed.example".into(), body: put("0#1").to_string() };
    assert_eq!(service.arrived(), vec![expected; 5]);
    let tally = Tally { came: 5, forwarded: 5, answers: BTreeMap::from([(200, 5)]), ..Tally::default() };
    let counts = Counts { requests: BTreeMap::from([("dynamodb/PutItem/batch".into(), tally)]), ..Counts::default() };
    assert_eq!(proxy.reset(), counts);
    assert_eq!(proxy.counts(), Counts::default());
}

/// Each action on one conditional put: what the client sees, and how often the service was asked.
#[tokio::test]
async fn each_action_does_what_it_says() {
    for (action, status, asked) in [
        (Action::Refuse(Refusal::Internal), Some(500), 0),
        (Action::LandThenRefuse(Refusal::Internal), Some(500), 1),
        (Action::Close, None, 0),
        (Action::DropAnswer, None, 1),
        (Action::Twice, Some(200), 2),
        (Action::Spoil(Spoiled::Null), Some(200), 1),
    ] {
        let (service, proxy) = start().await;
        let struck = proxy.rule(Rule::once("dynamodb/PutItem/batch", action.clone()).after(1));
        assert_eq!(proxy.outstanding().len(), 1);
        // Another kind, then one that is let pass.
        dynamodb(&proxy, "PutItem", put("0#row")).await.unwrap();
        assert_eq!(dynamodb(&proxy, "PutItem", put("0#0")).await.unwrap().status, 200);
        assert_eq!((service.times(), struck.times()), (2, 0));
        let came = dynamodb(&proxy, "PutItem", put("0#1")).await;
        assert_eq!(came.as_ref().map(|came| came.status), status, "{action:?}: {came:?}");
        assert_eq!((service.times(), struck.times()), (2 + asked, 1), "{action:?}");
        assert!(proxy.outstanding().is_empty());
        if action == Action::Twice {
            assert_eq!(came.unwrap().json()["number"], 4, "the second answer");
        }
        // It is used up.
        assert_eq!(dynamodb(&proxy, "PutItem", put("0#1")).await.unwrap().status, 200);
        let tally = proxy.counts().of("dynamodb/PutItem/batch");
        let forwarded = asked as u64 + 2;
        let answers = BTreeMap::from([(200, forwarded)]);
        assert_eq!(tally, Tally { came: 3, forwarded, struck: 1, answers, unanswered: 0 }, "{action:?}");
    }
}

#[tokio::test]
async fn slow_answers_and_late_requests_take_their_time() {
    let (service, proxy) = start().await;
    proxy.rule(Rule::once("dynamodb", Action::Slow(200)));
    let began = Instant::now();
    assert_eq!(dynamodb(&proxy, "PutItem", put("0#1")).await.unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
    proxy.rule(Rule::once("dynamodb", Action::LandLater(200)));
    assert_eq!(dynamodb(&proxy, "PutItem", put("0#2")).await, None);
    assert_eq!(service.times(), 1, "not yet");
    while service.times() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(service.arrived()[1].body.contains("0#2"));
}

/// What was forwarded arrives, although whoever sent it has hung up.
#[tokio::test]
async fn a_client_that_hangs_up_takes_nothing_back() {
    let (service, proxy) = start().await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(proxy.url().strip_prefix("http://").unwrap()).await.unwrap();
        let body = put("0#1").to_string();
        let head = "POST / HTTP/1.1\r\nhost: h\r\nx-amz-target: DynamoDB_20120810.PutItem\r\ncontent-length";
        stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        while proxy.counts().of("dynamodb").came == 0 {
            tokio::task::yield_now().await;
        }
        drop(stream);
        while proxy.counts().of("dynamodb").answers.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(proxy.reset());
    }
    assert_eq!(service.times(), 20);
}

#[tokio::test]
async fn spoiled_answers_are_spoiled_as_said() {
    let (_, proxy) = start().await;
    let whole = dynamodb(&proxy, "GetItem", json!({})).await.unwrap();
    for (how, expected) in [(Spoiled::Empty, ""), (Spoiled::Null, "null"), (Spoiled::NoFields, "{}")] {
        proxy.rule(Rule::once("dynamodb", Action::Spoil(how)));
        let came = dynamodb(&proxy, "GetItem", json!({})).await.unwrap();
        assert_eq!((came.status, came.body.as_str()), (200, expected));
        assert!(came.head.contains(&format!("content-length: {}", expected.len())), "{came:?}");
    }
    proxy.rule(Rule::once("dynamodb", Action::Spoil(Spoiled::Half)));
    let came = dynamodb(&proxy, "GetItem", json!({})).await.unwrap();
    assert_eq!(came.body, whole.body[..whole.body.len() / 2]);
    assert!(came.head.contains(&format!("content-length: {}", whole.body.len())), "{came:?}");
}

#[tokio::test]
async fn refusals_speak_the_services_language() {
    let (service, proxy) = start().await;
    for (refusal, status, code) in [
        (Refusal::Conflict, 400, "TransactionConflictException"),
        (Refusal::Precondition, 400, "ConditionalCheckFailedException"),
        (Refusal::Internal, 500, "InternalServerError"),
        (Refusal::Unavailable, 503, "ServiceUnavailable"),
        (Refusal::Throttled, 400, "ProvisionedThroughputExceededException"),
        (Refusal::Code(400, "ThrottlingException".into()), 400, "ThrottlingException"),
    ] {
        proxy.rule(Rule::once("dynamodb", Action::Refuse(refusal)));
        let came = dynamodb(&proxy, "PutItem", put("0#1")).await.unwrap();
        let spoken = came.json()["__type"].as_str().unwrap().to_owned();
        assert_eq!((came.status, spoken.split('#').next_back().unwrap()), (status, code));
    }
    let transaction = json!({ "TransactItems": [{ "Put": put("0#1") }, { "Put": put("0#row") }] });
    for (refusal, reason) in [
        (Refusal::Conflict, "TransactionConflict"),
        (Refusal::Precondition, "ConditionalCheckFailed"),
        (Refusal::Canceled("ThrottlingError".into()), "ThrottlingError"),
    ] {
        proxy.rule(Rule::once("dynamodb", Action::Refuse(refusal)));
        let came = dynamodb(&proxy, "TransactWriteItems", transaction.clone()).await.unwrap();
        assert_eq!(came.status, 400);
        assert!(came.json()["__type"].as_str().unwrap().ends_with("#TransactionCanceledException"));
        assert_eq!(came.json()["CancellationReasons"], json!([{ "Code": reason }, { "Code": "None" }]));
    }
    for (refusal, status, code) in [
        (Refusal::Conflict, 409, "ConditionalRequestConflict"),
        (Refusal::Precondition, 412, "PreconditionFailed"),
        (Refusal::Internal, 500, "InternalError"),
        (Refusal::Throttled, 503, "SlowDown"),
    ] {
        proxy.rule(Rule::once("s3", Action::Refuse(refusal)));
        let came = s3(&proxy, "PUT /b/k", &[]).await.unwrap();
        assert_eq!(came.status, status);
        assert!(came.body.contains(&format!("<Code>{code}</Code>")), "{came:?}");
    }
    proxy.rule(Rule::once("sqs", Action::Refuse(Refusal::Throttled)));
    let came = sqs(&proxy, "SendMessage", json!({ "MessageBody": "x" })).await.unwrap();
    assert_eq!((came.status, &came.json()["__type"]), (400, &json!("com.amazonaws.sqs#RequestThrottled")));
    assert!(came.head.contains("x-amzn-query-error: RequestThrottled;Sender"), "{came:?}");
    assert_eq!(service.times(), 0);
}

fn entry(id: &str, kind: &str) -> Value {
    json!({ "Id": id, "MessageBody": json!({ "kind": kind }).to_string(), "MessageGroupId": "g", "MessageDeduplicationId": id })
}

#[tokio::test]
async fn messages_are_lost_doubled_and_refused_one_by_one() {
    let (service, proxy) = start().await;
    let url = "http://x/0/run.fifo";
    let single = |kind: &str| {
        let mut body = entry("d", kind);
        body["QueueUrl"] = url.into();
        body
    };
    proxy.rule(Rule::once("sqs/message/accepted@run.fifo", Action::Swallow));
    proxy.rule(Rule::once("sqs/message/arrived@*", Action::Double));
    proxy.rule(Rule::once("sqs/message/sweep@*", Action::Refuse(Refusal::Throttled)));
    // A lost one is answered like any other.
    let came = sqs(&proxy, "SendMessage", single("accepted")).await.unwrap();
    assert_eq!((came.status, service.times()), (200, 0));
    // md5sum of {"kind":"accepted"}
    assert_eq!(came.json()["MD5OfMessageBody"], "ef2f0e56dcce629e304aa1f0e6b2cb77");
    assert_eq!(sqs(&proxy, "SendMessage", single("accepted")).await.unwrap().status, 200);
    assert_eq!(service.times(), 1, "once");
    // A doubled one is two messages, not one said twice.
    assert_eq!(sqs(&proxy, "SendMessage", single("arrived")).await.unwrap().json()["number"], 2);
    let ids: Vec<_> = service.arrived()[1..]
        .iter()
        .map(|arrived| {
            let body: Value = serde_json::from_str(&arrived.body).unwrap();
            assert_eq!(body["MessageBody"], single("arrived")["MessageBody"]);
            body["MessageDeduplicationId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids, ["d", "d-again"]);
    assert_eq!(sqs(&proxy, "SendMessage", single("sweep")).await.unwrap().status, 400);
    assert_eq!(service.times(), 3);

    // The same in a batch of four: only the other one and the doubled one arrive.
    proxy.clear();
    proxy.rule(Rule::once("sqs/message/accepted@run.fifo", Action::Swallow));
    proxy.rule(Rule::once("sqs/message/arrived@*", Action::Double));
    proxy.rule(Rule::once("sqs/message/sweep@*", Action::Refuse(Refusal::Throttled)));
    drop(proxy.reset());
    let kinds = ["accepted", "arrived", "sweep", "intent"];
    let batch = json!({ "QueueUrl": url, "Entries": kinds.map(|kind| entry(kind, kind)) });
    let came = sqs(&proxy, "SendMessageBatch", batch).await.unwrap().json();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|entry| entry["Id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&came["Successful"]), ["arrived", "intent", "accepted"]);
    assert_eq!(ids(&came["Failed"]), ["sweep"]);
    let sent = |n: usize| serde_json::from_str::<Value>(&service.arrived()[n].body).unwrap()["Entries"].clone();
    assert_eq!((ids(&sent(3)), ids(&sent(4))), (vec!["arrived".into(), "intent".into()], vec!["arrived".into()]));
    assert_eq!(sent(4)[0]["MessageDeduplicationId"], "arrived-again");
    assert_eq!(proxy.outstanding(), []);
    let counts = proxy.counts();
    assert_eq!((counts.sent("sqs/message/*@run.fifo"), counts.sent("sqs/message/sweep@*")), (4, 1));
    assert_eq!((counts.came("sqs"), counts.of("sqs/SendMessageBatch").forwarded), (1, 2));
}

#[tokio::test]
async fn requests_with_entries_succeed_in_part() {
    let (service, proxy) = start().await;
    proxy.rule(Rule::every("sqs/DeleteMessageBatch", Action::Partial));
    proxy.rule(Rule::every("dynamodb/Batch*", Action::Partial));
    let entries = json!([{ "Id": "1", "ReceiptHandle": "r1" }, { "Id": "2", "ReceiptHandle": "r2" }]);
    let batch = |entries: &Value| json!({ "QueueUrl": "http://x/0/q", "Entries": entries });
    let came = sqs(&proxy, "DeleteMessageBatch", batch(&entries)).await.unwrap().json();
    assert_eq!((&came["Failed"][0]["Id"], &came["Successful"]), (&json!("1"), &json!([{ "Id": "2" }])));
    assert_eq!(service.arrived()[0].body, batch(&json!([entries[1]])).to_string());
    // Nothing is left of one.
    let came = sqs(&proxy, "DeleteMessageBatch", batch(&json!([entries[0]]))).await.unwrap().json();
    assert_eq!((&came["Failed"][0]["Id"], service.times()), (&json!("1"), 1));
    let writes = json!([{ "PutRequest": { "Item": 1 } }, { "PutRequest": { "Item": 2 } }]);
    let came = dynamodb(&proxy, "BatchWriteItem", json!({ "RequestItems": { "t": writes } })).await.unwrap().json();
    assert_eq!(came["UnprocessedItems"], json!({ "t": [writes[0]] }));
    assert_eq!(service.arrived()[1].body, json!({ "RequestItems": { "t": [writes[1]] } }).to_string());
    let keys = json!({ "t": { "Keys": [1, 2, 3], "ConsistentRead": true } });
    let came = dynamodb(&proxy, "BatchGetItem", json!({ "RequestItems": keys })).await.unwrap().json();
    assert_eq!(came["UnprocessedKeys"], json!({ "t": { "Keys": [1], "ConsistentRead": true } }));
}

#[tokio::test]
async fn schedules_are_lost_too() {
    let (service, proxy) = start().await;
    proxy.rule(Rule::once("scheduler/CreateSchedule/alarm", Action::Swallow));
    let body = json!({ "Target": { "Input": "{\"kind\":\"alarm\"}" } }).to_string();
    let came = send(&proxy.url(), "POST /schedules/name", &[], &body).await.unwrap();
    assert_eq!((came.status, service.times()), (200, 0));
    assert!(came.json()["ScheduleArn"].as_str().unwrap().ends_with("/name"));
    send(&proxy.url(), "POST /schedules/name", &[], &body).await.unwrap();
    assert_eq!(service.times(), 1);
}

#[tokio::test]
async fn chance_repeats_with_its_seed() {
    let mut patterns = Vec::new();
    for seed in [1, 1, 2] {
        let (_, proxy) = start().await;
        let struck = proxy.rule(Rule::sometimes("dynamodb", 300, seed, Action::Close));
        let mut pattern = Vec::new();
        for _ in 0..100 {
            pattern.push(dynamodb(&proxy, "PutItem", put("0#1")).await.is_none());
        }
        let closed = pattern.iter().filter(|closed| **closed).count();
        assert_eq!(struck.times(), closed as u64);
        assert!((10..=50).contains(&closed), "{closed} of 100");
        patterns.push(pattern);
    }
    assert_eq!(patterns[0], patterns[1]);
    assert_ne!(patterns[0], patterns[2]);
}

/// A crowd of clients: nothing is counted twice, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_in_a_crowd() {
    let (service, proxy) = start().await;
    let (service, proxy) = (Arc::new(service), Arc::new(proxy));
    let dropped = proxy.rule(Rule::every("dynamodb/PutItem/batch", Action::DropAnswer).times(50));
    let refused = proxy.rule(Rule::every("dynamodb/PutItem/batch", Action::Refuse(Refusal::Internal)).times(70));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let proxy = Arc::clone(&proxy);
        clients.spawn(async move {
            let mut seen = [0; 3];
            for _ in 0..20 {
                let came = dynamodb(&proxy, "PutItem", put("0#1")).await;
                let which = came.map_or(0, |came| if came.status == 500 { 1 } else { 2 });
                seen[which] += 1;
            }
            seen
        });
    }
    let mut seen = [0; 3];
    while let Some(theirs) = clients.join_next().await {
        for (sum, one) in seen.iter_mut().zip(theirs.unwrap()) {
            *sum += one;
        }
    }
    assert_eq!((seen, dropped.times(), refused.times()), ([50, 70, 280], 50, 70));
    assert_eq!(service.times(), 330);
    let answers = BTreeMap::from([(200, 330)]);
    let tally = Tally { came: 400, forwarded: 330, struck: 120, answers, unanswered: 0 };
    assert_eq!(proxy.counts().of("dynamodb/PutItem/batch"), tally);
}

#[tokio::test]
async fn a_service_that_is_away_is_a_bad_gateway() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(&format!("http://{gone}")).await.unwrap();
    assert_eq!(dynamodb(&proxy, "PutItem", put("0#1")).await.unwrap().status, 502);
    let tally = proxy.counts().of("dynamodb");
    assert_eq!((tally.came, tally.forwarded, tally.unanswered), (1, 1, 1));
    assert!(Proxy::start("https://example.com").await.is_err());
}

#[tokio::test]
async fn it_is_steered_over_http() {
    let (service, proxy) = start().await;
    let ask = async |line: &str, body: &str| {
        let came = send(&proxy.url(), line, &[], body).await.unwrap();
        (came.status, came.json())
    };
    let rule = r#"{"on": "dynamodb/PutItem/batch", "action": "drop_answer", "skip": 1}"#;
    assert_eq!(ask("POST /__proxy/rules", rule).await.0, 200);
    let rule =
        r#"[{"on": "s3/PutObject", "about": "/log/", "action": {"refuse": {"code": [418, "Teapot"]}}, "times": null}]"#;
    assert_eq!(ask("POST /__proxy/rules", rule).await.0, 200);
    for wrong in ["", "{}", r#"{"on": "s3", "action": "dance"}"#, r#"{"on": "s3/*", "action": "swallow"}"#] {
        assert_eq!(ask("POST /__proxy/rules", wrong).await.0, 400, "{wrong}");
    }
    assert!(dynamodb(&proxy, "PutItem", put("0#1")).await.is_some());
    assert!(dynamodb(&proxy, "PutItem", put("0#1")).await.is_none());
    assert_eq!(s3(&proxy, "PUT /b/p/log/1", &[]).await.unwrap().status, 418);
    assert_eq!(s3(&proxy, "PUT /b/p/other/1", &[]).await.unwrap().status, 200);
    let (_, rules) = ask("GET /__proxy/rules", "").await;
    let struck: Vec<_> = rules.as_array().unwrap().iter().map(|rule| rule["struck"].clone()).collect();
    assert_eq!(struck, [1, 1]);
    // What it tells can be told it again.
    assert_eq!(read_rules(rules[1]["rule"].to_string().as_bytes()).unwrap(), [proxy.rules()[1].0.clone()]);
    let (_, counts) = ask("GET /__proxy/counts", "").await;
    assert_eq!(serde_json::from_value::<Counts>(counts).unwrap(), proxy.counts());
    assert_eq!(ask("POST /__proxy/reset", "").await.0, 200);
    assert_eq!(proxy.counts(), Counts::default());
    assert_eq!(ask("DELETE /__proxy/rules", "").await.0, 200);
    assert_eq!((proxy.rules().len(), service.times()), (0, 3));
    assert_eq!(ask("GET /__proxy/else", "").await.0, 404);
}
