//! The index row where there are no transactions.
//!
//! A change to the row is written down as an *intent* before its batch is put: which sequence, and the hash of the
//! bytes that would stand there. The batch decides. Whoever meets an intent looks at that sequence: those bytes, and
//! the change has happened; others, and it never will; none, and it is undecided, so of the change only the due time
//! counts, if it is early. So a crash between any two requests leaves a due time too early, never too late, and a
//! row that no batch stands behind is never shown (rule F5).

use dormouse_core::{BatchHash, RunKey, Status, Timestamp, WorkflowKey};
use serde::{Deserialize, Serialize};

use crate::store::{Closing, Opening, RowUpdate, RunRow};

/// What is stored, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowObject {
    namespace: String,
    workflow_id: String,
    ordinal: u64,
    /// Counts the replacements: of two readings, the later one has more.
    revision: u64,
    /// The sequence of the last change that `row` contains.
    sequence: u64,
    /// For which batches a marker was put since the run last owed nothing (see `index.rs`).
    markers: Vec<u64>,
    /// `None` until batch 0 is known to stand.
    row: Option<RunRow>,
    intents: Vec<Intent>,
    /// Whether more is decided here than in what is stored.
    #[serde(skip)]
    ahead: bool,
}

/// A change that its batch decides about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) sequence: u64,
    pub(super) hash: BatchHash,
    pub(super) change: Change,
}

/// What a batch does to the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    /// It begins with batch 0.
    Open(Opening),
    Update(RowUpdate),
}

impl Intent {
    fn due(&self) -> Option<Timestamp> {
        match &self.change {
            Change::Open(opening) => Some(opening.due),
            Change::Update(update) => update.due,
        }
    }
}

impl RowObject {
    /// A run of which nothing is known yet.
    pub(super) fn new(run: &RunKey) -> Self {
        Self {
            namespace: run.workflow.namespace.to_string(),
            workflow_id: run.workflow.workflow_id.to_string(),
            ordinal: run.ordinal,
            revision: 0,
            sequence: 0,
            markers: Vec::new(),
            row: None,
            intents: Vec::new(),
            ahead: false,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// It is about to be replaced.
    pub(super) fn count_revision(&mut self) {
        self.revision += 1;
        self.ahead = false;
    }

    /// Whether more is decided here than in what is stored: then it is stored before anything rests on it.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead
    }

    pub(super) fn run(&self) -> RunKey {
        WorkflowKey { namespace: self.namespace.as_str().into(), workflow_id: self.workflow_id.as_str().into() }
            .run(self.ordinal)
    }

    /// Whether batch 0 is known to stand.
    pub(super) fn is_open_or_closed(&self) -> bool {
        self.row.is_some()
    }

    /// Whether a batch at this sequence has already changed the row: a new one there can only lose.
    pub(super) fn is_past(&self, sequence: u64) -> bool {
        self.row.is_some() && sequence <= self.sequence
    }

    /// Writes an intent down; answers whether it was new.
    pub(super) fn intend(&mut self, intent: &Intent) -> bool {
        if self.intents.iter().any(|known| known.sequence == intent.sequence && known.hash == intent.hash) {
            return false;
        }
        if self.owes_nothing_yet() {
            if self.intents.is_empty() {
                self.markers.clear();
            }
            self.markers.push(intent.sequence);
        }
        self.intents.push(intent.clone());
        true
    }

    /// Whether no batch that is known to stand makes the run owe anything: then whoever changes that puts a marker,
    /// whatever others are about to.
    pub(super) fn owes_nothing_yet(&self) -> bool {
        self.row.as_ref().is_none_or(|row| row.closed_at.is_some() && row.due.is_none())
    }

    /// Whether the run owes nothing, and no batch is under way that may change that.
    pub(super) fn owes_nothing(&self) -> bool {
        self.row.is_some() && self.intents.is_empty() && self.owes_nothing_yet()
    }

    /// The markers that say nothing any more once the run owes nothing. One of a later batch is never among them.
    pub(super) fn void_markers<'a>(&'a self, listed: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let all: std::collections::BTreeSet<_> = self.markers.iter().chain(listed).copied().collect();
        all.into_iter().filter(|sequence| *sequence <= self.sequence)
    }

