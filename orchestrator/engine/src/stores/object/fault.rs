//! What an object store's errors mean: the one table.

use object_store::Error;

use crate::store::{Cause, StoreError};

/// Whether a conditional put found another state than it asked for. A 409, where nothing was written, looks the same.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. })
}

/// An error of the object store as the engine sees it. Refused is only what the request itself makes impossible: a
/// caller who is refused may give up what it has in hand, a finished activity's result among it.
#[must_use]
pub fn failed(error: Error) -> StoreError {
    let refused = match &error {
        // No store takes such a key, and none that was asked can do this: it is never sent again with success.
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => true,
        // The settings do not make a client; another start has others.
        Error::UnknownConfigurationKey { .. } => true,
        // 401 and 403: credentials that expired a moment ago are renewed, a clock is set, a policy is mended.
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => false,
        // Of a put: the bucket is not there, yet or any more. Readers have looked at it before.
        Error::NotFound { .. } => false,
        // A condition that nobody has named, or of which the caller makes nothing: what stands there tells.
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => false,
        // Time-outs, broken connections, throttling, 5xx; and what a later version of the crate may add.
        _ => false,
    };
    let cause = Cause::of(error);
    if refused { StoreError::Refused(cause) } else { StoreError::Unknown(cause) }
}
