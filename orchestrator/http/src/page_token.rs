//! Page tokens: where a listing or a history goes on, opaque to callers, checked like anything else that comes in.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dormouse_core::{Timestamp, check_id};
use dormouse_engine::store::ListCursor;

use crate::problem::{Kind, Refused};

/// The first byte says what the token is of, so that one cannot stand for the other.
const LISTING: u8 = 1;
const HISTORY: u8 = 2;
const QUARANTINE: u8 = 3;
const RECORDS: u8 = 4;

/// Longer than any token that was ever given out.
const MAX_TOKEN_BYTES: usize = 512;

pub(crate) fn listing(cursor: &ListCursor) -> String {
    let mut bytes = vec![LISTING];
    bytes.extend(cursor.started_at.as_millis().to_be_bytes());
    bytes.extend(cursor.ordinal.to_be_bytes());
    bytes.extend(cursor.workflow_id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn read_listing(token: &str) -> Result<ListCursor, Refused> {
    let rest = open(LISTING, token)?;
    let (started_at, rest) = number(&rest)?;
    let (ordinal, rest) = number(rest)?;
    let workflow_id = std::str::from_utf8(rest).map_err(|_| invalid())?.to_owned();
    check_id("the workflow id", &workflow_id).map_err(|_| invalid())?;
    Ok(ListCursor { started_at: Timestamp::from_millis(started_at), workflow_id, ordinal })
}

pub(crate) fn history(after: u64) -> String {
    place(HISTORY, after)
}

pub(crate) fn read_history(token: &str) -> Result<u64, Refused> {
    read_place(HISTORY, token)
}

pub(crate) fn records(from: u64) -> String {
    place(RECORDS, from)
}

pub(crate) fn read_records(token: &str) -> Result<u64, Refused> {
    read_place(RECORDS, token)
}

fn place(kind: u8, place: u64) -> String {
    let mut bytes = vec![kind];
    bytes.extend(place.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_place(kind: u8, token: &str) -> Result<u64, Refused> {
    match number(&open(kind, token)?)? {
        (place, []) => Ok(place),
        _ => Err(invalid()),
    }
}

pub(crate) fn quarantine(place: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[QUARANTINE], place.as_bytes()].concat())
}

pub(crate) fn read_quarantine(token: &str) -> Result<String, Refused> {
    let place = String::from_utf8(open(QUARANTINE, token)?).map_err(|_| invalid())?;
    check_id("the place", &place).map_err(|_| invalid())?;
    Ok(place)
}

fn open(kind: u8, token: &str) -> Result<Vec<u8>, Refused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid());
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    if bytes.first() != Some(&kind) {
        return Err(invalid());
    }
    bytes.remove(0);
    Ok(bytes)
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Refused> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(invalid)?;
    Ok((u64::from_be_bytes(*first), rest))
}

fn invalid() -> Refused {
    Kind::InvalidRequest.because(
        "the page_token is not one that this route gave out; use next_page_token of the page before as it came, \
         or leave it away to begin with the first page",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for workflow_id in ["order-1", "a/b%2F..", "日本語 🐭", &"x".repeat(255)] {
            let cursor = ListCursor {
                started_at: Timestamp::from_millis(u64::MAX),
                workflow_id: workflow_id.into(),
                ordinal: 7,
            };
            let token = listing(&cursor);
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{token}");
            assert_eq!(read_listing(&token).unwrap(), cursor);
        }
        assert_eq!(read_history(&history(42)).unwrap(), 42);
        assert_eq!(read_records(&records(42)).unwrap(), 42);
        assert!(read_records(&history(42)).is_err() && read_history(&records(42)).is_err());
        let place = "00000001763820000000#0b0e7c26";
        assert_eq!(read_quarantine(&quarantine(place)).unwrap(), place);
    }

    #[test]
    fn hostile_tokens_are_refused() {
        let cursor = ListCursor { started_at: Timestamp::from_millis(1), workflow_id: "a".into(), ordinal: 0 };
        let good = listing(&cursor);
        let with_id = |id: &[u8]| URL_SAFE_NO_PAD.encode([&[LISTING][..], &[0; 16], id].concat());
        let bad = [
            String::new(),
            "=".into(),
            "!!!".into(),
            "é".into(),
            format!("{good}="),
            good[..good.len() - 3].into(),
            history(1),
            with_id(b""),
            with_id(b"\xff"),
            with_id(b"a\0"),
            with_id(&[b'x'; 256]),
            "A".repeat(100_000),
        ];
        for token in bad {
            assert_eq!(read_listing(&token).unwrap_err().problem().status, 400, "{token}");
        }
        assert!(read_history(&good).is_err());
        for bad in [good, quarantine(""), quarantine("a\0"), quarantine(&"x".repeat(256)), history(1)] {
            assert!(read_quarantine(&bad).is_err(), "{bad}");
        }
        assert!(read_history(&URL_SAFE_NO_PAD.encode([HISTORY, 0, 0, 0, 0, 0, 0, 0, 0, 0])).is_err());
    }
}
