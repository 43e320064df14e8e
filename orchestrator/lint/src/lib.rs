//! A determinism check for workflows: what the compiler cannot refuse, found in the source.
//!
//! Workflow code is run again from its history, and must do the same again. [`check`] reads a crate's sources, takes every
//! function that is given a `Workflow`, follows what it calls within the crate, and reports what differs from one run to
//! the next: clocks, random numbers, the order of hash maps, tasks, files and the rest of [`RULES`]. Functions whose first
//! parameter is an `Activity` may do all of that. What is not certain is not reported: a name that comes from a macro, a
//! trait object or another crate is not followed.
//!
//! ```no_run
//! # fn main() -> Result<(), dormouse_lint::LintError> {
//! let roots = dormouse_lint::roots(".".as_ref(), dormouse_lint::Tests::Left)?;
//! for finding in dormouse_lint::check(&roots, dormouse_lint::Tests::Left)?.findings {
//!     println!("{}:{}:{}: {}", finding.file, finding.line, finding.column, finding.what);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where a finding is meant, a comment on its line or above it says why: `// dormouse: allow(clock): only logged`. A comment
//! without a reason, or that allows nothing, is a finding itself.

mod allow;
mod crates;
mod macros;
mod names;
mod project;
mod reach;
mod report;
mod rules;
mod sources;
mod types;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use project::roots;
pub use report::{Finding, Report};
pub use rules::{RULES, Rule};
pub use sources::{LintError, Tests};

use sources::Source;

/// Checks the crates that begin with these files (`src/lib.rs`, `src/main.rs`), each with the modules that it names.
///
/// # Errors
/// A file cannot be read, or is no Rust.
pub fn check(roots: &[PathBuf], tests: Tests) -> Result<Report, LintError> {
    let mut files: BTreeMap<String, Source> = BTreeMap::new();
    let mut found = reach::Found::new();
    let mut workflows = BTreeSet::new();
    for root in roots {
        let read = sources::read(root)?;
        let index = crates::index(&read, tests);
        reach::all(&index, &mut workflows, &mut found);
        // A file that two crates share is one file for its comments.
        let skipped = index.skipped;
        for (source, skipped) in read.into_iter().zip(skipped) {
            files.entry(source.name.clone()).or_insert(source).skipped.extend(skipped);
        }
    }
    let files: Vec<Source> = files.into_values().collect();
    Ok(Report { findings: allow::apply(&files, found), workflows: workflows.len(), files: files.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{FOREIGN, UNORDERED};

    /// Whatever the tables name is found, wherever it stands in them: a file of workflows, each with one of them.
    #[test]
    fn each_entry_of_the_tables_is_found() {
        let named = |pattern: &str| pattern.replace("::*", "::Thing::made").replace('*', "some::made");
        let mut code = Vec::new();
        for rule in RULES {
            code.extend(rule.paths().iter().map(|path| (rule.name, String::new(), format!("{}();", named(path)))));
            code.extend(rule.macros().iter().map(|path| (rule.name, String::new(), format!("{path}! {{}}"))));
            for (on, methods) in rule.methods() {
                code.extend(
                    methods.iter().map(|method| (rule.name, format!(", it: &{on}"), format!("it.{method}();"))),
                );
            }
        }
        let unordered = UNORDERED.iter().map(|path| (format!(", it: {path}<u8>"), "for _ in &it {}".to_owned()));
        code.extend(unordered.map(|(argument, body)| ("unordered", argument, body)));
        code.extend(FOREIGN.iter().map(|path| ("foreign", String::new(), format!("{}().await;", named(path)))));
        let text: String = code
            .iter()
            .enumerate()
            .map(|(at, (_, argument, body))| format!("async fn w{at}(cx: dormouse::Workflow{argument}) {{ {body} }}\n"))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lib.rs");
        std::fs::write(&file, text).unwrap();
        let report = check(&[file], Tests::Left).unwrap();
        assert_eq!(report.workflows, code.len());
        for (at, (rule, _, body)) in code.iter().enumerate() {
            let found = report.findings.iter().find(|found| found.line == at + 1).map(|found| found.rule);
            // A library whose paths a rule names is told of by that rule.
            let as_said = found == Some(rule) || (*rule == "foreign" && found.is_some());
            assert!(as_said, "{body} is {rule}, and was found to be {found:?}");
        }
    }
}
