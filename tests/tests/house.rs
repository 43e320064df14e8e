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
        &[
            "dormouse-core",
            "dormouse-engine",
            "dormouse-lambda",
            "dormouse-http",
            "dormouse-client",
            "dormouse-cli",
            "dormouse-testing",
        ],
    ),
    ("dormouse-lint", &[]),
    ("dormouse-program", &["dormouse-cli", "dormouse-lint"]),
    ("functions", &["dormouse"]),
];

/// Public names that `dormouse` does not give to its users: they are the engine's and the programs' own.
const NOT_FOR_USERS: &[&str] = &[
    "ActivityTask",
    "Arrival",
    "Asked",
    "BatchHash",
    "CommitId",
    "Debt",
    "Decision",
    "Difference",
    "IdConflictPolicy",
    "InvalidDuration",
    "InvalidPathPart",
    "LiveRun",
    "LocalCall",
    "Merge",
    "Moment",
    "Owed",
    "Patience",
    "QueryFailure",
    "Refusal",
    "Replay",
    "Retake",
    "RunState",
    "StaleSnapshot",
    "StartRequest",
    "StartVerdict",
    "Terms",
    "TurnFailure",
    "catch",
    "catch_async",
    "check_id",
    "derive",
    "fresh_request_id",
    "millis",
    "nested_beyond",
    "parse_duration",
    "read_path_part",
    "write_path_part",
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
fn the_demo_and_the_program_compile_no_aws_crate() {
    for package in ["functions", "dormouse-program"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--package", package, "--edges", "normal,build", "--prefix", "none", "--offline"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(tree.contains("dormouse-engine"), "the tree was read");
        let is_aws = |line: &&str| line.starts_with("aws") || line.starts_with("object_store");
        // The program speaks https, for which rustls has its cryptography from Amazon.
        let is_of_tls = |line: &&str| package == "dormouse-program" && line.starts_with("aws-lc-");
        let aws: Vec<_> = tree.lines().filter(|line| is_aws(line) && !is_of_tls(line)).collect();
        assert!(aws.is_empty(), "{package}: {aws:?}");
    }
}

/// Only the program that developers install carries a parser of Rust: applications do not.
#[test]
fn applications_carry_no_lint() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let carries = dependencies(&package).contains("dormouse-lint");
        assert_eq!(carries, name == "dormouse-program", "{name}");
    }
}

/// The gate builds programs, then tests: were a crate to have other features in the one than in the other, it and all that
/// stands on it would be built twice.
#[cfg(feature = "aws")]
#[test]
fn programs_and_tests_share_one_build() {
    let crates = |edges: &str| -> BTreeSet<String> {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--workspace", "--features", "dormouse-tests/aws", "--edges", edges])
            .args(["--prefix", "none", "--format", "{p} {f}", "--offline"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.replace(" (*)", "")).collect()
    };
    let (programs, tests) = (crates("normal,build"), crates("normal,build,dev"));
    assert!(programs.len() > 100, "the trees were read");
    let twice: Vec<_> = programs.difference(&tests).collect();
    assert!(twice.is_empty(), "give tests/Cargo.toml's feature `aws` what tests ask of: {twice:?}");
}

/// A failure that the library raises on behalf of somebody's code says nothing about a line of the library:
/// `Failure::unplaced`. What stands below the tests of a file, or in its documentation, is the user's.
#[test]
fn the_library_gives_no_places_of_its_own() {
    let mut folders = vec![root().join("orchestrator")];
    let (mut files, mut wrong) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let tests = name == "tests" || name == "tests.rs" || name == "testing";
            if path.is_dir() && !tests {
                folders.push(path);
            } else if name.ends_with(".rs") && !tests {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().lines().enumerate();
                let calls = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
                let calls = calls.filter(|(_, line)| {
                    // What the compiler tells people is theirs.
                    let told = line.contains("`.or_fail");
                    line.contains("Failure::application(") || (line.contains(".or_fail(") && !told)
                });
                wrong.extend(calls.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim())));
            }
        }
    }
    assert!(files > 50, "the tree was read");
    assert!(wrong.is_empty(), "use Failure::unplaced:\n{}", wrong.join("\n"));
}

