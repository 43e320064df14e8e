//! One conditional create, and what its answers mean (rule C1).

use std::num::NonZeroU64;

use bytes::Bytes;
use dormouse_core::history::{Batch, Damage, RunState, Started};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, TurnFailure};

use crate::store::{Creation, Entry, Opening, Patience, RowUpdate, Sleep, Store, StoreError, Try, insist};

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Ours stands at the sequence.
    Won,
    /// This stands there.
    Lost(Bytes),
}

/// Commits a batch. An unknown outcome is resolved by sending the same bytes again, after a pause: the answer is then
/// either "created", or what stands there; the bytes carry a unique commit id, so ours are known from any other.
///
/// # Errors
/// [`StoreError`] when the outcome is still unknown after several tries, or the store refuses.
pub async fn commit(
    store: &dyn Store,
    sleep: Option<Sleep<'_>>,
    run: &RunKey,
    record: &Bytes,
    entry: &Entry,
) -> Result<Outcome, StoreError> {
    insist(Patience::COMMIT, sleep, || async {
        Ok(Try::Done(match entry.clone().put(store, run, record.clone()).await? {
            Creation::Created => Outcome::Won,
            Creation::Exists(found) if found == *record && !planted(Bug::C1ForgetCommitId) => Outcome::Won,
            Creation::Exists(found) => Outcome::Lost(found),
        }))
    })
    .await
}

/// Where the next batch after this state goes, and what it does to the index row in the same write (rule F5).
#[must_use]
pub fn entry(batch: &Batch, state: &RunState) -> Entry {
    let Some(sequence) = NonZeroU64::new(state.next_sequence) else {
        return Entry::Open(opening(&state.started, batch));
    };
    let update = match &state.closed {
        _ if planted(Bug::F5ForgetDue) => RowUpdate::NONE,
        Some(closed) => RowUpdate::close(closed.status(), batch.time, batch.due),
        None => RowUpdate { due: batch.due, closing: None },
    };
    Entry::Append(sequence, update)
}

/// The row that batch 0 begins.
#[must_use]
pub fn opening(started: &Started, batch: &Batch) -> Opening {
    Opening {
        run_id: started.run_id,
        workflow_type: started.workflow_type.clone(),
        started_at: batch.time,
        due: batch.due.unwrap_or(batch.time),
    }
}

/// Why a history could not be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The history is damaged, or the code does not follow it.
    #[error(transparent)]
    Turn(#[from] TurnFailure),
}

/// Reads a whole history, page by page. Empty: there is no such run.
///
/// # Errors
/// [`LoadError`] when the store does not answer, or a batch is missing in the middle.
pub async fn read_history(store: &dyn Store, run: &RunKey) -> Result<Vec<Bytes>, LoadError> {
    let mut records: Vec<Bytes> = Vec::new();
    loop {
        let stretch = store.read(run, records.len() as u64).await?;
        let nothing = stretch.records.is_empty();
        records.extend(stretch.records);
        if stretch.gap && !planted(Bug::C7SkipChain) {
            // What follows the gap does not continue what is before it.
            return Err(TurnFailure::from(Damage::BrokenChain { sequence: records.len() as u64 + 1 }).into());
        }
        if !stretch.more || nothing {
            return Ok(records);
        }
    }
}

/// Folds a whole history, freshly read. `None`: there is no such run.
///
/// # Errors
/// [`LoadError`] when the store does not answer or the history is damaged.
pub async fn read_state(store: &dyn Store, run: &RunKey) -> Result<Option<RunState>, LoadError> {
    let records = read_history(store, run).await?;
    let Some((first, rest)) = records.split_first() else {
        return Ok(None);
    };
    let (mut state, _) = RunState::begin(run.clone(), first).map_err(TurnFailure::from)?;
    for record in rest {
        state.append(record).map_err(TurnFailure::from)?;
    }
    Ok(Some(state))
}
