//! An application: which functions carry which wire names, and the tools that activities reach by type.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::activity::Activity;
use crate::declared::Declared;
use crate::failure::Failure;
use crate::functions::{ActivityFunction, BlockingFunction, FunctionNames, assert_function_item};
use crate::ids::check_id;
use crate::names::{Query, Signal};
use crate::payload::Payload;
use crate::program::{Program, Raw};
use crate::tools::Tools;
use crate::workflow::{FutureProgram, Workflow, WorkflowFunction};

type WorkflowEntry = Arc<dyn Fn(Raw, &Arc<FunctionNames>, &Payload) -> Result<Box<dyn Program>, Failure> + Send + Sync>;
type BeginActivity = Arc<dyn Fn(Activity, &Payload) -> ActivityFuture + Send + Sync>;

#[derive(Clone)]
struct ActivityEntry {
    begin: BeginActivity,
    blocking: bool,
}

/// An activity's future, its result encoded.
pub type ActivityFuture = BoxFuture<'static, Result<Payload, Failure>>;

/// The workflows and activities of an application, under the names that histories know them by.
///
/// Wire names are written once, here; everywhere else functions are named by themselves. A mistake (two functions
/// under one name, one function under two) is reported by [`App::check`], which `dormouse::main` calls first.
#[derive(Clone, Default)]
pub struct App {
    workflows: BTreeMap<Cow<'static, str>, WorkflowEntry>,
    activities: BTreeMap<&'static str, ActivityEntry>,
    names: Arc<FunctionNames>,
    tools: Tools,
    declared: Declared,
    strict: Strict,
    examples: Vec<(&'static str, Payload)>,
    mistakes: Vec<String>,
}

/// Whose code must ask for the very arguments that are recorded.
#[derive(Clone, Debug, Default)]
struct Strict {
    all: bool,
    types: BTreeSet<&'static str>,
}

impl App {
    /// An application with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a workflow under its wire name.
    #[must_use]
    pub fn workflow<A, F: WorkflowFunction<A>>(mut self, name: &'static str, function: F) -> Self {
        const { assert_function_item::<F>() };
        self.name_function::<F>("workflow", name, self.workflows.contains_key(name));
        let entry: WorkflowEntry = Arc::new(move |raw, names, input| {
            let input = input.decode().map_err(|failure| about(failure, "input of workflow type", name))?;
            let future = function.call(Workflow::new(raw.clone(), Arc::clone(names)), input);
            let result = move |failure| about(failure, "result of workflow type", name);
            let future = async move { Payload::encode(&future.await?).map_err(result) }.boxed_local();
            Ok(Box::new(FutureProgram::new(future, raw)) as Box<dyn Program>)
        });
        self.declared.add_workflow::<F::Input>(name);
        self.workflows.insert(name.into(), entry);
        self
    }

    /// Gives an input of a workflow to show: the program's help then has a line that works when typed. Optional; comes
    /// after the workflow itself.
    ///
    /// ```
    /// # use dormouse_core::{App, Failure, Workflow};
    /// # async fn greet(_: Workflow, name: String) -> Result<String, Failure> { Ok(name) }
    /// let app = App::new().workflow("greet", greet).example(greet, &"Ann".to_owned());
    /// ```
    #[must_use]
    pub fn example<A, F: WorkflowFunction<A>>(mut self, workflow: F, input: &F::Input) -> Self {
        let _ = workflow;
        let function = std::any::type_name::<F>();
        match (self.names.of::<F>(), Payload::encode(input)) {
            (Some(name), Ok(input)) => self.examples.push((name, input)),
            (None, _) => {
                self.mistakes.push(format!("an example is given of {function}, which is not registered before"))
            }
            (_, Err(failure)) => self.mistakes.push(format!("the example of {function} is no input: {failure}")),
        }
        self
    }

    /// Registers a program that is no Rust function under its wire name: `begin` makes one for each run, from the run's
    /// context and argument, and runs its code in its turns only.
    #[must_use]
    pub fn program(
        mut self,
        name: impl Into<Cow<'static, str>>,
        begin: impl Fn(Raw, &Payload) -> Result<Box<dyn Program>, Failure> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        if let Err(problem) = check_id("the name", &name) {
            self.mistakes.push(format!("program {name:?}: {problem}"));
        }
        self.declared.add_program(name.clone());
        if self.workflows.insert(name.clone(), Arc::new(move |raw, _, input| begin(raw, input))).is_some() {
            self.mistakes.push(format!("two functions are registered as workflow {name:?}"));
        }
        self
    }

