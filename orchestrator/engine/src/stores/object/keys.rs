//! Where things lie. Ids are encoded injectively: no two of them share a key, and none climbs out of its place.
//!
//! ```text
//! <prefix>/<namespace>/<workflow id>/<ordinal>/log/<sequence>        a batch
//! <prefix>/<namespace>/<workflow id>/<ordinal>/attempts/<activity>   an attempt record
//! <prefix>/.rows/<namespace>/<workflow id>/<ordinal>                 an index row
//! <prefix>/.owner                                                    who owns the prefix, if one process does
//! <prefix>/.scratch/<name>                                           tried out and deleted before that
//! ```
//!
//! The rows have a tree of their own, so that a listing does not wade through histories. Its root holds a dot, which
//! no encoded id does. Numbers have twenty digits: their order as text is their order.

use dormouse_core::{RunKey, WorkflowKey};
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::store::StoreError;

/// S3's limit for a key, in bytes; the others' are no smaller.
const MAX_KEY_BYTES: usize = 1_024;

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

    pub(super) fn row(&self, run: &RunKey) -> Result<Path, StoreError> {
        checked(format!("{}.rows/{}", self.root, run_key(run)))
    }

    pub(super) fn rows_of_workflow(&self, workflow: &WorkflowKey) -> Result<Path, StoreError> {
        checked(format!("{}.rows/{}", self.root, workflow_key(workflow)))
    }

    pub(super) fn rows_of_namespace(&self, namespace: &str) -> Result<Path, StoreError> {
        checked(format!("{}.rows/{}", self.root, encode(namespace)))
    }

    pub(super) fn owner(&self) -> Result<Path, StoreError> {
        checked(format!("{}.owner", self.root))
    }

    pub(super) fn scratch(&self, name: &str) -> Result<Path, StoreError> {
        checked(format!("{}.scratch/{name}", self.root))
    }

    pub(super) fn rows(&self) -> Result<Path, StoreError> {
        checked(format!("{}.rows", self.root))
    }
}

/// The number that a key ends with.
pub(super) fn last_number(key: &Path) -> Option<u64> {
    key.filename()?.parse().ok()
}

fn encode(id: &str) -> String {
    utf8_percent_encode(id, ENCODED).to_string()
}

fn workflow_key(workflow: &WorkflowKey) -> String {
    format!("{}/{}", encode(&workflow.namespace), encode(&workflow.workflow_id))
}

fn run_key(run: &RunKey) -> String {
    format!("{}/{:020}", workflow_key(&run.workflow), run.ordinal)
}

fn checked(key: String) -> Result<Path, StoreError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(StoreError::Refused(format!(
            "the ids need a key of {} bytes, the limit is {MAX_KEY_BYTES}; use shorter ones, or fewer special characters",
            key.len()
        )));
    }
    Path::parse(key).map_err(|error| StoreError::Refused(error.to_string()))
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
        ]
    }

    fn run() -> impl Strategy<Value = RunKey> {
        (id(), id(), 0..3_u64).prop_map(|(namespace, workflow_id, ordinal)| {
            WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal)
        })
    }

    fn all(keys: &Keys, run: &RunKey, number: u64) -> [Path; 3] {
        [keys.batch(run, number), keys.attempt(run, number), keys.row(run)].map(Result::unwrap)
    }

    proptest! {
        #[test]
        fn different_things_have_different_keys(one in run(), two in run(), number in 0..2_u64) {
            let keys = Keys::new("some/where");
            let (ones, twos) = (all(&keys, &one, number), all(&keys, &two, 1));
            for (i, a) in ones.iter().enumerate() {
                for (j, b) in twos.iter().enumerate() {
                    let same = i == j && one == two && (number == 1 || i == 2);
                    prop_assert_eq!(a == b, same, "{} and {}", a, b);
                    prop_assert!(!b.as_ref().starts_with(&format!("{a}/")), "{} lies under {}", b, a);
                }
            }
        }

        #[test]
        fn no_id_leaves_its_place(run in run()) {
            let keys = Keys::new("some/where");
            let [batch, attempt, row] = all(&keys, &run, 7);
            for (key, depth) in [(&batch, 7), (&attempt, 7), (&row, 6)] {
                prop_assert!(key.as_ref().starts_with("some/where/"));
                prop_assert_eq!(key.parts().count(), depth);
                prop_assert!(key.as_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%/.".contains(&b)));
                prop_assert_eq!(key.as_ref().contains('.'), key == &row);
            }
        }
    }

    #[test]
    fn a_key_that_no_store_takes_is_refused_at_once() {
        let run = WorkflowKey::new(&"/".repeat(255), &"/".repeat(255)).unwrap().run(0);
        assert!(matches!(Keys::new("").batch(&run, 0), Err(StoreError::Refused(_))));
        let run = WorkflowKey::new("default", &"/".repeat(255)).unwrap().run(0);
        assert!(Keys::new("").batch(&run, 0).is_ok());
    }
}
