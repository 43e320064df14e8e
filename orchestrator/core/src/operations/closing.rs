//! How a workflow's own code ends its run.
//!
//! | what the code does | in the history | the run is |
//! | --- | --- | --- |
//! | returns a result | `Complete` | completed |
//! | returns a failure | `Fail` | failed |
//! | returns the cancellation that was asked for | `Cancel` | canceled |
//! | returns what `continue_as_new` gave | `ContinueAsNew` | continued as new: the next run is owed (rule C6) |
//!
//! Whatever is pending then is waited for no more; activities are unwanted.

use minicbor::{Decode, Encode};

use super::call::NextRun;
use super::kind::{Ask, Closed, Kind, View, attributes};
use crate::failure::Failure;
use crate::payload::Payload;
use crate::time::Moment;

/// The run ends well.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Complete {
    /// What the workflow returned.
    #[n(0)]
    pub result: Payload,
}

/// The run fails.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Fail {
    /// What the workflow returned.
    #[n(0)]
    pub failure: Failure,
}

/// The run ends because it was asked to.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Cancel {
    /// The cancellation as it came out.
    #[n(0)]
    pub failure: Failure,
}

/// The run ends and another takes over.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ContinueAsNew {
    /// The run that takes over.
    #[n(0)]
    pub next: Box<NextRun>,
}

/// Nothing is pending of closings: how a run ended, its state says.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Closings {}

impl Kind for Closings {
    type Due = std::convert::Infallible;
}

impl Ask for Complete {
    type Of = Closings;
    const KIND: &'static str = "complete the workflow";

    fn same_arguments(&self, other: &Self) -> bool {
        self == other
    }

    fn fold(&self, _: &mut Closings, _: Moment) -> Result<(), String> {
        Ok(())
    }

    fn view(&self) -> View {
        ("WorkflowCompleted", attributes! { "result": self.result })
    }

    fn bytes(&self) -> usize {
        self.result.len()
    }

    fn closes(&self) -> Option<Closed> {
        Some(Closed::Completed(self.result.clone()))
    }
}

impl Ask for Fail {
    type Of = Closings;
    const KIND: &'static str = "fail the workflow";

    /// Failures name lines of the source, which move.
    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, _: &mut Closings, _: Moment) -> Result<(), String> {
        Ok(())
    }

    fn view(&self) -> View {
        ("WorkflowFailed", attributes! { "failure": self.failure })
    }

    fn closes(&self) -> Option<Closed> {
        Some(Closed::Failed(self.failure.clone()))
    }
}

impl Ask for Cancel {
    type Of = Closings;
    const KIND: &'static str = "close the workflow as canceled";

    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, _: &mut Closings, _: Moment) -> Result<(), String> {
        Ok(())
    }

    fn view(&self) -> View {
        ("WorkflowCanceled", attributes! { "failure": self.failure })
    }

    fn closes(&self) -> Option<Closed> {
        Some(Closed::Canceled(self.failure.clone()))
    }
}

impl Ask for ContinueAsNew {
    type Of = Closings;
    const KIND: &'static str = "continue as new";

    fn name(&self) -> Option<&str> {
        Some(&self.next.call.workflow_type)
    }

    fn same_arguments(&self, other: &Self) -> bool {
        self == other
    }

    fn fold(&self, _: &mut Closings, _: Moment) -> Result<(), String> {
        Ok(())
    }

    fn view(&self) -> View {
        let NextRun { call, carried, .. } = &*self.next;
        (
            "WorkflowContinuedAsNew",
            attributes! { "workflow_type": call.workflow_type, "input": call.input, "carried_signals": carried },
        )
    }

    fn bytes(&self) -> usize {
        self.next.call.input.len() + self.next.carried.iter().map(|signal| signal.payload.len()).sum::<usize>()
    }

    fn closes(&self) -> Option<Closed> {
        Some(Closed::ContinuedAsNew(self.next.clone()))
    }
}