    /// Registers an activity under its wire name.
    #[must_use]
    pub fn activity<A, F: ActivityFunction<A>>(self, name: &'static str, function: F) -> Self {
        const { assert_function_item::<F>() };
        let begin: BeginActivity = Arc::new(move |cx, input| match input.decode() {
            Ok(input) => {
                let future = function.call(cx, input);
                let result = move |failure| about(failure, "result of activity", name);
                async move { Payload::encode(&future.await?).map_err(result) }.boxed()
            }
            Err(failure) => std::future::ready(Err(about(failure, "argument of activity", name))).boxed(),
        });
        self.add_activity::<F, F::Output>(name, ActivityEntry { begin, blocking: false })
    }

    /// Registers an activity that is an ordinary `fn` under its wire name: it may block, or compute for long, on a thread
    /// of its own. Workflows call it as they call any other.
    ///
    /// A limit that passes ends its attempt, and not its code: that goes on until it returns. One that takes long asks
    /// [`Activity::is_canceled`] now and then.
    ///
    /// ```
    /// # use dormouse_core::{Activity, App, Failure, OrFail};
    /// fn read(_: Activity, file: String) -> Result<String, Failure> {
    ///     std::fs::read_to_string(&file).or_fail()
    /// }
    /// let app = App::new().blocking_activity("read", read);
    /// ```
    #[must_use]
    pub fn blocking_activity<I, F>(self, name: &'static str, function: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        F: BlockingFunction<I>,
    {
        const { assert_function_item::<F>() };
        let begin: BeginActivity = Arc::new(move |cx, input| match input.decode() {
            Ok(input) => {
                let result = move |failure| about(failure, "result of activity", name);
                async move { Payload::encode(&function.call(cx, input)?).map_err(result) }.boxed()
            }
            Err(failure) => std::future::ready(Err(about(failure, "argument of activity", name))).boxed(),
        });
        self.add_activity::<F, F::Output>(name, ActivityEntry { begin, blocking: true })
    }

    /// Something else does what the activity of this name does, whether this application has one or another program: for
    /// tests of workflows, which go on calling the activity itself.
    #[must_use]
    pub fn stand_in(
        mut self,
        name: &'static str,
        begin: impl Fn(Activity, &Payload) -> ActivityFuture + Send + Sync + 'static,
    ) -> Self {
        self.activities.insert(name, ActivityEntry { begin: Arc::new(begin), blocking: false });
        self
    }

    fn add_activity<F: 'static, O: DeserializeOwned>(mut self, name: &'static str, entry: ActivityEntry) -> Self {
        self.name_function::<F>("activity", name, self.activities.contains_key(name));
        self.declared.add_activity::<O>(name);
        self.activities.insert(name, entry);
        self
    }

    /// Declares a signal's type, so that callers whose argument does not fit are told so (422) instead of being passed
    /// over. Optional: signals that are not declared are taken in unread. The name means this type in every workflow of
    /// the application; another type under it is a mistake that [`App::check`] reports.
    ///
    /// ```
    /// # use dormouse_core::{App, Query, Signal};
    /// const APPROVAL: Signal<bool> = Signal::new("approval");
    /// const STATUS: Query<String> = Query::new("status");
    /// let app = App::new().signal(APPROVAL).query(STATUS);
    /// ```
    #[must_use]
    pub fn signal<T: DeserializeOwned + 'static>(mut self, signal: Signal<T>) -> Self {
        let added = self.declared.add_signal(signal);
        self.name_declared("signal", signal.name(), added)
    }

    /// Declares a query's types, so that an argument which does not fit is refused (422) before the workflow's code is
    /// asked, and what was published under its name is known to be read still (`replay`). Optional, as with
    /// [`App::signal`].
    #[must_use]
    pub fn query<T: DeserializeOwned + 'static, A: DeserializeOwned + 'static>(mut self, query: Query<T, A>) -> Self {
        let added = self.declared.add_query(query);
        self.name_declared("query", query.name(), added)
    }

    /// Names a task queue that a deployed system has beside the default one. Optional: under `dev`, where one process
    /// serves every queue, an activity for another name than these is warned of.
    ///
    /// ```
    /// # use dormouse_core::App;
    /// let app = App::new().task_queue("gpu").task_queue("python");
    /// ```
    #[must_use]
    pub fn task_queue(mut self, name: &'static str) -> Self {
        self.declared.add_task_queue(name);
        self.name_declared("task queue", name, Ok(()))
    }

    fn name_declared(mut self, kind: &str, name: &'static str, added: Result<(), String>) -> Self {
        self.mistakes.extend(added.err());
        if let Err(problem) = check_id("the name", name) {
            self.mistakes.push(format!("{kind} {name:?}: {problem}"));
        }
        self
    }

