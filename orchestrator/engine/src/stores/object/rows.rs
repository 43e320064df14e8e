//! Row objects: one per run, replaced if it still is as it was read.

use dormouse_core::{BatchHash, RunKey, WorkflowKey};
use futures::TryStreamExt;
use object_store::PutMode;

use super::fault::failed;
use super::row::{Intent, RowObject};
use super::{Inner, Known, keys};
use crate::store::{Cause, Newest, Patience, RunRow, StoreError, Try, insist};

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
        insist(Patience::NONE, None, || {
            let guess = guess.take();
            async {
                let known = match guess {
                    Some(known) => known,
                    None => match self.resolved(run).await? {
                        Some(known) => known,
                        None => Known { object: RowObject::new(run), version: None },
                    },
                };
                if intent.sequence > 0 && !known.object.is_open_or_closed() {
                    return Err(no_run(run));
                }
                if known.object.is_past(intent.sequence) {
                    return Ok(Try::Done(known));
                }
                self.intend_upon(run, known, intent).await
            }
        })
        .await
    }

    async fn intend_upon(&self, run: &RunKey, mut known: Known, intent: &Intent) -> Result<Try<Known>, StoreError> {
        // Nobody looks at a run without a marker: it stands before the batch does.
        let mark = known.object.owes_nothing_yet();
        let marked = async {
            match mark {
                true => self.put_marker(run, intent.sequence).await,
                false => Ok(()),
            }
        };
        if !known.object.intend(intent) {
            marked.await?;
            return Ok(Try::Done(known));
        }
        let (replaced, ()) = futures::future::try_join(self.replace_row(run, &mut known), marked).await?;
        Ok(if replaced { Try::Done(known) } else { Try::Lost })
    }

    /// Makes the row object say what the batch at `sequence` has decided. It was so a moment ago.
    pub(super) async fn tidy(
        &self,
        run: &RunKey,
        known: Known,
        sequence: u64,
        standing: BatchHash,
    ) -> Result<(), StoreError> {
        let mut first = Some(known);
        insist(Patience::NONE, None, || {
            let known = first.take();
            async move {
                let mut known = match known {
                    Some(known) => known,
                    None => match self.row_object(run).await? {
                        // Somebody else has done it.
                        Some(known) if known.object.undecided().is_none_or(|lowest| lowest > sequence) => {
                            self.remember(run, &known);
                            self.note(run, &known);
                            return Ok(Try::Done(()));
                        }
                        Some(known) => known,
                        None => return Ok(Try::Done(())),
                    },
                };
                self.decide(run, &mut known.object, Some((sequence, standing))).await?;
                Ok(if self.replace_row(run, &mut known).await? { Try::Done(()) } else { Try::Lost })
            }
        })
        .await
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
    pub(super) async fn replace_row(&self, run: &RunKey, known: &mut Known) -> Result<bool, StoreError> {
        known.object.count_revision();
        let text = serde_json::to_vec(&known.object).map_err(|error| StoreError::Refused(Cause::of(error)))?;
        let mode = known.version.clone().map_or(PutMode::Create, PutMode::Update);
        match self.put(&self.keys.row(run)?, text.into(), mode).await {
            Ok(Some(version)) => {
                known.version = Some(version);
                self.remember(run, known);
                self.note(run, known);
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
        let object: RowObject = serde_json::from_slice(&bytes).map_err(|error| {
            StoreError::Refused(Cause::told(format!("the index row {key} cannot be read: {error}"), error))
        })?;
        if object.run() != *run {
            return Err(StoreError::refused(format!("the index row {key} cannot be read: it is another run's")));
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
        insist(Patience::NONE, None, || async {
            let mut known = self.resolved(run).await?.ok_or_else(|| no_run(run))?;
            let row = known.object.row_mut().ok_or_else(|| no_run(run))?;
            let before = row.clone();
            change(row);
            if *row == before {
                self.note(run, &known);
                return Ok(Try::Done(()));
            }
            Ok(if self.replace_row(run, &mut known).await? { Try::Done(()) } else { Try::Lost })
        })
        .await
    }
}

pub(super) fn no_run(run: &RunKey) -> StoreError {
    StoreError::refused(format!("there is no run {run}"))
}
