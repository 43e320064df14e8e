//! Which crates a project has: cargo knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::sources::{LintError, Tests};

// The crate `cargo_metadata` would give the whole workspace another serde_json (its feature `unbounded_depth`).
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

/// Kinds of targets that are only compiled to test something, or to build something else.
const TESTS: [&str; 2] = ["test", "bench"];
const NEVER: &str = "custom-build";

/// The first files of the crates of this directory, which holds a `Cargo.toml`: of its package, or, where a workspace
/// begins, of all its packages. Asks `cargo metadata`, offline.
///
/// # Errors
/// There is no cargo, or it does not understand the project.
pub fn roots(directory: &Path, tests: Tests) -> Result<Vec<PathBuf>, LintError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = directory.join("Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|error| LintError::NoCargo(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ").to_owned();
        return Err(LintError::NotAProject { manifest: manifest.display().to_string(), said });
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| LintError::NoCargo(error.to_string()))?;
    let here = manifest.canonicalize().unwrap_or(manifest);
    let is_meant =
        |package: &Package| here == metadata.workspace_root.join("Cargo.toml") || here == package.manifest_path;
    let targets = metadata.packages.into_iter().filter(is_meant).flat_map(|package| package.targets);
    let wanted = targets.filter(|target| {
        let of = |kinds: &[&str]| target.kind.iter().any(|kind| kinds.contains(&kind.as_str()));
        !of(&[NEVER]) && (tests == Tests::Too || !of(&TESTS))
    });
    Ok(wanted.map(|target| target.src_path).collect())
}
