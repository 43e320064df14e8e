//! How an id or name travels as one part of a URL's path.
//!
//! Percent-encoding does not survive the way: Amazon's HTTP APIs hand a function the decoded path, and then `a%2Fb` can
//! no longer be told from `a/b`. So every byte outside `[A-Za-z0-9._-]` is written `~XX`, which is unreserved and stays
//! as it is however often somebody decodes or encodes in between. `.` and `..` alone mean something to URLs, and are
//! written that way too.

use std::fmt::Write;

/// A part of a path whose bytes are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its bytes are not UTF-8; a byte of UTF-8 is written ~XX, with two uppercase hexadecimal digits")]
pub struct InvalidPathPart;

/// Writes a text as one part of a path.
#[must_use]
pub fn write_path_part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    let means_a_place = matches!(text, "." | "..");
    for byte in text.bytes() {
        match byte {
            b'.' if means_a_place => part.push_str("~2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => part.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(part, "~{byte:02X}")),
        }
    }
    part
}

/// Reads a part of a path, percent-decoded already: the inverse of [`write_path_part`]. A `~` without two uppercase
/// hexadecimal digits behind it stands for itself, so people may write simple ids as they are.
///
/// # Errors
/// [`InvalidPathPart`] when the bytes that it names are not UTF-8.
pub fn read_path_part(part: &str) -> Result<String, InvalidPathPart> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, behind @ ..] = rest {
        match behind {
            [high, low, behind @ ..] if *first == b'~' && digit(*high).is_some() && digit(*low).is_some() => {
                bytes.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = behind;
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| InvalidPathPart)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_look_like_their_ids_where_that_is_possible() {
        for (id, part) in [
            ("order-42_a.b", "order-42_a.b"),
            ("a/b", "a~2Fb"),
            ("%2F", "~252F"),
            ("~2F", "~7E2F"),
            ("a b+c", "a~20b~2Bc"),
            (".", "~2E"),
            ("..", "~2E~2E"),
            ("...", "..."),
            ("../x", "..~2Fx"),
            ("é🐭", "~C3~A9~F0~9F~90~AD"),
        ] {
            assert_eq!(write_path_part(id), part);
            assert_eq!(read_path_part(part).as_deref(), Ok(id));
        }
    }

    #[test]
    fn a_tilde_alone_stands_for_itself() {
        for part in ["~", "~2", "a~b", "~2f", "~G0", "x~~"] {
            assert_eq!(read_path_part(part).as_deref(), Ok(part));
        }
        assert_eq!(read_path_part("~~2F").as_deref(), Ok("~/"));
        assert_eq!(read_path_part("~7E2F").as_deref(), Ok("~2F"), "read once");
        for part in ["~FF", "~C3", "a~C3(", "~ED~A0~80"] {
            assert_eq!(read_path_part(part), Err(InvalidPathPart), "{part}");
        }
    }

    /// Texts that tempt every decoder on the way, and any text at all.
    fn ids() -> impl Strategy<Value = String> {
        let tempting =
            prop::sample::select(vec!["~", "%", "2", "F", "E", "7", "~2F", "%2F", ".", "/", "+", " ", "é", "🐭"]);
        prop_oneof![prop::collection::vec(tempting, 0..8).prop_map(|parts| parts.concat()), any::<String>(),]
    }

    fn percent_decoded(text: &str) -> Vec<u8> {
        let bytes = text.as_bytes();
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
            match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
                Some(byte) => (decoded.push(byte), at += 3),
                None => (decoded.push(bytes[at]), at += 1),
            };
        }
        decoded
    }

    #[test]
    fn only_a_part_that_means_a_place_hides_its_dots() {
        assert_eq!(["a.b", "...", ".", ".."].map(write_path_part), ["a.b", "...", "~2E", "~2E~2E"]);
    }

    proptest! {
        /// What is read back equals what was written, so no two ids share a part; and nothing on the way has a reason
        /// to touch it.
        #[test]
        fn any_id_survives_the_way(id in ids()) {
            let part = write_path_part(&id);
            prop_assert!(part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-~".contains(&byte)), "{}", part);
            prop_assert!(!matches!(part.as_str(), "." | ".."));
            prop_assert_eq!(percent_decoded(&part), part.as_bytes());
            prop_assert_eq!(read_path_part(&part), Ok(id));
        }

        #[test]
        fn no_two_ids_share_a_part(one in ids(), other in ids()) {
            prop_assert_eq!(one == other, write_path_part(&one) == write_path_part(&other));
        }

        #[test]
        fn reading_never_panics(part in ids()) {
            let _ = read_path_part(&part);
        }
    }
}