    /// When somebody must look at the run.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let early = self.intents.iter().filter_map(Intent::due).min();
        [self.row.as_ref()?.due, early].into_iter().flatten().min()
    }

    /// The sequence to look at next. Always the lowest: a later change must not be made before an earlier one.
    pub(super) fn undecided(&self) -> Option<u64> {
        self.intents.iter().map(|intent| intent.sequence).min()
    }

    /// These bytes stand at this sequence: makes the change that was meant with them, drops all others there.
    pub(super) fn decide(&mut self, sequence: u64, hash: BatchHash) {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.intents).into_iter().partition(|intent| intent.sequence == sequence);
        self.intents = elsewhere;
        self.ahead = true;
        if let Some(intent) = here.into_iter().find(|intent| intent.hash == hash)
            // A retry of what has long been applied.
            && !self.is_past(sequence)
        {
            self.apply(sequence, intent.change);
        }
    }

    fn apply(&mut self, sequence: u64, change: Change) {
        let run = self.run();
        match (change, &mut self.row) {
            (Change::Open(Opening { run_id, workflow_type, started_at, due }), row @ None) => {
                *row = Some(RunRow {
                    run,
                    run_id,
                    workflow_type,
                    status: Status::Running,
                    started_at,
                    closed_at: None,
                    due: Some(due),
                    parked: None,
                });
            }
            (Change::Update(RowUpdate { due, closing: None }), Some(row)) => row.due = due.or(row.due),
            (Change::Update(RowUpdate { due, closing: Some(Closing { status, closed_at }) }), Some(row)) => {
                row.status = status;
                row.closed_at = Some(closed_at);
                row.due = due;
            }
            // Only batch 0 opens, and only once.
            (Change::Open(_), Some(_)) | (Change::Update(_), None) => return,
        }
        self.sequence = sequence;
    }

    /// The row itself, to change what no batch decides about: parking, settling.
    pub(super) fn row_mut(&mut self) -> Option<&mut RunRow> {
        self.row.as_mut()
    }

    /// What readers see, once all that can be decided is.
    pub(super) fn visible(self) -> Option<RunRow> {
        let (run, due) = (self.run(), self.due());
        Some(RunRow { run, due, ..self.row? })
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::RunId;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn intent(sequence: u64, bytes: &[u8], change: Change) -> Intent {
        Intent { sequence, hash: BatchHash::of(bytes), change }
    }

    fn opening(name: &str) -> Change {
        Change::Open(Opening {
            run_id: RunId::from_bytes([1; 16]),
            workflow_type: name.into(),
            started_at: at(1),
            due: at(100),
        })
    }

    fn due(millis: u64) -> Change {
        Change::Update(RowUpdate::due(at(millis)))
    }

    fn close(status: Status) -> Change {
        Change::Update(RowUpdate::close(status, at(5), None))
    }

    fn opened() -> RowObject {
        let mut object = RowObject::new(&WorkflowKey::new("n", "w").unwrap().run(0));
        object.intend(&intent(0, b"zero", opening("right")));
        object.decide(0, BatchHash::of(b"zero"));
        object
    }

    #[test]
    fn the_batch_decides_whose_row_it_is() {
        let mut object = RowObject::new(&WorkflowKey::new("n", "w").unwrap().run(3));
        object.intend(&intent(0, b"a", opening("wrong")));
        object.intend(&intent(0, b"b", opening("right")));
        assert_eq!(object.clone().visible(), None, "no batch, no row");
        object.decide(0, BatchHash::of(b"b"));
        let row = object.visible().unwrap();
        assert_eq!((row.workflow_type.as_str(), row.run.ordinal), ("right", 3));
    }

    #[test]
    fn undecided_changes_only_make_the_due_time_earlier() {
        let mut object = opened();
        object.intend(&intent(1, b"later", due(900)));
        assert_eq!(object.clone().visible().unwrap().due, Some(at(100)));
        object.intend(&intent(1, b"earlier", due(50)));
        assert_eq!(object.clone().visible().unwrap().due, Some(at(50)));
        object.decide(1, BatchHash::of(b"later"));
        assert_eq!(object.visible().unwrap().due, Some(at(900)));
    }

    #[test]
    fn what_was_applied_is_not_applied_again() {
        let mut object = opened();
        object.intend(&intent(1, b"one", due(900)));
        object.decide(1, BatchHash::of(b"one"));
        object.intend(&intent(2, b"two", due(20)));
        object.decide(2, BatchHash::of(b"two"));
        assert!(object.is_past(1) && object.is_past(2) && !object.is_past(3));
        object.intend(&intent(1, b"one", due(900)));
        object.decide(1, BatchHash::of(b"one"));
        assert_eq!(object.visible().unwrap().due, Some(at(20)));
    }

    #[test]
    fn changes_are_made_in_the_order_of_their_batches() {
        let mut object = opened();
        object.intend(&intent(2, b"two", due(20)));
        let close = close(Status::Completed);
        object.intend(&intent(1, b"one", close));
        assert_eq!(object.undecided(), Some(1));
        object.decide(1, BatchHash::of(b"one"));
        assert_eq!(object.undecided(), Some(2));
        object.decide(2, BatchHash::of(b"two"));
        assert_eq!(object.undecided(), None);
        let row = object.visible().unwrap();
        assert_eq!((row.status, row.due), (Status::Completed, Some(at(20))));
    }

    #[test]
    fn it_survives_its_json_form() {
        let mut object = opened();
        object.intend(&intent(1, b"x", close(Status::Failed)));
        let text = serde_json::to_vec(&object).unwrap();
        let mut back: RowObject = serde_json::from_slice(&text).unwrap();
        assert_eq!(back.run(), object.run());
        back.decide(1, BatchHash::of(b"x"));
        assert_eq!(back.visible().unwrap().status, Status::Failed);
    }
}
