//! Activity functions, and the wire names by which functions are known.

use std::any::TypeId;
use std::collections::HashMap;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::activity::Activity;
use crate::failure::Failure;
use crate::ids::check_id;
use crate::names::RemoteActivity;
use crate::panics::not_registered;

/// The wire names of an application's functions, which are told apart by type.
#[derive(Clone, Debug, Default)]
pub struct FunctionNames(HashMap<TypeId, &'static str>);

impl FunctionNames {
    /// The wire name of a function that is registered.
    #[must_use]
    pub fn of<F: 'static>(&self) -> Option<&'static str> {
        self.0.get(&TypeId::of::<F>()).copied()
    }

    /// Names a function; the name that it had before, if any.
    pub(crate) fn give<F: 'static>(&mut self, name: &'static str) -> Option<&'static str> {
        self.0.insert(TypeId::of::<F>(), name)
    }
}

/// An `async fn(Activity, Input) -> Result<Output, Failure>` whose future may move between threads.
#[diagnostic::on_unimplemented(
    message = "this is not an activity function",
    label = "expected `async fn(Activity, Input) -> Result<Output, Failure>`",
    note = "pass the function itself; what it needs comes through `App::provide` and `cx.get::<T>()`, not through captured variables",
    note = "Input must be Deserialize, Output must be Serialize, and the future Send"
)]
pub trait ActivityFunction<Args>: Copy + Send + Sync + 'static {
    /// Its argument.
    type Input: DeserializeOwned + Serialize + Send + 'static;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + 'static;
    /// Calls it.
    fn call(
        self,
        cx: Activity,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send + 'static;
}

/// What an `async fn` of an activity gives when it is called. A name of our own, so that the compiler says of ordinary
/// functions what to do.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "this is not an `async fn`, and so not an activity function",
    label = "expected `async fn(Activity, Input) -> Result<Output, Failure>`",
    note = "an ordinary `fn`, which may block, is registered with `.blocking_activity(...)`"
)]
pub trait ActivityWork: Future<Output = Result<Self::Given, Failure>> {
    /// What it gives when it does not fail.
    type Given;
}

#[diagnostic::do_not_recommend]
impl<O, Fut: Future<Output = Result<O, Failure>>> ActivityWork for Fut {
    type Given = O;
}

impl<F, Fut, I, O> ActivityFunction<(I,)> for F
where
    F: Fn(Activity, I) -> Fut + Copy + Send + Sync + 'static,
    Fut: ActivityWork<Given = O> + Send + 'static,
    I: DeserializeOwned + Serialize + Send + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    type Input = I;
    type Output = O;
    fn call(self, cx: Activity, input: I) -> impl Future<Output = Result<O, Failure>> + Send + 'static {
        self(cx, input)
    }
}

/// An `fn(Activity, Input) -> Result<Output, Failure>` that may block or compute for as long as it likes, on a thread of its
/// own. It is not ended at a time limit: one that takes long asks [`Activity::is_canceled`] now and then.
#[diagnostic::on_unimplemented(
    message = "this is not a blocking activity function",
    label = "expected `fn(Activity, Input) -> Result<Output, Failure>`",
    note = "an `async fn` is registered with `.activity(...)`",
    note = "pass the function itself; what it needs comes through `App::provide` and `cx.get::<T>()`, not through captured variables",
    note = "Input must be Deserialize and Output Serialize"
)]
pub trait BlockingFunction<I>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Output: Serialize + DeserializeOwned + 'static;
    /// Calls it.
    ///
    /// # Errors
    /// What it fails with.
    fn call(self, cx: Activity, input: I) -> Result<Self::Output, Failure>;
}

impl<F, I, O> BlockingFunction<I> for F
where
    F: Fn(Activity, I) -> Result<O, Failure> + Copy + Send + Sync + 'static,
    I: DeserializeOwned + Serialize + Send + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    type Output = O;
    fn call(self, cx: Activity, input: I) -> Result<O, Failure> {
        self(cx, input)
    }
}

/// What [`Workflow::activity`](crate::Workflow::activity) calls: an activity function of this application, or a [`RemoteActivity`].
#[diagnostic::on_unimplemented(
    message = "this is not an activity",
    label = "expected `async fn(Activity, Input) -> Result<Output, Failure>`, a blocking `fn` of that kind, or a `RemoteActivity<Input, Output>`",
    note = "pass the function itself; what it needs comes through `App::provide` and `cx.get::<T>()`, not through captured variables",
    note = "Input must be Deserialize, Output must be Serialize, and the future Send"
)]
pub trait ActivityTarget<Args>: Copy + 'static {
    /// Its argument.
    type Input: Serialize + 'static;
    /// What it gives.
    type Output: DeserializeOwned + 'static;
    /// The wire name.
    ///
    /// # Panics
    /// When this is a function that the application does not have, or the name is none.
    #[track_caller]
    fn wire_name(self, names: &FunctionNames) -> &'static str;
}

impl<I, F: ActivityFunction<(I,)>> ActivityTarget<(I,)> for F {
    type Input = F::Input;
    type Output = F::Output;

    fn wire_name(self, names: &FunctionNames) -> &'static str {
        wire_name_of(self, names, "activity")
    }
}

/// Marks [blocking activities](BlockingFunction) among the kinds of [`ActivityTarget`].
#[derive(Clone, Copy, Debug)]
pub struct Blocking<I>(PhantomData<I>);

impl<I: Serialize + 'static, F: BlockingFunction<I>> ActivityTarget<Blocking<I>> for F {
    type Input = I;
    type Output = F::Output;

    fn wire_name(self, names: &FunctionNames) -> &'static str {
        wire_name_of(self, names, "blocking_activity")
    }
}

#[track_caller]
pub(crate) fn wire_name_of<F: 'static>(_: F, names: &FunctionNames, with: &str) -> &'static str {
    const { assert_function_item::<F>() };
    match names.of::<F>() {
        Some(name) => name,
        None => not_registered("activity", std::any::type_name::<F>(), with),
    }
}

/// Marks activities of other programs among the kinds of [`ActivityTarget`].
#[derive(Clone, Copy, Debug)]
pub struct Remote(());

impl<I: Serialize + 'static, O: DeserializeOwned + 'static> ActivityTarget<Remote> for RemoteActivity<I, O> {
    type Input = I;
    type Output = O;

    fn wire_name(self, _: &FunctionNames) -> &'static str {
        match check_id("the name of a remote activity", self.name()) {
            Ok(()) => self.name(),
            Err(problem) => panic!("{problem}"),
        }
    }
}

/// Functions are told apart by type, so each must be a type of its own: a function item, or a closure that captures
/// nothing.
pub(crate) const fn assert_function_item<F>() {
    assert!(
        size_of::<F>() == 0,
        "pass a function item: a function pointer or a closure that captures variables cannot be told from others"
    );
}
