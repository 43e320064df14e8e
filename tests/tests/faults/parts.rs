//! The service behind the proxy, and clients that go through it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::Opening;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_tests::endpoints::Endpoint;
use dormouse_tests::proxy::Proxy;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::{ClientOptions, RetryConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the clients of these tests wait for one answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Where the service listens; `None`, and a line that says so, when nobody was named.
pub fn service() -> Option<String> {
    let named = std::env::var("DORMOUSE_TEST_AWS_ENDPOINT").ok();
    if named.is_none() {
        dormouse_tests::tell!("SKIPPED: faults are tested only with DORMOUSE_TEST_AWS_ENDPOINT");
    }
    named
}

/// A proxy before a service, and a place for objects behind both.
pub struct Setup {
    pub endpoint: String,
    pub proxy: Proxy,
    pub bucket: String,
    /// Of objects; nobody else's.
    pub prefix: String,
}

impl Setup {
    /// Before all of AWS. `None`: skipped.
    pub async fn new() -> Option<Self> {
        let (endpoint, bucket) = (service()?, fresh("dormouse-faults"));
        make_bucket(&endpoint, &bucket).await;
        Some(Self::before(endpoint, bucket).await)
    }

    /// Before each S3 that is named, else before all of AWS. Empty: skipped.
    pub async fn each_s3() -> Vec<Self> {
        let endpoints = Endpoint::all();
        if endpoints.is_empty() {
            return Self::new().await.into_iter().collect();
        }
        futures::future::join_all(endpoints.into_iter().map(|Endpoint { url, bucket, .. }| Self::before(url, bucket)))
            .await
    }

    async fn before(endpoint: String, bucket: String) -> Self {
        let proxy = Proxy::start(&endpoint).await.unwrap();
        Self { endpoint, proxy, bucket, prefix: fresh("faults") }
    }

    /// A store of objects through the proxy, each request sent once.
    pub fn objects(&self) -> ObjectStore {
        let never = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        ObjectStore::new(Arc::new(s3(&self.proxy.url(), &self.bucket, never)), &self.prefix)
    }

    /// The same without the proxy: what truly is there.
    pub fn truth(&self) -> ObjectStore {
        ObjectStore::new(Arc::new(s3(&self.endpoint, &self.bucket, RetryConfig::default())), &self.prefix)
    }
}

/// The environment's credentials; imitations of AWS take any.
pub fn credentials() -> [(&'static str, String); 2] {
    let given = |name| (name, std::env::var(name).unwrap_or_else(|_| "test".into()));
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(given)
}

/// A client of a bucket.
pub fn s3(url: &str, bucket: &str, retries: RetryConfig) -> AmazonS3 {
    let [(_, id), (_, secret)] = credentials();
    AmazonS3Builder::new()
        .with_endpoint(url)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(PATIENCE))
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(id)
        .with_secret_access_key(secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retries)
        .build()
        .unwrap()
}

/// What the SDK's clients are made from, as it is, but for where the service is.
pub async fn sdk(url: &str) -> SdkConfig {
    let [(_, id), (_, secret)] = credentials();
    let credentials = Credentials::new(id, secret, None, None, "test");
    let loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    loader.endpoint_url(url).credentials_provider(credentials).load().await
}

/// Sixteen bytes that nobody else draws.
pub fn fresh_id() -> [u8; 16] {
    let half = |salt: u32| RandomState::new().hash_one((std::process::id(), salt)).to_le_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half(0));
    id[8..].copy_from_slice(&half(1));
    id
}

/// A name that nobody else uses.
pub fn fresh(start: &str) -> String {
    format!("{start}-{:032x}", u128::from_le_bytes(fresh_id()))
}

async fn make_bucket(endpoint: &str, bucket: &str) {
    let address = endpoint.strip_prefix("http://").expect("an endpoint http://host:port");
    let mut stream = TcpStream::connect(address.trim_end_matches('/')).await.expect("the service listens");
    let request = format!("PUT /{bucket} HTTP/1.1\r\nhost: s3\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

pub fn run(workflow_id: &str) -> RunKey {
    WorkflowKey::new("default", workflow_id).unwrap().run(0)
}

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub fn opening() -> Opening {
    Opening {
        run_id: RunId::from_bytes([7; 16]),
        workflow_type: "test".into(),
        started_at: at(1_000),
        due: at(900_000),
    }
}
