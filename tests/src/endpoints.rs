//! Where tests find an S3 and a DynamoDB, or what speaks their protocols.

/// One of them. Its credentials are the environment's.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// A bucket that is there.
    pub bucket: String,
}

impl Endpoint {
    /// A client of the bucket that never retries.
    ///
    /// # Panics
    /// When the environment's settings do not make one.
    #[cfg(feature = "s3")]
    #[must_use]
    pub fn client(&self) -> object_store::aws::AmazonS3 {
        use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

        let never = object_store::RetryConfig { max_retries: 0, ..object_store::RetryConfig::default() };
        let builder = AmazonS3Builder::from_env().with_endpoint(&self.url).with_bucket_name(&self.bucket);
        builder
            .with_allow_http(true)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(never)
            .build()
            .unwrap()
    }

    /// What `DORMOUSE_TEST_S3_ENDPOINTS` names (`name=url,...`), or the one of `DORMOUSE_TEST_S3_ENDPOINT`; the bucket
    /// is `DORMOUSE_TEST_S3_BUCKET`, or "dormouse-test".
    ///
    /// # Panics
    /// When the variable has another form.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let bucket = set("DORMOUSE_TEST_S3_BUCKET").unwrap_or_else(|| "dormouse-test".into());
        let endpoint = |(name, url): (&str, &str)| Self { name: name.into(), url: url.into(), bucket: bucket.clone() };
        if let Some(several) = set("DORMOUSE_TEST_S3_ENDPOINTS") {
            let parts =
                several.split(',').map(|part| part.split_once('=').unwrap_or_else(|| panic!("{part:?}: name=url")));
            return parts.map(endpoint).collect();
        }
        set("DORMOUSE_TEST_S3_ENDPOINT").iter().map(|url| endpoint(("S3", url))).collect()
    }
}

/// A client of the DynamoDB at this address, which believes whoever asks.
#[cfg(feature = "aws")]
#[must_use]
pub fn dynamodb(url: &str) -> aws_sdk_dynamodb::Client {
    use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};

    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}
