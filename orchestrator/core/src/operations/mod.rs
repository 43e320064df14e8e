//! What a run is made of: one file for each kind of operation, and the list of them all.
//!
//! A kind's file holds its records, what is pending of it, and how the one changes the other: a table at its top, and
//! the traits of `kind.rs`. The list below is the only place that names every kind; the numbers in it are the stored
//! form. Adding a kind is a file and an entry here.

pub(crate) mod activity;
pub(crate) mod call;
pub(crate) mod cancellation;
pub(crate) mod closing;
pub(crate) mod kind;
pub(crate) mod local_activity;
pub(crate) mod marker;
pub(crate) mod patch;
pub(crate) mod query;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod termination;
pub(crate) mod timer;
mod tried;

use std::convert::Infallible;

use minicbor::{Decode, Decoder, Encode, Encoder};

pub use activity::{
    Activities, ActivityCompleted, ActivityFailed, AttemptLost, CancelActivity, NeverTaken, PendingActivity,
    ScheduleActivity, WorkerGone,
};
pub use call::{Call, CarriedSignal, NextRun, Parent, TimeLimits};
pub use cancellation::{CancelRequested, Cancellation};
pub use closing::{Cancel, Closings, Complete, ContinueAsNew, Fail};
pub use kind::{Closed, Refusal};
pub use local_activity::{CancelLocal, LocalBackoff, LocalCompleted, LocalFailed, Locals, PendingLocal, ScheduleLocal};
pub use marker::{Markers, RecordMarker};
pub use patch::{Patches, RecordPatch};
pub use query::{Publish, Values};
pub use signal::{Signaled, Signals};
pub use start::{EarlierRequest, Joined, Started, Starts};
pub use termination::{Terminated, Terminations};
pub use timer::{CancelTimer, StartTimer, TimerFired, Timers};

use crate::ids::CommandId;
use crate::time::{Moment, Timestamp};
use kind::{About, Arrives, Ask, Chore, Delivery, Kind, News, View};

