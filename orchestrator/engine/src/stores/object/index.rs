//! The index: row objects, and what is said of runs by reading them.

use dormouse_core::{BatchHash, RunKey, Timestamp, WorkflowKey};
use futures::TryStreamExt;
use object_store::PutMode;
use object_store::path::Path;

use super::row::{Intent, RowObject};
use super::{CONCURRENT_GETS, Inner, Known, RACES, failed, keys};
use crate::store::{ListCursor, RunFilter, RunRow, StoreError};

impl Inner {
    /// Writes the intent into the row object, unless a batch at its sequence is known to stand already.
    pub(super) async fn intend(&self, run: &RunKey, intent: &Intent) -> Result<Known, StoreError> {
        // What is remembered is only a first guess; its ETag tells whether it still is so. But that a run is not open
        // yet is no memory to rely on. A run that nobody knows is most likely new.
        let mut guess = match self.remembered(run) {
            Some(known) => Some(known).filter(|known| known.object.is_open_or_closed()),
            None if intent.sequence == 0 => Some(Known { object: RowObject::new(run), version: None }),
            None => None,
        };
        for _ in 0..RACES {
            let mut known = match guess.take() {
                Some(known) => known,
                None => match self.resolved(run).await? {
                    Some(known) => known,
                    None => Known { object: RowObject::new(run), version: None },
                },
            };
            if intent.sequence > 0 && !known.object.is_open_or_closed() {
                return Err(StoreError::Refused(format!("there is no run {run}")));
            }
            if known.object.is_past(intent.sequence) || !known.object.intend(intent) {
                return Ok(known);
            }
            if self.replace_row(run, &mut known).await? {
                return Ok(known);
            }
        }
        Err(StoreError::Unknown(format!("the index row of {run} is contended; the batch was not put")))
    }

