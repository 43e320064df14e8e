//! `handle`: the way of an event. Read this file first.
//!
//! ```text
//! messages of one run -> know -> accept -> decide -> commit -> dispatch -> acknowledge
//! ```
//!
//! Messages are sorted (`post.rs`), and the run is looked up (`know.rs`): one that is closed, parked or not there runs no
//! code. The middle of the way is a pass (`pass.rs`), its end is `dispatch.rs`, and `close.rs` when the run has ended.
//!
//! - **know**: the warm run, or its row, and then its history read and replayed. The cache proves nothing by itself: only
//!   a won commit makes a warm run true, and whatever ends without a commit is looked at again on a fresh one (rule C3).
//! - **accept** and **decide** are pure; they live in the core.
//! - **commit**: one conditional create. Losing it is normal (rule C2): if the winner only took inputs in, they are
//!   delivered too and the commit is tried again, with the results of finished local activities kept.
//! - **dispatch**: what the history leaves to be done, after it is in the history and never before. A message that is
//!   delivered again sends nothing but what is provably lost (rule R1).
//! - **acknowledge**: by returning `Ok`. On an error the caller delivers the messages again.
//!
//! A crash before the commit leaves nothing; one after it leaves the outbox, which is the history.

use dormouse_core::operations::{LocalBackoff, LocalCompleted, LocalFailed};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, RunKey};

use crate::commit::LoadError;
use crate::decider::{Decider, Surroundings};
use crate::know::{Known, Place};
use crate::parking::learn;
use crate::pass::Pass;
use crate::post::Post;
use crate::seams::{Delivery, RunMessage};
use crate::store::StoreError;

impl<S: Surroundings + 'static> Decider<S> {
    /// Handles messages of one run, in order. When it returns `Ok`, everything in them is recorded or refused, and
    /// what follows from them is handed out. `delivery` is [`Again`](Delivery::Again) when any of them was handled before
    /// and its handler is not known to have come to its end.
    ///
    /// # Errors
    /// [`StoreError`]: deliver the messages again, later.
    pub async fn handle(&self, run: &RunKey, messages: Vec<RunMessage>, delivery: Delivery) -> Result<(), StoreError> {
        self.note_locals(run, &messages);
        let mut post = Post::sort(messages, delivery);
        let begins = self.begins(&post);
        match self.look_up(run, begins).await? {
            Place::Nowhere if post.starts.is_empty() => return Ok(()),
            Place::Row(row) if row.status.is_closed() && !planted(Bug::O1ReplayClosed) => {
                return self.on_closed(run, row.status, &row, &post).await;
            }
            // What others have found out; or it may be deadly.
            Place::Row(row) if self.ports.choices.shared || row.parked.as_ref().is_some_and(|it| it.ends_process) => {
                learn(&self.ports, &row).await?;
            }
            Place::Row(_) | Place::AtHand | Place::Nowhere => {}
        }
        if self.ports.parkings.stands_still(run, self.ports.now(), post.is_news()) {
            return self.on_parked(run, &post).await;
        }
        match self.on_open(run, &mut post, begins).await {
            Ok(()) => Ok(()),
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Turn(failure)) => self.on_stuck(run, &post, &failure).await,
        }
    }

    /// The run may go on: replayed, where it is not in memory, and decided.
    async fn on_open(&self, run: &RunKey, post: &mut Post, begins: bool) -> Result<(), LoadError> {
        let mut accepted = std::mem::take(&mut post.accepted);
        let starts = std::mem::take(&mut post.starts);
        for tried in [false, true] {
            match self.know(run, std::mem::take(&mut accepted), begins, post.fresh).await? {
                Known::Open(live, belief) => return Pass::new(self, run, post, live, belief).run().await,
                Known::Closed(status) => return Ok(self.on_ended(run, status, post).await?),
                Known::Nothing if tried => break,
                // Whoever announced these starts has not made the run, and may never do so; or he has by now, and relies
                // on us.
                Known::Nothing => {
                    for request in &starts {
                        self.intake.start(&run.workflow, request, Some(run.ordinal)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A local activity that tells of its end is under way no more.
    fn note_locals(&self, run: &RunKey, messages: &[RunMessage]) {
        for message in messages {
            if let RunMessage::Arrived { arrival, .. } = message
                && let Arrival::LocalCompleted(LocalCompleted { id, .. })
                | Arrival::LocalFailed(LocalFailed { id, .. })
                | Arrival::LocalBackoff(LocalBackoff { id, .. }) = arrival
            {
                self.locals.borrow_mut().remove(&(run.clone(), *id));
            }
        }
    }
}
