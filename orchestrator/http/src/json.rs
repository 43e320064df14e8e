//! JSON as it comes in: one value, not nested too deeply, refused with the line and the column.

use bytes::Bytes;
use dormouse_core::{MAX_PAYLOAD_DEPTH, Payload, nested_beyond};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{Kind, Refused};

/// Reads a body of the API. Payloads in it are [checked](check) by themselves.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    // What is around a value, and enough of one that is too deep to say so of the value.
    check_depth(2 * MAX_PAYLOAD_DEPTH, bytes)?;
    serde_json::from_slice(bytes).map_err(|error| refused(&error))
}

/// Keeps a payload as the bytes that came, once they are known to be one JSON value. No bytes at all mean `null`.
pub(crate) fn payload(bytes: Bytes) -> Result<Payload, Refused> {
    if bytes.is_empty() {
        return Ok(Payload::NULL);
    }
    check(&bytes)?;
    Ok(Payload::from_json(bytes))
}

/// Whether every reader can read this value.
pub(crate) fn check(json: &[u8]) -> Result<(), Refused> {
    check_depth(MAX_PAYLOAD_DEPTH, json)?;
    // A full parse, although its result is dropped: skipping would let through lone surrogates and numbers out of
    // range, on which every later reader would fail.
    serde_json::from_slice::<Value>(json).map(drop).map_err(|error| refused(&error))
}

fn refused(error: &serde_json::Error) -> Refused {
    if error.is_data() {
        Kind::UnexpectedJson.because(format!("the body is JSON, but not as expected here: {error}"))
    } else {
        Kind::MalformedJson.because(format!("the body is not one JSON value: {error}"))
    }
}

/// Finds the first bracket that is nested too deeply, before a parser spends anything on the rest.
fn check_depth(depth: usize, json: &[u8]) -> Result<(), Refused> {
    let Some(at) = nested_beyond(depth, json) else { return Ok(()) };
    let (line, column) = position(&json[..at]);
    Err(Kind::NestedTooDeeply.because(format!(
        "arrays and objects may be nested {depth} deep; at line {line} column {column} they are deeper. Send a flatter \
         value, or the deep part as a string"
    )))
}

fn position(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (before.iter().filter(|byte| **byte == b'\n').count() + 1, before.len() - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_is_counted_outside_of_strings_only() {
        assert!(check_depth(64, nested(64).as_bytes()).is_ok());
        assert!(check_depth(64, nested(65).as_bytes()).is_err());
        assert!(check_depth(64, format!("\"{}\"", "[".repeat(100)).as_bytes()).is_ok());
        assert!(check_depth(64, format!(r#""\"{}""#, "[".repeat(100)).as_bytes()).is_ok());
        assert!(check_depth(64, format!(r#""\\"{}"#, "[".repeat(100)).as_bytes()).is_err());
        assert!(check_depth(64, "[]".repeat(1000).as_bytes()).is_ok(), "wide is not deep");
        assert!(check_depth(64, r#"{"a":"#.repeat(65).as_bytes()).is_err());
        assert!(check_depth(64, "]".repeat(10).as_bytes()).is_ok(), "left to the parser");
    }

    #[test]
    fn the_place_is_named() {
        let text = format!("[\n  {}", "[".repeat(64));
        let detail = check_depth(64, text.as_bytes()).unwrap_err().problem().detail;
        assert!(detail.contains("line 2 column 66"), "{detail}");
    }

    #[test]
    fn payloads_are_kept_as_they_came() {
        for text in ["{ \"b\" : 1,\n \"a\": 1.0 }", "true", " [1] ", "18446744073709551615", "\"\\u0000\""] {
            assert_eq!(payload(Bytes::from(text)).unwrap().as_bytes(), text.as_bytes());
        }
        assert_eq!(payload(Bytes::new()).unwrap(), Payload::NULL);
    }

    #[test]
    fn what_no_reader_could_read_is_refused() {
        let bad: [&[u8]; 10] =
            [b" ", b"{", b"1 2", b"nul", b"'a'", b"\"\\ud800\"", b"1e999", b"\"\xff\"", b"\xef\xbb\xbf1", b"[1,]"];
        for text in bad {
            let problem = payload(Bytes::from_static(text)).unwrap_err().problem();
            assert_eq!(problem.status, 400, "{text:?}");
            assert!(problem.detail.contains("line 1 column"), "{}", problem.detail);
        }
    }
}
