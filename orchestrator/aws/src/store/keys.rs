//! Where things are in the table and in the bucket. The shape is kept for good: it is what stored histories are found
//! by.
//!
//! | item | `p` | `s` |
//! | --- | --- | --- |
//! | a batch | `run#<namespace>/<workflow id>` | `<ordinal>#<sequence>` |
//! | the index row of a run, behind its batches | the same | `<ordinal>#row` |
//! | a snapshot | `snapshot#<namespace>/<workflow id>` | `<ordinal>` |
//! | an attempt record | `attempt#<namespace>/<workflow id>/<ordinal>` | `<activity>` |
//!
//! Ids are encoded as in a URL, so that no two of them give the same key. Numbers have twenty digits: their order as
//! text is their order.
//!
//! The sort keys of the indexes hold ids as they are, each ended by a tab, which comes before every character that an
//! id may hold: so the order of the keys is the order of the ids, and the keys stay within their 1,024 bytes.

use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey, derive};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use dormouse_engine::store::{AttemptKey, ListCursor, StoreError};

/// Partitions of each index: 8 times 1,000 writes a second, and no one of them hot.
pub(super) const SHARDS: u8 = 8;

/// Ends an id in a sort key.
const END: char = '\t';

/// Comes right after [`END`], so behind everything that begins with the text before it.
const BEHIND: char = '\n';

/// Comes behind every number.
const BEHIND_NUMBERS: &str = ":";

/// No encoded id of this length or below makes a bucket's key too long (1,024 bytes).
const MAX_PART: usize = 400;

/// Dots too: "." and ".." mean something to many a tool.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

fn encode(id: &str) -> String {
    utf8_percent_encode(id, ENCODED).to_string()
}

/// Ids are checked at the door; a control character here would mix up the order of the indexes.
pub(super) fn check(workflow: &WorkflowKey) -> Result<(), StoreError> {
    for id in [&workflow.namespace, &workflow.workflow_id] {
        if id.chars().any(char::is_control) {
            return Err(StoreError::refused(format!("the id {id:?} holds a control character; use printable text")));
        }
    }
    Ok(())
}

/// The partition of everything about a workflow but its attempt records.
pub(super) fn partition(workflow: &WorkflowKey) -> String {
    format!("run#{}/{}", encode(&workflow.namespace), encode(&workflow.workflow_id))
}

pub(super) fn batch(ordinal: u64, sequence: u64) -> String {
    format!("{ordinal:020}#{sequence:020}")
}

/// Behind the last batch that a run can have, before its row.
pub(super) fn behind_batches(ordinal: u64) -> String {
    format!("{ordinal:020}#{BEHIND_NUMBERS}")
}

pub(super) fn row(ordinal: u64) -> String {
    format!("{ordinal:020}#row")
}

/// Before everything of a run.
pub(super) fn before(ordinal: u64) -> String {
    format!("{ordinal:020}#")
}

/// The sequence in a batch's sort key; `None` when it is no batch's.
pub(super) fn sequence(sort: &str) -> Option<u64> {
    sort.split_once('#')?.1.parse().ok()
}

/// The ordinal in the sort key of a batch or a row.
pub(super) fn ordinal(sort: &str) -> Option<u64> {
    sort.split_once('#')?.0.parse().ok()
}

pub(super) fn is_row(sort: &str) -> bool {
    sort.ends_with("#row")
}

/// The partition of a run's attempt records.
pub(super) fn attempts(run: &RunKey) -> String {
    let WorkflowKey { namespace, workflow_id } = &run.workflow;
    format!("attempt#{}/{}/{:020}", encode(namespace), encode(workflow_id), run.ordinal)
}

/// Where a snapshot is: apart from batches, so that no query meets it, and from attempts, which workers may write.
pub(super) fn snapshot(run: &RunKey) -> (String, String) {
    let WorkflowKey { namespace, workflow_id } = &run.workflow;
    (format!("snapshot#{}/{}", encode(namespace), encode(workflow_id)), format!("{:020}", run.ordinal))
}

/// The keys `p` and `s` of an attempt record: what a worker in another language is told, so that it need not know how
/// they are made.
#[must_use]
pub fn attempt_address(key: &AttemptKey) -> (String, String) {
    (attempts(&key.run), format!("{:020}", key.activity))
}

// --- indexes ---

fn shard(workflow: &WorkflowKey) -> u8 {
    derive("dormouse 2026 index shard", &[workflow.namespace.as_bytes(), workflow.workflow_id.as_bytes()])[0] % SHARDS
}

/// A partition and a place in it.
pub(super) type Place = (String, String);

pub(super) fn start_partition(namespace: &str, shard: u8) -> String {
    format!("start#{shard}#{}", encode(namespace))
}

/// The partition of an index that holds parked runs alone, in the order in which they are listed.
pub(super) fn parked_partition(namespace: &str, shard: u8) -> String {
    format!("parked#{shard}#{}", encode(namespace))
}

/// The partition in which a run is listed while it is parked.
pub(super) fn parked(run: &RunKey) -> String {
    parked_partition(&run.workflow.namespace, shard(&run.workflow))
}

fn start_sort(started_at: Timestamp, workflow_id: &str, ordinal: u64) -> String {
    format!("{:020}{END}{workflow_id}{END}{ordinal:020}", started_at.as_millis())
}

/// Where a run is listed.
pub(super) fn started(run: &RunKey, started_at: Timestamp) -> Place {
    let partition = start_partition(&run.workflow.namespace, shard(&run.workflow));
    (partition, start_sort(started_at, &run.workflow.workflow_id, run.ordinal))
}

pub(super) fn cursor(after: &ListCursor) -> String {
    start_sort(after.started_at, &after.workflow_id, after.ordinal)
}

