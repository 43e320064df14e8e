//! The order of the house: who may import whom, what never enters the core, and how long a file may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and the workspace crates that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("dormouse-core", &[]),
    ("dormouse-engine", &["dormouse-core"]),
    ("dormouse-aws", &["dormouse-core", "dormouse-engine"]),
    ("dormouse-http", &["dormouse-core", "dormouse-engine"]),
    ("dormouse-lambda", &["dormouse-aws", "dormouse-core", "dormouse-engine", "dormouse-http"]),
    ("dormouse-client", &["dormouse-core"]),
    ("dormouse-cli", &["dormouse-core", "dormouse-client", "dormouse-engine", "dormouse-http"]),
    ("dormouse-testing", &["dormouse-core", "dormouse-engine"]),
    (
        "dormouse",
        &["dormouse-core", "dormouse-engine", "dormouse-lambda", "dormouse-http", "dormouse-client", "dormouse-cli"],
    ),
    ("functions", &["dormouse"]),
];

/// What the core does without: runtimes, clocks, networks, storage.
const NEVER_IN_CORE: &[&str] = &["tokio", "rusqlite", "object_store", "reqwest", "axum", "hyper", "lambda_runtime"];

/// Past this, nearly every codebase regrets a file.
const MOST_LINES: usize = 1000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What a package depends on when it is used, not when it is tested.
fn dependencies(package: &Value) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().unwrap().iter();
    let used = all.filter(|dependency| dependency["kind"] != "dev");
    used.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn crates_use_only_what_they_may() {
    let rules: BTreeMap<_, BTreeSet<_>> =
        MAY_USE.iter().map(|(name, may)| (*name, may.iter().copied().collect())).collect();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if name == "dormouse-tests" || name == "dormouse-misuse" {
            continue;
        }
        let may = rules.get(name).unwrap_or_else(|| panic!("{name} is a new room: say in MAY_USE what it may use"));
        for dependency in dependencies(&package) {
            let ours = rules.contains_key(dependency.as_str()) || dependency.starts_with("dormouse");
            assert!(!ours || may.contains(dependency.as_str()), "{name} may not use {dependency}");
            assert!(!dependency.starts_with("dormouse-tests"), "nobody imports tests, but {name} does");
        }
    }
}

#[test]
fn the_core_stays_pure() {
    let packages = packages();
    let core = packages.iter().find(|package| package["name"] == "dormouse-core").unwrap();
    let dependencies = dependencies(core);
    for never in NEVER_IN_CORE {
        assert!(!dependencies.contains(*never), "the core does without {never}");
    }
    assert!(!dependencies.iter().any(|name| name.starts_with("aws")), "the core does without AWS");
}

#[test]
fn the_demo_compiles_no_aws_crate() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "functions", "--edges", "normal,build", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("dormouse-engine"), "the tree was read");
    let aws: Vec<_> = tree.lines().filter(|line| line.starts_with("aws") || line.starts_with("object_store")).collect();
    assert!(aws.is_empty(), "{aws:?}");
}

#[test]
fn no_file_grows_too_long() {
    let mut folders = vec![root()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                files += 1;
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= MOST_LINES, "{} has {lines} lines: split it by room", path.display());
            }
        }
    }
    assert!(files > 50, "the tree was read");
}
