//! What was found.

use std::fmt;

use serde::Serialize;

use crate::rules::Rule;

/// Something that workflow code may not do, where it does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, from the current directory where it lies below.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The rule's name; `allow` for a comment that is not as it should be.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
    /// Why it harms.
    pub why: &'static str,
    /// What to use instead.
    pub instead: &'static str,
    /// Who leads there: the function that is given a `Workflow`, then what it calls.
    pub called: Vec<String>,
}

impl Finding {
    pub(crate) fn of(
        rule: &'static Rule,
        file: &str,
        (line, column): (usize, usize),
        what: String,
        called: Vec<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            column,
            rule: rule.name,
            what,
            why: rule.why,
            instead: rule.instead,
            called,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, rule, what, why, instead, called } = self;
        write!(f, "{file}:{line}:{column}: {what} [{rule}]")?;
        if !called.is_empty() {
            write!(f, "\n    in:      {}", called.join(" -> "))?;
        }
        write!(f, "\n    why:     {why}\n    instead: {instead}")
    }
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was found, by file and line.
    pub findings: Vec<Finding>,
    /// How many functions were given a `Workflow`.
    pub workflows: usize,
    /// How many files were read.
    pub files: usize,
}
