//! The outside world of the samples: a file that gets one line for every execution of an activity. It tells whether
//! anything was ever done twice; the engine knows nothing of it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use dormouse::{Activity, Failure};
use serde::{Deserialize, Serialize};

/// One execution of an activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The workflow that asked for it.
    pub workflow_id: String,
    /// The run.
    pub run_id: String,
    /// The activity's name.
    pub activity: String,
    /// Its id within the run.
    pub activity_id: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The same for all attempts.
    pub idempotency_key: String,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// The ledger file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: Arc<PathBuf>,
}

impl Ledger {
    /// The file that `LEDGER_FILE` names, or `ledger.jsonl` in the data directory of `dev`; on Lambda, where that cannot
    /// be written, in the directory for temporary files.
    #[must_use]
    pub fn from_env() -> Self {
        let on_lambda = std::env::var_os("LAMBDA_TASK_ROOT").is_some();
        let place = if on_lambda { std::env::temp_dir() } else { data_dir(std::env::args_os()) };
        Self::at(std::env::var_os("LEDGER_FILE").map_or_else(|| place.join("ledger.jsonl"), PathBuf::from))
    }

    /// This file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Arc::new(path.into()) }
    }

    /// Writes one line and syncs it. An activity does this before anything else.
    ///
    /// # Errors
    /// What the file system says.
    #[allow(clippy::disallowed_methods, reason = "called by activities, which may look at the clock")]
    pub async fn record(&self, cx: &Activity) -> Result<(), Failure> {
        let info = cx.info();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let entry = Entry {
            workflow_id: cx.workflow_id().into(),
            run_id: info.run_id.to_string(),
            activity: info.activity_type.clone(),
            activity_id: info.activity_id.to_string(),
            attempt: info.attempt,
            idempotency_key: cx.idempotency_key(),
            at: u64::try_from(now.as_millis())?,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let path = Arc::clone(&self.path);
        // One write to a file opened for appending: lines of concurrent activities do not mix.
        let write = move || -> std::io::Result<()> {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&*path)?;
            if cut_short(&mut file)? {
                line.insert(0, b'\n');
            }
            file.write_all(&line)?;
            file.sync_data()
        };
        Ok(tokio::task::spawn_blocking(write).await??)
    }

    /// All lines, in order. A line that a crash cut short is left out.
    ///
    /// # Errors
    /// What the file system says.
    pub fn entries(&self) -> std::io::Result<Vec<Entry>> {
        match std::fs::read_to_string(&*self.path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Whether the file ends within a line: a process may be killed half-way through a write, at the end of a page.
fn cut_short(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Where `dev` keeps its data with this command line.
fn data_dir(arguments: impl IntoIterator<Item = OsString>) -> PathBuf {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let written = argument.to_str().and_then(|text| text.strip_prefix("--data-dir="));
        match written {
            Some(dir) => return dir.into(),
            None if argument == "--data-dir" => return arguments.next().unwrap_or_default().into(),
            None => {}
        }
    }
    "dormouse-data".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"workflow_id":"o","run_id":"r","activity":"charge","activity_id":"1","attempt":1,"idempotency_key":"r:1","at":7}"#;

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        for (text, cut) in
            [("".to_owned(), false), (format!("{LINE}\n"), false), (format!("{LINE}\n{}", &LINE[..40]), true)]
        {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(cut_short(&mut File::open(&path).unwrap()).unwrap(), cut, "{text:?}");
        }
        std::fs::write(&path, format!("{LINE}\n{}\n{LINE}\n", &LINE[..40])).unwrap();
        assert_eq!(Ledger::at(&path).entries().unwrap().len(), 2);
    }

    #[test]
    fn it_lies_in_the_data_directory() {
        let dir = |line: &str| data_dir(line.split(' ').map(OsString::from));
        for (line, expected) in [
            ("app dev", "dormouse-data"),
            ("app dev --data-dir /var/orders --log debug", "/var/orders"),
            ("app dev --data-dir=orders", "orders"),
            ("app workflow list", "dormouse-data"),
        ] {
            assert_eq!(dir(line), PathBuf::from(expected), "{line}");
        }
    }
}
