//! How long a process takes from its start to its first answer: the packaged program against a Lambda runtime interface
//! that hands it one event.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dormouse_tests::tell;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const STARTS: usize = 15;
const MOST: Duration = Duration::from_millis(30);

/// An HTTP request as it is handed over by API Gateway's HTTP API, a function URL, and API Gateway's REST API.
fn events() -> [Value; 3] {
    let version_2 = |domain: &str| {
        json!({
            "version": "2.0", "routeKey": "$default", "rawPath": "/healthz", "rawQueryString": "",
            "headers": { "host": domain },
            "requestContext": {
                "accountId": "0", "apiId": "a", "domainName": domain, "domainPrefix": "a", "requestId": "r",
                "routeKey": "$default", "stage": "$default", "time": "12/Mar/2020:19:03:58 +0000",
                "timeEpoch": 1_583_348_638_390_u64,
                "http": {
                    "method": "GET", "path": "/healthz", "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4", "userAgent": "t",
                },
            },
            "isBase64Encoded": false,
        })
    };
    let rest = json!({
        "resource": "/{proxy+}", "path": "/healthz", "httpMethod": "GET", "headers": { "Host": "a.example.com" },
        "multiValueHeaders": { "Host": ["a.example.com"] }, "queryStringParameters": null,
        "multiValueQueryStringParameters": null, "pathParameters": { "proxy": "healthz" }, "stageVariables": null,
        "requestContext": {
            "accountId": "0", "apiId": "a", "resourceId": "r", "resourcePath": "/{proxy+}", "httpMethod": "GET",
            "requestId": "r", "stage": "prod", "path": "/prod/healthz", "protocol": "HTTP/1.1",
            "identity": { "sourceIp": "1.2.3.4" },
        },
        "body": null, "isBase64Encoded": false,
    });
    [version_2("a.execute-api.us-east-1.amazonaws.com"), version_2("a.lambda-url.us-east-1.on.aws"), rest]
}

/// Unpacks the program.
fn unpacked(package: &Path, dir: &Path) -> PathBuf {
    let unzipped = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(package).arg(dir).status().unwrap();
    assert!(unzipped.success());
    let program = dir.join("bootstrap");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program
}

/// Several starts, each answering another kind of event. Timings are told, not asserted.
pub async fn a_process_answers_soon(package: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let program = unpacked(package, dir.path());
    let (answered, mut answers) = mpsc::unbounded_channel();
    let turn = Arc::new(AtomicUsize::new(0));
    let next = move || {
        let turn = Arc::clone(&turn);
        async move {
            let event = &events()[turn.fetch_add(1, Ordering::SeqCst) % 3];
            let deadline = std::time::SystemTime::now() + Duration::from_secs(29);
            let deadline = deadline.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
            let headers = [
                ("lambda-runtime-aws-request-id", "r".to_owned()),
                ("lambda-runtime-deadline-ms", deadline.to_string()),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:0:function:f".to_owned()),
            ];
            (headers, event.to_string()).into_response()
        }
    };
    let answer = move |body: String| async move {
        answered.send((Instant::now(), body)).unwrap();
        // It has done what it was begun for.
        std::future::pending::<Response>().await
    };
    let routes = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(answer))
        .fallback(|| async { StatusCode::NOT_FOUND });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });

    let mut took = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut process = Command::new(&program)
            .env_clear()
            .envs([
                ("AWS_LAMBDA_RUNTIME_API", address.to_string().as_str()),
                ("AWS_LAMBDA_FUNCTION_NAME", "f"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "k"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("DORMOUSE_ROLE", "api"),
                ("DORMOUSE_TABLE", "t"),
                ("DORMOUSE_BUCKET", "b"),
                ("DORMOUSE_RUN_QUEUE_URL", "http://127.0.0.1/r.fifo"),
                ("DORMOUSE_ALARM_QUEUE_URL", "http://127.0.0.1/a"),
                ("DORMOUSE_ALARM_QUEUE_ARN", "arn:aws:sqs:us-east-1:0:a"),
                ("DORMOUSE_TASK_QUEUES", r#"{"default":"http://127.0.0.1/t"}"#),
                ("DORMOUSE_SCHEDULE_GROUP", "g"),
                ("DORMOUSE_SCHEDULE_ROLE_ARN", "arn:aws:iam::0:role/r"),
                ("DORMOUSE_DEAD_LETTERS_URL", "http://127.0.0.1/d"),
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (at, body) = tokio::time::timeout(Duration::from_secs(20), answers.recv()).await.unwrap().unwrap();
        took.push(at - began);
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["statusCode"], 200, "{body}");
    }
    serving.abort();
    took.sort();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len() as f64 / 1e6;
    tell!(
        "{:.2} MB zipped, {:.1} MB unzipped; from the start of a process to its first answer: {:?} to {:?}, median {:?} (bar {MOST:?})",
        size(package),
        size(&program),
        took[0],
        took[STARTS - 1],
        took[STARTS / 2],
    );
}
