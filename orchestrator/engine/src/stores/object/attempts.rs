//! Attempt records: their version is in their first eight bytes, and whoever replaces one names its ETag too.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, UpdateVersion};

use super::Inner;
use crate::store::{AttemptKey, StoreError, Swap, Versioned};

impl Inner {
    pub(super) async fn swap(
        &self,
        key: &AttemptKey,
        expected: Option<u64>,
        record: Bytes,
    ) -> Result<Swap, StoreError> {
        let path = self.keys.attempt(&key.run, key.activity)?;
        let (mode, version) = match expected {
            None => (PutMode::Create, 1),
            Some(expected) => match self.attempt(&path).await? {
                Some((standing, etag)) if standing.version == expected => (PutMode::Update(etag), expected + 1),
                standing => return Ok(Swap::Stale(standing.map(|(standing, _)| standing))),
            },
        };
        let bytes = [&version.to_le_bytes()[..], &record].concat();
        if self.put(&path, bytes.into(), mode).await?.is_some() {
            return Ok(Swap::Done(version));
        }
        match self.attempt(&path).await? {
            Some((standing, _)) if Some(standing.version) != expected => Ok(Swap::Stale(Some(standing))),
            // A conflict between two puts of which neither may have won.
            _ => Err(StoreError::unknown(format!("{path} is in conflict, and nothing new is there"))),
        }
    }

    pub(super) async fn attempt(&self, key: &Path) -> Result<Option<(Versioned, UpdateVersion)>, StoreError> {
        let Some((bytes, etag)) = self.get(key).await? else { return Ok(None) };
        let Some((version, _)) = bytes.split_first_chunk() else {
            return Err(StoreError::refused(format!("the attempt record {key} is damaged: it is too short")));
        };
        Ok(Some((Versioned { version: u64::from_le_bytes(*version), record: bytes.slice(8..) }, etag)))
    }
}
