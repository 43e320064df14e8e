//! `lint`: the determinism check.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use dormouse_cli::{CliError, Context, Format, Verb};
use dormouse_lint::{RULES, Report, Tests, check, roots};

/// Look in a project's sources for what workflow code must not do
///
/// Workflow code is run again from its history, and must do the same again. Every function that takes a `Workflow` is
/// looked through, and what it calls within its crate: for clocks, random numbers, the order of hash maps, tasks, sleeps,
/// the environment, files, the network, statics that change, and futures of other libraries. Activities, whose first
/// parameter is an `Activity`, may do all of that.
///
/// What cannot be told for certain is not reported: calls by way of traits, macros and other crates are not followed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  {program} lint                          the project of this directory, each package of it
  {program} lint services/orders          another one
  {program} lint src/bin/nightly.rs       one crate, by its first file
  {program} lint --output json            for scripts: findings with file, line, column, rule, ...
  {program} lint --rules                  what is looked for, why, and what to use instead

Where a finding is meant, a comment on its line or above it says why:

  // dormouse: allow(clock): only logged
  let began = Instant::now();

A comment without a reason is a finding, and so is one that allows nothing.

The exit code is 0 if nothing was found, and 1 if something was, or a file is no Rust that can be read.")]
pub(crate) struct Lint {
    /// Directories with a Cargo.toml, or first files of crates
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Look also at what only tests run: below #[cfg(test)] and #[test], in tests/ and benches/
    #[arg(long)]
    tests: bool,
    /// Show the rules, and check nothing
    #[arg(long, conflicts_with_all = ["paths", "tests"])]
    rules: bool,
}

impl Verb for Lint {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        if self.rules {
            return rules(&cx);
        }
        let tests = if self.tests { Tests::Too } else { Tests::Left };
        let mut files = Vec::new();
        for path in &self.paths {
            files.extend(first_files(path, tests)?);
        }
        let report = check(&files, tests)?;
        match cx.format {
            Format::Json => cx.say_json(&report)?,
            Format::Table => tell(&report, &cx)?,
        }
        match report.findings.len() {
            0 => Ok(ExitCode::SUCCESS),
            found => Err(CliError::new(counted(found, "finding"))
                .hint("mend them, or say above the line why it is meant: // dormouse: allow(RULE): REASON")),
        }
    }
}

/// What can be checked.
const WHAT: &str = "name a directory with a Cargo.toml, or a crate's first file, such as src/lib.rs";

fn first_files(path: &Path, tests: Tests) -> Result<Vec<PathBuf>, CliError> {
    if path.is_dir() {
        return roots(path, tests).map_err(|error| CliError::from(error).hint(WHAT));
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return Err(CliError::usage(format!("{} is neither a directory nor a file of Rust", path.display())).hint(WHAT));
    }
    Ok(vec![path.to_path_buf()])
}

fn tell(report: &Report, cx: &Context) -> Result<(), CliError> {
    for finding in &report.findings {
        cx.say(&format!("{finding}\n"))?;
    }
    let Report { workflows, files, findings } = report;
    let looked = format!("{} in {}", counted(*workflows, "function"), counted(*files, "file"));
    match (findings.is_empty(), workflows) {
        (true, 0) => cx.say(&format!("Nothing to check: no function in {} takes a Workflow.", counted(*files, "file"))),
        (true, _) => cx.say(&format!("Nothing found: {looked} that take a Workflow, and what they call.")),
        (false, _) => Ok(()),
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn rules(cx: &Context) -> Result<ExitCode, CliError> {
    match cx.format {
        Format::Json => cx.say_json(&RULES)?,
        Format::Table => {
            for rule in RULES {
                cx.say(&format!("{}\n    why:     {}\n    instead: {}\n", rule.name, rule.why, rule.instead))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
