//! Where things lie. Ids are encoded injectively: no two of them share a key, and none climbs out of its place.
//!
//! ```text
//! <prefix>/<namespace>/<workflow id>/<ordinal>/log/<sequence>        a batch
//! <prefix>/<namespace>/<workflow id>/<ordinal>/attempts/<activity>   an attempt record
//! <prefix>/<namespace>/<workflow id>/<ordinal>/snapshot              what was made of the history
//! <prefix>/.rows/<namespace>/<workflow id>/<ordinal>                 an index row
//! <prefix>/.open/<namespace>/<workflow id>/<ordinal>/<sequence>      that the row owes something: empty
//! <prefix>/.closed/<namespace>/<start>/<workflow id>/<ordinal>/<row> that it owes nothing: empty
//! <prefix>/.owner                                                    who owns the prefix, if one process does
//! <prefix>/.scratch/<name>                                           tried out and deleted before that
//! ```
//!
//! The rows have a tree of their own, so that a listing does not wade through histories, and so have the runs that are
//! open. What is closed is listed from its keys alone, the latest start first: `<start>` counts down, `<row>` is the
//! row, or the word "row" where that is to be read. The roots hold a dot, which no encoded id does. A long id takes
//! several parts. Numbers have twenty digits: their order as text is their order.

use dormouse_core::{RunKey, Status, Timestamp, WorkflowKey};
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::store::{Cause, RunRow, StoreError};

/// S3's limit for a key, in bytes; the others' are no smaller.
const MAX_KEY_BYTES: usize = 1_024;

/// Stores over a file system take 255 bytes between two slashes: longer ids are cut. No encoded id holds the mark, so
/// that what is cut is no other id's place.
const LONGEST_PART: usize = 200;
const CONTINUED: &str = "!/";

/// Dots too: "." and ".." mean something to many a tool.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Empty, or ends with a slash.
    root: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = Path::from(prefix);
        let root = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        Self { root }
    }

    pub(super) fn batch(&self, run: &RunKey, sequence: u64) -> Result<Path, StoreError> {
        checked(format!("{}{}/log/{sequence:020}", self.root, run_key(run)))
    }

    pub(super) fn log(&self, run: &RunKey) -> Result<Path, StoreError> {
        checked(format!("{}{}/log", self.root, run_key(run)))
    }

    pub(super) fn attempt(&self, run: &RunKey, activity: u64) -> Result<Path, StoreError> {
        checked(format!("{}{}/attempts/{activity:020}", self.root, run_key(run)))
    }

    pub(super) fn snapshot(&self, run: &RunKey) -> Result<Path, StoreError> {
        checked(format!("{}{}/snapshot", self.root, run_key(run)))
    }

    pub(super) fn row(&self, run: &RunKey) -> Result<Path, StoreError> {
        checked(format!("{}.rows/{}", self.root, run_key(run)))
    }

    pub(super) fn rows_of_workflow(&self, workflow: &WorkflowKey) -> Result<Path, StoreError> {
        checked(format!("{}.rows/{}", self.root, workflow_key(workflow)))
    }

    pub(super) fn owner(&self) -> Result<Path, StoreError> {
        checked(format!("{}.owner", self.root))
    }

    pub(super) fn scratch(&self, name: &str) -> Result<Path, StoreError> {
        checked(format!("{}.scratch/{name}", self.root))
    }

    /// Where all markers of runs that owe something are.
    pub(super) fn open(&self) -> Result<Path, StoreError> {
        checked(format!("{}.open", self.root))
    }

    /// Says that a batch at this sequence may have made the run owe something.
    pub(super) fn marker(&self, run: &RunKey, sequence: u64) -> Result<Path, StoreError> {
        checked(format!("{}.open/{}/{sequence:020}", self.root, run_key(run)))
    }

    /// What a marker says.
    pub(super) fn read_marker(&self, key: &Path) -> Option<(RunKey, u64)> {
        let text = self.behind(key, ".open/")?;
        let mut parts = text.split('/');
        let workflow = WorkflowKey { namespace: decode(parts.next()?)?, workflow_id: decode(parts.next()?)? };
        let run = workflow.run(parts.next()?.parse().ok()?);
        Some((run, parts.next()?.parse().ok()?))
    }

    pub(super) fn closed_of_namespace(&self, namespace: &str) -> Result<Path, StoreError> {
        checked(format!("{}.closed/{}", self.root, encode(namespace)))
    }

    /// Just before all closed runs of the namespace that started then or earlier.
    pub(super) fn closed_from(&self, namespace: &str, start: Timestamp) -> Result<Path, StoreError> {
        checked(format!("{}.closed/{}/{:020}", self.root, encode(namespace), countdown(start)))
    }

    /// Where a row that owes nothing is listed.
    pub(super) fn closed(&self, row: &RunRow) -> Result<Path, StoreError> {
        let place = self.closed_place(&row.run, row.started_at);
        match row.closed_at.filter(|_| row.due.is_none() && row.parked.is_none()) {
            Some(closed_at) => {
                let words = [encode(row.status.as_str()), row.run_id.to_string(), encode(&row.workflow_type)];
                let told = cut(&format!("{:020}.{}", closed_at.as_millis(), words.join(".")));
                checked(format!("{place}/{told}")).or_else(|_| checked(format!("{place}/{UNTOLD}")))
            }
            None => checked(format!("{place}/{UNTOLD}")),
        }
    }

    fn closed_place(&self, run: &RunKey, start: Timestamp) -> String {
        let WorkflowKey { namespace, workflow_id } = &run.workflow;
        let (namespace, workflow_id) = (encode(namespace), encode(workflow_id));
        format!("{}.closed/{namespace}/{:020}/{workflow_id}/{:020}", self.root, countdown(start), run.ordinal)
    }

    /// Whether every key that the run will ever need can be.
    pub(super) fn check(&self, run: &RunKey) -> Result<(), StoreError> {
        checked(format!("{}/{UNTOLD}", self.closed_place(run, Timestamp::default())))?;
        self.marker(run, 0).and(self.batch(run, 0)).and(self.attempt(run, 0)).map(drop)
    }

    /// What the key of a closed run says.
    pub(super) fn read_closed(&self, key: &Path) -> Option<Closed> {
        let text = self.behind(key, ".closed/")?;
        let [namespace, start, workflow_id, ordinal, told] = *text.split('/').collect::<Vec<_>>() else { return None };
        let workflow = WorkflowKey { namespace: decode(namespace)?, workflow_id: decode(workflow_id)? };
        let run = workflow.run(ordinal.parse().ok()?);
        let started_at = Timestamp::from_millis(u64::MAX - start.parse::<u64>().ok()?);
        let mut words = told.split('.');
        let row = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(closed_at), Some(status), Some(run_id), Some(workflow_type)) => Some(RunRow {
                run: run.clone(),
                run_id: run_id.parse().ok()?,
                workflow_type: decode(workflow_type)?.to_string(),
                status: Status::stored(&decode(status)?),
                started_at,
                closed_at: Some(Timestamp::from_millis(closed_at.parse().ok()?)),
                due: None,
                parked: None,
            }),
            _ => None,
        };
        Some(Closed { run, started_at, row })
    }

    /// The key behind its tree, its cut parts made whole.
    fn behind(&self, key: &Path, tree: &str) -> Option<String> {
        Some(key.as_ref().strip_prefix(&*self.root)?.strip_prefix(tree)?.replace(CONTINUED, ""))
    }
}

