//! Calls of activities. A call is no future: it becomes one when it is started or awaited, and that is the moment at
//! which the command is issued.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Workflow;
use super::waits::Waiting;
use crate::failure::{Canceled, Failure};
use crate::ids::CommandId;
use crate::misfit::StoredKind;
use crate::options::{ActivityOptions, LocalActivityOptions, RecordedRetry, RetryPolicy};
use crate::panics::blame;
use crate::payload::Payload;
use crate::program::{Ended, Waiter};

/// Stands where the options of an [`ActivityCall`] are missing: an activity needs a start-to-close or a
/// schedule-to-close limit before it can be awaited.
#[derive(Clone, Copy, Debug)]
pub struct NeedsCloseLimit(());

/// Options with which an activity may begin: those that hold a close limit. (The result's type is a parameter for the
/// compiler's messages alone.)
#[diagnostic::on_unimplemented(
    message = "this activity call has no close limit yet",
    label = "the call needs a close limit before this",
    note = "add `.options(..)`, `.start_to_close(..)` or `.schedule_to_close(..)` to the call first"
)]
pub trait CloseLimit<O>: sealed::Sealed {
    /// The options themselves.
    #[doc(hidden)]
    fn into_options(self) -> ActivityOptions;
    /// Other options.
    #[doc(hidden)]
    fn change(self, change: impl FnOnce(ActivityOptions) -> ActivityOptions) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::options::ActivityOptions {}
    // Not options with a limit: only so that the lack of one is what the compiler tells.
    impl Sealed for super::NeedsCloseLimit {}
    impl<O> Sealed for super::Unstarted<O> {}
}

#[diagnostic::do_not_recommend]
impl<O> CloseLimit<O> for ActivityOptions {
    fn into_options(self) -> ActivityOptions {
        self
    }

    fn change(self, change: impl FnOnce(ActivityOptions) -> ActivityOptions) -> Self {
        change(self)
    }
}

/// A call of a queued activity, not yet issued. It is awaitable once it has a close limit.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct ActivityCall<O, Options = ActivityOptions> {
    cx: Workflow,
    activity_type: Cow<'static, str>,
    input: Result<Payload, Failure>,
    options: Options,
    place: &'static Location<'static>,
    output: PhantomData<fn() -> O>,
}

impl<O> ActivityCall<O, NeedsCloseLimit> {
    pub(super) fn new(
        cx: Workflow,
        activity_type: Cow<'static, str>,
        input: Result<Payload, Failure>,
        place: &'static Location<'static>,
    ) -> Self {
        Self { cx, activity_type, input, options: NeedsCloseLimit(()), place, output: PhantomData }
    }

    /// Sets the limits and the retry policy.
    pub fn options(self, options: ActivityOptions) -> ActivityCall<O> {
        let Self { cx, activity_type, input, place, .. } = self;
        ActivityCall { cx, activity_type, input, options, place, output: PhantomData }
    }

    /// Each attempt may take this long.
    pub fn start_to_close(self, limit: Duration) -> ActivityCall<O> {
        self.options(ActivityOptions::start_to_close(limit))
    }

    /// All attempts together may take this long.
    pub fn schedule_to_close(self, limit: Duration) -> ActivityCall<O> {
        self.options(ActivityOptions::schedule_to_close(limit))
    }
}

// The bounds stand at each method: on the whole block, the compiler would say that there is no such method.
impl<O: DeserializeOwned, Options> ActivityCall<O, Options> {
    /// Replaces the retry policy.
    pub fn retry(self, policy: RetryPolicy) -> Self
    where
        Options: CloseLimit<O>,
    {
        Self { options: self.options.change(|options| options.retry(policy)), ..self }
    }

    /// The activity must heartbeat at least this often.
    pub fn heartbeat(self, limit: Duration) -> Self
    where
        Options: CloseLimit<O>,
    {
        Self { options: self.options.change(|options| options.heartbeat(limit)), ..self }
    }

    /// Workers of this task queue run it.
    pub fn task_queue(self, name: &'static str) -> Self
    where
        Options: CloseLimit<O>,
    {
        Self { options: self.options.change(|options| options.task_queue(name)), ..self }
    }

    /// Begins it now; await the result later.
    pub fn start(self) -> Pending<O>
    where
        Options: CloseLimit<O>,
    {
        let Self { cx, activity_type, input, options, place, .. } = self;
        let options = options.into_options();
        let id = argument(&activity_type, input, place)
            .and_then(|input| cx.raw.activity(&activity_type, input, options.recorded(), place.into()));
        Pending::new(cx, activity_type, id, place)
    }
}

#[diagnostic::do_not_recommend]
impl<O: DeserializeOwned> IntoFuture for ActivityCall<O> {
    type Output = Result<O, Failure>;
    type IntoFuture = Pending<O>;
    fn into_future(self) -> Pending<O> {
        self.start()
    }
}

/// A call of a local activity, not yet issued.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct LocalActivityCall<O> {
    cx: Workflow,
    activity_type: Cow<'static, str>,
    input: Result<Payload, Failure>,
    options: LocalActivityOptions,
    place: &'static Location<'static>,
    output: PhantomData<fn() -> O>,
}

