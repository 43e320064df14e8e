//! Histories: a batch is an object that is created once.

use std::num::NonZeroU64;

use bytes::Bytes;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{BatchHash, RunKey};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, PutMode};

use super::fault::failed;
use super::row::{Change, Intent};
use super::rows::no_run;
use super::{CONCURRENT_GETS, Inner, keys};
use crate::store::{Creation, Opening, RowUpdate, StoreError, Stretch};

/// A page of history ends with the batch that reaches this, or at so many batches: one page of S3's listings.
const PAGE_BYTES: u64 = 1 << 20;
const PAGE_BATCHES: usize = 1_000;

impl Inner {
    pub(super) async fn open(&self, run: &RunKey, record: Bytes, opening: Opening) -> Result<Creation, StoreError> {
        self.keys.check(run)?;
        self.create(run, 0, record, Change::Open(opening)).await
    }

    pub(super) async fn append(
        &self,
        run: &RunKey,
        sequence: NonZeroU64,
        record: Bytes,
        update: RowUpdate,
    ) -> Result<Creation, StoreError> {
        if update.is_none() {
            self.check_exists(run).await?;
            return self.put_batch(run, sequence.get(), record).await;
        }
        self.create(run, sequence.get(), record, Change::Update(update)).await
    }

    /// A batch that changes the row: intent, batch, row.
    async fn create(&self, run: &RunKey, sequence: u64, record: Bytes, change: Change) -> Result<Creation, StoreError> {
        let hash = BatchHash::of(&record);
        let known = self.intend(run, &Intent { sequence, hash, change }).await?;
        let creation = self.put_batch(run, sequence, record).await?;
        let standing = match &creation {
            Creation::Created => hash,
            Creation::Exists(found) => BatchHash::of(found),
        };
        // The batch has decided, and every reader can tell: this only spares them the work.
        if let Err(error) = self.tidy(run, known, sequence, standing).await {
            tracing::debug!(%run, sequence, %error, "the index row still waits for its batch");
        }
        Ok(creation)
    }

    async fn put_batch(&self, run: &RunKey, sequence: u64, record: Bytes) -> Result<Creation, StoreError> {
        let key = self.keys.batch(run, sequence)?;
        if self.put(&key, record, PutMode::Create).await?.is_some() {
            return Ok(Creation::Created);
        }
        match self.get(&key).await? {
            Some((found, _)) => Ok(Creation::Exists(found)),
            // A conflict between two puts of which neither may have won.
            None => Err(StoreError::unknown(format!("{key} is in conflict, and nothing is there"))),
        }
    }

    /// A batch behind the first needs a run.
    async fn check_exists(&self, run: &RunKey) -> Result<(), StoreError> {
        if self.remembered(run).is_some_and(|known| known.object.is_open_or_closed()) {
            return Ok(());
        }
        match self.resolved(run).await? {
            Some(known) if known.object.is_open_or_closed() => {
                self.remember(run, &known);
                Ok(())
            }
            _ => Err(no_run(run)),
        }
    }

    pub(super) async fn read(&self, run: &RunKey, from: u64) -> Result<Stretch, StoreError> {
        let log = self.keys.log(run)?;
        let listing = match from.checked_sub(1) {
            None => self.reads.list(Some(&log)),
            Some(last) => self.reads.list_with_offset(Some(&log), &self.keys.batch(run, last)?),
        };
        let mut listed: Vec<(u64, ObjectMeta)> = listing
            .take(PAGE_BATCHES)
            .try_filter_map(async |meta| Ok(keys::last_number(&meta.location).map(|sequence| (sequence, meta))))
            .try_collect()
            .await
            .map_err(failed)?;
        listed.sort_unstable_by_key(|(sequence, _)| *sequence);
        let listed_all = listed.len() < PAGE_BATCHES;

        let mut stretch = Stretch::default();
        let (mut next, mut bytes) = (from, 0);
        let mut listed = listed.into_iter().peekable();
        while bytes < PAGE_BYTES {
            // As many as follow each other and fit the page, together.
            let mut together = Vec::new();
            while let Some((_, meta)) = listed.next_if(|(sequence, _)| *sequence == next && bytes < PAGE_BYTES) {
                next += 1;
                bytes += meta.size;
                together.push(meta.location);
            }
            if together.is_empty() {
                // The listing has a gap here, or ends: it may be older than the log (rule C4). A look at the place
                // itself tells.
                if listed.peek().is_none() && !listed_all {
                    break;
                }
                if planted(Bug::C4NoReread) {
                    return Ok(stretch);
                }
                let Some((found, _)) = self.get(&self.keys.batch(run, next)?).await? else {
                    stretch.gap = listed.peek().is_some();
                    return Ok(stretch);
                };
                next += 1;
                bytes += found.len() as u64;
                stretch.records.push(found);
                continue;
            }
            let mut gets =
                futures::stream::iter(together).map(async |key| self.get(&key).await).buffered(CONCURRENT_GETS);
            while let Some(found) = gets.next().await {
                match found? {
                    Some((record, _)) => stretch.records.push(record),
                    // Listed, and gone.
                    None => {
                        stretch.gap = true;
                        return Ok(stretch);
                    }
                }
            }
        }
        stretch.more = true;
        Ok(stretch)
    }
}
