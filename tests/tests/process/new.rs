//! `dormouse new`: a project of one's own, begun, and looked at as its owner would.

use std::path::Path;
use std::process::Command;

use dormouse_tests::server::dormouse;

fn new(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(dormouse()).arg("new").args(arguments).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said)
}

#[test]
fn a_project_is_begun_and_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_str().unwrap();
    let (code, said) = new(dir.path(), &["my-app", "--path", checkout]);
    assert!(code == 0 && said.contains("cargo test") && said.contains("src/lib.rs"), "{said}");
    let project = dir.path().join("my-app");
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(&project)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    // Nothing is left to be replaced, the lint has nothing to say, and it stands as rustfmt would have it.
    for file in ["Cargo.toml", "README.md", "rust-toolchain.toml", "src/main.rs", "src/lib.rs"] {
        assert!(!std::fs::read_to_string(project.join(file)).unwrap().contains("{{"), "{file}");
    }
    let lint = Command::new(dormouse()).args(["lint"]).current_dir(&project).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let format = Command::new(env!("CARGO")).args(["fmt", "--check"]).current_dir(&project).output().unwrap();
    assert!(format.status.success(), "{}", String::from_utf8_lossy(&format.stdout));

    for (arguments, says) in [
        (&["my-app", "--path", checkout][..], "is there already"),
        (&["9lives", "--path", checkout], "cannot be the name of a package"),
        (&["other", "--path", "."], "is no checkout of Dormouse"),
        (&["other"], "--path"),
    ] {
        let (code, said) = new(dir.path(), arguments);
        assert!(code != 0 && said.contains(says), "{arguments:?}: {said}");
    }
}
