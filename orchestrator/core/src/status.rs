//! How a run stands, as listings and callers see it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The status of a run.
///
/// As a word that a person or a program gives ([`FromStr`]) it must be one that this build knows. As a word that is
/// stored or sent ([`Status::stored`], and `Deserialize`) it may be another build's: it is kept and shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Open.
    Running,
    /// Returned a result.
    Completed,
    /// Returned a failure.
    Failed,
    /// Ended because it was asked to.
    Canceled,
    /// Was ended from outside.
    Terminated,
    /// Handed over to a next run.
    ContinuedAsNew,
    /// Another build's word, which this one does not know.
    Unknown(StatusName),
}

impl Status {
    /// All that this build knows.
    pub const ALL: [Status; 6] =
        [Self::Running, Self::Completed, Self::Failed, Self::Canceled, Self::Terminated, Self::ContinuedAsNew];

    /// Whether the run has ended. One whose status is unknown has, as far as this build can tell: it runs no code of
    /// it. Where there is an index row, that it was closed at a time says more.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self != Self::Running
    }

    /// The name in JSON and in tables.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Terminated => "Terminated",
            Self::ContinuedAsNew => "ContinuedAsNew",
            Self::Unknown(name) => name.as_str(),
        }
    }

    /// The status with this name, whichever build gave it.
    #[must_use]
    pub fn stored(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == name)
            .unwrap_or_else(|| Self::Unknown(StatusName::new(name)))
    }
}

/// The name of a status that this build does not know: what fits [`StatusName::MAX_BYTES`] of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusName {
    bytes: [u8; Self::MAX_BYTES],
    length: u8,
}

impl StatusName {
    /// Names are short; of a longer one the beginning is kept.
    pub const MAX_BYTES: usize = 31;

    fn new(name: &str) -> Self {
        let end = (0..=name.len().min(Self::MAX_BYTES)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let mut bytes = [0; Self::MAX_BYTES];
        for (to, from) in bytes.iter_mut().zip(name.as_bytes().iter().take(end)) {
            *to = *from;
        }
        Self { bytes, length: u8::try_from(end).unwrap_or(0) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Cut at the end of a character.
        std::str::from_utf8(self.bytes.get(..usize::from(self.length)).unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Debug for StatusName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::stored(&std::borrow::Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Status {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The status of a run."))
            .enum_values(Some(Self::ALL.map(|status| status.as_str().to_owned())))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Status {}

/// The text names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no status; there are Running, Completed, Failed, Canceled, Terminated and ContinuedAsNew")]
pub struct UnknownStatus(String);

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_word_is_kept_and_a_given_one_must_be_known() {
        for status in Status::ALL {
            assert_eq!(Status::stored(status.as_str()), status);
            assert_eq!(status.as_str().to_lowercase().parse(), Ok(status));
        }
        let later: Status = serde_json::from_str("\"TimedOut\"").unwrap();
        assert_eq!((later.to_string().as_str(), later.is_closed()), ("TimedOut", true));
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"TimedOut\"");
        assert!("TimedOut".parse::<Status>().is_err(), "nobody can ask for it");
        assert_ne!(Status::stored("running"), Status::Running, "stored names are exact");
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let name = format!("{}\u{1F42D}", "x".repeat(StatusName::MAX_BYTES - 2));
        assert_eq!(Status::stored(&name).as_str(), &name[..StatusName::MAX_BYTES - 2]);
        assert_eq!(Status::stored("").as_str(), "");
    }
}
