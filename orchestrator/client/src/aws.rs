//! Signatures for APIs that ask IAM: AWS Signature Version 4, by Amazon's own crate.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::Request;
use reqwest::header::HeaderValue;
use tokio::sync::{Mutex, OnceCell};

use crate::address::Address;
use crate::error::ClientError;

/// Credentials that end sooner than this are renewed before they are used.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Signs requests with AWS credentials. Clones share what they loaded.
#[derive(Debug, Clone, Default)]
pub struct AwsSigner {
    region: Option<String>,
    loaded: Arc<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    config: OnceCell<SdkConfig>,
    credentials: Mutex<Option<Credentials>>,
}

/// *Making one*: [`new`](AwsSigner::new), [`from_config`](AwsSigner::from_config), [`region`](AwsSigner::region).
impl AwsSigner {
    /// Uses the standard chain of credentials and region; it is asked when the first request is sent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the credentials, region and clock of a configuration that the program has.
    #[must_use]
    pub fn from_config(config: &SdkConfig) -> Self {
        let loaded = Loaded { config: OnceCell::new_with(Some(config.clone())), credentials: Mutex::default() };
        Self { region: None, loaded: Arc::new(loaded) }
    }

    /// Signs for this region. Without it, the address says which, or else the configuration.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    pub(crate) async fn sign(&self, address: &Address, request: &mut Request) -> Result<(), ClientError> {
        let config = self.loaded.config.get_or_init(|| aws_config::load_defaults(BehaviorVersion::latest())).await;
        let configured = || config.region().map(|region| region.as_ref().to_owned());
        let region = self.region.clone().or_else(|| address.aws_region().map(ToOwned::to_owned)).or_else(configured);
        let region = region.ok_or_else(|| {
            ClientError::Invalid(format!(
                "{} does not tell its AWS region; say which it is (AWS_REGION, a profile, `AwsSigner::region`, on \
                 the command line --region)",
                address.as_str()
            ))
        })?;
        let now = config.time_source().unwrap_or_default().now();
        let identity = self.credentials(config, now).await?.into();
        let cannot = |error: &dyn Error| ClientError::Invalid(format!("the request cannot be signed: {error}"));
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&region)
            .name(address.aws_service())
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| cannot(&error))?
            .into();
        let headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .map(|(name, value)| value.to_str().map(|value| (name.as_str(), value)))
            .collect::<Result<_, _>>()
            .map_err(|error| cannot(&error))?;
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            headers.into_iter(),
            SignableBody::Bytes(body),
        )
        .map_err(|error| cannot(&error))?;
        let (instructions, _) = sign(signable, &parameters).map_err(|error| cannot(&error))?.into_parts();
        // The signature stands in headers; there are no query parameters to add.
        let (signed, _) = instructions.into_parts();
        for header in signed {
            let mut value = HeaderValue::from_str(header.value()).map_err(|error| cannot(&error))?;
            value.set_sensitive(header.sensitive());
            request.headers_mut().insert(header.name(), value);
        }
        Ok(())
    }

    /// The chain is asked again only when what it gave is about to end; whoever comes meanwhile waits for its answer.
    async fn credentials(&self, config: &SdkConfig, now: std::time::SystemTime) -> Result<Credentials, ClientError> {
        let mut kept = self.loaded.credentials.lock().await;
        let lasts = |credentials: &&Credentials| credentials.expiry().is_none_or(|end| end > now + RENEW_BEFORE);
        if let Some(credentials) = kept.as_ref().filter(lasts) {
            return Ok(credentials.clone());
        }
        let provider = config
            .credentials_provider()
            .ok_or_else(|| ClientError::Credentials("the configuration has no credentials provider".into()))?;
        let credentials =
            provider.provide_credentials().await.map_err(|error| ClientError::Credentials(causes(&error)))?;
        *kept = Some(credentials.clone());
        Ok(credentials)
    }
}

/// An error with its causes: the chain's own message says little.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
