//! What a workflow is begun with, and what one run hands to the next.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::ids::{CommandId, RunId};
use crate::options::RecordedRetry;
use crate::payload::Payload;
use crate::time::Timestamp;

/// A workflow to run: of which type, on what, under which terms. What is not set takes no room in a history.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Call {
    /// The workflow's wire name.
    #[n(0)]
    pub workflow_type: String,
    /// Its argument.
    #[n(1)]
    pub input: Payload,
    /// The run that called it.
    #[n(2)]
    pub parent: Option<Parent>,
    /// Notes for people, by name.
    #[n(3)]
    pub memo: Option<BTreeMap<String, Payload>>,
    /// What listings can be searched by, by name.
    #[n(4)]
    pub search_attributes: Option<BTreeMap<String, Payload>>,
    /// Its time limits.
    #[n(5)]
    pub limits: Option<TimeLimits>,
    /// How it is tried again when it fails.
    #[n(6)]
    pub retry: Option<RecordedRetry>,
    /// It begins no earlier than this.
    #[n(7)]
    pub not_before: Option<Timestamp>,
}

impl Call {
    /// A call with nothing set but what it needs.
    #[must_use]
    pub fn new(workflow_type: impl Into<String>, input: Payload) -> Self {
        Self {
            workflow_type: workflow_type.into(),
            input,
            parent: None,
            memo: None,
            search_attributes: None,
            limits: None,
            retry: None,
            not_before: None,
        }
    }
}

/// The run that called another, in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Parent {
    /// Its workflow id.
    #[n(0)]
    pub workflow_id: String,
    /// Its ordinal.
    #[n(1)]
    pub ordinal: u64,
    /// Its identity.
    #[n(2)]
    pub run_id: RunId,
    /// The command of it that made the call.
    #[n(3)]
    pub command: CommandId,
}

/// Time limits of a workflow, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TimeLimits {
    /// Of all its runs together.
    #[n(0)]
    pub execution_ms: Option<u64>,
    /// Of one run.
    #[n(1)]
    pub run_ms: Option<u64>,
    /// Of one turn.
    #[n(2)]
    pub turn_ms: Option<u64>,
}

/// A signal on its way from a run to the one that continues it.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
pub struct CarriedSignal {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its argument.
    #[n(1)]
    pub payload: Payload,
}

/// The run that a closing batch calls for: with the history so far, all that batch 0 of the next run derives from
/// (rule C6).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NextRun {
    /// What it runs.
    #[n(0)]
    pub call: Call,
    /// The request id of a start that replaces the run; none when the workflow continued as new.
    #[n(1)]
    pub request_id: Option<String>,
    /// Signals that the closing run had received and not consumed.
    #[n(2)]
    pub carried: Vec<CarriedSignal>,
}
