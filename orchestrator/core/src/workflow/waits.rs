//! What a workflow can wait for besides activities: time, signals, conditions.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Workflow;
use crate::failure::Canceled;
use crate::ids::CommandId;
use crate::misfit::StoredKind;
use crate::names::Signal;
use crate::panics::blame;
use crate::place::Place;
use crate::program::{Ended, Raw, Waiter};

/// Counts a future among those that wait for the engine, from its first Pending until it ends or is dropped.
pub(super) struct Waiting {
    raw: Raw,
    id: Option<u64>,
    /// Where the workflow asked for it.
    place: Place,
}

impl Waiting {
    pub(super) fn new(cx: &Workflow, place: &'static Location<'static>) -> Self {
        Self { raw: cx.raw.clone(), id: None, place: place.into() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn wait(&mut self, waiter: Waiter) {
        // Bound to a name, so that foreign wakers are dropped after the machine's borrow.
        let _before = self.raw.wait(&mut self.id, waiter, &self.place);
    }

    pub(super) fn end(&mut self) {
        let id = self.id.take();
        let _before = self.raw.wait_no_more(id);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.end();
        }
    }
}

/// A timer. Dropping it cancels it; polled again after it ended, it gives the same answer again.
#[must_use = "the timer is canceled when this is dropped"]
pub struct Sleep {
    cx: Workflow,
    /// The running timer, or how it ended.
    timer: Result<CommandId, Result<(), Canceled>>,
    waiting: Waiting,
}

impl Sleep {
    pub(super) fn start(cx: Workflow, duration: Duration, place: &'static Location<'static>) -> Self {
        let timer = cx.raw.timer(duration, place.into());
        Self { waiting: Waiting::new(&cx, place), cx, timer: timer.map_err(Err) }
    }
}

impl Future for Sleep {
    type Output = Result<(), Canceled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = match self.timer {
            Ok(id) => id,
            Err(ended) => return Poll::Ready(ended),
        };
        let Some(ended) = self.cx.raw.outcome_or_wake(id, context.waker()) else {
            self.waiting.wait(Waiter::Command);
            return Poll::Pending;
        };
        self.waiting.end();
        let ended = match ended {
            Ended::Fired => Ok(()),
            Ended::Canceled | Ended::Value(_) | Ended::Failed(_) => Err(Canceled),
        };
        self.timer = Err(ended);
        Poll::Ready(ended)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Ok(id) = self.timer {
            self.cx.raw.give_up(id);
        }
    }
}

/// Waits for one signal.
#[must_use = "futures do nothing unless awaited"]
pub struct WaitSignal<T> {
    cx: Workflow,
    signal: Signal<T>,
    waiting: Waiting,
}

impl<T: DeserializeOwned> WaitSignal<T> {
    pub(super) fn new(cx: Workflow, signal: Signal<T>, place: &'static Location<'static>) -> Self {
        Self { waiting: Waiting::new(&cx, place), cx, signal }
    }

    /// The next signal that decodes. One that does not fit is passed over: failing the workflow would let any caller
    /// break it.
    fn take(&self) -> Option<T> {
        loop {
            // The borrow ends before the value's own code runs.
            let payload = self.cx.raw.take_signal_at(self.signal.name(), self.waiting.place())?;
            match payload.decode() {
                Ok(value) => return Some(value),
                Err(failure) => {
                    let (name, place) = (self.signal.name(), self.waiting.place());
                    self.cx.raw.misfit(StoredKind::Signal, name, place, || payload.read::<T>().err());
                    tracing::warn!(
                        workflow = %self.cx.raw.info().run, signal = name, %place, %failure,
                        "a signal does not fit its declared type and is passed over"
                    );
                }
            }
        }
    }
}

impl<T: DeserializeOwned> Future for WaitSignal<T> {
    type Output = Result<T, Canceled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(value) = self.take() {
            self.waiting.end();
            return Poll::Ready(Ok(value));
        }
        if self.cx.raw.is_canceled() {
            self.waiting.end();
            return Poll::Ready(Err(Canceled));
        }
        let waiter = Waiter::Signal(self.signal.name().into(), context.waker().clone());
        self.waiting.wait(waiter);
        Poll::Pending
    }
}

/// All signals of one name, as they come.
pub struct Signals<T> {
    next: WaitSignal<T>,
}

impl<T: DeserializeOwned> Signals<T> {
    pub(super) fn new(cx: Workflow, signal: Signal<T>, place: &'static Location<'static>) -> Self {
        Self { next: WaitSignal::new(cx, signal, place) }
    }

    /// The next signal, once it arrives.
    ///
    /// # Errors
    /// [`Canceled`] when the workflow was asked to stop and none is left.
    pub async fn next(&mut self) -> Result<T, Canceled> {
        Pin::new(&mut self.next).await
    }

    /// The next signal, if it has arrived.
    pub fn try_next(&mut self) -> Option<T> {
        self.next.take()
    }
}

impl<T: DeserializeOwned> futures::Stream for Signals<T> {
    type Item = Result<T, Canceled>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.next).poll(context).map(Some)
    }
}

/// Waits until a condition holds.
#[must_use = "futures do nothing unless awaited"]
pub struct WaitUntil<C> {
    cx: Workflow,
    condition: C,
    waiting: Waiting,
}

impl<C: Fn() -> bool> WaitUntil<C> {
    pub(super) fn new(cx: Workflow, condition: C, place: &'static Location<'static>) -> Self {
        Self { waiting: Waiting::new(&cx, place), cx, condition }
    }
}

impl<C: Fn() -> bool + Unpin> Future for WaitUntil<C> {
    type Output = Result<(), Canceled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if (self.condition)() {
            self.waiting.end();
            return Poll::Ready(Ok(()));
        }
        if self.cx.raw.is_canceled() {
            self.waiting.end();
            return Poll::Ready(Err(Canceled));
        }
        self.waiting.wait(Waiter::Condition(context.waker().clone()));
        Poll::Pending
    }
}

/// A future with a time limit.
#[must_use = "futures do nothing unless awaited"]
pub struct Timeout<F> {
    cx: Workflow,
    duration: Duration,
    place: &'static Location<'static>,
    timer: Option<Sleep>,
    /// Dropped as soon as either has won.
    future: Option<Pin<Box<F>>>,
}

impl<F> Timeout<F> {
    pub(super) fn new(cx: Workflow, duration: Duration, future: F, place: &'static Location<'static>) -> Self {
        Self { cx, duration, place, timer: None, future: Some(Box::pin(future)) }
    }
}

impl<T, E: From<Canceled>, F: Future<Output = Result<T, E>>> Future for Timeout<F> {
    type Output = Result<Option<T>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            blame(this.place, &"a future with a time limit was awaited again after it had ended");
        };
        if let Poll::Ready(result) = future.as_mut().poll(context) {
            this.future = None;
            this.timer = None;
            return Poll::Ready(result.map(Some));
        }
        let timer = this.timer.get_or_insert_with(|| Sleep::start(this.cx.clone(), this.duration, this.place));
        let timer = Pin::new(timer).poll(context);
        if timer.is_ready() {
            this.future = None;
        }
        timer.map(|outcome| match outcome {
            Ok(()) => Ok(None),
            Err(canceled) => Err(canceled.into()),
        })
    }
}

macro_rules! named_debug {
    ($($name:ident<$param:ident>),+) => {
        $(impl<$param> fmt::Debug for $name<$param> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        })+
    };
}
named_debug!(WaitSignal<T>, Signals<T>, WaitUntil<C>, Timeout<F>);

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleep({:?})", self.timer)
    }
}
