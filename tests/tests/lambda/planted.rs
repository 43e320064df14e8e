//! The tests of these tests: each fault that can be switched on in the functions' own code makes one of them fail.

use std::process::Command;

use dormouse_core::planted::Bug;

const THIS: &str = "planted::every_planted_bug_is_caught";
/// It takes as long as a turn may.
const SLOW: &str = "does_not_end";

fn failures(bug: Option<Bug>) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--skip", THIS, "--skip", SLOW]).env_remove("DORMOUSE_PLANTED_BUG");
    if let Some(bug) = bug {
        child.env("DORMOUSE_PLANTED_BUG", format!("{bug:?}"));
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let failures: Vec<_> = text.lines().filter_map(failed).collect();
    assert_eq!(output.status.success(), failures.is_empty(), "with {bug:?}: {text}");
    failures
}

#[test]
fn every_planted_bug_is_caught() {
    assert_eq!(failures(None), [""; 0], "without a planted bug, everything holds");
    for bug in Bug::OF_FUNCTIONS {
        let caught_by = failures(Some(*bug));
        dormouse_tests::tell!("{:<22} {}", format!("{bug:?}"), caught_by.join(", "));
        assert!(!caught_by.is_empty(), "{bug:?} is not caught");
    }
}
