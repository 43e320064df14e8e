//! Where a JSON value does not fit the type that is expected of it.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// The first place at which a JSON value does not fit the expected type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The way to it from the value's root, as a JSON Pointer (RFC 6901): `/items/0/price`; empty for the value itself,
    /// also when a field of it is missing. Within variants that are told apart by what they hold, the way to those.
    pub pointer: String,
    /// What is there, and what was expected.
    pub problem: String,
}

impl Misfit {
    /// There is an argument where none is taken.
    #[must_use]
    pub fn no_argument() -> Self {
        Self { pointer: String::new(), problem: "it takes no argument".into() }
    }

    /// Reads the value once more, keeping track of the way.
    pub(crate) fn find<T: DeserializeOwned>(json: &[u8]) -> Result<T, Self> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let value = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Self { pointer: pointer(error.path()), problem: without_position(error.inner()) })?;
        reader.end().map_err(|error| Self { pointer: String::new(), problem: without_position(&error) })?;
        Ok(value)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "at {}: ", self.pointer)?;
        }
        f.write_str(&self.problem)
    }
}

/// A value that a history holds and that today's code cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMisfit {
    /// What the value is.
    pub kind: StoredKind,
    /// The name that it has: a workflow type's, an activity's, a signal's, a query's, a side effect's.
    pub name: String,
    /// Where it does not fit.
    pub misfit: Misfit,
    /// Where in the source the code reads it, as `file:line`; none where it has not come to it.
    pub place: Option<String>,
    /// Whether the application says what type it has: else it may never have fitted, and code that follows its history
    /// has passed it over before.
    pub declared: bool,
}

/// What a stored value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKind {
    /// The input of a run.
    Input,
    /// What an activity gave.
    Result,
    /// The argument of a signal.
    Signal,
    /// What a workflow published.
    Published,
    /// What a side effect gave.
    SideEffect,
}

impl fmt::Display for StoredMisfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoredKind::Input => "the stored input of workflow type",
            StoredKind::Result => "the recorded result of activity",
            StoredKind::Signal => "the recorded argument of signal",
            StoredKind::Published => "the stored value of query",
            StoredKind::SideEffect => "the recorded value of side effect",
        };
        write!(f, "{what} {:?} does not fit today's type", self.name)?;
        match self.misfit.pointer.as_str() {
            "" => write!(f, ": {}", self.misfit.problem)?,
            _ => write!(f, " {}", self.misfit)?,
        }
        self.place.iter().try_for_each(|place| write!(f, " (read at {place})"))
    }
}

fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            // A variant is written as an object with its name as the key.
            Segment::Map { key: name } | Segment::Enum { variant: name } => name.replace('~', "~0").replace('/', "~1"),
            Segment::Unknown => break,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

/// The value came within something else, or was written anew: its lines and columns are nobody's.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).map(ToOwned::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::payload::Payload;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read from JSON")]
    struct Cart {
        items: Vec<Item>,
        #[serde(default)]
        notes: BTreeMap<String, u8>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read from JSON")]
    enum Item {
        Book { pages: u32 },
        Tea,
    }

    #[test]
    fn the_way_leads_to_what_does_not_fit() {
        for (json, pointer, problem) in [
            (r#"{"items": [{"Book": {"pages": 1}}, {"Book": {"pages": "x"}}]}"#, "/items/1/Book/pages", "expected u32"),
            (r#"{"items": ["Tea", "Coffee"]}"#, "/items/1", "unknown variant `Coffee`"),
            (r#"{"items": [], "notes": {"a/b~": 256}}"#, "/notes/a~1b~0", "expected u8"),
            (r#"{"items": [{"Book": {}}]}"#, "/items/0/Book", "missing field `pages`"),
            ("{}", "", "missing field `items`"),
            ("7", "", "expected struct Cart"),
            ("{} 7", "", "missing field"),
        ] {
            let misfit = Payload::from_json(json.into()).read::<Cart>().unwrap_err();
            assert_eq!(misfit.pointer, pointer, "{json}: {misfit}");
            assert!(misfit.problem.contains(problem) && !misfit.problem.contains("column"), "{json}: {misfit}");
        }
        let trailing = Payload::from_json(r#"{"items": []} 7"#.into()).read::<Cart>().unwrap_err();
        assert_eq!((trailing.pointer.as_str(), trailing.problem.as_str()), ("", "trailing characters"));
        assert!(Payload::from_json(r#"{"items": ["Tea"]}"#.into()).read::<Cart>().is_ok());
    }
}
