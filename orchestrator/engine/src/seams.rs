//! The seams besides storage: queues, alarms, the host. Small traits; each has an in-process form in `embedded` and
//! will have one on AWS. Everything sent here may come twice, late, or never: the history makes that harmless.

use std::ops::Add;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::api::{DiscardedLetterBody, LetterBody, LetterShownBody, RedrivenLetterBody};
use dormouse_core::{ActivityTask, Arrival, Payload, RunId, RunKey, StartRequest, Timestamp};
use futures::future::{BoxFuture, Either, select};

use crate::error::ApiError;
use crate::store::StoreError;

/// A message to whoever decides a run. Messages of one workflow are handled one after another.
#[derive(Debug, Clone, PartialEq)]
pub enum RunMessage {
    /// Somebody is about to commit this; should he die first, do it for him (rule F2).
    Intent(Intent),
    /// A batch of inputs was committed: decide.
    Accepted {
        /// The run.
        run: RunKey,
        /// The batch's place in the history.
        sequence: u64,
        /// The batch.
        record: Bytes,
    },
    /// Something arrives for a run: accept it, then decide.
    Arrived {
        /// The run.
        run: RunKey,
        /// Its identity: a message is never applied to another run.
        run_id: RunId,
        /// What arrives.
        arrival: Arrival,
    },
    /// Look at the run afresh: decide what is undecided, hand out again what is outstanding (rule F6).
    Sweep {
        /// The run.
        run: RunKey,
    },
}

/// Whether messages come for the first time, as far as their transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nobody has handled them before; or, where a queue doubles messages in silence, somebody who came to an end.
    First,
    /// They were handled before, and that did not come to an end: whoever did may have died at any instruction.
    Again,
}

impl RunMessage {
    /// The run that it concerns.
    #[must_use]
    pub fn run(&self) -> &RunKey {
        match self {
            Self::Intent(intent) => &intent.run,
            Self::Accepted { run, .. } | Self::Arrived { run, .. } | Self::Sweep { run } => run,
        }
    }
}

/// What a caller asked for, aimed at one run (rule F3).
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// The run that it may create or address.
    pub run: RunKey,
    /// What is asked.
    pub wish: Wish,
}

/// What an intent asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Create the run.
    Start(StartRequest),
    /// Take this in.
    Take {
        /// What arrives.
        arrival: Arrival,
        /// Whether the caller named this run: then the message does not follow the chain (rule F4).
        pinned: bool,
    },
}

/// A run that is overdue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The run.
    pub run: RunKey,
    /// When it was due.
    pub due: Timestamp,
    /// When it is to be tried again, if it is parked: another time each time that it could not go on.
    pub retry_at: Option<Timestamp>,
}

/// What a queue did with word of runs that are overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweeping {
    /// It was sent.
    Sent,
    /// Deciders are far behind, and nothing was sent. What is overdue stays so, and the next sweep finds it.
    Behind,
}

/// What a seam's methods return.
pub type SeamFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The queue of messages to deciders.
pub trait RunQueue: Send + Sync {
    /// Puts an intent on the queue before its commit. The queue delivers it, whatever happens to the caller, no
    /// later than the ticket is dropped.
    fn announce(&self, intent: Intent) -> SeamFuture<'_, Ticket>;

    /// Sends a message.
    fn send(&self, message: RunMessage) -> SeamFuture<'_, ()>;

    /// Sends word of runs that are overdue, a [`RunMessage::Sweep`] for each, in no order. A queue may leave out one that
    /// it was given a short while ago with the same due time: nobody has come to it yet. Should deciders be so far behind
    /// that more would only keep them longer, nothing is sent, and the answer says so.
    ///
    /// All are sent, or it is an error; after an error any of them may have been sent.
    fn sweep(&self, overdue: Vec<Overdue>) -> SeamFuture<'_, Sweeping>;
}

/// Holds an announced intent while its caller commits. Queues that deliver by themselves hold nothing.
pub struct Ticket(Option<Box<dyn FnOnce(Option<RunMessage>) + Send>>);

impl Ticket {
    /// A ticket that calls this when it is settled, with what to deliver instead, or dropped.
    #[must_use]
    pub fn new(release: impl FnOnce(Option<RunMessage>) + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }

    /// The commit succeeded: this message tells more than the intent.
    pub fn settle(mut self, instead: RunMessage) {
        if let Some(release) = self.0.take() {
            release(Some(instead));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release(None);
        }
    }
}

/// The queue of activity tasks.
pub trait ActivityQueue: Send + Sync {
    /// Hands tasks to workers, each no earlier than its `not_before`. Their order is not promised.
    ///
    /// All are sent, or it is an error; after an error any of them may have been sent. Whoever sends them all again makes
    /// duplicates of some, which claims make harmless.
    fn send(&self, tasks: Vec<ActivityTask>) -> SeamFuture<'_, ()>;

