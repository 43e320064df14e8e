//! Who waits for which run to close.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_core::RunKey;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::seams::Closings;

type Waiting = Arc<Mutex<HashMap<RunKey, Vec<oneshot::Sender<()>>>>>;

/// Notices in memory: of runs for which somebody waits, and no others.
#[derive(Default)]
pub(super) struct Notices(Waiting);

/// Somebody waits, until this is dropped.
struct Place {
    waiting: Waiting,
    run: RunKey,
    notice: Option<oneshot::Receiver<()>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.notice = None;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = waiting.get_mut(&self.run) {
            others.retain(|other| !other.is_canceled());
            if others.is_empty() {
                waiting.remove(&self.run);
            }
        }
    }
}

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(run.clone()).or_default().push(notice);
        let mut place = Place { waiting: Arc::clone(&self.0), run: run.clone(), notice: Some(noticed) };
        async move {
            if let Some(notice) = &mut place.notice {
                // Given up or given: look.
                let _ = notice.await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::WorkflowKey;

    use super::*;

    #[test]
    fn whoever_waits_no_more_leaves_nothing_behind() {
        let notices = Notices::default();
        let run = WorkflowKey { namespace: "default".into(), workflow_id: "w".into() }.run(0);
        let left = || notices.0.lock().unwrap().len();
        let (one, mut other) = (notices.wait(&run), notices.wait(&run));
        drop(one);
        assert_eq!(left(), 1, "the other waits");
        assert!((&mut other).now_or_never().is_none());
        notices.closed(&run);
        assert!(other.now_or_never().is_some());
        assert_eq!(left(), 0);
        drop(notices.wait(&run));
        assert_eq!(left(), 0, "nor does one who never looked");
    }
}
