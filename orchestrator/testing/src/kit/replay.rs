//! Histories of before, held against today's code.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dormouse_core::history::HistoryFile;
use dormouse_core::{App, Replay, Replayed};

/// Replays an exported history (`workflow export`, or [`TestRun::export`](super::TestRun::export)) on this application's
/// code: whether the code follows it to its end, and still reads what is stored. Nothing of the outside happens, and no
/// activity runs.
///
/// A history that a test keeps is a promise: code that is deployed over open runs follows it. So it is recorded once, stands
/// beside the tests, and is not recorded anew because it fails.
///
/// ```
/// use std::time::Duration;
///
/// use dormouse_core::{App, Failure, Workflow};
/// use dormouse_testing::kit::{TestEnv, replay_file};
///
/// async fn nap(cx: Workflow, seconds: u64) -> Result<(), Failure> {
///     Ok(cx.sleep(Duration::from_secs(seconds)).await?)
/// }
/// # let dir = tempfile::tempdir()?;
/// # let file = dir.path().join("nap.json");
///
/// // Once: a run as it stands after its first turn.
/// let run = TestEnv::new(App::new().workflow("nap", nap)).start(nap, &3600);
/// run.export(&file);
///
/// // From then on, in a test.
/// replay_file(App::new().workflow("nap", nap), &file).assert_fits();
///
/// // Code that does something else there is told, with both places in the source.
/// async fn hurry(_: Workflow, _: u64) -> Result<(), Failure> {
///     Ok(())
/// }
/// let replayed = replay_file(App::new().workflow("nap", hurry), &file);
/// assert!(replayed.to_string().contains("recorded:  timer (id 1) at "));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// When the application is registered wrongly, or the file holds no history.
#[must_use]
#[track_caller]
pub fn replay_file(app: App, path: impl AsRef<Path>) -> Replayed {
    replay(&checked(app), path.as_ref())
}

/// Replays each exported history of a directory: its files that end in `.json`, by name.
///
/// ```no_run
/// # use dormouse_core::App;
/// # fn app() -> App { App::new() }
/// use dormouse_testing::kit::replay_dir;
///
/// #[test]
/// fn open_runs_can_go_on() {
///     replay_dir(app(), "tests/histories").assert_fit();
/// }
/// # fn main() {}
/// ```
///
/// # Panics
/// When the application is registered wrongly, the directory has no such file, or one that is no history.
#[must_use]
#[track_caller]
pub fn replay_dir(app: App, dir: impl AsRef<Path>) -> ReplayReport {
    let (app, dir) = (checked(app), dir.as_ref());
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{} cannot be read: {error}", dir.display()));
    let files = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<_> =
        files.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty(), "there is no history in {}: no file ends in .json", dir.display());
    let replayed = files.into_iter().map(|file| {
        let replayed = replay(&app, &file);
        (file, replayed)
    });
    ReplayReport { replayed: replayed.collect() }
}

#[track_caller]
fn checked(app: App) -> Arc<App> {
    if let Err(mistakes) = app.check() {
        panic!("{mistakes}");
    }
    Arc::new(app)
}

#[track_caller]
fn replay(app: &Arc<App>, path: &Path) -> Replayed {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    let file = HistoryFile::from_json(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Replay::whole(app, &file.run, &file.records)
}

/// What replays of several histories came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayReport {
    /// Each file, and what is to be said of its history.
    pub replayed: Vec<(PathBuf, Replayed)>,
}

impl ReplayReport {
    /// # Panics
    /// When today's code does not follow one of them: the message says of each which file, and why.
    #[track_caller]
    pub fn assert_fit(&self) {
        assert!(self.replayed.iter().all(|(_, replayed)| replayed.fits()), "{self}");
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let astray: Vec<_> = self.replayed.iter().filter(|(_, replayed)| !replayed.fits()).collect();
        writeln!(f, "{} of {} histories do not fit today's code:", astray.len(), self.replayed.len())?;
        astray.iter().try_for_each(|(file, replayed)| writeln!(f, "- {}: {replayed}", file.display()))
    }
}
