//! Durations as people write them: `500ms`, `20s`, `2m`, `1h`.

use std::time::Duration;

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDuration(String);

impl std::fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no duration; write a whole number and a unit, such as 500ms, 20s, 2m or 1h", self.0)
    }
}

impl std::error::Error for InvalidDuration {}

/// Reads a whole number with a unit: `ms`, `s`, `m` or `h`.
///
/// # Errors
/// [`InvalidDuration`] shows the text and what would have been right.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.chars().take(40).collect());
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [("0s", 0), ("500ms", 500), ("20s", 20_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "20", "s", "-1s", "+1s", "1.5s", "20 s", " 20s", "20S", "20sec", "٣s", "18446744073709551615h"]
        {
            let error = parse_duration(text).unwrap_err();
            assert!(error.to_string().contains("20s"), "{text}");
        }
        assert!(parse_duration(&"9".repeat(10_000)).unwrap_err().to_string().len() < 200);
    }
}
