//! The command line with the standard chain of credentials, in a process of its own: the chain reads the environment.

use std::process::{Command, Output};

use crate::gateway::{Gateway, app, secret};

/// Where the child process finds its arguments, separated by spaces.
const ARGUMENTS: &str = "DORMOUSE_TEST_ARGUMENTS";

/// Not a test of its own: the process that the tests below start.
#[test]
fn child() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let code = dormouse::cli(app()).main_from(std::iter::once("app").chain(arguments.split(' ')));
        println!("\nended as {code:?}");
    }
}

async fn run(arguments: String, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "command_line::child", "--nocapture"]).env(ARGUMENTS, arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("DORMOUSE_A")) {
        child.env_remove(name);
    }
    child
        .envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied());
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    assert!(status.success());
    String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_chain_signs() {
    let gateway = Gateway::open("eu-central-1", 0).await;
    let secret = secret(7);
    let keys = [("AWS_ACCESS_KEY_ID", "AKID7"), ("AWS_SECRET_ACCESS_KEY", &secret), ("AWS_SESSION_TOKEN", "token7")];
    let list = format!("workflow list --output json --address {} --auth aws", gateway.url);

    let said = run(format!("{list} --region eu-central-1"), &keys).await;
    assert!(said.contains(&format!("ended as {:?}", std::process::ExitCode::SUCCESS)), "{said}");
    let said = run(list.clone(), &[&keys[..], &[("AWS_REGION", "eu-central-1")]].concat()).await;
    assert!(said.contains(&format!("ended as {:?}", std::process::ExitCode::SUCCESS)), "{said}");
    assert_eq!((gateway.seen().len(), gateway.refused()), (2, 0));

    let said = run(format!("{list} --region eu-central-1"), &[]).await;
    assert!(said.contains("no AWS credentials") && said.contains("AWS_PROFILE"), "{said}");
    let said = run(list, &keys).await;
    assert!(said.contains("--region"), "{said}");
    assert_eq!(gateway.seen().len(), 2, "nothing more was sent");
}

/// What `--auth` is unless told: signed at Amazon's names, which say their region; nobody answers there.
#[tokio::test(flavor = "multi_thread")]
async fn amazons_names_are_signed_for() {
    for host in ["a.execute-api.eu-central-1.amazonaws.com", "a.lambda-url.eu-central-1.on.aws"] {
        let said = run(format!("workflow list --address http://{host}:1"), &[]).await;
        assert!(said.contains("no AWS credentials"), "{said}");
    }
}
