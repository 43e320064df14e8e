//! Objects beside the table and the queues: batches and messages too large for them.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use crate::on;
use dormouse_engine::seams::SeamFuture;
use dormouse_engine::store::{Cause, StoreError};
use dormouse_engine::stores::object::fault::failed;

/// A bucket. Cloning is cheap. Keys are paths of parts that are safe in an object's key.
#[derive(Debug, Clone)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    runtime: Handle,
}

impl Blobs {
    /// Objects of this store. Its requests run on `runtime`.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, runtime: Handle) -> Self {
        Self { objects, runtime }
    }

    /// A bucket of S3, or of what speaks its protocol, found by the standard environment.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the settings do not make a client.
    pub fn s3(bucket: &str, runtime: Handle) -> Result<Self, StoreError> {
        let objects = dormouse_engine::stores::object::s3_client(bucket).build();
        let objects = objects.map_err(|error| StoreError::refused(Cause::of(error)))?;
        Ok(Self::new(Arc::new(objects), runtime))
    }

    /// Writes an object; the same bytes again do no harm.
    #[must_use]
    pub fn put(&self, key: &str, bytes: Bytes) -> SeamFuture<'static, ()> {
        let (objects, key) = (Arc::clone(&self.objects), key.to_owned());
        on(&self.runtime, async move {
            let path = path(&key)?;
            objects.put(&path, bytes.into()).await.map_err(failed)?;
            Ok(())
        })
    }

    /// Reads an object. `None`: there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> SeamFuture<'static, Option<Bytes>> {
        let (objects, key) = (Arc::clone(&self.objects), key.to_owned());
        on(&self.runtime, async move {
            match objects.get(&path(&key)?).await {
                Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        })
    }

    /// Deletes every object whose key continues this prefix by a `/`.
    #[must_use]
    pub fn delete_all(&self, prefix: &str) -> SeamFuture<'static, ()> {
        let (objects, prefix) = (Arc::clone(&self.objects), prefix.to_owned());
        on(&self.runtime, async move {
            let keys = objects.list(Some(&path(&prefix)?)).map_ok(|object| object.location).boxed();
            objects.delete_stream(keys).try_collect::<Vec<_>>().await.map_err(failed)?;
            Ok(())
        })
    }
}

fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::Refused(Cause::of(error)))
}
