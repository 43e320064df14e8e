//! The whole system, deployed from its template to an AWS on this machine, with the packaged program. Everything that its
//! functions ask of AWS passes a fault proxy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dormouse::{Auth, RawClient};
use dormouse_aws::blobs::Blobs;
use dormouse_aws::store::DynamoStore;
use dormouse_core::{MAX_PAYLOAD_BYTES, Payload};
use functions::ledger::{Entry, Ledger};
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::proxy::Proxy;
use crate::server::free_port;

/// A deployed system. Dropping it ends the emulator, and with it the functions.
#[derive(Debug)]
pub struct Cloud {
    dir: TempDir,
    port: u16,
    /// What functions ask passes here. Invocations and deliveries do not: AWS does those itself.
    pub proxy: Proxy,
    url: String,
    config: aws_config::SdkConfig,
    table: String,
}

/// The package that `DORMOUSE_TEST_PACKAGE` names; `scripts/package` makes one.
#[must_use]
pub fn package() -> Option<PathBuf> {
    std::env::var_os("DORMOUSE_TEST_PACKAGE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn script(name: &str, port: u16) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join("scripts").join(name));
    command.current_dir(root).env("LOCAL_AWS_PORT", port.to_string()).env_remove("AWS_PROFILE");
    command
}

/// What it printed, if it succeeded.
///
/// # Panics
/// When it did not.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl Cloud {
    /// Deploys a package, with parameters of the template (`Name=Value`).
    ///
    /// # Panics
    /// When it cannot be deployed.
    pub async fn deploy(package: &Path, parameters: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let proxy = Proxy::start(&format!("http://127.0.0.1:{port}")).await.unwrap();
        output(script("local-aws", port).args(["start", "ministack"]).env("LOCAL_AWS_FUNCTIONS_ENDPOINT", proxy.url()));
        let credentials = aws_config::Region::new("us-east-1");
        let config = aws_config::from_env()
            .region(credentials)
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(aws_sdk_dynamodb::config::Credentials::new(
                "dormouse",
                "dormousesecret",
                None,
                None,
                "test",
            ))
            .load()
            .await;
        let mut cloud = Self { dir, port, proxy, url: String::new(), config, table: String::new() };
        let package = package.to_str().unwrap();
        let ledger = format!("LedgerFile={}", cloud.dir.path().join("ledger.jsonl").display());
        let url = output(script("deploy", port).args(["--local", "--zip", package, &ledger]).args(parameters));
        url.trim().clone_into(&mut cloud.url);
        let tables = cloud.dynamodb().list_tables().send().await.unwrap().table_names.unwrap_or_default();
        cloud.table = tables.into_iter().next().unwrap();
        cloud
    }

    /// Where the API is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client that signs its requests.
    ///
    /// # Panics
    /// When the deployment printed no address.
    #[must_use]
    pub fn client(&self) -> RawClient {
        let signer = dormouse::AwsSigner::from_config(&self.config);
        RawClient::new(&self.url).unwrap().auth(Auth::Aws(signer))
    }

    /// The emulator's DynamoDB, past the proxy.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    /// The emulator's SQS, past the proxy.
    #[must_use]
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.config)
    }

    /// The emulator's Lambda, past the proxy.
    #[must_use]
    pub fn lambda(&self) -> aws_sdk_lambda::Client {
        aws_sdk_lambda::Client::new(&self.config)
    }

    /// The system's store, past the proxy. Nothing large is in it.
    #[must_use]
    pub fn store(&self) -> DynamoStore {
        let blobs = Blobs::new(std::sync::Arc::new(InMemory::new()), Handle::current());
        DynamoStore::new(self.dynamodb(), &self.table, blobs, Handle::current())
    }

    /// What activities have written.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn ledger(&self) -> Vec<Entry> {
        Ledger::at(self.dir.path().join("ledger.jsonl")).entries().unwrap()
    }

    /// Processes of functions with this role.
    ///
    /// # Panics
    /// When this system has no `/proc`.
    #[must_use]
    pub fn processes(&self, role: &str) -> Vec<u32> {
        let marks = [format!("GATEWAY_PORT={}", self.port), format!("DORMOUSE_ROLE={role}")];
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may have ended meanwhile.
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let variables: Vec<_> = environment.split(|byte| *byte == 0).collect();
            if marks.iter().all(|mark| variables.contains(&mark.as_bytes())) {
                found.push(pid);
            }
        }
        found
    }

    /// Ends a process at once. Whether it was there.
    ///
    /// # Panics
    /// When there is no `kill`.
    pub fn kill(&self, pid: u32) -> bool {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
    }

    /// Starts a workflow of the sample application.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn start(&self, workflow_type: &str, id: &str, input: serde_json::Value) {
        let body = dormouse::api::StartBody {
            workflow_type: workflow_type.into(),
            workflow_id: Some(id.into()),
            input: Payload::encode(&input).unwrap(),
            id_reuse_policy: dormouse::IdReusePolicy::default(),
            id_conflict_policy: dormouse::IdConflictPolicy::default(),
        };
        self.client().start(&body, None).await.unwrap();
    }

    /// Waits for a workflow's result.
    ///
    /// # Panics
    /// When it does not complete in time.
    pub async fn result(&self, id: &str, limit: Duration) -> serde_json::Value {
        let outcome = self.client().workflow(id, None).outcome(Some(limit)).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{id}: {error}\n{}", self.log()));
        outcome.result.unwrap_or_else(|| panic!("{id}: {:?} {:?}", outcome.status, outcome.failure)).to_value()
    }

    /// The end of the emulator's log, with what functions said.
    #[must_use]
    pub fn log(&self) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join(format!("../target/local-aws/{}/ministack.log", self.port));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Err(error) = script("local-aws", self.port).arg("stop").status() {
            eprintln!("the emulator at port {} was not stopped: {error}", self.port);
        }
    }
}

/// Half of what a payload may be: more than a message or an item can carry.
#[must_use]
pub fn large() -> Payload {
    Payload::encode(&"x".repeat(MAX_PAYLOAD_BYTES / 2)).expect("a text")
}
