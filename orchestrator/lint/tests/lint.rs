//! What is found in the fixtures, at which places, and what is not.
//!
//! A fixture says below a line what is found in it: `^ rule`, at its column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dormouse_lint::{RULES, Report, Tests, check, roots};

/// A line, a column, a rule.
type Place = (String, usize, usize, String);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn found(report: &Report) -> BTreeSet<Place> {
    let places = report.findings.iter().map(|found| {
        let file = Path::new(&found.file).file_name().unwrap().to_string_lossy().into_owned();
        (file, found.line, found.column, found.rule.to_owned())
    });
    places.collect()
}

/// What a fixture says of itself.
fn expected(file: &Path) -> BTreeSet<Place> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut line_above = 0;
    let mut places = BTreeSet::new();
    for (index, line) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
        let marker = line.trim_start().strip_prefix("//").map(str::trim_start).and_then(|rest| rest.strip_prefix("^ "));
        match marker {
            Some(rule) => {
                places.insert((name.clone(), line_above, line.find('^').unwrap() + 1, rule.to_owned()));
            }
            None => line_above = index + 1,
        }
    }
    places
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn assert_found(root: &Path, files: &[PathBuf]) -> BTreeSet<Place> {
    let report = check(&[root.to_path_buf()], Tests::Left).unwrap();
    let (found, expected) = (found(&report), files.iter().flat_map(|file| expected(file)).collect::<BTreeSet<_>>());
    let missed: Vec<_> = expected.difference(&found).collect();
    let false_alarms: Vec<_> = found.difference(&expected).collect();
    assert!(missed.is_empty() && false_alarms.is_empty(), "missed {missed:#?}\nfalse alarms {false_alarms:#?}");
    found
}

#[test]
fn each_rule_is_found_at_its_place() {
    let mut rules = BTreeSet::new();
    let single = files(&fixture("")).into_iter().filter(|file| file.parent() == fixture("x").parent());
    for file in single {
        println!("{}", file.display());
        rules.extend(assert_found(&file, std::slice::from_ref(&file)).into_iter().map(|(.., rule)| rule));
    }
    for rule in RULES {
        assert!(rules.contains(rule.name), "no fixture shows {}", rule.name);
    }
}

#[test]
fn what_a_workflow_calls_is_followed() {
    let folder = fixture("reach");
    assert_found(&folder.join("main.rs"), &files(&folder));
    let report = check(&[folder.join("main.rs")], Tests::Left).unwrap();
    let called = |rule: &str, file: &str| {
        let found = report.findings.iter().find(|found| found.rule == rule && found.file.ends_with(file)).unwrap();
        found.called.join(" ")
    };
    assert_eq!(called("file", "main.rs"), "begins Cart::total Cart::stamp");
    assert_eq!(called("random", "mod.rs"), "begins double third");
    assert_eq!(called("environment", "elsewhere.rs"), "begins Tariff::rate Tariff::looked_up");
    assert_eq!((report.workflows, report.files), (5, 5));
}

#[test]
fn tests_are_looked_at_when_asked() {
    let report = check(&[fixture("reach/main.rs")], Tests::Too).unwrap();
    let planted: Vec<_> =
        report.findings.iter().filter(|found| found.called == ["planted"] || found.rule == "allow").collect();
    let rules: Vec<_> = planted.iter().map(|found| found.rule).collect();
    // Its comment has no reason, and allows another rule.
    assert_eq!(rules, ["sleep", "allow", "allow"], "{planted:#?}");
}

#[test]
fn a_finding_says_what_to_do() {
    let report = check(&[fixture("clock.rs")], Tests::Left).unwrap();
    let said = report.findings[0].to_string();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("clock.rs:8:17: `std::time::Instant::now` [clock]"), "{said}");
    assert_eq!(lines[1], "    in:      clocks");
    assert!(lines[2].starts_with("    why:     a replay reads another time"), "{said}");
    assert!(lines[3].starts_with("    instead: `cx.now()`"), "{said}");
}

