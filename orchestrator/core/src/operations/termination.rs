//! Orders to end at once. They run no code.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | an operator ends a run | `Terminated` | the run is closed; its activities are unwanted |
//! | a start replaces it | `Terminated` with the next run | so it is, and the next run is owed (rule C6) |
//! | the same again | | a duplicate, by its request id |

use minicbor::{Decode, Encode};

use super::call::NextRun;
use super::kind::{About, Arrives, Closed, Delivery, Kind, News, Refusal, View, attributes};
use crate::failure::Failure;
use crate::time::Timestamp;

/// Somebody ended the run. Runs no code.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Terminated {
    /// Deduplicates repeats.
    #[n(0)]
    pub request_id: String,
    /// Why, for people.
    #[n(1)]
    pub reason: String,
    /// The run that takes its place, when a start terminated it.
    #[n(2)]
    pub next: Option<Box<NextRun>>,
}

/// Nothing is pending of terminations.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Terminations {}

impl Kind for Terminations {
    type Due = std::convert::Infallible;
}

impl News for Terminated {
    type Of = Terminations;
    const DELIVERED: bool = false;

    fn about(&self) -> About<'_> {
        About::Request(&self.request_id)
    }

    fn note(&self, _: &mut Terminations) -> Result<(), String> {
        Ok(())
    }

    fn fits(&self, _: &Terminations) -> bool {
        true
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Nothing
    }

    fn view(&self) -> View {
        let Self { request_id, reason, next } = self;
        ("WorkflowTerminated", attributes! { "reason": reason, "request_id": request_id, "replaced": next.is_some() })
    }

    fn bytes(&self) -> usize {
        self.reason.len() + self.next.as_ref().map_or(0, |next| next.call.input.len())
    }

    fn closes(&self) -> Option<Closed> {
        Some(Closed::Terminated(Failure::terminated(&*self.reason), self.next.clone()))
    }
}

impl<Input: From<Self>> Arrives<Input> for Terminated {
    type Of = Terminations;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn accept(self, _: &Terminations, _: Timestamp) -> Result<Input, Refusal> {
        Ok(self.into())
    }
}
