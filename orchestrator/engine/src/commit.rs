//! One conditional create, and what its answers mean (rule C1).

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::{Batch, Damage};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, TurnFailure};

use crate::store::{Creation, RowChange, Store, StoreError};

/// How often a commit of unknown outcome is sent again before the caller must decide.
const TRIES: u32 = 5;

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Ours stands at the sequence.
    Won,
    /// This stands there.
    Lost(Bytes),
}

/// Commits a batch. An unknown outcome is resolved by sending the same bytes again: the answer is then either
/// "created", or what stands there; the bytes carry a unique commit id, so ours are known from any other.
///
/// # Errors
/// [`StoreError`] when the outcome is still unknown after several tries, or the store refuses.
pub async fn commit(
    store: &dyn Store,
    run: &RunKey,
    sequence: u64,
    record: &Bytes,
    change: Option<RowChange>,
) -> Result<Outcome, StoreError> {
    let mut unknown = StoreError::Unknown("never tried".into());
    for _ in 0..TRIES {
        match store.create(run, sequence, record.clone(), change.clone()).await {
            Ok(Creation::Created) => return Ok(Outcome::Won),
            Ok(Creation::Exists(found)) if found == *record && !planted(Bug::C1ForgetCommitId) => {
                return Ok(Outcome::Won);
            }
            Ok(Creation::Exists(found)) => return Ok(Outcome::Lost(found)),
            Err(error @ StoreError::Refused(_)) => return Err(error),
            Err(error @ StoreError::Unknown(_)) => unknown = error,
        }
    }
    Err(unknown)
}

/// What a batch does to the index row, in the same write (rule F5).
#[must_use]
pub fn row_change(batch: &Batch, state: &RunState) -> Option<RowChange> {
    if planted(Bug::F5ForgetDue) && state.next_sequence > 0 {
        return None;
    }
    if state.next_sequence == 0 {
        return Some(RowChange::Open {
            run_id: state.run_id(),
            workflow_type: state.started.call.workflow_type.clone(),
            started_at: batch.time,
            due: batch.due?,
        });
    }
    match &state.closed {
        Some(closed) => Some(RowChange::Close { status: closed.status(), closed_at: batch.time, due: batch.due }),
        None => batch.due.map(RowChange::Due),
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
