//! Row objects: one per run, replaced if it still is as it was read.

use dormouse_core::{BatchHash, RunKey, WorkflowKey};
use futures::TryStreamExt;
use object_store::PutMode;

use super::fault::failed;
use super::row::{Intent, RowObject};
use super::{Inner, Known, RACES, keys};
use crate::store::{Newest, RunRow, StoreError};

impl Inner {
    /// Writes the intent into the row object, unless a batch at its sequence is known to stand already.
    pub(super) async fn intend(&self, run: &RunKey, intent: &Intent) -> Result<Known, StoreError> {
        if intent.sequence == 0 {
            self.keys.check(run)?;
        }
        // What is remembered is only a first guess; its ETag tells whether it still is so. But that a run is not open
        // yet is no memory to rely on. A run that nobody knows is most likely new.
        let mut guess = match self.remembered(run) {
            Some(known) => Some(known).filter(|known| known.object.is_open_or_closed()),
            None if intent.sequence == 0 => Some(Known { object: RowObject::new(run), version: None }),
            None => None,
        };
        for _ in 0..RACES {
            let known = match guess.take() {
                Some(known) => known,
                None => match self.resolved(run).await? {
                    Some(known) => known,
                    None => Known { object: RowObject::new(run), version: None },
                },
            };
            if intent.sequence > 0 && !known.object.is_open_or_closed() {
                return Err(StoreError::Refused(format!("there is no run {run}")));
            }
            if known.object.is_past(intent.sequence) {
                return Ok(known);
            }
            // Nobody looks at a run without a marker: it stands before the batch does.
            let marked = async {
                match known.object.owes_nothing_yet() {
                    true => self.put_marker(run, intent.sequence).await,
                    false => Ok(()),
                }
            };
            let mut next = known.clone();
            if !next.object.intend(intent) {
                marked.await?;
                return Ok(known);
            }
            let (replaced, ()) = futures::future::try_join(self.replace_row(run, &mut next), marked).await?;
            if replaced {
                return Ok(next);
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
        known.object.count_revision();
        let text = serde_json::to_vec(&known.object).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mode = known.version.clone().map_or(PutMode::Create, PutMode::Update);
        match self.put(&self.keys.row(run)?, text.into(), mode).await {
            Ok(Some(version)) => {
                known.version = Some(version);
                self.remember(run, known);
                self.note(run, &known.object);
                Ok(true)
            }
            outcome => {
                self.rows().pop(run);
                self.doubt(run);
                outcome.map(|_| false)
            }
        }
    }

    async fn row_object(&self, run: &RunKey) -> Result<Option<Known>, StoreError> {
        let key = self.keys.row(run)?;
        let Some((bytes, version)) = self.get(&key).await? else { return Ok(None) };
        let unreadable = |why: &str| StoreError::Refused(format!("the index row {key} cannot be read: {why}"));
        let object: RowObject = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error.to_string()))?;
        if object.run() != *run {
            return Err(unreadable("it is another run's"));
        }
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

    pub(super) async fn newest(&self, workflow: &WorkflowKey) -> Result<Newest, StoreError> {
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
                return Ok(Newest::Run(Box::new(row)));
            }
        }
        Ok(Newest::Nothing)
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
                self.note(run, &known.object);
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
