//! Values into payloads and back, and what is said where that fails.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::payload::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Payload, nested_beyond, unknown_encoding};

impl Payload {
    /// Encodes a value.
    ///
    /// # Errors
    /// What the value's `Serialize` reports, or the types `PayloadTooLarge` beyond [`MAX_PAYLOAD_BYTES`] and
    /// `PayloadTooDeep` beyond [`MAX_PAYLOAD_DEPTH`]: failures that
    /// no retry can mend.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        match serde_json::to_vec(value) {
            Ok(bytes) if bytes.len() > MAX_PAYLOAD_BYTES => {
                Err(Self::too_large("value", bytes.len(), MAX_PAYLOAD_BYTES))
            }
            Ok(bytes) => {
                let payload = Self::from_json(bytes.into());
                payload.check_depth()?;
                Ok(payload)
            }
            Err(error) => Err(Failure::unplaced(format!("the value does not serialize to JSON: {error}"))
                .with_type("Serialization")
                .non_retryable()),
        }
    }

    /// Whether it may be stored as it is, for its depth: this program's own values are asked as they are encoded.
    ///
    /// # Errors
    /// The type `PayloadTooDeep` beyond [`MAX_PAYLOAD_DEPTH`].
    pub fn check_depth(&self) -> Result<(), Failure> {
        if !self.is_too_deep() {
            return Ok(());
        }
        Err(Failure::unplaced(format!(
            "arrays and objects of the value are nested more than {MAX_PAYLOAD_DEPTH} deep (MAX_PAYLOAD_DEPTH). Make it \
             flatter, or the deep part a string."
        ))
        .with_type("PayloadTooDeep")
        .non_retryable())
    }

    pub(crate) fn is_too_deep(&self) -> bool {
        self.encoding().is_none() && nested_beyond(MAX_PAYLOAD_DEPTH, self.as_bytes()).is_some()
    }

    /// Decodes the value that a user's type expects.
    ///
    /// # Errors
    /// A failure that no retry can mend, naming what did not fit; the type `UnknownEncoding` when it is not JSON.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if let Some(encoding) = self.encoding() {
            return Err(Failure::unplaced(unknown_encoding(encoding)).with_type("UnknownEncoding").non_retryable());
        }
        self.read().map_err(|misfit| {
            Failure::unplaced(format!("the JSON does not fit the expected type: {misfit}"))
                .with_type("Deserialization")
                .non_retryable()
        })
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
}
