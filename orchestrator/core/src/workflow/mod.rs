//! The context of a workflow: everything that its code may ask for.

mod call;
mod combine;
mod function;
mod future;
mod random;
mod waits;

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use call::{ActivityCall, CloseLimit, LocalActivityCall, NeedsCloseLimit, Pending};
pub use function::WorkflowFunction;
pub(crate) use future::FutureProgram;
pub use random::Random;
pub use waits::{Signals, Sleep, Timeout, WaitSignal, WaitUntil};

use crate::declared::takes_none;
use crate::failure::Failure;
use crate::functions::{ActivityFunction, ActivityTarget, FunctionNames, wire_name_of};
use crate::misfit::StoredKind;
use crate::names::{Query, Signal};
use crate::operations::Call;
use crate::options::LocalActivityOptions;
use crate::panics::{blame, not_registered};
use crate::payload::Payload;
use crate::place::Place;
use crate::program::{Mode, Raw, SideEffect, WorkflowInfo};
use crate::time::Timestamp;

/// A workflow's context. It stays on its thread: nothing that it gives can be sent elsewhere, so no other executor
/// can disturb the order of the history.
///
/// *Work*: [`activity`](Self::activity), [`local_activity`](Self::local_activity).
/// *Waiting*: [`sleep`](Self::sleep), [`signal`](Self::signal), [`signals`](Self::signals),
/// [`wait_until`](Self::wait_until), [`timeout`](Self::timeout), [`canceled`](Self::canceled).
/// *Telling*: [`publish`](Self::publish), [`answer`](Self::answer).
/// *Determinism*: [`now`](Self::now), [`random`](Self::random), [`uuid`](Self::uuid),
/// [`side_effect`](Self::side_effect), [`is_replaying`](Self::is_replaying).
/// *Changing code under open runs*: [`patched`](Self::patched), [`deprecate_patch`](Self::deprecate_patch).
/// *Ending*: [`continue_as_new`](Self::continue_as_new), [`detached`](Self::detached).
#[derive(Clone)]
pub struct Workflow {
    raw: Raw,
    names: Arc<FunctionNames>,
}

impl Workflow {
    pub(crate) fn new(raw: Raw, names: Arc<FunctionNames>) -> Self {
        Self { raw, names }
    }

    /// The context that this one stands on: owned names, payloads, ids of commands.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// Calls an activity on a worker: a function of this application, or a [`RemoteActivity`](crate::RemoteActivity).
    /// Give a close limit with `.options(..)`, then `.await` it, or `.start()` it and await later.
    ///
    /// # Panics
    /// When the function is not registered: the run is parked with that message.
    #[track_caller]
    pub fn activity<A, F: ActivityTarget<A>>(
        &self,
        function: F,
        input: &F::Input,
    ) -> ActivityCall<F::Output, NeedsCloseLimit> {
        let name = function.wire_name(&self.names);
        ActivityCall::new(self.clone(), name.into(), Payload::encode(input), Location::caller())
    }

    /// Calls an activity right where the workflow is decided: no queue, one write for its result. For short work.
    ///
    /// # Panics
    /// When the activity is not registered: the run is parked with that message.
    #[track_caller]
    pub fn local_activity<A, F: ActivityFunction<A>>(
        &self,
        function: F,
        input: &F::Input,
    ) -> LocalActivityCall<F::Output> {
        let options = LocalActivityOptions::default();
        let name = wire_name_of(function, &self.names, "activity");
        LocalActivityCall::new(self.clone(), name.into(), Payload::encode(input), options, Location::caller())
    }

