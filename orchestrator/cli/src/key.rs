//! The token that `dev` asks for where other machines can reach it: as notebooks do, made at the first start.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use dormouse_engine::host::random_id;
use dormouse_http::Token;

use crate::error::CliError;
use crate::output::quoted;
use crate::place::Place;
use crate::remote::TOKEN_VARIABLE;

/// Where a token is kept, within a data directory.
const FILE: &str = "dormouse.token";

/// A token, and how people come by it.
pub(crate) struct Key {
    pub(crate) token: Token,
    /// The file that holds it. `None`: it is in the environment.
    pub(crate) file: Option<PathBuf>,
    /// It was drawn for this process alone, and is told nowhere else.
    drawn: Option<String>,
}

impl Key {
    /// That of the environment; else that of the data directory, which is made if there is none; else, where there is no
    /// directory, a new one.
    pub(crate) fn find(place: &Place) -> Result<Self, CliError> {
        if let Ok(text) = std::env::var(TOKEN_VARIABLE) {
            let token = Token::new(&text).map_err(|error| CliError::usage(format!("{TOKEN_VARIABLE}: {error}")))?;
            return Ok(Self { token, file: None, drawn: None });
        }
        match place {
            Place::Directory(dir) => Self::in_directory(dir),
            Place::Objects(..) => {
                let drawn = draw();
                Ok(Self { token: Token::new(&drawn)?, file: None, drawn: Some(drawn) })
            }
        }
    }

    fn in_directory(dir: &Path) -> Result<Self, CliError> {
        let file = dir.join(FILE);
        let cannot = |error: &dyn std::fmt::Display| {
            CliError::new(format!("the token file {} cannot be used: {error}", file.display())).hint(
                "delete it, and the next start makes a new one; or put a token into DORMOUSE_TOKEN; or say --no-auth",
            )
        };
        let text = match only_for_us(OpenOptions::new().write(true).create_new(true)).open(&file) {
            Ok(mut made) => {
                let text = draw();
                made.write_all(format!("{text}\n").as_bytes())
                    .and_then(|()| made.sync_all())
                    .map_err(|e| cannot(&e))?;
                text
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let mut text = String::new();
                let mut found = File::open(&file).map_err(|error| cannot(&error))?;
                found.read_to_string(&mut text).map_err(|error| cannot(&error))?;
                if others_may_read(&found).map_err(|error| cannot(&error))? {
                    return Err(cannot(&"others may read it (chmod 600 forbids it)"));
                }
                text
            }
            Err(error) => return Err(cannot(&error)),
        };
        let token = Token::new(&text).map_err(|error| cannot(&error))?;
        Ok(Self { token, file: Some(file), drawn: None })
    }

    /// A command that shows it, ready to be typed on this machine.
    pub(crate) fn command(&self, url: &str) -> String {
        let program = std::env::args().next().unwrap_or_else(|| "dormouse".into());
        let list = format!("{} workflow list --address {url}", quoted(&program));
        match (&self.file, &self.drawn) {
            (Some(file), _) => format!("{list} --token-file {}", quoted(&file.display().to_string())),
            (None, Some(token)) => format!("{TOKEN_VARIABLE}={token} {list} --auth bearer"),
            (None, None) => format!("{list} --auth bearer    ({TOKEN_VARIABLE} as here)"),
        }
    }
}

/// 32 bytes of chance.
fn draw() -> String {
    [random_id(), random_id()].map(|id| format!("{:032x}", u128::from_be_bytes(id))).concat()
}

#[cfg(unix)]
fn only_for_us(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(unix)]
fn others_may_read(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn only_for_us(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(not(unix))]
fn others_may_read(_: &File) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let made = Key::in_directory(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        assert!(std::fs::read_to_string(&file).unwrap().trim().len() == 64);
        assert!(!others_may_read(&File::open(&file).unwrap()).unwrap());
        assert!(Key::in_directory(dir.path()).unwrap().token == made.token, "the next start has the same");
        let command = made.command("http://10.0.0.7:7780");
        assert!(
            command.contains("--address http://10.0.0.7:7780 --token-file ") && command.contains(FILE),
            "{command}"
        );

        std::fs::write(&file, "short").unwrap();
        let refused = format!("{:?}", Key::in_directory(dir.path()).err().unwrap());
        assert!(refused.contains("16 visible") && refused.contains("--no-auth"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn a_token_that_others_may_read_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Key::in_directory(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = format!("{:?}", Key::in_directory(dir.path()).err().unwrap());
        assert!(refused.contains("chmod 600"), "{refused}");
    }
}
