//! Where workflows run in a test: what a test says of its activities, and when things happen.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::{ActivityTarget, App, Failure, Payload, WorkflowFunction};
use dormouse_engine::seams::Host;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mocks::{ActivityCalled, Answer};
use super::run::TestRun;
use super::stage::{BEGINS, Stage};

/// Workflows in memory, in virtual time. See the [module's documentation](super).
///
/// *Activities*: [`mock`](Self::mock), [`mock_each`](Self::mock_each), [`takes`](Self::takes), [`real`](Self::real). *Harder
/// circumstances*: [`chaos`](Self::chaos). *Runs*: [`start`](Self::start), [`start_as`](Self::start_as), under
/// [another build](Self::deploy). *Time*:
/// [`advance`](Self::advance), [`after`](Self::after), [`now`](Self::now). *Afterwards*: [`calls`](Self::calls).
pub struct TestEnv {
    stage: Rc<Stage>,
}

impl TestEnv {
    /// Runs the workflows of this application. Its activities are no part of the test until they are mocked, or let run.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { stage: Rc::new(Stage::new(app)) }
    }

    // --- activities ---

    /// Something else does what this activity does: named by its function (or [`RemoteActivity`](dormouse_core::RemoteActivity)),
    /// with its types. It is asked for each attempt, and what it fails with is retried by the policy of the call. An
    /// assertion in it that fails, fails the test.
    ///
    /// # Panics
    /// When the application does not have the activity, or a run has begun.
    #[must_use]
    #[track_caller]
    pub fn mock<A, F>(
        self,
        activity: F,
        mut answer: impl FnMut(F::Input) -> Result<F::Output, Failure> + Send + 'static,
    ) -> Self
    where
        F: ActivityTarget<A>,
        F::Input: DeserializeOwned,
        F::Output: Serialize,
    {
        self.stand_in(activity, Arc::new(Mutex::new(move |input: &Payload| Payload::encode(&answer(input.decode()?)?))))
    }

    /// The same with one answer after another, one for each attempt. When they are used up, the test fails.
    ///
    /// # Panics
    /// As [`mock`](Self::mock).
    #[must_use]
    #[track_caller]
    pub fn mock_each<A, F>(self, activity: F, answers: impl IntoIterator<Item = Result<F::Output, Failure>>) -> Self
    where
        F: ActivityTarget<A>,
        F::Output: Serialize,
    {
        let encode = |answer: Result<F::Output, Failure>| answer.and_then(|output| Payload::encode(&output));
        let mut answers: VecDeque<_> = answers.into_iter().map(encode).collect();
        let (all, name) = (answers.len(), self.stage.name_of(activity));
        let next = move |_: &Payload| match answers.pop_front() {
            Some(answer) => answer,
            None => panic!("activity {name:?} is called more often than the test has answers ({all})"),
        };
        self.stand_in(activity, Arc::new(Mutex::new(next)))
    }

    /// An attempt of this activity takes so long, in virtual time: time limits and other work go on meanwhile.
    ///
    /// # Panics
    /// When the application does not have the activity.
    #[must_use]
    #[track_caller]
    pub fn takes<A, F: ActivityTarget<A>>(self, activity: F, time: Duration) -> Self {
        self.stage.mocks.takes(self.stage.name_of(activity), time);
        self
    }

    /// Activities that are not mocked run as they are, with the tools of the application. They run on this thread, between
    /// the steps of the workflow, and nothing waits for the outside: one that needs a runtime is to be mocked.
    #[must_use]
    pub fn real(self) -> Self {
        self.stage.run_what_is_not_mocked();
        self
    }

    #[track_caller]
    fn stand_in<A, F: ActivityTarget<A>>(self, activity: F, answer: Answer) -> Self {
        self.stage.mock(self.stage.name_of(activity), answer);
        self
    }

    // --- circumstances ---

    /// What production brings, in an order that the seed decides, always the same: messages come twice, runs fall out of
    /// memory and are replayed between any two steps, and first attempts of activities fail where their policy allows
    /// another one. A workflow that is written well comes to the same end.
    #[must_use]
    pub fn chaos(self, seed: u64) -> Self {
        self.stage.bring_chaos(seed);
        self
    }

    // --- runs ---

    /// Starts a workflow, and lets it come as far as it does without time passing.
    ///
    /// # Panics
    /// When the application does not have the workflow.
    #[track_caller]
    pub fn start<A, F: WorkflowFunction<A>>(&self, workflow: F, input: &F::Input) -> TestRun<F::Output> {
        self.start_as(&format!("run-{}", self.stage.fresh()), workflow, input)
    }

    /// The same under this workflow id.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when a run of that id is open.
    #[track_caller]
    pub fn start_as<A, F: WorkflowFunction<A>>(&self, id: &str, workflow: F, input: &F::Input) -> TestRun<F::Output> {
        let _ = workflow;
        let Some(name) = self.stage.app().name_of::<F>() else {
            panic!("{} is not registered; add `.workflow(\"...\", ...)` to the App", std::any::type_name::<F>());
        };
        self.stage.start(name, id, input);
        TestRun::new(Rc::clone(&self.stage), id)
    }

    /// What a test of crashes does with its process.
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The next build goes on with all runs: its workflows are these. The process of the former one is gone, with the
    /// attempts of activities that it was at. What was mocked stays mocked, so whatever either build calls is mocked before
    /// the first run.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dormouse_core::{App, Failure, Signal, Workflow};
    /// # use dormouse_testing::kit::TestEnv;
    /// # const GO: Signal<bool> = Signal::new("go");
    /// async fn greeting(cx: Workflow, name: String) -> Result<String, Failure> {
    ///     cx.signal(GO).await?;
    ///     Ok(format!("Hello {name}"))
    /// }
    /// async fn late_greeting(cx: Workflow, name: String) -> Result<String, Failure> {
    ///     cx.sleep(Duration::from_hours(1)).await?;
    ///     greeting(cx, name).await
    /// }
    /// let test = TestEnv::new(App::new().workflow("greeting", greeting));
    /// let run = test.start(greeting, &"Ann".into());
    /// test.deploy(App::new().workflow("greeting", late_greeting));
    /// let parked = run.parked().expect("code that does not fit the history");
    /// assert!(parked.reason.contains("attempted: timer"), "{}", parked.reason);
    /// ```
    ///
    /// # Panics
    /// When the application has mistakes.
    #[track_caller]
    pub fn deploy(&self, app: App) {
        self.stage.deploy(app);
    }

    // --- time ---

    /// The time since the beginning of the test.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.stage.clock.now().since(BEGINS)
    }

    /// Lets time pass, and everything happen that happens in it, each at its moment.
    pub fn advance(&self, time: Duration) {
        let until = self.stage.clock.now() + time;
        while self.stage.step(Some(until)) {}
        self.stage.clock.pass(until.since(self.stage.clock.now()));
        self.stage.settle();
    }

    /// Does something so much later: when a run's result is asked for, time passes by itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use dormouse_core::{App, Failure, Signal, Workflow};
    /// # use dormouse_testing::kit::TestEnv;
    /// # const GO: Signal<u32> = Signal::new("go");
    /// # async fn patient(cx: Workflow, _: ()) -> Result<u32, Failure> { Ok(cx.signal(GO).await?) }
    /// let test = TestEnv::new(App::new().workflow("patient", patient));
    /// let run = test.start(patient, &());
    /// let later = run.clone();
    /// test.after(Duration::from_hours(48), move || later.signal(GO, &7));
    /// assert_eq!(run.result(), Ok(7));
    /// ```
    pub fn after(&self, time: Duration, errand: impl FnOnce() + 'static) {
        self.stage.later(time, errand);
    }

    // --- afterwards ---

    /// The attempts of this activity so far, in the order in which they began.
    ///
    /// # Panics
    /// When the application does not have the activity, or a recorded argument is not of its type.
    #[must_use]
    #[track_caller]
    pub fn calls<A, F>(&self, activity: F) -> Vec<ActivityCalled<F::Input>>
    where
        F: ActivityTarget<A>,
        F::Input: DeserializeOwned,
    {
        let calls = self.stage.mocks.calls(self.stage.name_of(activity), BEGINS);
        let typed = calls.into_iter().map(|called| ActivityCalled {
            input: called.input.decode().expect("an argument of the activity's type"),
            attempt: called.attempt,
            workflow_id: called.workflow_id,
            idempotency_key: called.idempotency_key,
            at: called.at,
        });
        typed.collect()
    }
}
