//! Where `dev` keeps everything: a directory, or an object store that this process owns meanwhile.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_engine::store::Store;
#[cfg(feature = "s3")]
use dormouse_engine::stores::object::{ObjectStore, OwnError, OwnerSettings, Ownership, Waiting};
use dormouse_engine::stores::sqlite::SqliteStore;

use crate::error::CliError;

/// An object store, as it is written on the command line: `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    bucket: String,
    prefix: String,
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err(
                "only s3://bucket/prefix is known: S3, and whatever speaks its protocol with conditional puts \
                        (AWS_ENDPOINT_URL says where)"
                    .into(),
            );
        };
        if !cfg!(feature = "s3") {
            return Err("this program was built without object stores; build it with `--features s3` (the feature \
                        `s3` of the crate dormouse)"
                .into());
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if bucket.is_empty() || !plain(bucket) {
            return Err("a bucket is missing or has other characters than letters, digits, '-', '_' and '.'; write \
                        s3://bucket/prefix"
                .into());
        }
        let empty = |part: &str| part.is_empty() && !prefix.is_empty();
        if !plain(prefix) || prefix.split('/').any(|part| part.starts_with('.') || empty(part)) {
            return Err("a prefix has letters, digits, '-', '_' and '.', in parts that '/' separates and that do not \
                        begin with '.'"
                .into());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// Where everything is kept.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// One SQLite file in this directory.
    Directory(PathBuf),
    /// Objects; if their owner dies, the next start waits so long.
    Objects(StoreUrl, Duration),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Objects(url, _) => url.fmt(f),
        }
    }
}

/// That nobody else writes where we do.
pub(crate) struct Ours {
    #[cfg(feature = "s3")]
    ownership: Option<Ownership>,
}

impl Place {
    /// Opens the store for this process alone. May wait for an owner that seems dead, and says so.
    pub(crate) async fn open(&self) -> Result<(Arc<dyn Store>, Ours), CliError> {
        match self {
            Self::Directory(dir) => {
                let ours = Ours {
                    #[cfg(feature = "s3")]
                    ownership: None,
                };
                Ok((Arc::new(SqliteStore::open(dir)?), ours))
            }
            #[cfg(feature = "s3")]
            Self::Objects(url, lease) => {
                let store = ObjectStore::s3(&url.bucket, &url.prefix, tokio::runtime::Handle::current())?;
                let settings = OwnerSettings { lease: *lease, ..OwnerSettings::default() };
                let waiting = |Waiting { holder, left }| {
                    let left = left.as_secs_f64().ceil();
                    tracing::warn!("owned by {holder}; waiting {left} s to see whether it lives");
                };
                let (store, ownership) =
                    store.own(&url.to_string(), settings, waiting).await.map_err(|error| explain(url, error))?;
                tracing::info!(epoch = ownership.epoch(), "{url} is ours");
                Ok((Arc::new(store), Ours { ownership: Some(ownership) }))
            }
            #[cfg(not(feature = "s3"))]
            Self::Objects(url, _lease) => Err(CliError::usage(format!("this program was built without {url}"))),
        }
    }
}

impl Place {
    /// Opens the store to read alone: beside the process that owns it, or where none does.
    pub(crate) fn look(&self) -> Result<Arc<dyn Store>, CliError> {
        match self {
            Self::Directory(dir) => Ok(Arc::new(SqliteStore::open_to_read(dir)?)),
            #[cfg(feature = "s3")]
            Self::Objects(url, _) => {
                Ok(Arc::new(ObjectStore::s3(&url.bucket, &url.prefix, tokio::runtime::Handle::current())?))
            }
            #[cfg(not(feature = "s3"))]
            Self::Objects(url, _) => Err(CliError::usage(format!("this program was built without {url}"))),
        }
    }

    /// Where it is written down whose code runs: beside the store, or where this machine keeps what need not last.
    pub(crate) fn trials(&self) -> PathBuf {
        match self {
            Self::Directory(dir) => dir.join("dormouse.trials"),
            Self::Objects(url, _) => {
                let name: String =
                    url.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
                std::env::temp_dir().join(format!("dormouse-{name}.trials"))
            }
        }
    }
}

impl Ours {
    /// Resolves when somebody else may write there from now on: why, and what to do.
    pub(crate) async fn lost(&self) -> CliError {
        #[cfg(feature = "s3")]
        if let Some(ownership) = &self.ownership {
            return CliError::new(ownership.lost().await)
                .hint("start it again when the store answers and no other process uses it; nothing is lost");
        }
        std::future::pending().await
    }

    /// Lets go, so that the next start need not wait. Nothing can be written any more.
    pub(crate) async fn release(&self) {
        #[cfg(feature = "s3")]
        if let Some(ownership) = &self.ownership
            && let Err(error) = ownership.release().await
        {
            tracing::warn!(%error, "the store was not released; the next start waits the lease out");
        }
    }
}

/// Where credentials are looked for last: what the machine itself gives out.
#[cfg(feature = "s3")]
const LAST_RESORT: &str = "/latest/api/token";

#[cfg(feature = "s3")]
fn explain(url: &StoreUrl, error: OwnError) -> CliError {
    let unreachable = matches!(error, OwnError::Store(_));
    let said = error.to_string();
    let error = CliError::from(error);
    if said.contains(LAST_RESORT) {
        CliError::new(format!(
            "no AWS credentials were found for {url}: there are none in the environment, and this machine gives out none"
        ))
        .hint(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if there is one), or run this where \
             the machine or container has a role. Profiles are not read here: eval \"$(aws configure \
             export-credentials --format env)\" sets the variables from one",
        )
    } else if unreachable {
        error.hint(
            "look at AWS_ENDPOINT_URL, AWS_REGION, the bucket, and the credentials (AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or the role of the machine or container)",
        )
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_is_refused_with_what_to_do() {
        for (text, says) in [("gs://bucket/prefix", "only s3://"), ("dormouse-data", "only s3://"), ("", "only s3://")]
        {
            assert!(text.parse::<StoreUrl>().unwrap_err().contains(says), "{text}");
        }
        let url = "s3://bucket/some/prefix".parse::<StoreUrl>();
        if !cfg!(feature = "s3") {
            assert!(url.unwrap_err().contains("--features s3"));
            return;
        }
        assert_eq!(url.unwrap().to_string(), "s3://bucket/some/prefix");
        assert_eq!("s3://bucket".parse::<StoreUrl>().unwrap().to_string(), "s3://bucket/");
        assert_eq!("s3://bucket/a/".parse::<StoreUrl>().unwrap().to_string(), "s3://bucket/a");
        for text in ["s3://", "s3:///a", "s3://buck et/a", "s3://b/../a", "s3://b//a", "s3://b/.rows", "s3://b/a?x=y"] {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }
}
