//! Requests that nobody should send, and the command line.

use std::process::Command;

use dormouse_tests::cloud::Cloud;
use dormouse_tests::hostile::{Target, assail};
use dormouse_tests::server::functions;
use dormouse_tests::tell;

/// Whoever gets past the gateway writes nothing unless he asks for something that makes sense.
pub async fn nonsense_is_refused(cloud: &Cloud) {
    drop(cloud.proxy.reset());
    let base = cloud.url().to_owned();
    let signed = "AWS4-HMAC-SHA256 Credential=dormouse/20261122/us-east-1/execute-api/aws4_request, \
                  SignedHeaders=host;x-amz-date, Signature=00";
    let sent = tokio::task::spawn_blocking(move || {
        let headers = [("Authorization", signed), ("X-Amz-Date", "20261122T000000Z")];
        assail(&Target { base: &base, headers: &headers, gateway: true })
    });
    let sent = sent.await.unwrap();
    let counts = cloud.proxy.reset();
    let written = ["dynamodb/Put*", "dynamodb/Update*", "dynamodb/Transact*", "sqs/Send*", "s3/Put*"];
    let written: u64 = written.iter().map(|kind| counts.came(kind)).sum();
    // The sweep may come in between: it writes nothing here, since nothing is overdue.
    assert_eq!(written, 0, "{counts:#?}");
    tell!("{sent} hostile requests through the gateway: refused, nothing written, nothing sent");
}

/// The same command line, with credentials of the environment.
pub fn the_command_line_reaches_it(cloud: &Cloud) {
    let run = |arguments: &[&str]| {
        let output = Command::new(functions())
            .args(arguments)
            .args(["--address", cloud.url(), "--auth", "aws", "--output", "json"])
            .envs([
                ("AWS_ACCESS_KEY_ID", "dormouse"),
                ("AWS_SECRET_ACCESS_KEY", "dormousesecret"),
                ("AWS_REGION", "us-east-1"),
            ])
            .env_remove("AWS_PROFILE")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let input = r#"{"month": "2026-11", "customers": 3}"#;
    run(&["workflow", "start", "--type", "statementsWorkflow", "--id", "by hand", "--input", input]);
    let result = run(&["workflow", "result", "by hand", "--wait", "30s"]);
    assert_eq!(result["result"], 3, "{result}");
    let described = run(&["workflow", "describe", "by hand"]);
    assert_eq!(described["status"], "Completed", "{described}");
}
