//! Whose code ran when the process ended without being told to: an abort, a stack that overflowed, memory that ran out.
//!
//! A file holds a place for each piece of a workflow's code that runs at this moment, and for each suspect. It is there from
//! the start to the orderly end; who finds it at the start knows that the process before has ended otherwise. Only from then
//! on is each turn written down: a process that ends well pays nothing. The file is written and never synced, since it is
//! to outlive the process, not the machine.
//!
//! | the process has ended, and this run | then |
//! | --- | --- |
//! | was in its code | is a suspect: tried alone, after all others, and [under suspicion](crate::parking::suspect): should the process end once more over its code, the next finds it parked |
//! | was a suspect, and not tried yet | still is one |
//! | was a suspect, had been tried, and was not in its code | is acquitted: the process has ended over something else |

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::{RunKey, WorkflowKey};
use serde::{Deserialize, Serialize};

use crate::parkings::{Remembers, Standing};

/// Room for a run with the longest names.
const PLACE_BYTES: usize = 2048;

/// What stands in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    /// Its code runs.
    Running,
    /// A suspect that has not been tried.
    Awaiting,
    /// A suspect that has been tried.
    Proving,
}

/// The file, and which of its places are taken.
pub(super) struct Trials {
    path: PathBuf,
    file: Mutex<File>,
    /// Nothing is, as long as processes end as they should.
    is_written: AtomicBool,
    taken: Mutex<Vec<bool>>,
    /// And their places.
    suspects: Mutex<HashMap<RunKey, usize>>,
}

/// What the process before has left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// It has ended otherwise than it should, and perhaps over these.
    pub(super) suspects: Vec<RunKey>,
    /// Those of them whom it has tried for nothing: they wait to be tried still.
    pub(super) untried: Vec<RunKey>,
    /// These it has tried, and it has ended over something else.
    pub(super) acquitted: Vec<RunKey>,
}

/// Some run's code is running, until this is dropped.
pub(super) struct Trial {
    trials: Arc<Trials>,
    place: usize,
}

impl Trials {
    /// Begins, over what the process before has left in this file.
    pub(super) fn begin(path: &Path) -> io::Result<(Arc<Self>, Found)> {
        let left = match fs::read(path) {
            Ok(left) => Some(left),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let trials = Self {
            path: path.to_owned(),
            file: Mutex::new(File::create(path)?),
            is_written: AtomicBool::new(left.is_some()),
            taken: Mutex::default(),
            suspects: Mutex::default(),
        };
        Ok((Arc::new(trials), sort(left.unwrap_or_default().chunks(PLACE_BYTES).filter_map(told))))
    }

    /// This run's code begins.
    pub(super) fn enter(self: &Arc<Self>, run: &RunKey) -> Option<Trial> {
        if !self.is_written.load(Ordering::SeqCst) {
            return None;
        }
        let place = self.take_place();
        self.write_entry(place, run, Entry::Running);
        Some(Trial { trials: Arc::clone(self), place })
    }

    /// The process ends as it should.
    pub(super) fn end(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the next start will take this end for a sudden one");
        }
    }

    fn take_place(&self) -> usize {
        let mut taken = lock(&self.taken);
        let free = taken.iter().position(|taken| !taken).unwrap_or_else(|| {
            taken.push(false);
            taken.len() - 1
        });
        taken[free] = true;
        free
    }

    fn leave(&self, place: usize) {
        self.write(place, &[0; 2]);
        lock(&self.taken)[place] = false;
    }

    fn write_entry(&self, place: usize, run: &RunKey, entry: Entry) {
        let told = (&*run.workflow.namespace, &*run.workflow.workflow_id, run.ordinal, entry);
        let text = serde_json::to_vec(&told).unwrap_or_default();
        let length = u16::try_from(text.len()).unwrap_or_default();
        self.write(place, &[&length.to_le_bytes()[..], &text].concat());
    }

