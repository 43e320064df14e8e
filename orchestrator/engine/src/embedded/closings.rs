//! Who waits for which run to close.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dormouse_core::RunKey;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::seams::Closings;

/// Notices in memory.
#[derive(Default)]
pub(super) struct Notices(Mutex<HashMap<RunKey, Vec<oneshot::Sender<()>>>>);

impl Closings for Notices {
    fn closed(&self, run: &RunKey) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
        // Whoever stopped waiting does not mind.
        waiting.into_iter().flatten().for_each(|notice| {
            let _ = notice.send(());
        });
    }

    fn wait(&self, run: &RunKey) -> BoxFuture<'static, ()> {
        let (notice, noticed) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiting.entry(run.clone()).or_default();
        waiting.retain(|other| !other.is_canceled());
        waiting.push(notice);
        noticed.map(drop).boxed()
    }
}
