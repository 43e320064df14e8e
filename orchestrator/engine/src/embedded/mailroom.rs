//! The run queue in memory: one inbox per workflow thread. All runs of a workflow live on the same thread.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_core::{Payload, RunKey, WorkflowKey};
use futures::FutureExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;

use crate::error::ApiError;
use crate::seams::{Intent, Overdue, QueryRunner, RunMessage, RunQueue, SeamFuture, Sweeping, Ticket};
use crate::store::StoreError;
use crate::thread::{Question, Slot};

/// Letters of the embedded engine.
pub(super) type Letter = crate::thread::Letter<RunMessage>;
pub(super) type Inbox = crate::thread::Inbox<RunMessage>;

/// So many threads may hang in queries' handlers at a time: each costs a processor.
const MOST_HUNG_QUERIES: usize = 8;

/// A thread for workflows whose code may hold it, or end the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// They were parked when the process began.
    Parked,
    /// They are suspects.
    Suspect,
}

/// Where messages are sorted to the threads.
pub(super) struct Mailroom {
    /// Threads that hang in queries' handlers.
    hung_queries: AtomicUsize,
    slots: Vec<Mutex<Slot<RunMessage>>>,
    /// Workflows that live on threads for their like.
    aside: Mutex<HashMap<WorkflowKey, Aside>>,
    is_any_aside: AtomicBool,
}

impl Mailroom {
    /// For so many threads, and one more for each kind that is [set aside](Self::set_aside).
    pub(super) fn new(threads: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (slots, inboxes) = (0..threads + 2).map(|_| mpsc::unbounded()).map(|(tx, rx)| (Mutex::new(tx), rx)).unzip();
        let mailroom = Self {
            hung_queries: AtomicUsize::new(0),
            slots,
            aside: Mutex::default(),
            is_any_aside: AtomicBool::new(false),
        };
        (Arc::new(mailroom), inboxes)
    }

    /// Before any message for it comes: a workflow whose code may hold its thread lives where it holds up its like alone.
    pub(super) fn set_aside(&self, workflow: WorkflowKey, aside: Aside) {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).insert(workflow, aside);
        self.is_any_aside.store(true, Ordering::SeqCst);
    }

    /// Which thread a workflow lives on.
    pub(super) fn home(&self, workflow: &WorkflowKey) -> usize {
        let threads = self.slots.len() - 2;
        if self.is_any_aside.load(Ordering::SeqCst) {
            match self.aside.lock().unwrap_or_else(PoisonError::into_inner).get(workflow) {
                Some(Aside::Parked) => return self.thread_of_parked(),
                Some(Aside::Suspect) => return threads + 1,
                None => {}
            }
        }
        let mut hasher = DefaultHasher::new();
        workflow.hash(&mut hasher);
        (hasher.finish() % threads as u64) as usize
    }

    /// Where those live that were parked when the process began.
    pub(super) fn thread_of_parked(&self) -> usize {
        self.slots.len() - 2
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

    /// So many queries' handlers have held their threads for longer than they may, and do so still.
    pub(super) fn queries_hang(&self, threads: usize) {
        self.hung_queries.store(threads, Ordering::SeqCst);
    }

    fn deliver(&self, message: RunMessage) -> Result<(), StoreError> {
        self.post(self.home(&message.run().workflow), Letter::Work(message))
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
            if self.hung_queries.load(Ordering::SeqCst) >= MOST_HUNG_QUERIES {
                return Err(ApiError::Unavailable(format!(
                    "{MOST_HUNG_QUERIES} threads hang in queries' handlers, and no more may: no query is computed until \
                     one of them ends, or the program begins anew"
                )));
            }
            let home = self.home(&run.workflow);
            let (question, answer) = Question::new(run, name, input);
            self.post(home, Letter::Query(question))?;
            answer.await
        }
        .boxed()
    }
}
