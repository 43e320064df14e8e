//! Where tests find an S3, or what speaks its protocol.

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
