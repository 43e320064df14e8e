//! Workflow functions.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Workflow;
use crate::failure::Failure;

/// An `async fn(Workflow, Input) -> Result<Output, Failure>`.
#[diagnostic::on_unimplemented(
    message = "this is not a workflow function",
    label = "expected `async fn(Workflow, Input) -> Result<Output, Failure>`",
    note = "pass the function itself; closures that capture variables cannot be replayed",
    note = "Input must be Deserialize, Output must be Serialize"
)]
pub trait WorkflowFunction<Args>: Copy + Send + Sync + 'static {
    /// Its argument.
    type Input: DeserializeOwned + Serialize + 'static;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + 'static;
    /// Calls it.
    fn call(self, cx: Workflow, input: Self::Input) -> impl Future<Output = Result<Self::Output, Failure>> + 'static;
}

impl<F, Fut, I, O> WorkflowFunction<(I,)> for F
where
    F: Fn(Workflow, I) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<O, Failure>> + 'static,
    I: DeserializeOwned + Serialize + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    type Input = I;
    type Output = O;
    fn call(self, cx: Workflow, input: I) -> impl Future<Output = Result<O, Failure>> + 'static {
        self(cx, input)
    }
}
