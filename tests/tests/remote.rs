//! The client against a deployed API: behind a gateway that checks signatures, and over TLS.
//!
//! The gateway here recomputes each signature with code of its own, which is held against Amazon's documented examples.
#![cfg(feature = "aws")]

#[path = "remote/command_line.rs"]
mod command_line;
#[path = "remote/gateway.rs"]
mod gateway;
#[path = "remote/sigv4.rs"]
mod sigv4;
#[path = "remote/tls.rs"]
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_async::time::TimeSource;
use dormouse::{Auth, AwsSigner, Client, ClientError, ListFilter};

use gateway::{GO, Gateway, app, doubling, status};

/// A clock that moves on by a second whenever it is looked at.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl TimeSource for Ticking {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// 2015-08-30T12:36:00Z
const THEN: u64 = 1_440_938_160;

/// Gives new credentials each time, which last so long.
#[derive(Debug)]
struct Issuing {
    lasting: Option<Duration>,
    issued: Arc<AtomicU64>,
}

impl ProvideCredentials for Issuing {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        let count = self.issued.fetch_add(1, Ordering::Relaxed);
        let Some(lasting) = self.lasting else {
            return Provided::ready(Err(CredentialsError::not_loaded("nobody is signed in")));
        };
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(THEN) + lasting;
        let token = Some(format!("token{count}"));
        let credentials = Credentials::new(format!("AKID{count}"), gateway::secret(count), token, Some(end), "test");
        Provided::ready(Ok(credentials))
    }
}

fn config(lasting: Option<Duration>, region: Option<&'static str>) -> (SdkConfig, Arc<AtomicU64>) {
    let issued = Arc::new(AtomicU64::new(0));
    let config = SdkConfig::builder()
        .credentials_provider(SharedCredentialsProvider::new(Issuing { lasting, issued: Arc::clone(&issued) }))
        .region(region.map(Region::new))
        .time_source(Ticking(AtomicU64::new(THEN)))
        .build();
    (config, issued)
}

fn signed(gateway: &Gateway, config: &SdkConfig) -> Client {
    Client::connect(&gateway.url, &app()).unwrap().auth(Auth::Aws(AwsSigner::from_config(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_conversation_is_signed() {
    let gateway = Gateway::open("eu-central-1", 0).await;
    let (config, issued) = config(Some(Duration::from_secs(3600)), Some("eu-central-1"));
    let client = signed(&gateway, &config);
    for id in ["order-1", "a/b", "..", "%2F ~ é🐭", "a+b&c=d?e#f"] {
        let handle = client.start(doubling, id, &1).await.unwrap();
        handle.signal(GO, &21).await.unwrap();
        assert_eq!(handle.result().await.unwrap(), 42, "{id}");
        assert_eq!(status(&handle).await, "done", "{id}");
        let filter = ListFilter { id_prefix: Some(id.into()), ..ListFilter::default() };
        assert_eq!(client.raw().list(&filter, 1).await.unwrap()[0].workflow_id, id);
        assert!(!handle.history().await.unwrap().is_empty());
    }
    assert_eq!(issued.load(Ordering::Relaxed), 1, "credentials are kept while they last");
    assert_eq!(gateway.refused(), 0);
}

/// Signatures grow old: each try has its own, for the same request.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_signed_again() {
    let gateway = Gateway::open("eu-central-1", 2).await;
    let (config, _) = config(Some(Duration::from_secs(3600)), Some("eu-central-1"));
    signed(&gateway, &config).start(doubling, "x", &1).await.unwrap();
    let seen = gateway.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.key == seen[0].key && one.key.is_some()));
    let dates: Vec<&str> = seen.iter().map(|one| one.date.as_str()).collect();
    assert_eq!(dates, ["20150830T123600Z", "20150830T123601Z", "20150830T123602Z"]);
    assert_eq!(gateway.refused(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_are_renewed() {
    let gateway = Gateway::open("eu-central-1", 0).await;
    let (config, issued) = config(Some(Duration::from_secs(30)), Some("eu-central-1"));
    let client = signed(&gateway, &config);
    for _ in 0..3 {
        client.raw().list(&ListFilter::default(), 1).await.unwrap();
    }
    assert_eq!(issued.load(Ordering::Relaxed), 3);
    assert_eq!(gateway.refused(), 0);
}

/// The gateway can refuse at all, and the error says what to look at.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_wrongly_or_not_at_all_is_turned_away() {
    let gateway = Gateway::open("eu-central-1", 0).await;
    let (config, _) = config(Some(Duration::from_secs(3600)), Some("eu-west-1"));
    let elsewhere = signed(&gateway, &config).raw().list(&ListFilter::default(), 1).await.unwrap_err();
    assert!(matches!(&elsewhere, ClientError::Denied(problem) if problem.status == 403), "{elsewhere:?}");
    for part in ["execute-api:Invoke", "region", "clock"] {
        assert!(elsewhere.to_string().contains(part), "{elsewhere}");
    }
    let unsigned = Client::connect(&gateway.url, &app()).unwrap().start(doubling, "x", &1).await.unwrap_err();
    assert!(unsigned.to_string().contains("--auth aws"), "{unsigned}");
    assert_eq!(gateway.refused(), 2);

    let there = Auth::Aws(AwsSigner::from_config(&config).region("eu-central-1"));
    let client = Client::connect(&gateway.url, &app()).unwrap().auth(there);
    client.raw().list(&ListFilter::default(), 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_or_region_nothing_is_sent() {
    let gateway = Gateway::open("eu-central-1", 0).await;
    let (nobody, _) = config(None, Some("eu-central-1"));
    let error = signed(&gateway, &nobody).raw().list(&ListFilter::default(), 1).await.unwrap_err();
    assert!(matches!(error, ClientError::Credentials(_)), "{error:?}");
    for part in ["nobody is signed in", "AWS_PROFILE", "aws sso login"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let (nowhere, _) = config(Some(Duration::from_secs(3600)), None);
    let error = signed(&gateway, &nowhere).raw().list(&ListFilter::default(), 1).await.unwrap_err();
    assert!(error.to_string().contains("--region"), "{error}");
    assert!(gateway.seen().is_empty());
}
