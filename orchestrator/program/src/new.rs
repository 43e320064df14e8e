//! `new`: a project of one's own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use dormouse_cli::{CliError, Context, Verb};
use serde_json::json;

/// The files of a project, and what stands in them. `{{...}}` is replaced.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../new/Cargo.toml.in")),
    ("rust-toolchain.toml", include_str!("../new/rust-toolchain.toml")),
    (".gitignore", include_str!("../new/gitignore")),
    ("README.md", include_str!("../new/README.md")),
    ("src/lib.rs", include_str!("../new/src/lib.rs")),
    ("src/main.rs", include_str!("../new/src/main.rs")),
    (".github/workflows/ci.yml", include_str!("../new/ci.yml")),
];

/// The toolchain that this program was made with.
const TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");

/// Begin a project of your own
///
/// A directory with a Cargo project in it: one workflow with its activities and tests, lints, a pinned toolchain, and a
/// file for CI. It builds and passes its tests as it stands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  {program} new my-app --git https://example.com/dormouse.git       with the crate from there
  {program} new my-app --path ../dormouse                           with a checkout of it

The crate is not published yet: one of both says where it is.")]
pub(crate) struct New {
    /// The project's directory, which is made; its last part is the package's name
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// A checkout of Dormouse
    #[arg(long, value_name = "DIR", required_unless_present = "git", conflicts_with = "git")]
    path: Option<PathBuf>,
    /// Dormouse's repository
    #[arg(long, value_name = "URL")]
    git: Option<String>,
}

impl Verb for New {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let name = package_name(&self.directory)?;
        let dormouse = self.dependency()?;
        if self.directory.exists() {
            return Err(CliError::new(format!("{} is there already", self.directory.display()))
                .hint("name a directory that is not"));
        }
        let channel = TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap_or("\"stable\"");
        let words = [
            ("{{name}}", name.clone()),
            ("{{crate}}", name.replace('-', "_")),
            ("{{dormouse}}", dormouse),
            ("\"{{toolchain}}\"", channel.to_owned()),
        ];
        for (file, text) in FILES {
            let path = self.directory.join(file);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, words.iter().fold((*text).to_owned(), |text, (word, with)| text.replace(word, with)))?;
        }
        let directory = self.directory.display();
        match cx.format {
            dormouse_cli::Format::Json => {
                let files: Vec<_> = FILES.iter().map(|(file, _)| *file).collect();
                cx.say_json(&json!({ "directory": self.directory, "package": name, "files": files }))?;
            }
            dormouse_cli::Format::Table => {
                cx.say(&format!("Made {directory}:"))?;
                for (file, _) in FILES {
                    cx.say(&format!("  {file}"))?;
                }
                cx.say(&format!("\nNext:\n  cd {directory}\n  cargo test\n  cargo run -- dev"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl New {
    /// What Cargo.toml says of where the crate is.
    fn dependency(&self) -> Result<String, CliError> {
        let Some(checkout) = &self.path else {
            return Ok(format!("git = {}", json!(self.git)));
        };
        let own = checkout.join("orchestrator/dormouse");
        match own.canonicalize() {
            Ok(own) if own.join("Cargo.toml").is_file() => Ok(format!("path = {}", json!(own))),
            Ok(_) | Err(_) => Err(CliError::usage(format!("{} is no checkout of Dormouse", checkout.display()))
                .hint("name the directory that has orchestrator/dormouse in it")),
        }
    }
}

/// The last part of the path, if it can be a package's name.
fn package_name(directory: &Path) -> Result<String, CliError> {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if begins && name.chars().all(|other| other.is_ascii_alphanumeric() || other == '-' || other == '_') {
        return Ok(name.to_owned());
    }
    Err(CliError::usage(format!("{name:?} cannot be the name of a package"))
        .hint("letters, digits, - and _, a letter first, such as my-app"))
}
