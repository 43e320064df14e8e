//! A stored record within JSON: base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A batch as it is stored; within JSON, base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord(pub Bytes);

impl From<Bytes> for StoredRecord {
    fn from(record: Bytes) -> Self {
        Self(record)
    }
}

impl Serialize for StoredRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for StoredRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let record = STANDARD
            .decode(&*text)
            .map_err(|error| serde::de::Error::custom(format_args!("a record is no base64: {error}")))?;
        Ok(Self(record.into()))
    }
}
