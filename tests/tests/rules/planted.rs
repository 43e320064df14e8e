//! The tests of the tests: every fault that can be switched on in our own code makes a test of its rule fail.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dormouse_core::planted::Bug;

const VARIABLE: &str = "DORMOUSE_PLANTED_BUG";
const THIS: &str = "planted::every_planted_bug_is_caught";
/// They take longer, and say less about what is wrong.
const WALKS: &str = "walk::";
/// Far longer than all rules take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all rules in a process of their own; the names of those that failed.
fn failures(bug: Option<Bug>) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--skip", THIS, "--skip", WALKS]).env_remove(VARIABLE).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(bug) = bug {
        child.env(VARIABLE, format!("{bug:?}"));
    }
    let mut child = child.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let output = std::thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).map(|_| output)
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                child.kill().unwrap();
                panic!("with {bug:?}, the rules did not end within {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = output.join().unwrap().unwrap();
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let failures: Vec<_> = output.lines().filter_map(failed).collect();
    assert_eq!(status.success(), failures.is_empty(), "with {bug:?}: {output}");
    failures
}

#[test]
fn every_planted_bug_is_caught() {
    assert_eq!(failures(None), [""; 0], "without a planted bug, every rule holds");
    let mut missed = Vec::new();
    dormouse_tests::tell!("{:<22} caught by", "planted bug");
    for bug in Bug::ALL {
        let caught_by = failures(Some(*bug));
        // A test of the very rule that is broken; others may notice too.
        let rule = format!("::{}_", format!("{bug:?}")[..2].to_lowercase());
        if !caught_by.iter().any(|test| test.contains(&rule)) {
            missed.push(bug);
        }
        dormouse_tests::tell!("{:<22} {}", format!("{bug:?}"), caught_by.join(", "));
    }
    assert!(missed.is_empty(), "not caught by a test of their rule: {missed:?}");
}