    /// Parks a run of any workflow whose code asks for a recorded command with other arguments than the recorded ones, as
    /// a divergence with both places in the source. Otherwise the recorded ones stand, so that fields can be added to the
    /// input of an activity under open runs, and `describe` counts such commands.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict.all = true;
        self
    }

    /// The same for workflows of this type. A name that is no workflow's is a mistake that [`App::check`] reports.
    ///
    /// ```
    /// # use dormouse_core::{App, Failure, Workflow};
    /// # async fn payout(_: Workflow, _: u32) -> Result<(), Failure> { Ok(()) }
    /// let app = App::new().workflow("payout", payout).strict_workflow("payout");
    /// ```
    #[must_use]
    pub fn strict_workflow(mut self, workflow_type: &'static str) -> Self {
        self.strict.types.insert(workflow_type);
        self
    }

    /// Whether code of this workflow type must ask for the very arguments that are recorded.
    #[must_use]
    pub fn is_strict(&self, workflow_type: &str) -> bool {
        self.strict.all || self.strict.types.contains(workflow_type)
    }

    /// Gives activities a tool (a client, a pool, a path), which they reach with `cx.get::<T>()`.
    #[must_use]
    pub fn provide<T: Send + Sync + 'static>(mut self, tool: T) -> Self {
        if !self.tools.add(tool) {
            self.mistakes.push(format!("two values of type {} are provided", std::any::type_name::<T>()));
        }
        self
    }

    fn name_function<F: 'static>(&mut self, kind: &str, name: &'static str, taken: bool) {
        let function = std::any::type_name::<F>();
        if let Err(problem) = check_id("the name", name) {
            self.mistakes.push(format!("{kind} {function}: {problem}"));
        }
        if taken {
            self.mistakes.push(format!("two functions are registered as {kind} {name:?}"));
        }
        if let Some(other) = Arc::make_mut(&mut self.names).give::<F>(name) {
            self.mistakes.push(format!("{function} is registered twice, as {other:?} and as {name:?}"));
        }
    }

    /// Whether the registration makes sense.
    ///
    /// # Errors
    /// Every mistake, one a line.
    pub fn check(&self) -> Result<(), InvalidApp> {
        let unknown = self.strict.types.iter().filter(|name| !self.workflows.contains_key(**name));
        let unknown = unknown.map(|name| format!("no workflow {name:?} is registered, which is to be strict"));
        let mistakes: Vec<_> = self.mistakes.iter().cloned().chain(unknown).collect();
        if mistakes.is_empty() { Ok(()) } else { Err(InvalidApp(mistakes)) }
    }

    /// The wire name of a registered function.
    #[must_use]
    pub fn name_of<F: 'static>(&self) -> Option<&'static str> {
        self.names.of::<F>()
    }

    /// The wire names of all registered functions.
    #[must_use]
    pub fn names(&self) -> &FunctionNames {
        &self.names
    }

    /// What callers' JSON is held against.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The names of all workflows.
    pub fn workflow_types(&self) -> impl Iterator<Item = &str> + '_ {
        self.workflows.keys().map(AsRef::as_ref)
    }

    /// Inputs to show, by workflow type, in the order in which they were given.
    pub fn examples(&self) -> impl Iterator<Item = (&'static str, &Payload)> + '_ {
        self.examples.iter().map(|(name, input)| (*name, input))
    }

    /// The names of all activities.
    pub fn activity_types(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.activities.keys().copied()
    }

    pub(crate) fn begin_workflow(
        &self,
        name: &str,
        raw: Raw,
        input: &Payload,
    ) -> Option<Result<Box<dyn Program>, Failure>> {
        self.workflows.get(name).map(|entry| entry(raw, &self.names, input))
    }

    /// Calls an activity; `None` when this application has none of that name.
    #[must_use]
    pub fn begin_activity(&self, name: &str, cx: Activity, input: &Payload) -> Option<ActivityFuture> {
        self.activities.get(name).map(|entry| (entry.begin)(cx, input))
    }

    /// Whether this application has an activity of that name that is an ordinary function.
    #[must_use]
    pub fn is_blocking(&self, name: &str) -> bool {
        self.activities.get(name).is_some_and(|entry| entry.blocking)
    }

    /// What activities are given to work with.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }
}

fn about(failure: Failure, what: &str, name: &str) -> Failure {
    failure.about(format_args!("the {what} {name:?}"), None)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("workflows", &self.workflows.keys())
            .field("activities", &self.activities.keys())
            .finish_non_exhaustive()
    }
}

/// The application is registered wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidApp(Vec<String>);

impl fmt::Display for InvalidApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the application is registered wrongly:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl std::error::Error for InvalidApp {}