#[test]
fn a_file_that_is_no_rust_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lib.rs");
    std::fs::write(&file, "fn a() {}\nfn b( {}\n").unwrap();
    let error = check(&[file], Tests::Left).unwrap_err().to_string();
    assert!(error.contains("lib.rs:2:"), "{error}");
    let error = check(&[dir.path().join("none.rs")], Tests::Left).unwrap_err().to_string();
    assert!(error.contains("none.rs cannot be read"), "{error}");
    let error = roots(dir.path(), Tests::Left).unwrap_err().to_string();
    assert!(error.contains("Cargo.toml"), "{error}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap()
}

#[test]
fn nothing_is_found_in_the_sample() {
    let sample = roots(&repository().join("functions"), Tests::Too).unwrap();
    assert!(!sample.is_empty() && sample.iter().all(|root| root.starts_with(repository().join("functions"))));
    let report = check(&sample, Tests::Too).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(report.workflows >= 3, "{}", report.workflows);
}

/// Of everything that tests run, only those workflows are told of that misbehave on purpose: here, and what they do.
#[test]
fn only_those_are_found_that_misbehave_on_purpose() {
    const ON_PURPOSE: &[(&str, &str)] = &[
        ("a_clock", "clock"),
        ("a closure", "static"),
        ("a_step_before_its_record", "static"),
        ("an_unordered_map", "unordered"),
        ("aborting", "process"),
        ("aborts", "environment process"),
        ("aborts_later", "process"),
        ("brittle", "static"),
        ("busy", "sleep static thread"),
        ("endless", "environment thread"),
        ("fragile", "static"),
        ("listening", "static"),
        ("listens", "network"),
        ("looping", "environment file process sleep"),
        ("mischief", "clock process sleep"),
        ("on_tokio", "sleep"),
        ("patient", "static thread"),
        ("selfish", "static thread"),
        ("sleeps", "sleep"),
        ("spawns", "task"),
    ];
    let report = check(&roots(repository(), Tests::Too).unwrap(), Tests::Too).unwrap();
    assert!(report.workflows > 100, "{}", report.workflows);
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for finding in &report.findings {
        found.entry(finding.called.first().map_or("", String::as_str)).or_default().insert(finding.rule);
    }
    for (workflow, rules) in found {
        let rules = rules.into_iter().collect::<Vec<_>>().join(" ");
        assert!(ON_PURPOSE.contains(&(workflow, &rules)), "{workflow}: {rules}; on purpose? Then name it above");
    }
}

/// The documentation's examples, each on its own.
#[test]
fn nothing_is_found_in_examples() {
    let dir = tempfile::tempdir().unwrap();
    let mut reports = Vec::new();
    for file in files(&repository().join("orchestrator")).into_iter().chain(files(&repository().join("docs"))) {
        let shown = file.strip_prefix(repository()).unwrap().display().to_string().replace('/', "-");
        let prefixes: &[&str] = if shown.ends_with(".md") { &[""] } else { &["///", "//!"] };
        if !(shown.ends_with(".rs") || shown.ends_with(".md")) || shown.contains("fixtures") {
            continue;
        }
        for (at, example) in examples_of(&std::fs::read_to_string(&file).unwrap(), prefixes).into_iter().enumerate() {
            let path = dir.path().join(format!("{at}-{shown}.rs"));
            // As rustdoc does.
            let is_whole = example.contains("fn main");
            std::fs::write(&path, if is_whole { example } else { format!("fn main() {{\n{example}}}\n") }).unwrap();
            // What is no Rust is no example.
            reports.extend(check(std::slice::from_ref(&path), Tests::Left));
        }
    }
    let workflows: usize = reports.iter().map(|report| report.workflows).sum();
    assert!(workflows > 20, "{workflows}");
    let findings: Vec<_> = reports.iter().flat_map(|report| &report.findings).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// The code blocks in a file's documentation, whose lines begin so.
fn examples_of(text: &str, prefixes: &[&str]) -> Vec<String> {
    let (mut examples, mut open) = (Vec::new(), None::<String>);
    for line in text.lines() {
        let line = line.trim_start();
        let Some(line) = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)) else { continue };
        let line = line.strip_prefix(' ').unwrap_or(line);
        match &mut open {
            Some(_) if line.starts_with("```") => examples.extend(open.take()),
            Some(example) => *example += &format!("{}\n", line.strip_prefix("# ").unwrap_or(line)),
            None if line.starts_with("```") => open = Some(String::new()),
            None => {}
        }
    }
    examples
}
