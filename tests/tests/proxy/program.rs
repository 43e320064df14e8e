//! The proxy as a process, for processes that are not tests.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use dormouse_tests::proxy::Counts;
use serde_json::json;

use super::{Service, put, send};

/// Ends with its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fault_proxy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fault-proxy"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn the_program_listens_counts_and_spoils() {
    let service = Service::start().await;
    let mut rules = tempfile::NamedTempFile::new().unwrap();
    write!(rules, "{}", json!({ "on": "dynamodb/PutItem/batch", "action": "drop_answer" })).unwrap();
    let rules = rules.path().to_str().unwrap();
    let mut program = Program(fault_proxy(&["--upstream", &service.url, "--rules", rules]).spawn().unwrap());
    let mut url = String::new();
    BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let url = url.trim();

    let target = [("x-amz-target", "DynamoDB_20120810.PutItem")];
    let body = put("0#1").to_string();
    assert_eq!(send(url, "POST /", &target, &body).await, None);
    assert_eq!(send(url, "POST /", &target, &body).await.unwrap().status, 200);
    let counts: Counts =
        serde_json::from_value(send(url, "GET /__proxy/counts", &[], "").await.unwrap().json()).unwrap();
    let tally = counts.of("dynamodb/PutItem/batch");
    assert_eq!((tally.came, tally.forwarded, tally.struck, service.times()), (2, 2, 1, 2));
}

#[test]
fn the_program_says_what_is_wrong() {
    let help = fault_proxy(&["--help"]).output().unwrap();
    assert!(help.status.success());
    for word in ["--listen", "--upstream", "--rules", "/__proxy/rules"] {
        assert!(String::from_utf8_lossy(&help.stdout).contains(word), "{word}");
    }
    let mut wrong = tempfile::NamedTempFile::new().unwrap();
    write!(wrong, "{}", json!({ "on": "s3/*", "action": "swallow" })).unwrap();
    let wrong = wrong.path().to_str().unwrap();
    let upstream = ["--upstream", "http://127.0.0.1:9"];
    for (arguments, says) in [
        (vec!["--upstream", "https://example.com"], "is no http://host:port"),
        ([&upstream[..], &["--rules", "/nowhere"]].concat(), "/nowhere"),
        ([&upstream[..], &["--rules", wrong]].concat(), "is nothing to do on"),
    ] {
        let output = fault_proxy(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{arguments:?}: {output:?}");
    }
}
