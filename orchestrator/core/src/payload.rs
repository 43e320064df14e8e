//! What users put in and get out, as JSON text: read by people, by other languages, and stored as it came.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Failure;
use crate::misfit::Misfit;

/// The longest JSON text of one value, in bytes: the argument of an activity, a result, a published value. The same in
/// every build that replays a history: what was refused when it happened is refused on replay.
pub const MAX_PAYLOAD_BYTES: usize = 2 * 1024 * 1024;

/// One JSON value as bytes. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// JSON `null`: the payload of `()`.
    pub const NULL: Payload = Payload(Bytes::from_static(b"null"));

    /// Encodes a value.
    ///
    /// # Errors
    /// What the value's `Serialize` reports, or the type `PayloadTooLarge` beyond [`MAX_PAYLOAD_BYTES`]: failures that
    /// no retry can mend.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        match serde_json::to_vec(value) {
            Ok(bytes) if bytes.len() > MAX_PAYLOAD_BYTES => {
                Err(Self::too_large("value", bytes.len(), MAX_PAYLOAD_BYTES))
            }
            Ok(bytes) => Ok(Self(bytes.into())),
            Err(error) => Err(Failure::unplaced(format!("the value does not serialize to JSON: {error}"))
                .with_type("Serialization")
                .non_retryable()),
        }
    }

    /// Decodes the value that a user's type expects.
    ///
    /// # Errors
    /// A failure that no retry can mend, naming what did not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.read().map_err(|misfit| {
            Failure::unplaced(format!("the JSON does not fit the expected type: {misfit}"))
                .with_type("Deserialization")
                .non_retryable()
        })
    }

    /// The same, for those who ask where it does not fit.
    ///
    /// # Errors
    /// The first place at which it does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Misfit> {
        // What does not fit is read twice: the way to it is only kept track of when somebody asks.
        serde_json::from_slice(&self.0).or_else(|_| Misfit::find(&self.0))
    }

    /// The failure of a value beyond a limit.
    #[must_use]
    pub fn too_large(what: &str, length: usize, limit: usize) -> Failure {
        Failure::unplaced(format!(
            "the {what} is {length} bytes of JSON; the limit is {limit} (max_payload_bytes, at most {MAX_PAYLOAD_BYTES}). \
             Store it elsewhere and pass a reference."
        ))
        .with_type("PayloadTooLarge")
        .non_retryable()
    }

    /// Bytes that are known to be one JSON value, because this crate or the HTTP door checked them.
    #[must_use]
    pub fn from_json(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The JSON text as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A payload is never empty; this is for `clippy` and for completeness.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value as a JSON tree, for people. Text that is not JSON (a damaged store) is shown as a string.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0)
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&self.0).into_owned()))
    }

    /// Eight bytes that tell changed arguments from unchanged ones.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let hash = blake3::hash(&self.0);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({})", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        serde_json::to_vec(&value).map(|bytes| Self(bytes.into())).map_err(serde::de::Error::custom)
    }
}

impl<C> minicbor::Encode<C> for Payload {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Payload {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(Bytes::copy_from_slice(d.bytes()?)))
    }
}
