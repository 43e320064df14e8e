//! Why a store did not answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a store did not answer. Two are the same if kind and text are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nobody knows whether it happened: a time-out, a broken connection, a server error, credentials that have
    /// expired. Sent again, it may succeed.
    #[error("the store did not answer ({0}); whether it wrote is unknown")]
    Unknown(#[source] Cause),
    /// It did not happen, and the same request would be refused again: by what it says itself, or by what stands
    /// there and cannot be read.
    #[error("the store refused: {0}")]
    Refused(#[source] Cause),
}

impl StoreError {
    /// [`StoreError::Unknown`] for this reason.
    pub fn unknown(cause: impl Into<Cause>) -> Self {
        Self::Unknown(cause.into())
    }

    /// [`StoreError::Refused`] for this reason.
    pub fn refused(cause: impl Into<Cause>) -> Self {
        Self::Refused(cause.into())
    }
}

/// What happened, as a text for people, and the error that it came of, if it came of one.
#[derive(Clone)]
pub struct Cause {
    text: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// This error, in its own words.
    pub fn of(source: impl Error + Send + Sync + 'static) -> Self {
        let text = source.to_string();
        Self::told(text, source)
    }

    /// This error, in these words.
    pub fn told(text: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self { text: text.into().into(), source: Some(Arc::new(source)) }
    }

    /// The text alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text: text.into(), source: None }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        Self { text: text.into(), source: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cause {}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_what_it_came_of() {
        let io = std::io::Error::other("the disk is full");
        let error = StoreError::unknown(Cause::told("no batch", io)).clone();
        assert_eq!(error.to_string(), "the store did not answer (no batch); whether it wrote is unknown");
        let mut chain = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
        assert!(chain.any(|error| error.is::<std::io::Error>()), "{error:?}");
        assert_eq!(error, StoreError::unknown("no batch"));
        assert_ne!(error, StoreError::refused("no batch"));
    }
}
