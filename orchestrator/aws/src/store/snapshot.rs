//! Snapshots: an item beside the run's, in place of the one before; a large one is an object that it points to.

use bytes::Bytes;
use dormouse_core::RunKey;

use super::item::{self, Pointer, Stored};
use super::write::LARGEST_INLINE;
use super::{Inner, fault, keys};
use dormouse_engine::store::StoreError;

impl Inner {
    /// **If we die** between object and item, the item points to what is not there any more: then there is no snapshot.
    pub(super) async fn keep_snapshot(&self, run: &RunKey, snapshot: Bytes) -> Result<(), StoreError> {
        keys::check(&run.workflow)?;
        let stored = if snapshot.len() <= LARGEST_INLINE {
            Stored::Here(snapshot)
        } else {
            // One object for all that a run ever has: each takes the place of the one before.
            let pointer = Pointer { object: keys::snapshot_object(run), ..Pointer::to("", 0, &snapshot) };
            self.blobs.put(&pointer.object, snapshot).await?;
            Stored::There(pointer)
        };
        let (partition, sort) = keys::snapshot(run);
        let mut item = item::key(partition, sort);
        stored.write(&mut item);
        // The same bytes again do no harm: the SDK may retry.
        self.client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .send()
            .await
            .map(drop)
            .map_err(fault::failed)
    }

    pub(super) async fn snapshot(&self, run: &RunKey) -> Result<Option<Bytes>, StoreError> {
        let (partition, sort) = keys::snapshot(run);
        Ok(match self.get(partition, sort).await?.map(Stored::read) {
            Some(Stored::Here(snapshot)) => Some(snapshot),
            // Another may just have taken its place.
            Some(Stored::There(pointer)) => {
                self.blobs.get(&pointer.object).await?.filter(|snapshot| pointer.fits(snapshot))
            }
            Some(Stored::Damaged) | None => None,
        })
    }

    /// It goes with its run; its object goes with the run's others.
    pub(super) async fn delete_snapshot(&self, run: &RunKey) -> Result<(), StoreError> {
        let (partition, sort) = keys::snapshot(run);
        self.client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(item::key(partition, sort)))
            .send()
            .await
            .map(drop)
            .map_err(fault::failed)
    }
}
