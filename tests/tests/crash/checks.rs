//! What must be true afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use dormouse::RetryState;
use dormouse_core::RunState;
use dormouse_core::history::{Batch, CommandId, Event, Input, Turn, turn_time};
use dormouse_core::operations;
use dormouse_core::{LiveRun, Timestamp};
use dormouse_engine::states::{read_history, read_state};
use dormouse_engine::store::{RunFilter, RunRow, Store};
use functions::ledger::{Entry, Ledger};

use crate::client::Ack;

/// A run as the store has it.
pub struct Told {
    pub row: RunRow,
    pub state: RunState,
    /// When the history says that an activity succeeded, by its attempt.
    completed: BTreeMap<CommandId, (u32, Timestamp)>,
    /// Final failures.
    pub failed: Vec<(u32, RetryState)>,
    request_ids: Vec<String>,
}

/// Reads these runs back and replays them: gapless, chained, and followed by today's code.
pub async fn read_back(store: &dyn Store, which: &RunFilter) -> HashMap<String, Told> {
    let rows = store.list("default", which, None, 100_000).await.unwrap();
    let app = Arc::new(functions::app(Ledger::at("never")));
    let mut runs = HashMap::new();
    for row in rows {
        let records = read_history(store, &row.run).await.unwrap();
        let state = read_state(store, &row.run).await.unwrap().unwrap();
        assert_eq!(state.next_sequence, records.len() as u64);
        assert_eq!((state.run_id(), state.status()), (row.run_id, row.status), "{}: row and history differ", row.run);
        let live = LiveRun::replay(&app, &row.run, &records).unwrap_or_else(|failure| panic!("{}: {failure}", row.run));
        assert_eq!(*live.state(), state, "{}", row.run);
        let mut told = Told { row, state, completed: BTreeMap::new(), failed: vec![], request_ids: vec![] };
        for (sequence, record) in records.iter().enumerate() {
            told.take(&Batch::decode(sequence as u64, record).unwrap());
        }
        runs.insert(told.row.run.workflow.workflow_id.to_string(), told);
    }
    runs
}

impl Told {
    fn take(&mut self, batch: &Batch) {
        for event in &batch.events {
            let (at, input) = match event {
                Event::Turn(Turn { at_offset_ms, input: Some(input), .. }) => {
                    (turn_time(batch.time, *at_offset_ms), input)
                }
                Event::Input(input) => (batch.time, input),
                _ => continue,
            };
            self.request_ids.extend(input.request_id().map(ToOwned::to_owned));
            match input {
                Input::ActivityCompleted(operations::ActivityCompleted { id, attempt, .. }) => {
                    assert_eq!(
                        self.completed.insert(*id, (*attempt, at)),
                        None,
                        "{}: {id} completes twice",
                        self.row.run
                    );
                }
                Input::ActivityFailed(operations::ActivityFailed { attempt, retry_state, .. }) => {
                    self.failed.push((*attempt, *retry_state))
                }
                _ => {}
            }
        }
    }
}

pub fn check_acknowledged(acknowledged: &[Ack], runs: &HashMap<String, Told>) {
    for ack in acknowledged {
        match ack {
            Ack::Start { workflow_id, run_id } => {
                let run = runs.get(workflow_id).unwrap_or_else(|| panic!("{workflow_id} was acknowledged and is lost"));
                assert_eq!(run.row.run_id, *run_id, "{workflow_id}");
            }
            Ack::Signal { workflow_id, request_id } => {
                let times = runs[workflow_id].request_ids.iter().filter(|id| *id == request_id).count();
                assert_eq!(times, 1, "signal {request_id} was acknowledged and is {times} times in the history");
            }
        }
    }
}

/// `woken`: when a process that had been taken for dead woke up, if one did. Nobody can call back what its code was
/// about to do outside; but that was another attempt, claimed before, which the history counts as lost.
pub fn check_ledger(ledger: &[Entry], runs: &HashMap<String, Told>, woken: Option<Timestamp>) {
    let (mut attempts, mut keys) = (HashSet::new(), HashMap::new());
    for entry in ledger {
        let run = &runs[&entry.workflow_id];
        assert_eq!(run.row.run_id.to_string(), entry.run_id);
        assert!(attempts.insert((&entry.idempotency_key, entry.attempt)), "twice: {entry:?}");
        let key = keys.entry((&entry.run_id, &entry.activity_id)).or_insert(&entry.idempotency_key);
        assert_eq!(*key, &entry.idempotency_key, "another key: {entry:?}");
        if let Some((attempt, at)) = run.completed.get(&entry.activity_id.parse().unwrap()) {
            let ghost = woken.is_some_and(|woken| entry.at >= woken.as_millis()) && entry.attempt < *attempt;
            assert!(
                entry.at <= at.as_millis() || ghost,
                "after its recorded completion at {}: {entry:?}",
                at.as_millis()
            );
            assert!(entry.attempt <= *attempt, "a later attempt than {attempt}, which completed: {entry:?}");
        }
    }
    let all: BTreeSet<_> = keys.values().collect();
    assert_eq!(all.len(), keys.len(), "activities share a key");
    // What is recorded as done was done.
    for run in runs.values() {
        for (id, (attempt, _)) in &run.completed {
            let key = format!("{}:{id}", run.row.run_id);
            assert!(attempts.contains(&(&key, *attempt)), "{}: {id} completed and was never run", run.row.run);
        }
    }
}