/// What a crate's first file gives to others.
fn given(room: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(format!("orchestrator/{room}/src/lib.rs"))).unwrap();
    let text = text.split("#[doc(hidden)]").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join(" ");
    let uses = code.split(';').filter_map(|statement| statement.split_once("pub use ")).map(|(_, path)| path);
    let names = uses.flat_map(|path| {
        let (_, names) = path.rsplit_once("::").unwrap_or(("", path));
        let names = path.split_once('{').map_or(names, |(_, names)| names.trim_end().trim_end_matches('}'));
        names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// What users hold has a page in the documentation of the one crate that they depend on, and a name for their helpers.
#[test]
fn users_can_name_what_they_are_given() {
    let named = given("dormouse");
    for room in ["core", "client", "cli", "http"] {
        let given = given(room);
        assert!(given.len() > 3, "{room}: its names were read");
        let missing: Vec<_> = given.difference(&named).filter(|name| !NOT_FOR_USERS.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "dormouse gives its users no {missing:?}: add them there, or to NOT_FOR_USERS");
    }
    for of_engine in ["FrontDoor", "Target", "ApiError", "Embedded", "Settings", "OpenError", "Letters"] {
        assert!(named.contains(of_engine), "dormouse gives its users no {of_engine}");
    }
}

/// clippy reads one file only: the nearest.
#[test]
fn nearer_bans_contain_those_of_the_root() {
    let read = |place: &str| std::fs::read_to_string(root().join(place)).unwrap();
    let bans = read("clippy.toml");
    let bans: Vec<_> = bans.lines().filter(|line| line.trim_start().starts_with("{ path")).collect();
    assert!(!bans.is_empty(), "the file was read");
    for room in ["engine", "lambda"] {
        let nearer = read(&format!("orchestrator/{room}/clippy.toml"));
        for ban in &bans {
            assert!(nearer.lines().any(|line| line == *ban), "{room} does without: {ban}");
        }
    }
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

/// Where a `use` of something in the same room begins, and what follows.
fn used(statement: &str) -> Option<(&'static str, &str)> {
    let after = |from| Some((from, statement.split_once(&format!("use {from}"))?.1));
    ["crate::", "self::", "super::"].into_iter().find_map(after)
}

/// Files of a room, and which others each names in its `use` lines, tests apart.
fn imports(room: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let (mut folders, mut files) = (vec![room.to_path_buf()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.with_extension("").strip_prefix(room).unwrap().to_string_lossy().replace('/', "::");
                files.insert(name.trim_end_matches("::mod").to_owned(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let names: BTreeSet<_> = files.keys().cloned().collect();
    let known = |mut path: Vec<&str>| {
        while !path.is_empty() && !names.contains(&path.join("::")) {
            path.pop();
        }
        path.join("::")
    };
    let uses = |(name, text): (String, String)| {
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        let mut found = BTreeSet::new();
        for (from, path) in code.split(';').filter_map(used) {
            let (base, rest) = path.split_once('{').unwrap_or((path, ""));
            let mut within: Vec<_> = name.split("::").collect();
            within.truncate(match from {
                "crate::" => 0,
                "self::" => within.len(),
                _ => within.len() - 1,
            });
            within.extend(base.trim().trim_end_matches("::").split("::").filter(|part| !part.is_empty()));
            let items = rest.trim_end_matches('}').split(',').map(|item| item.trim().split("::").next().unwrap());
            found.extend(items.map(|item| known(within.iter().copied().chain([item]).collect())));
        }
        // A room's first file, and a folder's, name what is inside them; that is no arrow.
        found.retain(|other| !other.is_empty() && *other != name && !other.starts_with(&format!("{name}::")));
        (name, found)
    };
    files.into_iter().map(uses).collect()
}

/// Everything that a file leads to, itself included if it lies on a circle.
fn reachable<'a>(from: &'a str, imports: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(imports.get(file).into_iter().flatten().map(String::as_str).filter(|other| seen.insert(*other)));
    }
    seen
}

#[test]
fn files_of_a_room_stand_in_one_order() {
    for room in ["core", "engine", "aws", "http", "lambda", "client", "cli", "testing", "lint"] {
        let imports = imports(&root().join("orchestrator").join(room).join("src"));
        assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 3, "{room}: the files were read");
        let circle: Vec<_> = imports.keys().filter(|file| reachable(file, &imports).contains(file.as_str())).collect();
        assert!(circle.is_empty(), "{room}: files that lead back to themselves: {circle:?}");
    }
}
