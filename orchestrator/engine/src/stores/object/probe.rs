//! Whether an object store keeps the promise that all else rests on. Some take `If-None-Match` and `If-Match`, answer
//! "done", and overwrite: two processes would both believe that they own what one of them holds.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore as Objects, ObjectStoreExt, PutMode, UpdateVersion};

use super::OwnError;
use super::fault::{failed, is_conflict};
use crate::store::StoreError;

/// So many creates of one object at a time: one may win.
const AT_ONCE: usize = 8;

/// Tries the conditions on an object that is nobody else's, and takes it away again. A process that dies meanwhile
/// leaves a few bytes behind, which nobody reads.
pub(super) async fn probe(objects: &Arc<dyn Objects>, place: &str, key: &Path) -> Result<(), OwnError> {
    let verdict = conditions(objects, place, key).await;
    if matches!(verdict, Err(OwnError::NoBucket { .. })) {
        return verdict.map(drop);
    }
    if let Err(error) = objects.delete(key).await {
        tracing::debug!(%key, %error, "a scratch object stays behind; it may be deleted");
    }
    match verdict? {
        None => Ok(()),
        Some(what) => Err(OwnError::Ignores { place: place.to_owned(), what }),
    }
}

/// Which condition is ignored, if one is.
async fn conditions(objects: &Arc<dyn Objects>, place: &str, key: &Path) -> Result<Option<&'static str>, OwnError> {
    let put = async |text: String, mode| put(objects, place, key, text, mode).await;
    let creates = (0..AT_ONCE).map(|n| put(format!("created {n}"), PutMode::Create));
    let created = join_all(creates).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let winners: Vec<_> = created.into_iter().flatten().collect();
    let [first] = winners.as_slice() else {
        return match winners.len() {
            // All in conflict with each other: allowed, and no way to go on.
            0 => Err(StoreError::unknown(format!("{AT_ONCE} creates of {key} at a time, and none was done")).into()),
            _ => Ok(Some("If-None-Match: *")),
        };
    };
    let Some(second) = put("replaced".into(), PutMode::Update(first.clone())).await? else {
        return Ok(Some("If-Match, or the ETags that it gives,"));
    };
    let stale = put("overwritten".into(), PutMode::Update(first.clone())).await?;
    let stands = objects.get(key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let kept = stale.is_none() && stands == Bytes::from_static(b"replaced") && second != *first;
    Ok((!kept).then_some("If-Match"))
}

/// `None`: the condition did not hold.
async fn put(
    objects: &Arc<dyn Objects>,
    place: &str,
    key: &Path,
    text: String,
    mode: PutMode,
) -> Result<Option<UpdateVersion>, OwnError> {
    match objects.put_opts(key, text.into(), mode.into()).await {
        Ok(put) => Ok(Some(put.into())),
        Err(error) if is_conflict(&error) => Ok(None),
        // Of the object itself it cannot be said, whatever the condition.
        Err(Error::NotFound { .. }) => Err(OwnError::NoBucket { place: place.to_owned() }),
        Err(error) => Err(failed(error).into()),
    }
}
