//! Activities of a test, and what is known of their calls.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::{Activity, ActivityFuture, App, Failure, Payload, Timestamp};
use dormouse_engine::seams::Host;
use futures::FutureExt;

use crate::clock::Clock;

/// One attempt of an activity, as a test sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivityCalled<I> {
    /// Its argument.
    pub input: I,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The workflow that asked for it.
    pub workflow_id: String,
    /// What the activity gives to whoever must not act twice: the same for each attempt.
    pub idempotency_key: String,
    /// How long after the beginning of the test it began.
    pub at: Duration,
}

/// An attempt as it is recorded.
struct Record {
    name: String,
    input: Payload,
    attempt: u32,
    workflow_id: String,
    idempotency_key: String,
    at: Timestamp,
}

#[derive(Default)]
struct Kept {
    records: Vec<Record>,
    /// How long activities take.
    durations: BTreeMap<&'static str, Duration>,
    /// What a mock has panicked with: an assertion of the test.
    panic: Option<Box<dyn Any + Send>>,
    /// Activities that were called and are no part of the test.
    refused: Vec<String>,
    /// Attempts that fail before their activity is asked.
    failing: BTreeMap<String, VecDeque<()>>,
}

/// What all activities of a test share.
#[derive(Clone)]
pub(super) struct Mocks {
    kept: Arc<Mutex<Kept>>,
    clock: Clock,
}

/// What stands in for an activity: from its argument to its result, both encoded.
pub(super) type Answer = Arc<Mutex<dyn FnMut(&Payload) -> Result<Payload, Failure> + Send>>;

impl Mocks {
    pub(super) fn new(clock: Clock) -> Self {
        Self { kept: Arc::default(), clock }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The activity takes so long.
    pub(super) fn takes(&self, name: &'static str, time: Duration) {
        self.lock().durations.insert(name, time);
    }

    /// The application, with this instead of one of its activities.
    pub(super) fn mock(&self, app: App, name: &'static str, answer: &Answer) -> App {
        let (mocks, answer) = (self.clone(), Arc::clone(answer));
        app.stand_in(name, move |cx, input| {
            let (here, answer, given) = (mocks.clone(), Arc::clone(&answer), input.clone());
            let work = async move {
                let asked = || (answer.lock().unwrap_or_else(PoisonError::into_inner))(&given);
                catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|panic| {
                    here.lock().panic.get_or_insert(panic);
                    Err(Failure::application("an assertion of the test has failed").non_retryable())
                })
            };
            mocks.begun(name, &cx, input, work)
        })
    }

    /// The application, whose own activity of this name is called, and recorded.
    pub(super) fn real(&self, app: App, name: &'static str) -> App {
        let (mocks, real) = (self.clone(), app.clone());
        app.stand_in(name, move |cx, input| {
            let work = real.begin_activity(name, cx.clone(), input);
            let missing = || std::future::ready(Err(Failure::application("there is no such activity"))).boxed();
            mocks.begun(name, &cx, input, work.unwrap_or_else(missing))
        })
    }

    /// The application, in which nobody may call this activity.
    pub(super) fn refuse(&self, app: App, name: &'static str) -> App {
        let mocks = self.clone();
        app.stand_in(name, move |_, _| {
            mocks.lock().refused.push(name.to_owned());
            std::future::ready(Err(Failure::application("not mocked").non_retryable())).boxed()
        })
    }

    fn begun(
        &self,
        name: &'static str,
        cx: &Activity,
        input: &Payload,
        work: impl Future<Output = Result<Payload, Failure>> + Send + 'static,
    ) -> ActivityFuture {
        let mut kept = self.lock();
        kept.records.push(Record {
            name: name.to_owned(),
            input: input.clone(),
            attempt: cx.attempt(),
            workflow_id: cx.workflow_id().to_owned(),
            idempotency_key: cx.idempotency_key(),
            at: self.clock.now(),
        });
        if kept.failing.get_mut(name).and_then(VecDeque::pop_front).is_some() {
            return std::future::ready(Err(Failure::application("planned: an attempt fails"))).boxed();
        }
        let duration = kept.durations.get(name).copied();
        let host: Arc<dyn Host> = Arc::new(self.clock.clone());
        async move {
            if let Some(duration) = duration {
                host.sleep(duration).await;
            }
            work.await
        }
        .boxed()
    }

    /// The next attempt of this activity fails before anything is asked.
    pub(super) fn fail_once(&self, name: &str) {
        self.lock().failing.entry(name.to_owned()).or_default().push_back(());
    }

    /// The attempts of this activity, in the order in which they began.
    pub(super) fn calls(&self, name: &str, began: Timestamp) -> Vec<ActivityCalled<Payload>> {
        let kept = self.lock();
        let calls = kept.records.iter().filter(|record| record.name == name);
        calls
            .map(|record| ActivityCalled {
                input: record.input.clone(),
                attempt: record.attempt,
                workflow_id: record.workflow_id.clone(),
                idempotency_key: record.idempotency_key.clone(),
                at: record.at.since(began),
            })
            .collect()
    }

    /// Tells the test what went wrong in its activities.
    ///
    /// # Panics
    /// When anything did.
    pub(super) fn tell(&self) {
        let mut kept = self.lock();
        let (panic, refused) = (kept.panic.take(), std::mem::take(&mut kept.refused));
        drop(kept);
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
        if let Some(name) = refused.first() {
            panic!(
                "the workflow calls activity {name:?}, which is no part of this test: give `TestEnv` a `.mock(...)` of its \
                 function, or let all that are not mocked run with `.real()`"
            );
        }
    }
}