impl<O> LocalActivityCall<O> {
    pub(super) fn new(
        cx: Workflow,
        activity_type: Cow<'static, str>,
        input: Result<Payload, Failure>,
        options: LocalActivityOptions,
        place: &'static Location<'static>,
    ) -> Self {
        Self { cx, activity_type, input, options, place, output: PhantomData }
    }
}

impl<O: DeserializeOwned> LocalActivityCall<O> {
    /// Sets the limit and the retry policy; 10 s for each attempt and the default policy otherwise.
    pub fn options(mut self, options: LocalActivityOptions) -> Self {
        self.options = options;
        self
    }

    /// Begins it now; await the result later.
    pub fn start(self) -> Pending<O> {
        let Self { cx, activity_type, input, options, place, .. } = self;
        let id = match options.problem() {
            Some(problem) => Err(problem.at(Some(&place.into()))),
            None => argument(&activity_type, input, place).and_then(|input| {
                let LocalActivityOptions { start_to_close, retry } = &options;
                cx.raw.local_activity(&activity_type, input, *start_to_close, RecordedRetry::from(retry), place.into())
            }),
        };
        Pending::new(cx, activity_type, id, place)
    }
}

#[diagnostic::do_not_recommend]
impl<O: DeserializeOwned> IntoFuture for LocalActivityCall<O> {
    type Output = Result<O, Failure>;
    type IntoFuture = Pending<O>;
    fn into_future(self) -> Pending<O> {
        self.start()
    }
}

/// What makes a call a future. Nothing is, so no call ever is one; the compiler explains it with the words that stand here,
/// where it would otherwise only say that a call is not a future.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a call of an activity is not a future before it is started",
    label = "this call is not started: add `.start()` to it",
    note = "`.start()` begins the activity now and gives a future of its result; `.await` and Dormouse's `join!`, `select!` \
            and `cx.timeout(..)` start calls by themselves"
)]
pub trait Started: sealed::Sealed {}

/// A call that is not started. Only named in bounds.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unstarted<O>(PhantomData<O>);

macro_rules! no_future {
    ($call:ty: $($never:tt)+) => {
        #[doc(hidden)]
        impl<O: DeserializeOwned> Future for $call
        where
            $($never)+
        {
            type Output = Result<O, Failure>;
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
                unreachable!("no call is a future")
            }
        }
    };
}
no_future!(ActivityCall<O, NeedsCloseLimit>: NeedsCloseLimit: CloseLimit<O>);
no_future!(ActivityCall<O>: Unstarted<O>: Started);
no_future!(LocalActivityCall<O>: Unstarted<O>: Started);

/// The argument, or why there is none.
fn argument(
    activity_type: &str,
    input: Result<Payload, Failure>,
    place: &'static Location<'static>,
) -> Result<Payload, Failure> {
    let what = format_args!("the argument of activity {activity_type:?}");
    input.map_err(|failure| failure.about(what, Some(&place.into())))
}

/// An activity under way. Dropping it abandons the result, not the activity.
#[must_use = "the activity runs, but nobody waits for its result"]
pub struct Pending<O> {
    cx: Workflow,
    activity_type: Cow<'static, str>,
    id: Result<CommandId, Option<Failure>>,
    waiting: Waiting,
    output: PhantomData<fn() -> O>,
}

impl<O> Pending<O> {
    fn new(
        cx: Workflow,
        activity_type: Cow<'static, str>,
        id: Result<CommandId, Failure>,
        place: &'static Location<'static>,
    ) -> Self {
        Self { waiting: Waiting::new(&cx, place), cx, activity_type, id: id.map_err(Some), output: PhantomData }
    }
}

impl<O: DeserializeOwned> Future for Pending<O> {
    type Output = Result<O, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = match &mut self.id {
            Ok(id) => *id,
            Err(failure) => match failure.take() {
                Some(failure) => return Poll::Ready(Err(failure)),
                None => blame(self.waiting.place(), &"an activity was awaited again after it had ended"),
            },
        };
        let Some(ended) = self.cx.raw.outcome_or_wake(id, context.waker()) else {
            self.waiting.wait(Waiter::Command);
            return Poll::Pending;
        };
        self.waiting.end();
        self.id = Err(None);
        let place = Some(self.waiting.place());
        Poll::Ready(match ended {
            Ended::Value(value) => value.decode().map_err(|failure: Failure| {
                let misfit = || value.read::<O>().err();
                self.cx.raw.misfit(StoredKind::Result, &self.activity_type, self.waiting.place(), misfit);
                failure.about(format_args!("the result of activity {:?}", self.activity_type), place)
            }),
            Ended::Failed(failure) => Err(failure),
            Ended::Canceled | Ended::Fired => Err(Failure::from(Canceled).at(place)),
        })
    }
}

impl<O> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Ok(id) = self.id {
            self.cx.raw.abandon(id);
        }
    }
}

impl<O, Options> fmt::Debug for ActivityCall<O, Options> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActivityCall({:?})", self.activity_type)
    }
}

impl<O> fmt::Debug for LocalActivityCall<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalActivityCall({:?})", self.activity_type)
    }
}

impl<O> fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({:?})", self.id)
    }
}