    /// Why nothing can be sent to this task queue, for people: there is none of that name here, and these there are.
    /// `None`: there is one, or the queue of whoever names none.
    fn no_such_queue(&self, task_queue: Option<&str>) -> Option<String>;
}

/// One alarm per run.
pub trait Alarms: Send + Sync {
    /// Sends the run an [`Arrival::Alarm`] at this time; replaces the alarm set before. `None` takes it away.
    fn set(&self, run: &RunKey, run_id: RunId, at: Option<Timestamp>) -> SeamFuture<'_, ()>;
}

/// A moment by a host's clock that nobody sets: it only goes forward. It says nothing to another process, and is
/// compared with moments of the same host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(Duration);

impl Instant {
    /// The moment so long after the host's first.
    #[must_use]
    pub fn after(start: Duration) -> Self {
        Self(start)
    }

    /// The time since an earlier moment; zero when it is none.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// An activity's code: what it is called, and whether it says of itself that it blocks.
#[derive(Debug, Clone)]
pub struct Code {
    /// The activity's name.
    pub activity_type: String,
    /// It is an ordinary function.
    pub blocking: bool,
}

/// What the engine needs of the world: the time, numbers that nobody else draws, and somewhere to wait and to work.
/// Nothing else in the engine reads a clock, sleeps or spawns, so a host whose time a test advances runs all of it.
pub trait Host: Send + Sync {
    /// The host's clock, as people and other hosts know it. It may be set, forwards or backwards.
    fn now(&self) -> Timestamp;
    /// The present moment, for limits that must not follow the clock when it is set.
    fn instant(&self) -> Instant;
    /// Resolves at this moment, or at once if it has passed. May be called on any thread.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;
    /// Lets work go on by itself until it ends. A panic ends that work alone. May be called on any thread.
    fn spawn(&self, work: BoxFuture<'static, ()>);
    /// Lets an activity's code go on by itself until it ends, where nothing of the engine waits for it: it may hold its
    /// thread for as long as it likes. A panic ends that code alone. May be called on any thread.
    fn spawn_activity(&self, code: Code, work: BoxFuture<'static, ()>);
    /// Lets work go on by itself that attends to an activity's code: beside it, where that saves the way between threads.
    fn attend(&self, work: BoxFuture<'static, ()>) {
        self.spawn(work);
    }
    /// Sixteen random bytes.
    fn fresh_id(&self) -> [u8; 16];
    /// Lets others go first, for a moment, who write the same run from other processes. Resolves at once where there are
    /// none.
    fn give_way(&self) -> BoxFuture<'_, ()>;
    /// Waits so long before a request is sent again whose outcome is unknown.
    fn back_off(&self, pause: Duration) -> BoxFuture<'static, ()>;
}

impl dyn Host {
    /// Resolves after this time.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.instant() + time)
    }

    /// What the work comes to; `None` when it takes longer than this. It is dropped then.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(work), self.sleep(limit)).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }
}

/// Who wants to know that runs close. A help, not a promise: whoever waits also looks by himself now and then.
pub trait Closings: Send + Sync {
    /// This run has closed.
    fn closed(&self, run: &RunKey);
    /// Resolves some time after the run closed.
    fn wait(&self, run: &RunKey) -> BoxFuture<'static, ()>;
}

/// Who can run a workflow's query handlers: the build that the run belongs to.
pub trait QueryRunner: Send + Sync {
    /// Runs the handler on the run's present state. Reads, and changes nothing.
    fn query(&self, run: RunKey, name: String, input: Payload) -> BoxFuture<'_, Result<Payload, ApiError>>;
}

/// Some of what is in quarantine, and where the rest begins, if there is more: behind this place.
pub type Letters<T> = (Vec<T>, Option<String>);

/// Messages that nobody could handle, for people: to look at, to send again, or to throw away. Only where queues give messages up.
pub trait Redrive: Send + Sync {
    /// Up to `limit` letters, or fewer, the oldest first, behind this place.
    fn list(&self, after: Option<String>, limit: usize) -> SeamFuture<'_, Letters<LetterBody>>;

    /// Sends letters to the queues that they were meant for, and removes them, as many as one request may take: from
    /// behind this place on, the oldest first. One that was sent may still be there, and be sent again.
    fn redrive(&self, after: Option<String>) -> SeamFuture<'_, Letters<RedrivenLetterBody>>;

    /// The same for these letters.
    fn redrive_these(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<RedrivenLetterBody>>;

    /// The letter of this name, with what it says.
    fn show(&self, id: String) -> SeamFuture<'_, Option<LetterShownBody>>;

    /// Throws these letters away.
    fn discard(&self, ids: Vec<String>) -> SeamFuture<'_, Vec<DiscardedLetterBody>>;
}
