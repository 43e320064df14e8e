//! Arguments that are JSON: given in place, in a file, or on standard input.

use std::io::Read;

use dormouse_core::Payload;

use crate::error::CliError;

/// Reads an argument such as `{"a": 1}`, `@file.json` or `-`; nothing means `null`.
pub(crate) fn payload(argument: Option<&str>) -> Result<Payload, CliError> {
    let Some(argument) = argument else { return Ok(Payload::NULL) };
    let (text, from) = if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        (text, "standard input".to_owned())
    } else if let Some(file) = argument.strip_prefix('@') {
        let text = std::fs::read_to_string(file)
            .map_err(|error| CliError::usage(format!("cannot read the input from {file:?}: {error}")))?;
        (text, format!("the file {file:?}"))
    } else {
        (argument.to_owned(), "the input".to_owned())
    };
    // Editors of other systems begin files so.
    let text = text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text);
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(Payload::from_json(text.into())),
        Err(error) => Err(CliError::usage(format!("{from} is not JSON: {error}")).hint(
            "text needs quotes of its own, as in --input '\"text\"'; @file reads a file, - reads standard input",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_and_kept_as_given() {
        assert_eq!(payload(Some("{ \"a\":1 }")).unwrap().as_bytes(), b"{ \"a\":1 }");
        assert_eq!(payload(None).unwrap(), Payload::NULL);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "\u{feff}{\"a\": 1e3}").unwrap();
        assert_eq!(payload(Some(&format!("@{}", file.path().display()))).unwrap().as_bytes(), b"{\"a\": 1e3}");
        assert!(payload(Some("tea")).is_err());
        assert!(payload(Some("@/no/such/file")).is_err());
    }
}