/// What a listing says of a closed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) run: RunKey,
    pub(super) started_at: Timestamp,
    /// `None`: its row says more than its key.
    pub(super) row: Option<RunRow>,
}

/// Stands where a key does not tell the row.
const UNTOLD: &str = "row";

/// The later, the smaller.
fn countdown(time: Timestamp) -> u64 {
    u64::MAX - time.as_millis()
}

fn decode(text: &str) -> Option<std::sync::Arc<str>> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into())
}

/// The number that a key ends with.
pub(super) fn last_number(key: &Path) -> Option<u64> {
    key.filename()?.parse().ok()
}

fn encode(id: &str) -> String {
    cut(&utf8_percent_encode(id, ENCODED).to_string())
}

/// In parts that every store takes. ASCII: any place will do for a cut.
fn cut(text: &str) -> String {
    let parts: Vec<_> =
        (0..text.len()).step_by(LONGEST_PART).map(|at| &text[at..text.len().min(at + LONGEST_PART)]).collect();
    parts.join(CONTINUED)
}

fn workflow_key(workflow: &WorkflowKey) -> String {
    format!("{}/{}", encode(&workflow.namespace), encode(&workflow.workflow_id))
}

fn run_key(run: &RunKey) -> String {
    format!("{}/{:020}", workflow_key(&run.workflow), run.ordinal)
}