/// Makes the enums of all kinds' records, the struct of all that is pending, and what is done to any of them.
macro_rules! operations {
    ($(
        $(#[$field_doc:meta])*
        $field_n:literal $field:ident: $of:ty {
            inputs { $($(#[$input_doc:meta])* $input_n:literal $input:ident($news:ty),)* }
            commands { $($(#[$command_doc:meta])* $command_n:literal $command:ident($ask:ty),)* }
            arrivals { $($(#[$arrival_doc:meta])* $arrival:ident($arrives:ty),)* }
        }
    )+) => {
        /// What comes from outside.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Input {
            $($($(#[$input_doc])* $input($news),)*)+
        }

        /// What a workflow asks for.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Command {
            $($($(#[$command_doc])* $command($ask),)*)+
        }

        /// Something that arrives for a run. Everything here may come twice, late, or never.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Arrival {
            $($($(#[$arrival_doc])* $arrival($arrives),)*)+
            /// Time has passed: whatever is due by the clock.
            Alarm,
        }

        /// What is pending of each kind: the part of a folded history that operations make up.
        #[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
        pub struct Pending {
            $($(#[$field_doc])* #[n($field_n)] pub $field: $of,)+
        }

        $($(
            impl From<$news> for Input {
                fn from(news: $news) -> Self {
                    Self::$input(news)
                }
            }
        )*)+

        $($(
            impl From<$ask> for Command {
                fn from(ask: $ask) -> Self {
                    Self::$command(ask)
                }
            }
        )*)+

        $($(
            impl From<$arrives> for Arrival {
                fn from(arrives: $arrives) -> Self {
                    Self::$arrival(arrives)
                }
            }
        )*)+

        impl Input {
            /// Whether the workflow is told. What is not is the engine's business alone.
            #[must_use]
            pub fn is_delivered(&self) -> bool {
                match self { $($(Self::$input(_) => <$news as News>::DELIVERED,)*)+ }
            }

            pub(crate) fn about_what(&self) -> About<'_> {
                match self { $($(Self::$input(news) => news.about(),)*)+ }
            }

            pub(crate) fn note(&self, pending: &mut Pending) -> Result<(), String> {
                match self { $($(Self::$input(news) => news.note(&mut pending.$field),)*)+ }
            }

            pub(crate) fn fits(&self, pending: &Pending) -> bool {
                match self { $($(Self::$input(news) => news.fits(&pending.$field),)*)+ }
            }

            pub(crate) fn now_at_least(&self, pending: &Pending) -> Option<Timestamp> {
                match self { $($(Self::$input(news) => news.now_at_least(&pending.$field),)*)+ }
            }

            pub(crate) fn deliver(&self) -> Delivery<'_> {
                match self { $($(Self::$input(news) => news.deliver(),)*)+ }
            }

            pub(crate) fn view(&self) -> View {
                match self { $($(Self::$input(news) => news.view(),)*)+ }
            }

            pub(crate) fn bytes(&self) -> usize {
                match self { $($(Self::$input(news) => news.bytes(),)*)+ }
            }

            pub(crate) fn chore(&self) -> Option<Chore> {
                match self { $($(Self::$input(news) => news.chore(),)*)+ }
            }

            pub(crate) fn closes(&self) -> Option<Closed> {
                match self { $($(Self::$input(news) => news.closes(),)*)+ }
            }
        }

        impl Command {
            /// The kind, as people read it.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $($(Self::$command(_) => <$ask as Ask>::KIND,)*)+ }
            }

            /// The wire name, for commands that carry one.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                match self { $($(Self::$command(ask) => ask.name(),)*)+ }
            }

            /// The id that it introduces or refers to.
            #[must_use]
            pub fn id(&self) -> Option<CommandId> {
                match self { $($(Self::$command(ask) => ask.id(),)*)+ }
            }

            /// Where in the source the workflow asked for it, where that is recorded.
            #[must_use]
            pub fn place(&self) -> Option<&str> {
                match self { $($(Self::$command(ask) => ask.place(),)*)+ }
            }

            /// Whether two commands of one kind, name and id differ in their arguments.
            pub(crate) fn arguments_differ(&self, other: &Self) -> bool {
                match (self, other) {
                    $($((Self::$command(one), Self::$command(other)) => !one.same_arguments(other),)*)+
                    // Of two kinds: they are not the same at all.
                    _ => true,
                }
            }

            pub(crate) fn fold(&self, pending: &mut Pending, at: Moment) -> Result<(), String> {
                match self { $($(Self::$command(ask) => ask.fold(&mut pending.$field, at),)*)+ }
            }

            pub(crate) fn view(&self) -> View {
                match self { $($(Self::$command(ask) => ask.view(),)*)+ }
            }

            pub(crate) fn bytes(&self) -> usize {
                match self { $($(Self::$command(ask) => ask.bytes(),)*)+ }
            }

            pub(crate) fn chore(&self) -> Option<Chore> {
                match self { $($(Self::$command(ask) => ask.chore(),)*)+ }
            }

            pub(crate) fn may_wait(&self) -> bool {
                match self { $($(Self::$command(ask) => ask.may_wait(),)*)+ }
            }

            pub(crate) fn closes(&self) -> Option<Closed> {
                match self { $($(Self::$command(ask) => ask.closes(),)*)+ }
            }
        }

        impl Arrival {
            /// The id that deduplicates it, for arrivals that callers send.
            #[must_use]
            pub fn request_id(&self) -> Option<&str> {
                match self {
                    $($(Self::$arrival(arrives) => Arrives::<Input>::request_id(arrives),)*)+
                    Self::Alarm => None,
                }
            }

            /// Whether it follows a run that continued as new (rule F4).
            #[must_use]
            pub fn follows(&self) -> bool {
                match self {
                    $($(Self::$arrival(_) => <$arrives as Arrives<Input>>::FOLLOWS,)*)+
                    Self::Alarm => false,
                }
            }

            /// Whether it is refused when the run is full.
            pub(crate) fn is_bounded(&self) -> bool {
                match self {
                    $($(Self::$arrival(_) => <$arrives as Arrives<Input>>::BOUNDED,)*)+
                    Self::Alarm => false,
                }
            }

            pub(crate) fn accept(self, pending: &Pending, now: Timestamp) -> Result<Vec<Input>, Refusal> {
                match self {
                    $($(Self::$arrival(arrives) => Ok(vec![arrives.accept(&pending.$field, now)?]),)*)+
                    Self::Alarm => pending.due(now),
                }
            }
        }

        impl Pending {
            /// Everything that is to be done for an open run, handed out before or not.
            pub(crate) fn chores(&self) -> Vec<Chore> {
                let mut chores = Vec::new();
                $(chores.extend(self.$field.chores());)+
                chores
            }

            /// What a closed run still owes.
            pub(crate) fn chores_closed(&self) -> Vec<Chore> {
                let mut chores = Vec::new();
                $(chores.extend(self.$field.chores_closed());)+
                chores
            }

            /// When the run must be woken after this time.
            pub(crate) fn alarm(&self, now: Timestamp) -> Option<Timestamp> {
                [$(self.$field.alarm(now),)+].into_iter().flatten().min()
            }

            /// Whether something is under way elsewhere.
            pub(crate) fn waits(&self) -> bool {
                [$(self.$field.waits(),)+].into_iter().any(|waits| waits)
            }

            /// All that has come about by now because time has passed, in the order in which it was due.
            fn due(&self, now: Timestamp) -> Result<Vec<Input>, Refusal> {
                let mut due: Vec<(Timestamp, CommandId, Input)> = Vec::new();
                $(due.extend(self.$field.due(now).into_iter().map(|(at, id, input)| (at, id, input.into())));)+
                due.sort_by_key(|(at, id, _)| (*at, *id));
                if due.is_empty() {
                    return Err(Refusal::NothingDue);
                }
                Ok(due.into_iter().map(|(_, _, input)| input).collect())
            }

            /// About how much memory it takes, in bytes.
            pub(crate) fn weight(&self) -> usize {
                [$(self.$field.weight(),)+].into_iter().sum()
            }

            /// The run is closed.
            pub(crate) fn close(&mut self) {
                $(self.$field.close();)+
            }
        }

        // A number and a record: one byte less each than what the derive gives.
        impl<C> Encode<C> for Input {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                context: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                match self { $($(Self::$input(news) => news.encode(e.array(2)?.u32($input_n)?, context),)*)+ }
            }
        }

        impl<'b, C> Decode<'b, C> for Input {
            fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
                match number(d)? {
                    $($($input_n => d.decode_with(context).map(Self::$input),)*)+
                    unknown => Err(minicbor::decode::Error::unknown_variant(unknown.into())),
                }
            }
        }

        impl<C> Encode<C> for Command {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                context: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                match self { $($(Self::$command(ask) => ask.encode(e.array(2)?.u32($command_n)?, context),)*)+ }
            }
        }

        impl<'b, C> Decode<'b, C> for Command {
            fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
                match number(d)? {
                    $($($command_n => d.decode_with(context).map(Self::$command),)*)+
                    unknown => Err(minicbor::decode::Error::unknown_variant(unknown.into())),
                }
            }
        }
    };
}

operations! {
    /// How runs begin.
    0 starts: Starts {
        inputs {
            /// The run began.
            0 Started(Box<Started>),
            /// A start found the run open and was content with it.
            1 Joined(Joined),
        }
        commands {}
        arrivals {
            /// A start that is content with the open run.
            Join(Joined),
        }
    }
    /// Signals.
    1 signals: Signals {
        inputs {
            /// A signal arrived.
            2 Signaled(Signaled),
        }
        commands {}
        arrivals {
            /// A signal.
            Signal(Signaled),
        }
    }
    /// Requests to stop.
    2 cancellation: Cancellation {
        inputs {
            /// Somebody asked the workflow to stop.
            3 CancelRequested(CancelRequested),
        }
        commands {}
        arrivals {
            /// A request to stop.
            Cancel(CancelRequested),
        }
    }
    /// Orders to end at once.
    3 terminations: Terminations {
        inputs {
            /// Somebody ended the run.
            4 Terminated(Terminated),
        }
        commands {}
        arrivals {
            /// An order to end at once.
            Terminate(Terminated),
        }
    }
    /// Activities that workers run.
    4 activities: Activities {
        inputs {
            /// A queued activity succeeded.
            5 ActivityCompleted(ActivityCompleted),
            /// A queued activity failed, and no further attempt is made.
            6 ActivityFailed(ActivityFailed),
            /// The worker of an attempt is gone; the next one may begin.
            7 AttemptLost(AttemptLost),
        }
        commands {
            /// Run an activity on a worker.
            0 ScheduleActivity(ScheduleActivity),
            /// The workflow no longer waits for an activity.
            1 CancelActivity(CancelActivity),
        }
        arrivals {
            /// A worker reports success.
            ActivityCompleted(ActivityCompleted),
            /// A worker reports a failure that is final.
            ActivityFailed(ActivityFailed),
            /// Somebody found that the worker of an attempt is gone.
            AttemptLost(WorkerGone),
            /// No worker took the activity up in time.
            NeverTaken(NeverTaken),
        }
    }
    /// Activities that run where the workflow is decided.
    5 locals: Locals {
        inputs {
            /// A local activity succeeded.
            8 LocalCompleted(LocalCompleted),
            /// A local activity failed for good.
            9 LocalFailed(LocalFailed),
            /// An attempt of a local activity failed and the next is far away.
            10 LocalBackoff(LocalBackoff),
        }
        commands {
            /// Run an activity right here.
            2 ScheduleLocal(ScheduleLocal),
            /// The workflow no longer waits for a local activity.
            3 CancelLocal(CancelLocal),
        }
        arrivals {
            /// A local activity succeeded.
            LocalCompleted(LocalCompleted),
            /// A local activity failed for good.
            LocalFailed(LocalFailed),
            /// A local activity failed, and the next attempt is far enough away to be recorded.
            LocalBackoff(LocalBackoff),
        }
    }
    /// Timers.
    6 timers: Timers {
        inputs {
            /// A timer's time has come.
            11 TimerFired(TimerFired),
        }
        commands {
            /// Wake up later.
            4 StartTimer(StartTimer),
            /// The timer is no longer needed.
            5 CancelTimer(CancelTimer),
        }
        arrivals {}
    }
    /// Published query values.
    7 published: Values {
        inputs {}
        commands {
            /// A query's value, answered from storage.
            6 Publish(Publish),
        }
        arrivals {}
    }
    /// Recorded values.
    8 markers: Markers {
        inputs {}
        commands {
            /// A value that is given back on replay.
            7 RecordMarker(RecordMarker),
        }
        arrivals {}
    }
    /// How the code ends its run.
    9 closings: Closings {
        inputs {}
        commands {
            /// The run ends well.
            8 Complete(Complete),
            /// The run fails.
            9 Fail(Fail),
            /// The run ends because it was asked to.
            10 Cancel(Cancel),
            /// The run ends and another takes over.
            11 ContinueAsNew(ContinueAsNew),
        }
        arrivals {}
    }
    /// Which way a run goes where its code was changed under it.
    10 patches: Patches {
        inputs {}
        commands {
            /// From here on the run goes the way of a patch.
            12 RecordPatch(RecordPatch),
        }
        arrivals {}
    }
}

impl From<Infallible> for Input {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Input {
    /// The command that it answers, if it answers one.
    #[must_use]
    pub fn about(&self) -> Option<CommandId> {
        match self.about_what() {
            About::Command(id) => Some(id),
            About::Request(_) => None,
        }
    }

    /// About how much memory this takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        256 + self.bytes()
    }

    /// The id that deduplicates it, for inputs that callers send.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self.about_what() {
            About::Request(id) => Some(id),
            About::Command(_) => None,
        }
    }
}

impl Command {
    /// Whether the code asked for this when it asked for the other: the same kind, name and id. Arguments may differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.name() == other.name() && self.id() == other.id()
    }
}

/// The number of a variant; its record follows.
fn number(d: &mut Decoder<'_>) -> Result<u32, minicbor::decode::Error> {
    match d.array()? {
        Some(2) => d.u32(),
        _ => Err(minicbor::decode::Error::message("expected a number and a record")),
    }
}
