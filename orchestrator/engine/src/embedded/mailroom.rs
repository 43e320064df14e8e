//! The run queue in memory: one inbox per workflow thread. All runs of a workflow live on the same thread.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_core::{Payload, RunKey, WorkflowKey};
use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;

use crate::error::ApiError;
use crate::seams::{Intent, Overdue, QueryRunner, RunMessage, RunQueue, SeamFuture, Sweeping, Ticket};
use crate::store::StoreError;

/// What a workflow thread is sent.
pub(super) enum Letter {
    Run(RunMessage),
    Query { run: RunKey, name: String, input: Payload, reply: oneshot::Sender<Result<Payload, ApiError>> },
    Stop,
}

pub(super) type Inbox = mpsc::UnboundedReceiver<Letter>;

/// Where messages are sorted to the threads.
pub(super) struct Mailroom {
    slots: Vec<Mutex<mpsc::UnboundedSender<Letter>>>,
}

impl Mailroom {
    pub(super) fn new(threads: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (slots, inboxes) = (0..threads).map(|_| mpsc::unbounded()).map(|(tx, rx)| (Mutex::new(tx), rx)).unzip();
        (Arc::new(Self { slots }), inboxes)
    }

    /// Which thread a workflow lives on.
    pub(super) fn home(&self, workflow: &WorkflowKey) -> usize {
        let mut hasher = DefaultHasher::new();
        workflow.hash(&mut hasher);
        (hasher.finish() % self.slots.len() as u64) as usize
    }

    /// Puts a new inbox in the place of a thread's old one.
    pub(super) fn replace(&self, thread: usize) -> Inbox {
        let (sender, inbox) = mpsc::unbounded();
        *self.slots[thread].lock().unwrap_or_else(PoisonError::into_inner) = sender;
        inbox
    }

    pub(super) fn post(&self, thread: usize, letter: Letter) -> Result<(), StoreError> {
        let slot = self.slots[thread].lock().unwrap_or_else(PoisonError::into_inner);
        slot.unbounded_send(letter).map_err(|_| StoreError::Refused("the engine is stopping".into()))
    }

    fn deliver(&self, message: RunMessage) -> Result<(), StoreError> {
        self.post(self.home(&message.run().workflow), Letter::Run(message))
    }
}

/// The mailroom as the engine sees it.
pub(super) struct Post(pub(super) Arc<Mailroom>);

impl RunQueue for Post {
    fn announce(&self, intent: Intent) -> SeamFuture<'_, Ticket> {
        // In memory, the intent is delivered when its caller is done with it: committed, failed, or gone.
        let mailroom = Arc::clone(&self.0);
        let ticket = Ticket::new(move |instead| {
            if mailroom.deliver(instead.unwrap_or(RunMessage::Intent(intent))).is_err() {
                tracing::debug!("the engine is stopping; the start-up finds what this message would have told");
            }
        });
        futures::future::ready(Ok(ticket)).boxed()
    }

    fn send(&self, message: RunMessage) -> SeamFuture<'_, ()> {
        futures::future::ready(self.0.deliver(message)).boxed()
    }

    fn sweep(&self, overdue: Vec<Overdue>) -> SeamFuture<'_, Sweeping> {
        let mut sent = overdue.into_iter().map(|Overdue { run, .. }| self.0.deliver(RunMessage::Sweep { run }));
        futures::future::ready(sent.try_for_each(|sent| sent).map(|()| Sweeping::Sent)).boxed()
    }
}

impl QueryRunner for Mailroom {
    fn query(&self, run: RunKey, name: String, input: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        async move {
            let (reply, answer) = oneshot::channel();
            self.post(self.home(&run.workflow), Letter::Query { run, name, input, reply })?;
            let stopped = || ApiError::Unavailable("the workflow's thread stopped while it answered".into());
            answer.await.unwrap_or_else(|_| Err(stopped()))
        }
        .boxed()
    }
}