    /// Makes the row object say what the batch at `sequence` has decided.
    pub(super) async fn tidy(
        &self,
        run: &RunKey,
        known: &mut Known,
        sequence: u64,
        standing: BatchHash,
    ) -> Result<(), StoreError> {
        for _ in 0..RACES {
            self.decide(run, &mut known.object, Some((sequence, standing))).await?;
            if self.replace_row(run, known).await? {
                return Ok(());
            }
            match self.row_object(run).await? {
                Some(current) => *known = current,
                None => return Ok(()),
            }
            if known.object.undecided().is_none_or(|lowest| lowest > sequence) {
                // Somebody else was so kind.
                self.remember(run, known);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Decides the intents whose batches stand, from the lowest sequence on. `standing` spares one get.
    async fn decide(
        &self,
        run: &RunKey,
        object: &mut RowObject,
        standing: Option<(u64, BatchHash)>,
    ) -> Result<(), StoreError> {
        while let Some(sequence) = object.undecided() {
            let hash = match standing {
                Some((known, hash)) if known == sequence => hash,
                _ => match self.get(&self.keys.batch(run, sequence)?).await? {
                    Some((found, _)) => BatchHash::of(&found),
                    None => return Ok(()),
                },
            };
            object.decide(sequence, hash);
        }
        Ok(())
    }

    /// Replaces the row object, if it still is as it was read. `false`: it is not.
    async fn replace_row(&self, run: &RunKey, known: &mut Known) -> Result<bool, StoreError> {
        let text = serde_json::to_vec(&known.object).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mode = known.version.clone().map_or(PutMode::Create, PutMode::Update);
        match self.put(&self.keys.row(run)?, text.into(), mode).await {
            Ok(Some(version)) => {
                known.version = Some(version);
                self.remember(run, known);
                Ok(true)
            }
            outcome => {
                self.rows().pop(run);
                outcome.map(|_| false)
            }
        }
    }

    async fn row_object(&self, run: &RunKey) -> Result<Option<Known>, StoreError> {
        self.row_object_at(&self.keys.row(run)?).await
    }

    async fn row_object_at(&self, key: &Path) -> Result<Option<Known>, StoreError> {
        let Some((bytes, version)) = self.get(key).await? else { return Ok(None) };
        let object = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Unknown(format!("the index row {key} is damaged: {error}")))?;
        Ok(Some(Known { object, version: Some(version) }))
    }

    /// The row object with all decided that can be.
    pub(super) async fn resolved(&self, run: &RunKey) -> Result<Option<Known>, StoreError> {
        let Some(mut known) = self.row_object(run).await? else { return Ok(None) };
        self.decide(run, &mut known.object, None).await?;
        Ok(Some(known))
    }

    pub(super) async fn row(&self, run: &RunKey) -> Result<Option<RunRow>, StoreError> {
        Ok(self.resolved(run).await?.and_then(|known| known.object.visible()))
    }

    pub(super) async fn latest(&self, workflow: &WorkflowKey) -> Result<Option<RunRow>, StoreError> {
        let mut ordinals: Vec<u64> = self
            .reads
            .list(Some(&self.keys.rows_of_workflow(workflow)?))
            .try_filter_map(async |meta| Ok(keys::last_number(&meta.location)))
            .try_collect()
            .await
            .map_err(failed)?;
        ordinals.sort_unstable();
        // More than one look only if a start is under way, or was cut short.
        for ordinal in ordinals.into_iter().rev() {
            if let Some(row) = self.row(&workflow.run(ordinal)).await? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// All rows under a key that pass.
    async fn rows_under(&self, key: &Path, admits: impl Fn(&RunRow) -> bool) -> Result<Vec<RunRow>, StoreError> {
        self.reads
            .list(Some(key))
            .map_err(failed)
            .map_ok(async |meta| {
                let Some(mut known) = self.row_object_at(&meta.location).await? else { return Ok(None) };
                let run = known.object.run();
                self.decide(&run, &mut known.object, None).await?;
                Ok(known.object.visible())
            })
            .try_buffer_unordered(CONCURRENT_GETS)
            .try_filter_map(|row| std::future::ready(Ok(row.filter(&admits))))
            .try_collect()
            .await
    }

    pub(super) async fn list(
        &self,
        namespace: &str,
        filter: &RunFilter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let place = |row: &RunRow| ListCursor {
            started_at: row.started_at,
            workflow_id: row.run.workflow.workflow_id.to_string(),
            ordinal: row.run.ordinal,
        };
        let key = self.keys.rows_of_namespace(namespace)?;
        let behind = |row: &RunRow| after.is_none_or(|after| place(row) < *after);
        let mut rows = self.rows_under(&key, |row| filter.admits(row) && behind(row)).await?;
        rows.sort_by_cached_key(|row| std::cmp::Reverse(place(row)));
        rows.truncate(limit);
        Ok(rows)
    }

    pub(super) async fn due(
        &self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let place = |row: &RunRow| row.due.map(|due| (due, row.run.clone()));
        let owed = |row: &RunRow| place(row).is_some_and(|place| place.0 <= by && after.as_ref() < Some(&place));
        let mut rows = self.rows_under(&self.keys.rows()?, owed).await?;
        rows.sort_by_cached_key(place);
        rows.truncate(limit);
        Ok(rows)
    }

    /// Changes what no batch decides about.
    pub(super) async fn amend(&self, run: &RunKey, change: impl Fn(&mut RunRow)) -> Result<(), StoreError> {
        for _ in 0..RACES {
            let mut known = self.resolved(run).await?;
            let Some((known, row)) = known.as_mut().and_then(|known| {
                let row = known.object.row_mut()?.clone();
                Some((known, row))
            }) else {
                return Err(StoreError::Refused(format!("there is no run {run}")));
            };
            let mut amended = row.clone();
            change(&mut amended);
            if amended == row {
                return Ok(());
            }
            if let Some(row) = known.object.row_mut() {
                *row = amended;
            }
            if self.replace_row(run, known).await? {
                return Ok(());
            }
        }
        Err(StoreError::Unknown(format!("the index row of {run} is contended")))
    }
}
