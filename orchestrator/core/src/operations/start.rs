//! How a run begins, and how later starts join it.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | a caller starts the workflow | `Started`, the first event of batch 0 | the run; the first turn is owed |
//! | the same request again | | the same run, also when later runs have begun (rule F3) |
//! | another request, the open run is to be used | `Joined` | that request is answered with this run for ever; the code is not told |
//! | another request, the open run is to be replaced | `Terminated` (see there) | |

use minicbor::{Decode, Encode};

use super::call::{Call, CarriedSignal};
use super::kind::{About, Arrives, Delivery, Kind, News, Refusal, View, attributes};
use crate::ids::RunId;
use crate::payload::Payload;
use crate::time::Timestamp;

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Started {
    /// The identity of the run.
    #[n(0)]
    pub run_id: RunId,
    /// What it runs.
    #[n(1)]
    pub call: Call,
    /// Deduplicates repeats of the start.
    #[n(2)]
    pub request_id: String,
    /// The run that this one continues.
    #[n(3)]
    pub continued_from: Option<RunId>,
    /// Signals that the predecessor had not consumed.
    #[n(4)]
    pub carried: Vec<CarriedSignal>,
    /// Requests that earlier runs of this workflow id have answered (rule F3), oldest first.
    #[n(5)]
    pub earlier: Vec<EarlierRequest>,
}

/// A request that an earlier run answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct EarlierRequest {
    /// Eight bytes of the request id's hash.
    #[n(0)]
    pub hash: u64,
    /// The ordinal of the run that answered it.
    #[n(1)]
    pub ordinal: u64,
    /// When it was recorded.
    #[n(2)]
    pub at: Timestamp,
}

/// A start that found the run open and was content with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Joined {
    /// Deduplicates repeats.
    #[n(0)]
    pub request_id: String,
}

/// Nothing is pending of starts.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Starts {}

impl Kind for Starts {
    type Due = std::convert::Infallible;
}

impl News for Box<Started> {
    type Of = Starts;
    const DELIVERED: bool = true;

    fn about(&self) -> About<'_> {
        About::Request(&self.request_id)
    }

    fn note(&self, _: &mut Starts) -> Result<(), String> {
        Ok(())
    }

    /// A run begins once.
    fn fits(&self, _: &Starts) -> bool {
        false
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Signals(&self.carried)
    }

    fn view(&self) -> View {
        let Started { run_id, call, request_id, continued_from, carried, .. } = &**self;
        let mut view = attributes! {
            "workflow_type": call.workflow_type,
            "run_id": run_id,
            "input": call.input,
            "request_id": request_id,
            "continued_from": continued_from,
            "carried_signals": carried,
        };
        let terms = attributes! {
            "parent": call.parent,
            "memo": call.memo,
            "search_attributes": call.search_attributes,
            "limits": call.limits,
            "retry": call.retry,
            "not_before": call.not_before,
        };
        view.extend(terms.into_iter().filter(|(_, value)| *value != Payload::NULL));
        ("WorkflowStarted", view)
    }

    fn bytes(&self) -> usize {
        self.call.input.len() + self.carried.iter().map(|signal| signal.payload.len()).sum::<usize>()
    }
}

impl News for Joined {
    type Of = Starts;
    const DELIVERED: bool = false;

    fn about(&self) -> About<'_> {
        About::Request(&self.request_id)
    }

    fn note(&self, _: &mut Starts) -> Result<(), String> {
        Ok(())
    }

    fn fits(&self, _: &Starts) -> bool {
        true
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Nothing
    }

    fn view(&self) -> View {
        ("StartJoined", attributes! { "request_id": self.request_id })
    }
}

impl<Input: From<Self>> Arrives<Input> for Joined {
    type Of = Starts;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn accept(self, _: &Starts, _: Timestamp) -> Result<Input, Refusal> {
        Ok(self.into())
    }
}
