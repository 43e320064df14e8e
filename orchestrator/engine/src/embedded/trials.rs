//! Whose code ran when the process ended without being told to: an abort, a stack that overflowed, memory that ran out.
//!
//! A file holds a place for each piece of a workflow's code that runs at this moment. It is there from the start to the
//! orderly end; who finds it at the start knows that the process before has ended otherwise. Only from then on is each
//! turn written down: a process that ends well pays nothing. The file is written and never synced, since it is to outlive
//! the process, not the machine.
//!
//! Whoever is found there is a suspect. He is tried alone, after all others, and [under
//! suspicion](crate::parking::suspect): should the process end once more, the next finds him parked.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::{RunKey, WorkflowKey};

/// Room for a run with the longest names.
const PLACE_BYTES: usize = 2048;

/// The file, and which of its places are taken.
pub(super) struct Trials {
    path: PathBuf,
    /// None while nothing is written down.
    file: Option<Mutex<File>>,
    taken: Mutex<Vec<bool>>,
}

/// How the process before has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As it should; or there was none.
    Orderly,
    /// In the midst of these runs' code, or of none.
    Sudden(Vec<RunKey>),
}

/// Some run's code is running, until this is dropped.
pub(super) struct Trial {
    trials: Arc<Trials>,
    place: usize,
}

impl Trials {
    /// Begins, over what the process before has left in this file.
    pub(super) fn begin(path: &Path) -> io::Result<(Arc<Self>, Ending)> {
        let ending = match fs::read(path) {
            Ok(left) => Ending::Sudden(left.chunks(PLACE_BYTES).filter_map(told).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ending::Orderly,
            Err(error) => return Err(error),
        };
        let file = File::create(path)?;
        let file = (ending != Ending::Orderly).then_some(Mutex::new(file));
        Ok((Arc::new(Self { path: path.to_owned(), file, taken: Mutex::default() }), ending))
    }

    fn taken(&self) -> MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This run's code begins.
    pub(super) fn enter(self: &Arc<Self>, run: &RunKey) -> Option<Trial> {
        let file = self.file.as_ref()?;
        let place = {
            let mut taken = self.taken();
            let free = taken.iter().position(|taken| !taken).unwrap_or_else(|| {
                taken.push(false);
                taken.len() - 1
            });
            taken[free] = true;
            free
        };
        let trial = Trial { trials: Arc::clone(self), place };
        let told = (&*run.workflow.namespace, &*run.workflow.workflow_id, run.ordinal);
        let text = serde_json::to_vec(&told).unwrap_or_default();
        let length = u16::try_from(text.len()).unwrap_or_default();
        write(file, place, &[&length.to_le_bytes()[..], &text].concat());
        Some(trial)
    }

    /// The process ends as it should.
    pub(super) fn end(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the next start will take this end for a sudden one");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(file) = &self.trials.file {
            write(file, self.place, &[0; 2]);
        }
        self.trials.taken()[self.place] = false;
    }
}

/// Without it the run is only not known should the process end.
fn write(file: &Mutex<File>, place: usize, bytes: &[u8]) {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let written = file.seek(SeekFrom::Start((place * PLACE_BYTES) as u64)).and_then(|_| file.write_all(bytes));
    if let Err(error) = written {
        tracing::debug!(%error, "it is not written down whose code runs");
    }
}

fn told(place: &[u8]) -> Option<RunKey> {
    let (length, text) = place.split_first_chunk::<2>()?;
    let text = text.get(..usize::from(u16::from_le_bytes(*length)))?;
    let (namespace, workflow_id, ordinal): (String, String, u64) = serde_json::from_slice(text).ok()?;
    Some(WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal))
}

#[cfg(test)]
mod tests {
    use dormouse_core::MAX_ID_BYTES;

    use super::*;

    fn run(name: &str) -> RunKey {
        WorkflowKey { namespace: "n".into(), workflow_id: name.into() }.run(3)
    }

    #[test]
    fn whoever_was_running_is_known_to_the_next_and_only_from_the_second_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trying");
        let (first, ending) = Trials::begin(&path).unwrap();
        assert_eq!(ending, Ending::Orderly);
        assert!(first.enter(&run("a")).is_none(), "nothing is written as long as nothing has happened");
        let (second, ending) = Trials::begin(&path).unwrap();
        assert_eq!(ending, Ending::Sudden(vec![]));
        let long = "\"".repeat(MAX_ID_BYTES);
        let (a, b) = (second.enter(&run("a")), second.enter(&run(&long)));
        drop(second.enter(&run("gone")));
        drop(a);
        let c = second.enter(&run("c"));
        let (third, ending) = Trials::begin(&path).unwrap();
        assert_eq!(ending, Ending::Sudden(vec![run("c"), run(&long)]));
        drop((b, c));
        third.end();
        assert_eq!(Trials::begin(&path).unwrap().1, Ending::Orderly);
    }
}