/// What somebody must look at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agenda {
    /// Runs that are owed something, by due time.
    Due,
    /// Closed runs that owe nothing, by the time of their closing: for retention.
    Closed,
    /// Retired runs whose records are still to be deleted, by the time from which they may be.
    Retired,
}

pub(super) fn agenda_partition(agenda: Agenda, shard: u8) -> String {
    let name = match agenda {
        Agenda::Due => "due",
        Agenda::Closed => "closed",
        Agenda::Retired => "retired",
    };
    format!("{name}#{shard}")
}

/// Where a run is on an agenda.
pub(super) fn agenda(agenda: Agenda, at: Timestamp, run: &RunKey) -> Place {
    (agenda_partition(agenda, shard(&run.workflow)), agenda_sort(at, run))
}

pub(super) fn agenda_sort(at: Timestamp, run: &RunKey) -> String {
    let WorkflowKey { namespace, workflow_id } = &run.workflow;
    format!("{:020}{END}{namespace}{END}{workflow_id}{END}{:020}", at.as_millis(), run.ordinal)
}

/// Before and behind everything in a partition of an index.
pub(super) fn everything() -> (String, String) {
    ("0".into(), BEHIND_NUMBERS.into())
}

/// Behind everything on an agenda at this time.
pub(super) fn behind(at: Timestamp) -> String {
    format!("{:020}{BEHIND}", at.as_millis())
}

// --- the bucket ---

/// The object that a large snapshot is.
pub(super) fn snapshot_object(run: &RunKey) -> String {
    format!("{}/snapshot", objects(run))
}

/// The prefix of a run's objects, without a slash at its end.
pub(super) fn objects(run: &RunKey) -> String {
    let part = |id: &str| {
        let encoded = encode(id);
        if encoded.len() <= MAX_PART {
            return encoded;
        }
        // No encoded id holds a tilde.
        format!("~{}", RunId::from_bytes(derive("dormouse 2026 long id", &[id.as_bytes()])))
    };
    format!("runs/{}/{}/{:020}", part(&run.workflow.namespace), part(&run.workflow.workflow_id), run.ordinal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids that try to be mistaken for others: full of what separates and escapes.
    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z./%_~#: 0-9-]{1,12}",
            "[^\\p{Cc}]{1,8}",
            Just("row".to_owned()),
            Just("00000000000000000000#row".to_owned()),
            Just("%2F".to_owned()),
            Just("\u{1F42D}".repeat(63)),
        ]
    }

    fn run() -> impl Strategy<Value = RunKey> {
        (id(), id(), 0..12_u64).prop_map(|(namespace, workflow_id, ordinal)| {
            WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal)
        })
    }

    fn all(run: &RunKey, number: u64) -> [Place; 5] {
        [
            (partition(&run.workflow), batch(run.ordinal, number)),
            attempt_address(&AttemptKey { run: run.clone(), activity: number }),
            (partition(&run.workflow), row(run.ordinal)),
            (objects(run), String::new()),
            snapshot(run),
        ]
    }

    proptest! {
        #[test]
        fn different_things_have_different_keys(one in run(), two in run(), number in 0..2_u64) {
            let (ones, twos) = (all(&one, number), all(&two, 1));
            for (i, a) in ones.iter().enumerate() {
                for (j, b) in twos.iter().enumerate() {
                    let same = i == j && one == two && (number == 1 || i >= 2);
                    prop_assert_eq!(a == b, same, "{:?} and {:?}", a, b);
                    let within = i == 3 && j == 3 && b.0.starts_with(&format!("{}/", a.0));
                    prop_assert!(!within, "{:?} lies under {:?}", b, a);
                }
            }
        }

        #[test]
        fn the_order_of_the_indexes_is_the_order_of_the_runs(
            one in run(), two in run(), at in 0..3_u64, other in 0..3_u64
        ) {
            let (at, other) = (Timestamp::from_millis(at), Timestamp::from_millis(other));
            prop_assert_eq!(agenda_sort(at, &one).cmp(&agenda_sort(other, &two)), (at, &one).cmp(&(other, &two)));
            let place = |run: &RunKey, started_at| ListCursor {
                started_at, workflow_id: run.workflow.workflow_id.to_string(), ordinal: run.ordinal,
            };
            let (a, b) = (place(&one, at), place(&two, other));
            prop_assert_eq!(cursor(&a).cmp(&cursor(&b)), a.cmp(&b));
            prop_assert!(agenda_sort(at, &one) < behind(at));
            prop_assert!(at >= other || behind(at) < agenda_sort(other, &two));
        }

        #[test]
        fn keys_keep_to_the_limits_of_the_table_and_the_bucket(run in run()) {
            for (p, s) in all(&run, u64::MAX) {
                prop_assert!(p.len() <= 2_048 && s.len() <= 1_024);
            }
            prop_assert!(objects(&run).len() + 80 <= 1_024);
            prop_assert!(agenda_sort(Timestamp::from_millis(u64::MAX), &run).len() <= 1_024);
        }

        #[test]
        fn a_row_stands_behind_every_batch_of_its_run(ordinal in 0..12_u64, number in any::<u64>()) {
            let sort = batch(ordinal, number);
            prop_assert!(before(ordinal) < sort && sort < behind_batches(ordinal));
            prop_assert!(behind_batches(ordinal) < row(ordinal) && row(ordinal) < before(ordinal + 1));
            prop_assert_eq!((super::ordinal(&sort), sequence(&sort)), (Some(ordinal), Some(number)));
            prop_assert_eq!((super::ordinal(&row(ordinal)), sequence(&row(ordinal))), (Some(ordinal), None));
        }
    }
}
