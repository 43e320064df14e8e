//! The tests of these tests: what they are to find, they find.

use std::process::Command;
use std::sync::Arc;

use dormouse_engine::stores::object::ObjectStore;
use object_store::RetryConfig;

use super::commits::{ask, every_store};
use super::parts::{Setup, run, s3, service};

#[test]
fn a_commit_that_forgets_its_id_is_caught() {
    if service().is_none() {
        return;
    }
    for test in ["objects::s3_commits_survive_every_fault", "dynamo::dynamodb_commits_survive_every_fault"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env("DORMOUSE_PLANTED_BUG", "C1ForgetCommitId").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test") && !output.status.success(), "{test} does not notice: {text}");
    }
}

/// The engine would get over hidden retries, as it knows its own commits; the counts at the proxy show them.
#[tokio::test]
async fn a_store_that_retries_out_of_sight_is_caught() {
    let Some(setup) = Setup::new().await else { return };
    let table = tokio::spawn(async move {
        let retries = Arc::new(s3(&setup.proxy.url(), &setup.bucket, RetryConfig::default()));
        let store = ObjectStore::new(retries, &setup.prefix);
        let put = "s3/PutObject/batch(conditional)";
        ask(&store, &setup.truth(), &setup.proxy, &run("hidden"), put, every_store()).await;
    });
    let panic = table.await.expect_err("it is noticed").into_panic();
    let text = panic.downcast_ref::<String>().expect("an assertion's message");
    assert!(text.contains("Tally") || text.contains("case"), "{text}");
}