    /// Without it the run is only not known should the process end.
    fn write(&self, place: usize, bytes: &[u8]) {
        let mut file = lock(&self.file);
        let written = file.seek(SeekFrom::Start((place * PLACE_BYTES) as u64)).and_then(|_| file.write_all(bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "it is not written down whose code runs");
        }
    }
}

impl Remembers for Trials {
    fn note(&self, run: &RunKey, standing: Option<Standing>) {
        self.is_written.store(true, Ordering::SeqCst);
        let mut suspects = lock(&self.suspects);
        match standing {
            Some(standing) => {
                let entry = match standing {
                    Standing::Awaiting | Standing::OnTrial => Entry::Awaiting,
                    Standing::Proving(_) => Entry::Proving,
                };
                let place = *suspects.entry(run.clone()).or_insert_with(|| self.take_place());
                self.write_entry(place, run, entry);
            }
            None => suspects.remove(run).into_iter().for_each(|place| self.leave(place)),
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.trials.leave(self.place);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(place: &[u8]) -> Option<(RunKey, Entry)> {
    let (length, text) = place.split_first_chunk::<2>()?;
    let text = text.get(..usize::from(u16::from_le_bytes(*length)))?;
    let (namespace, workflow_id, ordinal, entry): (String, String, u64, Entry) = serde_json::from_slice(text).ok()?;
    Some((WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal), entry))
}

/// Whoever was in his code is a suspect, whatever else stands of him.
fn sort(entries: impl Iterator<Item = (RunKey, Entry)>) -> Found {
    let mut runs: BTreeMap<RunKey, Entry> = BTreeMap::new();
    for (run, entry) in entries {
        let known = runs.entry(run).or_insert(entry);
        if entry == Entry::Running {
            *known = entry;
        }
    }
    let mut found = Found::default();
    for (run, entry) in runs {
        match entry {
            Entry::Running => found.suspects.push(run),
            Entry::Awaiting => found.untried.push(run),
            Entry::Proving => found.acquitted.push(run),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use dormouse_core::MAX_ID_BYTES;

    use super::*;
    use crate::seams::Instant;

    fn run(name: &str) -> RunKey {
        WorkflowKey { namespace: "n".into(), workflow_id: name.into() }.run(3)
    }

    #[test]
    fn whoever_was_running_is_known_to_the_next_and_only_from_the_second_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trying");
        let (first, found) = Trials::begin(&path).unwrap();
        assert_eq!(found, Found::default());
        assert!(first.enter(&run("a")).is_none(), "nothing is written as long as nothing has happened");
        let (second, found) = Trials::begin(&path).unwrap();
        assert_eq!(found, Found::default());
        let long = "\"".repeat(MAX_ID_BYTES);
        let (a, b) = (second.enter(&run("a")), second.enter(&run(&long)));
        drop(second.enter(&run("gone")));
        drop(a);
        let c = second.enter(&run("c"));
        let (third, found) = Trials::begin(&path).unwrap();
        assert_eq!(found, Found { suspects: vec![run(&long), run("c")], ..Found::default() });
        drop((b, c));
        third.end();
        assert!(Trials::begin(&path).unwrap().0.enter(&run("a")).is_none());
    }

    #[test]
    fn whoever_was_tried_and_not_in_his_code_is_acquitted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trying");
        let (trials, _) = Trials::begin(&path).unwrap();
        let proving = Standing::Proving(Instant::default());
        for (name, standing) in
            [("innocent", proving), ("guilty", proving), ("waiting", Standing::OnTrial), ("proven", proving)]
        {
            trials.note(&run(name), Some(Standing::Awaiting));
            trials.note(&run(name), Some(standing));
        }
        trials.note(&run("proven"), None);
        let _guilty = trials.enter(&run("guilty")).expect("written from the first suspect on");
        let found = Trials::begin(&path).unwrap().1;
        let one = |name| vec![run(name)];
        assert_eq!(found, Found { suspects: one("guilty"), untried: one("waiting"), acquitted: one("innocent") });
    }
}
