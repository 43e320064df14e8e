//! Activities in Python (`functions/python`) keep the contract: they do to the attempt record and the queues what the
//! engine's own worker does. Fixtures say what that is; the Python worker's tests play them.

use std::path::{Path, PathBuf};
use std::process::Command;

use dormouse_tests::tell;

#[cfg(feature = "aws")]
#[path = "python/fixtures.rs"]
mod fixtures;
#[cfg(feature = "aws")]
#[path = "python/texts.rs"]
mod texts;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions/python")
}

#[test]
fn the_python_worker_keeps_the_contract() {
    let Ok(output) = Command::new("python3").args(["-B", "-m", "unittest", "-v"]).current_dir(folder()).output() else {
        tell!("SKIPPED: the Python worker's tests need python3");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test_every_fixture") && said.contains("OK"), "{said}");
}