    /// Waits at no cost. The timer starts now, not at the first poll; dropping the future cancels it.
    #[track_caller]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::start(self.clone(), duration, Location::caller())
    }

    /// Waits for the next signal of this name. Early signals are kept until somebody asks; one whose JSON does not
    /// fit `T` is passed over, with a warning in the log.
    #[track_caller]
    pub fn signal<T: DeserializeOwned>(&self, signal: Signal<T>) -> WaitSignal<T> {
        WaitSignal::new(self.clone(), signal, Location::caller())
    }

    /// All signals of this name, in order of arrival.
    #[track_caller]
    pub fn signals<T: DeserializeOwned>(&self, signal: Signal<T>) -> Signals<T> {
        Signals::new(self.clone(), signal, Location::caller())
    }

    /// Waits until the condition holds. It is looked at again after every event.
    #[track_caller]
    pub fn wait_until<C: Fn() -> bool>(&self, condition: C) -> WaitUntil<C> {
        WaitUntil::new(self.clone(), condition, Location::caller())
    }

    /// Waits for `future`, but no longer than this: `Ok(None)` when the time is up. No timer is created when the
    /// future is ready at once, and it is canceled when the future wins.
    #[track_caller]
    pub fn timeout<F: IntoFuture>(&self, duration: Duration, future: F) -> Timeout<F::IntoFuture> {
        Timeout::new(self.clone(), duration, future.into_future(), Location::caller())
    }

    /// Resolves when somebody asks the workflow to stop.
    #[track_caller]
    pub fn canceled(&self) -> impl Future<Output = ()> + use<> {
        let raw = self.raw.clone();
        // A condition outside the scope that is being canceled: it ends by holding.
        let canceled = self.detached().wait_until(move || raw.machine().borrow().is_canceled());
        async move {
            let _ = canceled.await;
        }
    }

    /// The same context, out of cancellation's reach: for cleaning up.
    #[must_use]
    pub fn detached(&self) -> Workflow {
        Workflow { raw: self.raw.detached(), names: Arc::clone(&self.names) }
    }

    /// Publishes a query's value: anyone may read it from storage, without running code.
    #[track_caller]
    pub fn publish<T: Serialize + Clone>(&self, query: Query<T>, value: T) -> Published<T> {
        let published = Published { cx: self.clone(), query, value: RefCell::new(value) };
        published.record(Location::caller());
        published
    }

    /// Answers a query by running this closure on the workflow's present state. It may read, and nothing else.
    #[track_caller]
    pub fn answer<T: Serialize + 'static, A: DeserializeOwned + 'static>(
        &self,
        query: Query<T, A>,
        handler: impl Fn(A) -> T + 'static,
    ) {
        let (name, place) = (query.name(), Location::caller());
        let about = move |what: &str, failure: Failure| {
            failure.about(format_args!("the {what} of query {name:?}"), Some(&place.into()))
        };
        self.raw.answer(name, move |input| {
            let input = input.decode().map_err(|failure: Failure| {
                let none =
                    takes_none::<A>().then(|| Failure { message: "it takes no argument".into(), ..failure.clone() });
                about("argument", none.unwrap_or(failure))
            })?;
            Payload::encode(&handler(input)).map_err(|failure| about("answer", failure))
        });
    }

    /// The recorded time of this turn. It does not pass while code runs.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.raw.now()
    }

    /// A stream of random numbers, the same on every replay. Streams of different names are independent.
    #[must_use]
    pub fn random(&self, name: &str) -> Random {
        Random::new(self.raw.clone(), name)
    }

    /// A random (version 4) UUID, the same on every replay.
    #[must_use]
    pub fn uuid(&self) -> uuid::Uuid {
        let mut bytes = [0; 16];
        self.random("uuid").fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Gives what the closure gives, recorded once: a replay gives the recorded value back and does not run the closure.
    /// For a value that the code cannot compute alike twice (a setting, a number from another crate's generator) and
    /// that costs no more than computing it; what can fail or takes time is an activity.
    ///
    /// The closure runs once for the history, but a turn that was not committed is taken again, and the closure with
    /// it. It may not use this context.
    ///
    /// ```
    /// # use dormouse_core::{Failure, Workflow};
    /// async fn greeting(cx: Workflow, name: String) -> Result<String, Failure> {
    ///     let salutation: String = cx.side_effect("salutation", || {
    ///         std::env::var("SALUTATION").unwrap_or_else(|_| "Hello".into())
    ///     });
    ///     Ok(format!("{salutation}, {name}"))
    /// }
    /// ```
    ///
    /// # Panics
    /// When the value does not serialize, when a recorded one does not fit `T`, or in a query's handler: the run is
    /// parked with that message, or the query fails.
    #[track_caller]
    pub fn side_effect<T: Serialize + DeserializeOwned>(&self, name: &str, value: impl FnOnce() -> T) -> T {
        let place = Place::from(Location::caller());
        match self.raw.side_effect(name, &place) {
            SideEffect::New => {
                self.raw.machine().borrow_mut().mode = Mode::SideEffect;
                let value = value();
                self.raw.machine().borrow_mut().mode = Mode::Turn;
                let recorded = Payload::encode(&value).unwrap_or_else(|failure| {
                    blame(&place, &format_args!("the side effect {name:?} cannot be recorded: {failure}"))
                });
                self.raw.record_side_effect(name, recorded, &place);
                value
            }
            SideEffect::Recorded(recorded) => recorded.decode().unwrap_or_else(|failure| {
                self.raw.misfit(StoredKind::SideEffect, name, &place, || recorded.read::<T>().err());
                blame(&place, &format_args!("the recorded value of the side effect {name:?} does not fit: {failure}"))
            }),
            // There is no value to go on with. The divergence is known; this only ends the turn.
            SideEffect::Diverged => std::panic::resume_unwind(Box::new("the code no longer follows its history")),
        }
    }

    /// Whether this run goes the new way of a change of its code. Runs that had passed this place before the change keep
    /// to the old way; all others go the new way, and their history says so.
    ///
    /// A change takes three deployments. **First**, the new way beside the old one:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dormouse_core::{Activity, Failure, Workflow};
    /// # const MINUTE: Duration = Duration::from_mins(1);
    /// # async fn charge(_: Activity, cents: u64) -> Result<u64, Failure> { Ok(cents) }
    /// # async fn check_fraud(_: Activity, cents: u64) -> Result<(), Failure> { Ok(()) }
    /// async fn order(cx: Workflow, cents: u64) -> Result<u64, Failure> {
    ///     if cx.patched("fraud-check") {
    ///         cx.activity(check_fraud, &cents).start_to_close(MINUTE).await?;
    ///     }
    ///     Ok(cx.activity(charge, &cents).start_to_close(MINUTE).await?)
    /// }
    /// ```
    ///
    /// **Then**, when no run is open that goes the old way, the new way alone, and a word for the runs whose history holds
    /// the patch:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dormouse_core::{Activity, Failure, Workflow};
    /// # const MINUTE: Duration = Duration::from_mins(1);
    /// # async fn charge(_: Activity, cents: u64) -> Result<u64, Failure> { Ok(cents) }
    /// # async fn check_fraud(_: Activity, cents: u64) -> Result<(), Failure> { Ok(()) }
    /// async fn order(cx: Workflow, cents: u64) -> Result<u64, Failure> {
    ///     cx.deprecate_patch("fraud-check");
    ///     cx.activity(check_fraud, &cents).start_to_close(MINUTE).await?;
    ///     Ok(cx.activity(charge, &cents).start_to_close(MINUTE).await?)
    /// }
    /// ```
    ///
    /// **Last**, when no run is open that began before that, the new way without a word. `workflow describe` tells the
    /// patches of a run. Code that is a step ahead of an open run parks it, with a message that names the patch.
    ///
    /// # Rules
    /// The first answer for an id is the answer to the end of the run, however often and wherever it is asked: in a loop, in
    /// branches that run at once, in a helper. A new turn answers `true`, and records that; a turn that is run again from the
    /// history answers `true` only if that stands there at this point. So a run that is within a loop keeps to the old
    /// way for the rest of it; `continue_as_new` begins a run that decides anew. Ids are not used again for another change.
    ///
    /// # Panics
    /// In a query's handler, or in the closure of a side effect: the query fails, or the run is parked with that message.
    #[must_use = "the answer says which way the run goes; `deprecate_patch` has none"]
    #[track_caller]
    pub fn patched(&self, id: &str) -> bool {
        self.raw.patched(id, &Place::from(Location::caller()))
    }

    /// The new way of [`patched`](Self::patched) is the only one left: the second of the three deployments there. It stands
    /// where `patched` stood, or before it; runs whose history holds the patch go on, and those that begin now can go on
    /// with code that has forgotten it.
    ///
    /// # Panics
    /// As [`patched`](Self::patched).
    #[track_caller]
    pub fn deprecate_patch(&self, id: &str) {
        self.raw.deprecate_patch(id, &Place::from(Location::caller()));
    }

    /// Whether a recorded turn is being run again, as after a restart: what it asks for was asked for before. For what
    /// is no part of the workflow, like counting its calls; code that decides by it diverges. `tracing` needs no such
    /// care: what a recorded turn logs is not logged again.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.raw.is_replaying()
    }

    /// Who this workflow is.
    #[must_use]
    pub fn info(&self) -> WorkflowInfo {
        self.raw.info()
    }

    /// Ends this run and begins the next with a fresh history, in one write: `return cx.continue_as_new(me, &input)`.
    /// Signals that were not consumed go along; published values do not. A next run that must not publish its first
    /// status again takes it from its input where [`info`](Self::info) says that it continues another:
    ///
    /// ```
    /// # use dormouse_core::{Failure, Query, Workflow};
    /// const STATUS: Query<String> = Query::new("status");
    ///
    /// async fn counting(cx: Workflow, (round, status): (u32, String)) -> Result<u32, Failure> {
    ///     let is_first = cx.info().continued_from.is_none();
    ///     let status = cx.publish(STATUS, if is_first { "begun".into() } else { status });
    ///     status.set(format!("round {round} is done"));
    ///     if round < 3 { cx.continue_as_new(counting, &(round + 1, status.get())) } else { Ok(round) }
    /// }
    /// ```
    ///
    /// # Errors
    /// Always: return it. `T` is whatever the workflow returns.
    ///
    /// # Panics
    /// When the workflow is not registered: the run is parked with that message.
    #[track_caller]
    pub fn continue_as_new<A, F: WorkflowFunction<A>, T>(&self, function: F, input: &F::Input) -> Result<T, Failure> {
        let _ = function;
        let place = Place::from(Location::caller());
        let input =
            Payload::encode(input).map_err(|failure| failure.about("the argument of the next run", Some(&place)))?;
        let Some(name) = self.names.of::<F>() else {
            not_registered("workflow", std::any::type_name::<F>(), "workflow")
        };
        Err(self.raw.continue_as_new(Call::new(name, input)))
    }
}

impl fmt::Debug for Workflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workflow").field("info", &self.info()).finish_non_exhaustive()
    }
}

/// A published value: what it is, and a way to change it. Recorded with the turn that sets it.
pub struct Published<T> {
    cx: Workflow,
    query: Query<T>,
    value: RefCell<T>,
}

impl<T: Serialize + Clone> Published<T> {
    /// Changes the value.
    #[track_caller]
    pub fn set(&self, value: T) {
        self.cx.raw.machine().borrow().act("publish", None);
        self.value.replace(value);
        self.record(Location::caller());
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> T {
        self.value.borrow().clone()
    }

    fn record(&self, place: &'static Location<'static>) {
        let value = match Payload::encode(&*self.value.borrow()) {
            Ok(value) => value,
            Err(failure) => {
                let name = self.query.name();
                blame(place, &format_args!("the value of query {name:?} cannot be published: {failure}"))
            }
        };
        self.cx.raw.publish(self.query.name(), value, &place.into());
    }
}

impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.query.name()).field(&self.value).finish()
    }
}