fn checked(key: String) -> Result<Path, StoreError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(StoreError::refused(format!(
            "the ids need a key of {} bytes, the limit is {MAX_KEY_BYTES}; use shorter ones, or fewer special characters",
            key.len()
        )));
    }
    Path::parse(key).map_err(|error| StoreError::Refused(Cause::of(error)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids that try to be mistaken for others: full of what separates, escapes and climbs.
    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z./%_~\\\\ 0-9-]{1,12}",
            "\\PC{1,8}",
            Just("..".to_owned()),
            Just(".rows".to_owned()),
            Just("log".to_owned()),
            Just("%2F".to_owned()),
            // About where ids are cut, and what might be taken for what follows.
            (198..203_usize).prop_map(|length| "x".repeat(length)),
            (0..3_usize).prop_map(|n| "x".repeat(200) + ["log", "!", "00000000000000000001"][n]),
            (16..18_usize).prop_map(|length| "\u{1f42d}".repeat(length)),
        ]
    }

    fn run() -> impl Strategy<Value = RunKey> {
        (id(), id(), 0..3_u64).prop_map(|(namespace, workflow_id, ordinal)| {
            WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal)
        })
    }

    fn all(keys: &Keys, run: &RunKey, number: u64) -> [Path; 6] {
        let closed = keys.closed(&row(run, number, "Completed", "type"));
        let (batch, attempt, marker) = (keys.batch(run, number), keys.attempt(run, number), keys.marker(run, number));
        [batch, attempt, marker, closed, keys.row(run), keys.snapshot(run)].map(Result::unwrap)
    }

    fn row(run: &RunKey, closed_at: u64, status: &str, workflow_type: &str) -> RunRow {
        RunRow {
            run: run.clone(),
            run_id: dormouse_core::RunId::from_bytes([7; 16]),
            workflow_type: workflow_type.into(),
            status: Status::stored(status),
            started_at: Timestamp::from_millis(5),
            closed_at: Some(Timestamp::from_millis(closed_at)),
            due: None,
            parked: None,
        }
    }

    proptest! {
        #[test]
        fn different_things_have_different_keys(one in run(), two in run(), number in 0..2_u64) {
            let keys = Keys::new("some/where");
            let (ones, twos) = (all(&keys, &one, number), all(&keys, &two, 1));
            for (i, a) in ones.iter().enumerate() {
                for (j, b) in twos.iter().enumerate() {
                    let same = i == j && one == two && (number == 1 || i >= 4);
                    prop_assert_eq!(a == b, same, "{} and {}", a, b);
                    prop_assert!(!b.as_ref().starts_with(&format!("{a}/")), "{} lies under {}", b, a);
                }
            }
        }

        #[test]
        fn no_id_leaves_its_place(run in run()) {
            let keys = Keys::new("some/where");
            let [batch, attempt, marker, closed, row, snapshot] = all(&keys, &run, 7);
            let cuts = row.as_ref().matches(CONTINUED).count();
            for (key, depth) in [(&batch, 7), (&attempt, 7), (&marker, 7), (&closed, 8), (&row, 6), (&snapshot, 6)] {
                prop_assert!(key.as_ref().split('/').all(|part| part.len() <= 255));
                prop_assert!(key.as_ref().starts_with("some/where/"));
                prop_assert_eq!(key.parts().count(), depth + cuts);
                prop_assert!(key.as_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%/.!".contains(&b)));
                prop_assert_eq!(key.as_ref().contains('.'), ![&batch, &attempt, &snapshot].contains(&key));
            }
        }
    }

    proptest! {
        #[test]
        fn keys_are_read_back(run in run(), number in any::<u64>(), status in "\\PC{1,31}", workflow_type in "\\PC{1,300}") {
            let keys = Keys::new("some/where");
            prop_assert_eq!(keys.read_marker(&keys.marker(&run, number).unwrap()), Some((run.clone(), number)));
            let row = row(&run, number, &status, &workflow_type);
            let key = keys.closed(&row).unwrap();
            let closed = keys.read_closed(&key).unwrap();
            prop_assert_eq!((&closed.run, closed.started_at), (&run, row.started_at));
            prop_assert_eq!(closed.row.is_none(), key.as_ref().ends_with("/row"));
            prop_assert!(closed.row.is_none_or(|told| told == row), "{}", key);
            let owing = RunRow { due: Some(Timestamp::from_millis(9)), ..row };
            prop_assert_eq!(keys.read_closed(&keys.closed(&owing).unwrap()).unwrap().row, None);
        }
    }

    #[test]
    fn the_latest_start_is_listed_first() {
        let keys = Keys::new("");
        let run = WorkflowKey::new("n", "w").unwrap().run(0);
        let at = |millis| {
            let row = row(&run, 9, "Failed", "type");
            keys.closed(&RunRow { started_at: Timestamp::from_millis(millis), ..row }).unwrap()
        };
        assert!(at(u64::MAX) < at(1_000) && at(1_000) < at(999) && at(999) < at(0));
        let from = keys.closed_from("n", Timestamp::from_millis(1_000)).unwrap();
        assert!(at(1_001) < from && from < at(1_000));
    }

    #[test]
    fn a_key_that_no_store_takes_is_refused_at_once() {
        let run = WorkflowKey::new(&"/".repeat(255), &"/".repeat(255)).unwrap().run(0);
        assert!(matches!(Keys::new("").batch(&run, 0), Err(StoreError::Refused(_))));
        let run = WorkflowKey::new("default", &"/".repeat(255)).unwrap().run(0);
        assert!(Keys::new("").batch(&run, 0).is_ok());
    }
}
