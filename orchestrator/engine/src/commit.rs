//! One conditional create, and what its answers mean (rule C1).

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::Batch;
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
