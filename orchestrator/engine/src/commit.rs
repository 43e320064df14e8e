//! One conditional create, and what its answers mean (rule C1).

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::Batch;
use dormouse_core::operations::Started;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{RunKey, TurnFailure};

use crate::error::ApiError;
use crate::seams::Host;
use crate::store::{Creation, Entry, Opening, Patience, RowUpdate, Store, StoreError, Try, insist};

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
    host: &dyn Host,
    run: &RunKey,
    record: &Bytes,
    entry: &Entry,
) -> Result<Outcome, StoreError> {
    Ok(commit_telling(store, host, run, record, entry).await?.0)
}

/// The same, and whether it was written just now: a batch that others derive too may have stood there before.
///
/// # Errors
/// As [`commit`].
pub(crate) async fn commit_telling(
    store: &dyn Store,
    host: &dyn Host,
    run: &RunKey,
    record: &Bytes,
    entry: &Entry,
) -> Result<(Outcome, bool), StoreError> {
    let sent = AtomicBool::new(false);
    insist(Patience::COMMIT, Some(&|pause| host.back_off(pause)), || async {
        // An earlier try may have landed, and its answer was lost.
        let again = sent.swap(true, Ordering::Relaxed);
        Ok(Try::Done(match entry.clone().put(store, run, record.clone()).await? {
            Creation::Created => (Outcome::Won, true),
            Creation::Exists(found) if found == *record && !planted(Bug::C1ForgetCommitId) => (Outcome::Won, again),
            Creation::Exists(found) => (Outcome::Lost(found), false),
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
        workflow_type: started.call.workflow_type.clone(),
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

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => error.into(),
            LoadError::Turn(failure) => ApiError::Parked(failure.to_string()),
        }
    }
}
