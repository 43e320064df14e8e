//! A crate's files: the first, and those that its `mod` lines lead to.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

use crate::names::plain;

/// Why a project was not checked.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// There is no cargo, or it says what it should not.
    #[error("cargo cannot be asked for the project's crates: {0}")]
    NoCargo(String),
    /// Cargo does not understand the project.
    #[error("{manifest} is no project that cargo understands: {said}")]
    NotAProject {
        /// The `Cargo.toml`.
        manifest: String,
        /// What cargo said.
        said: String,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file is no Rust.
    #[error("{file}:{line}:{column}: this is no Rust that can be read: {error}")]
    NotRust {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What was expected.
        error: String,
    },
}

/// What becomes of code that only tests run: below `#[cfg(test)]` and `#[test]`, in tests and benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tests {
    /// It is checked too.
    Too,
    /// It is left alone.
    Left,
}

/// A file, read.
pub(crate) struct Source {
    /// Its path, from the current directory where it lies below.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) code: syn::File,
    /// Modules with bodies in other files: the name of each, as a path from this file's module, and the index of its file.
    pub(crate) modules: Vec<(Vec<String>, usize)>,
    /// Lines that were not looked at.
    pub(crate) skipped: Vec<RangeInclusive<usize>>,
}

/// A file that is still to be read, and where files of its modules lie.
struct Next {
    path: PathBuf,
    folder: PathBuf,
    named_by: Option<(usize, Vec<String>)>,
}

/// All files of a crate, the first one first.
pub(crate) fn read(root: &Path) -> Result<Vec<Source>, LintError> {
    let folder = root.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut next = vec![Next { path: root.to_path_buf(), folder, named_by: None }];
    let (mut sources, mut seen) = (Vec::<Source>::new(), BTreeSet::new());
    while let Some(Next { path, folder, named_by }) = next.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let source = one(&path)?;
        let index = sources.len();
        named(&source.code.items, &path, &folder, &[], &mut |path, folder, name| {
            next.push(Next { path, folder, named_by: Some((index, name)) });
        });
        sources.push(source);
        if let Some((parent, name)) = named_by {
            sources[parent].modules.push((name, index));
        }
    }
    Ok(sources)
}

fn one(path: &Path) -> Result<Source, LintError> {
    let here = std::env::current_dir().unwrap_or_default();
    let name = path.strip_prefix(here).unwrap_or(path).display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Err(LintError::Unreadable { file: name, error }),
    };
    let code = syn::parse_file(&text).map_err(|error| {
        let place = error.span().start();
        LintError::NotRust { file: name.clone(), line: place.line, column: place.column + 1, error: error.to_string() }
    })?;
    Ok(Source { name, text, code, modules: Vec::new(), skipped: Vec::new() })
}

/// Finds the files that `mod` lines name. One that is not there is the compiler's to report: it may be switched off.
fn named(
    items: &[Item],
    file: &Path,
    folder: &Path,
    within: &[String],
    found: &mut impl FnMut(PathBuf, PathBuf, Vec<String>),
) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        let name = plain(&module.ident);
        let path: Vec<String> = within.iter().cloned().chain([name.clone()]).collect();
        match &module.content {
            Some((_, items)) => named(items, file, &folder.join(&name), &path, found),
            None => {
                let beside = file.parent().unwrap_or(Path::new(""));
                let (place, inside) = match said(&module.attrs) {
                    Some(said) => (beside.join(&said), beside.join(said).parent().unwrap_or(beside).to_path_buf()),
                    None => {
                        let flat = folder.join(format!("{name}.rs"));
                        let deep = folder.join(&name).join("mod.rs");
                        (if flat.is_file() { flat } else { deep }, folder.join(&name))
                    }
                };
                if place.is_file() {
                    found(place, inside, path);
                }
            }
        }
    }
}

/// What `#[path = "..."]` says.
fn said(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}
