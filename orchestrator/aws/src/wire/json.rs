//! What `serde` does not do by itself: payloads that keep their bytes, nesting that costs no stack, exact numbers.

use bytes::Bytes;
use dormouse_core::Payload;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::WireError;

/// A number that is written as a string, and read as either.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// A value that is there is `Some`, also when it is `null`.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A number to its last bit, which `serde_json` does not promise by itself.
pub(super) fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    let number: f64 = text.parse().map_err(serde::de::Error::custom)?;
    if number.is_finite() { Ok(number) } else { Err(serde::de::Error::custom("a number beyond all bounds")) }
}

pub(super) fn malformed(error: impl std::fmt::Display) -> WireError {
    WireError::Malformed(error.to_string())
}

pub(super) fn raw(payload: &Payload) -> Result<&RawValue, WireError> {
    serde_json::from_slice(payload.as_bytes()).map_err(|error| malformed(format!("a payload is no JSON: {error}")))
}

pub(super) fn payload(raw: &RawValue) -> Payload {
    Payload::from_json(Bytes::copy_from_slice(raw.get().as_bytes()))
}

/// What this kind needs; other fields are nobody's.
pub(super) fn fields<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, WireError> {
    serde_json::from_str(body).map_err(malformed)
}
