//! What users put in and get out, as JSON text: read by people, by other languages, and stored as it came.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::misfit::Misfit;

/// The longest JSON text of one value, in bytes: the argument of an activity, a result, a published value. The same in
/// every build that replays a history: what was refused when it happened is refused on replay.
pub const MAX_PAYLOAD_BYTES: usize = 2 * 1024 * 1024;

/// How deeply arrays and objects may be nested in one value: well below what parsers of other languages bear, and what our
/// own bear with an API's body around it. The same in every build that replays a history.
pub const MAX_PAYLOAD_DEPTH: usize = 64;

/// Where arrays and objects of a JSON text are nested more than so deeply for the first time, as an offset in bytes.
#[must_use]
pub fn nested_beyond(depth: usize, json: &[u8]) -> Option<usize> {
    let (mut open, mut in_string, mut escaped) = (0_usize, false, false);
    json.iter().position(|byte| {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => open += 1,
            (false, b']' | b'}') => open = open.saturating_sub(1),
            _ => {}
        }
        open > depth
    })
}

pub(crate) fn unknown_encoding(encoding: &str) -> String {
    format!("the value is encoded as {encoding:?}, which this build does not read")
}

/// One JSON value as bytes; or bytes of another encoding, which this build keeps and shows as such. Cloning is cheap.
///
/// No larger than the bytes alone, since failures and events hold many: what is not JSON begins with a zero byte, as no
/// JSON does, then the length of the encoding's name, the name, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// JSON `null`: the payload of `()`.
    pub const NULL: Payload = Payload(Bytes::from_static(b"null"));

    /// Reads the value that a type expects.
    ///
    /// # Errors
    /// The first place at which it does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Misfit> {
        // What does not fit is read twice: the way to it is only kept track of when somebody asks.
        if let Some(encoding) = self.encoding() {
            return Err(Misfit { pointer: String::new(), problem: unknown_encoding(encoding) });
        }
        serde_json::from_slice(self.as_bytes()).or_else(|_| Misfit::find(self.as_bytes()))
    }

    /// Bytes that are known to be one JSON value, because this crate or the HTTP door checked them.
    #[must_use]
    pub fn from_json(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Bytes of another encoding, by its name: of 255 bytes at most, what is longer is cut.
    #[must_use]
    pub fn encoded(encoding: &str, bytes: &[u8]) -> Self {
        let name = &encoding[..encoding.floor_char_boundary(usize::from(u8::MAX))];
        Self([&[0, name.len() as u8], name.as_bytes(), bytes].concat().into())
    }

    /// The encoding's name and the bytes, when it is not JSON.
    fn other(&self) -> Option<(&str, &[u8])> {
        let [0, length, rest @ ..] = &*self.0 else { return None };
        let (name, bytes) = rest.split_at_checked(usize::from(*length))?;
        Some((std::str::from_utf8(name).ok()?, bytes))
    }

    /// The name of the encoding; none for JSON.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        self.other().map(|(encoding, _)| encoding)
    }

    /// The JSON text, or what else it is, as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.other().map_or(&self.0, |(_, bytes)| bytes)
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// A payload is never empty; this is for `clippy` and for completeness.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The JSON text; `None` when it is none, but of another encoding, or damaged.
    #[must_use]
    pub fn as_json(&self) -> Option<&RawValue> {
        self.encoding().is_none().then(|| serde_json::from_slice(self.as_bytes()).ok()).flatten()
    }

    /// For a field of an API's body that may be missing: `null` that is there is a value.
    ///
    /// # Errors
    /// What is there is no JSON.
    pub fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::deserialize(deserializer).map(Some)
    }

    /// The value as a JSON tree, for people. Text that is not JSON (a damaged store) is shown as a string, another
    /// encoding by its name and length.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        if let Some(encoding) = self.encoding() {
            return serde_json::json!({ "encoding": encoding, "bytes": self.len() });
        }
        serde_json::from_slice(self.as_bytes())
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(self.as_bytes()).into_owned()))
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

/// The JSON text as it came; another encoding by its name and length.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding() {
            None => f.write_str(&String::from_utf8_lossy(self.as_bytes())),
            Some(encoding) => write!(f, "{} bytes of {encoding}", self.len()),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoding() {
            None => write!(f, "Payload({})", String::from_utf8_lossy(self.as_bytes())),
            Some(encoding) => write!(f, "Payload({encoding}, {} bytes)", self.as_bytes().len()),
        }
    }
}

/// Within other JSON, the text as it came: no tree is made of it, so that no number and no order is lost.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_json() {
            Some(text) => text.serialize(serializer),
            None => self.to_value().serialize(serializer),
        }
    }
}

/// From other JSON, the text as it stands there. Only `serde_json` gives that, and not through `flatten` or `tag`.
impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(Box::<RawValue>::deserialize(deserializer)?))
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(text: Box<RawValue>) -> Self {
        Self::from_json(String::from(Box::<str>::from(text)).into())
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        Self::from_json(value.to_string().into())
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::NULL
    }
}

impl<C> minicbor::Encode<C> for Payload {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self.encoding() {
            None => e.bytes(self.as_bytes())?.ok(),
            Some(encoding) => e.array(2)?.str(encoding)?.bytes(self.as_bytes())?.ok(),
        }
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Payload {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.datatype()? == minicbor::data::Type::Bytes {
            return Ok(Self::from_json(Bytes::copy_from_slice(d.bytes()?)));
        }
        match d.array()? {
            Some(2) => Ok(Self::encoded(d.str()?, d.bytes()?)),
            _ => Err(minicbor::decode::Error::message("expected bytes, or an encoding and bytes")),
        }
    }
}
